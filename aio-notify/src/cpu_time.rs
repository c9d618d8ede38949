//! [`thread_cpu_time`]: the time that a thread has run. [`thread_run_delay`]: the time that it has waited for
//! a core.

use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::time::{ClockId, clock_gettime};

/// Returns the processor time that the calling thread has used. It costs a system call.
///
/// Compared with the time that has passed, it shows whether the thread had its core for itself.
///
/// # Examples
/// ```
/// use aio_notify::thread_cpu_time;
///
/// let before = thread_cpu_time();
/// let sum: u64 = (0..100_000).sum();
/// assert!(sum > 0 && thread_cpu_time() >= before);
/// ```
#[must_use]
pub fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

/// Returns the total time that the calling thread has waited for a core while it could have run: the cost of
/// other threads on its core. Returns `None` if the system does not report it. It costs three system calls.
///
/// The time that a hypervisor gives to others is not included.
///
/// # Examples
/// ```
/// use aio_notify::thread_run_delay;
///
/// if let Some(delay) = thread_run_delay() {
///     println!("this thread has waited {delay:?} for a core");
/// }
/// ```
#[must_use]
pub fn thread_run_delay() -> Option<Duration> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = openat(CWD, c"/proc/thread-self/schedstat", flags, Mode::empty()).ok()?;
    let mut text = [0; 64];
    let length = rustix::io::read(&file, &mut text).ok()?;
    second_number(&text[..length]).map(Duration::from_nanos)
}

/// Returns the second of the file's three numbers: processor time, delay, and turns.
fn second_number(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    text.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_is_the_second_number() {
        assert_eq!(second_number(b"414408 50039 2\n"), Some(50_039));
        for text in [&b""[..], b"414408", b"414408 x 2", b"\xff \xff"] {
            assert_eq!(second_number(text), None);
        }
    }

    #[test]
    fn a_delay_never_shrinks() {
        let Some(before) = thread_run_delay() else {
            return println!("skipped: the system does not tell the delay of a thread");
        };
        assert!(thread_run_delay().is_some_and(|after| after >= before));
    }
}
