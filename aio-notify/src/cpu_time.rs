//! [`thread_cpu_time`]: how long a thread has run.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Returns the processor time that the calling thread has used. It costs a system call.
///
/// Beside the time that has passed, it tells whether the thread has had its core for itself.
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
