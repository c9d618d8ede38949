//! Captures the log messages of a thread: its warnings, or all of them.

use std::cell::RefCell;
use std::io;
use std::sync::Once;

use tracing_subscriber::filter::LevelFilter;

thread_local! {
    static LOGGED: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Runs `work` and returns the warnings and errors that it logged on this thread: message and fields, a line each.
///
/// # Panics
/// If the process has another global subscriber.
pub fn warnings(work: impl FnOnce()) -> Vec<String> {
    // One subscriber for the whole process, so that tests do not affect each other.
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing_subscriber::fmt()
            .with_max_level(LevelFilter::WARN)
            .without_time()
            .with_level(false)
            .with_target(false)
            .with_ansi(false)
            .with_writer(|| Lines)
            .init();
    });
    LOGGED.set(Some(Vec::new()));
    work();
    LOGGED.take().unwrap_or_default()
}

/// Runs `work` and returns everything that it logged on this thread, a line each: level, message and fields.
pub fn events(work: impl FnOnce()) -> Vec<String> {
    let all = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .without_time()
        .with_target(false)
        .with_ansi(false)
        .with_writer(|| Lines)
        .finish();
    LOGGED.set(Some(Vec::new()));
    tracing::subscriber::with_default(all, work);
    let lines = LOGGED.take().unwrap_or_default();
    lines
        .into_iter()
        .map(|line| line.trim_start().to_owned())
        .collect()
}

/// A writer that appends to the lines of this thread. Each event is one write.
struct Lines;

impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        LOGGED.with_borrow_mut(|logged| {
            if let Some(logged) = logged {
                logged.push(String::from_utf8_lossy(line).trim_end().to_owned());
            }
        });
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warnings_of_this_thread_are_captured_and_nothing_else_is() {
        tracing::warn!("before");
        for _ in 0..2 {
            let logged = warnings(|| {
                tracing::warn!(error = %"no\u{1b}", number = 7, "a warning");
                tracing::info!("more");
                tracing::error!("an error");
                let other = std::thread::spawn(|| tracing::warn!("elsewhere"));
                assert!(other.join().is_ok());
            });
            assert_eq!(logged, ["a warning error=no\u{1b} number=7", "an error"]);
        }
    }

    #[test]
    fn all_events_of_this_thread_are_captured() {
        assert!(events(|| ()).is_empty());
        let logged = events(|| {
            tracing::debug!(number = 7, "a detail");
            tracing::trace!("a step");
            tracing::warn!("a warning");
            let other = std::thread::spawn(|| tracing::warn!("elsewhere"));
            assert!(other.join().is_ok());
        });
        assert_eq!(
            logged,
            ["DEBUG a detail number=7", "TRACE a step", "WARN a warning"]
        );
    }
}
