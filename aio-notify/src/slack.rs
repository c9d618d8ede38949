//! The timer slack of a thread: how late the kernel may end its timed waits (rule T5).
//!
//! This is the thread's own setting: no loop reads or changes it.

use std::io;
use std::num::NonZeroU64;
use std::time::Duration;

/// The largest slack that can be read back.
const LONGEST: u64 = i32::MAX as u64;

/// Lets the kernel end the timed waits of this thread up to `slack` late, so that it can end several at once.
///
/// A thread begins with the slack of the thread that started it; Linux's default is 50 us. A thread that
/// keeps deadlines to the microsecond sets `Duration::from_nanos(1)`, the minimum (zero means the same), and
/// pays with more wake-ups. More than 2 s is reduced to 2 s. Threads that it starts afterwards begin with its
/// slack. No effect on a thread with a real-time policy, which has none.
///
/// ```
/// use std::time::Duration;
///
/// # fn main() -> std::io::Result<()> {
/// aio_notify::set_timer_slack(Duration::from_nanos(1))?;
/// assert_eq!(aio_notify::timer_slack()?, Duration::from_nanos(1));
/// # Ok(()) }
/// ```
///
/// # Errors
/// The error of the system: some filters forbid the call.
#[doc(alias = "PR_SET_TIMERSLACK")]
#[doc(alias = "prctl")]
pub fn set_timer_slack(slack: Duration) -> io::Result<()> {
    let nanos = u64::try_from(slack.as_nanos()).map_or(LONGEST, |nanos| nanos.min(LONGEST));
    // For the system call zero means the default.
    let nanos = NonZeroU64::new(nanos).unwrap_or(NonZeroU64::MIN);
    Ok(rustix::thread::set_current_timer_slack(Some(nanos))?)
}

/// Returns how late the kernel may end a timed wait of this thread.
///
/// # Errors
/// The error of the system: some filters forbid the call.
#[doc(alias = "PR_GET_TIMERSLACK")]
pub fn timer_slack() -> io::Result<Duration> {
    Ok(rustix::thread::current_timer_slack().map(Duration::from_nanos)?)
}
