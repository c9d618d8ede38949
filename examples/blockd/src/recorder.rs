//! Records the duration of each wait of the loop, to compare polling policies on a real load.

use std::fs::File;
use std::io::{BufWriter, Seek as _, Write as _};
use std::path::Path;
use std::time::Duration;

use aio_context::{Iteration, PollParams, PollPolicy};

use crate::written_file;

/// The first line of each record.
const HEADER: &str = "# nanoseconds between two pieces of work, as blockd waited for them\n";

/// A policy that forwards to another one and writes a line for every wait: the nanoseconds until the next
/// event, without the latency of the wake-up. `cargo xtask policies --trace` reads such files.
#[derive(Debug)]
pub(crate) struct Recorder<P> {
    policy: P,
    latency: Duration,
    /// `None` after an error.
    file: Option<BufWriter<File>>,
}

impl<P: PollPolicy> Recorder<P> {
    /// Creates a recorder. Overwrites an earlier record.
    ///
    /// # Errors
    /// If the file cannot be written, or has other contents; it stays unchanged then.
    pub(crate) fn new(policy: P, latency: Duration, path: &Path) -> std::io::Result<Self> {
        let mut file = written_file::open(path, |beginning| beginning.starts_with(HEADER.as_bytes()))?;
        if file.metadata()?.is_file() {
            file.set_len(0)?;
            file.rewind()?;
        }
        let mut file = BufWriter::new(file);
        file.write_all(HEADER.as_bytes())?;
        Ok(Self {
            policy,
            latency,
            file: Some(file),
        })
    }
}

impl<P: PollPolicy> PollPolicy for Recorder<P> {
    fn name(&self) -> &'static str {
        self.policy.name()
    }

    fn budget(&self) -> Duration {
        self.policy.budget()
    }

    fn budget_until(&self, timeout: Option<Duration>) -> Duration {
        self.policy.budget_until(timeout)
    }

    fn observe(&mut self, seen: Iteration) {
        let gap = if seen.blocked {
            seen.elapsed.saturating_sub(self.latency)
        } else {
            seen.elapsed
        };
        if let Some(file) = &mut self.file
            && let Err(error) = writeln!(file, "{}", gap.as_nanos())
        {
            // This is logged once, not for every wait.
            tracing::warn!(%error, "a wait could not be recorded, so no more waits are recorded");
            self.file = None;
        }
        self.policy.observe(seen);
    }

    fn reset(&mut self, params: PollParams) {
        self.policy.reset(params);
    }

    fn reprice(&mut self, params: PollParams) {
        self.latency = params.wake_or_assumed().latency;
        self.policy.reprice(params);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aio_context::Policy;

    #[test]
    fn c1_a_full_device_ends_the_recording_and_nothing_else() {
        let policy = Policy::by_name("always", PollParams::up_to(Duration::from_micros(10))).unwrap();
        let mut recorder = Recorder::new(policy, Duration::ZERO, Path::new("/dev/full")).unwrap();
        let wait = Duration::from_micros(3);
        for _ in 0..10_000 {
            recorder.observe(Iteration::new(wait, wait, false, true));
        }
        assert!(recorder.file.is_none());
        assert_eq!(recorder.budget(), Duration::from_micros(10));
    }

    #[test]
    fn every_wait_is_a_line_without_the_wake_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("waits");
        let params = PollParams::up_to(Duration::from_micros(10));
        let policy = Policy::by_name("always", params).unwrap();
        let mut recorder = Recorder::new(policy, Duration::from_micros(20), &path).unwrap();
        let micros = Duration::from_micros;
        recorder.observe(Iteration::new(micros(3), micros(3), false, true));
        recorder.observe(Iteration::new(micros(50), micros(10), true, false));
        assert_eq!((recorder.name(), recorder.budget()), ("always", micros(10)));
        drop(recorder);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(lines, ["3000", "30000"]);
        // Another record replaces the first.
        let policy = Policy::by_name("always", params).unwrap();
        drop(Recorder::new(policy, Duration::ZERO, &path).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), HEADER);
    }

    #[test]
    fn c34_a_file_that_is_no_record_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.raw");
        for contents in [
            "\0".repeat(4096),
            "# a program\n".to_owned(),
            "100\n200\n".to_owned(),
        ] {
            std::fs::write(&path, &contents).unwrap();
            let policy = Policy::by_name("always", PollParams::up_to(Duration::from_micros(10))).unwrap();
            let error = Recorder::new(policy, Duration::ZERO, &path).unwrap_err();
            assert!(
                error
                    .to_string()
                    .contains("has other contents; name another path"),
                "{error}"
            );
            assert_eq!(std::fs::read_to_string(&path).unwrap(), contents);
        }
    }
}
