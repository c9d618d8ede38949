//! Limits the log lines that clients can cause: a few of each kind are logged, the others are counted.

use std::cell::Cell;
use std::fmt;
use std::rc::{Rc, Weak};
use std::time::Duration;

use aio_context::{ClockId, Context, Timer};
use tracing::Level;

/// The most lines of a kind that are logged in a [`WINDOW`].
const BURST: u32 = 10;
/// The time between two reports of suppressed lines.
const WINDOW: Duration = Duration::from_secs(10);

/// A kind of log line. Each has a budget of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A client has connected or disconnected.
    Clients,
    /// The daemon has ended a connection; with the reason.
    Ended,
    /// A client waits because another one is served.
    Waiting,
    /// A client could not be accepted.
    NotAccepted,
    /// A request ended with an error.
    Requests,
    /// A queue has stopped.
    Queues,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::Clients,
        Self::Ended,
        Self::Waiting,
        Self::NotAccepted,
        Self::Requests,
        Self::Queues,
    ];

    fn level(self) -> Level {
        match self {
            Self::Clients => Level::INFO,
            _ => Level::WARN,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Clients => "clients that connect and disconnect",
            Self::Ended => "connections that ended",
            Self::Waiting => "clients that wait",
            Self::NotAccepted => "clients that could not be accepted",
            Self::Requests => "requests that ended with an error",
            Self::Queues => "queues that stopped",
        }
    }
}

/// The budgets of one export. Dropping it reports the lines that are still suppressed.
#[derive(Debug)]
pub(crate) struct LineLimit {
    export: Rc<str>,
    counts: [Counts; Kind::ALL.len()],
    /// The timer that ends the window. Without it, the budgets are never renewed.
    window: Option<Timer>,
    is_open: Cell<bool>,
}

#[derive(Debug, Default)]
struct Counts {
    logged: Cell<u32>,
    suppressed: Cell<u64>,
}

impl LineLimit {
    /// Returns budgets for the export `export`. A timer of `cx` renews them.
    pub(crate) fn new(export: Rc<str>, cx: Option<&Context>) -> Rc<Self> {
        Self::with_clock(export, cx, ClockId::Monotonic)
    }

    fn with_clock(export: Rc<str>, cx: Option<&Context>, clock: ClockId) -> Rc<Self> {
        Rc::new_cyclic(|me: &Weak<Self>| {
            let me = me.clone();
            let window = cx.map(|cx| {
                cx.timer(clock, move |_, _| {
                    if let Some(limit) = me.upgrade() {
                        limit.is_open.set(false);
                        limit.report();
                    }
                })
                .disarmed()
            });
            Self {
                export,
                counts: Default::default(),
                window,
                is_open: Cell::default(),
            }
        })
    }

    /// Returns the name of the export.
    pub(crate) fn export(&self) -> &str {
        &self.export
    }

    /// Logs a line within the budget of its kind, or counts it.
    pub(crate) fn log(&self, kind: Kind, line: fmt::Arguments<'_>) {
        if kind.level() == Level::INFO && !tracing::enabled!(Level::INFO) {
            return;
        }
        let counts = &self.counts[kind as usize];
        if counts.logged.get() >= BURST {
            counts.suppressed.set(counts.suppressed.get() + 1);
            return;
        }
        counts.logged.set(counts.logged.get() + 1);
        if let Some(window) = &self.window
            && !self.is_open.replace(true)
        {
            window.arm_after(WINDOW);
        }
        self.write(kind, line);
    }

    /// Logs the number of suppressed lines, and renews all budgets.
    fn report(&self) {
        for kind in Kind::ALL {
            let counts = &self.counts[kind as usize];
            counts.logged.set(0);
            let suppressed = counts.suppressed.take();
            if suppressed > 0 {
                self.write(
                    kind,
                    format_args!("{suppressed} suppressed: more lines about {}", kind.name()),
                );
            }
        }
    }

    fn write(&self, kind: Kind, line: fmt::Arguments<'_>) {
        let export = &*self.export;
        if kind.level() == Level::INFO {
            tracing::info!(export, "{line}");
        } else {
            tracing::warn!(export, "{line}");
        }
    }
}

impl Drop for LineLimit {
    fn drop(&mut self) {
        self.report();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aio_context::Wait;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        /// Takes the log. Returns the number of lines, and the last one.
        fn take(&self) -> (usize, String) {
            let text = String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap();
            (
                text.lines().count(),
                text.lines().last().unwrap_or_default().to_owned(),
            )
        }
    }

    #[test]
    fn c20_each_kind_has_a_budget_that_is_renewed() {
        let lines = Lines::default();
        let writer = lines.clone();
        // With a single subscriber, a line that another test logs first would be disabled for all threads.
        let _second = tracing::Dispatch::new(tracing_subscriber::registry());
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .finish();
        let _subscribed = tracing::subscriber::set_default(subscriber);
        let cx = Context::new().unwrap();
        let limit = LineLimit::with_clock("disk".into(), Some(&cx), ClockId::Virtual);
        let log = |kind, count| {
            for number in 0..count {
                limit.log(kind, format_args!("line {number}"));
            }
        };
        log(Kind::Ended, BURST + 5);
        let (count, last) = lines.take();
        assert_eq!(count as u32, BURST);
        assert!(last.contains("line 9 export=\"disk\""), "{last}");
        log(Kind::Requests, 1);
        assert_eq!(lines.take().0, 1, "another kind has its own budget");

        let tick = |passed| {
            cx.virtual_clock().warp(passed);
            cx.poll(Wait::NoBlock).unwrap();
        };
        tick(WINDOW / 2);
        log(Kind::Ended, 1);
        assert_eq!(lines.take().0, 0);
        tick(WINDOW);
        let (count, last) = lines.take();
        assert_eq!(count, 1);
        assert!(
            last.contains("6 suppressed: more lines about connections that ended"),
            "{last}"
        );
        log(Kind::Ended, 1);
        assert_eq!(lines.take().0, 1);
        tick(WINDOW);
        assert_eq!(lines.take().0, 0, "nothing was suppressed");

        log(Kind::Clients, BURST + 1);
        drop(limit);
        let (count, last) = lines.take();
        assert_eq!(count as u32, BURST + 1);
        assert!(last.contains("1 suppressed"), "{last}");
    }
}
