//! [`ClockChanges`]: a descriptor that reports changes of the wall clock.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, read};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// A descriptor that becomes readable when the wall clock is set, and when a suspended machine resumes. It stays readable until the
/// change is [accepted](Self::accept). Non-blocking, closed on exec.
///
/// A loop whose timeout was computed from the wall clock also waits for this descriptor, and then computes
/// the timeout again.
///
/// # Examples
/// ```
/// use std::os::fd::OwnedFd;
/// use aio_notify::ClockChanges;
/// use rustix::event::{PollFd, PollFlags, Timespec, poll};
///
/// // Another clock, which reports a change by eight bytes.
/// let (reader, writer) = std::io::pipe()?;
/// let changes = ClockChanges::from(OwnedFd::from(reader));
/// let has_changed = || poll(&mut [PollFd::new(&changes, PollFlags::IN)], Some(&Timespec::default()));
/// assert_eq!(has_changed()?, 0);
/// rustix::io::write(&writer, &1u64.to_ne_bytes())?;
/// assert_eq!(has_changed()?, 1);
/// changes.accept()?;
/// assert_eq!(has_changed()?, 0);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct ClockChanges(OwnedFd);

impl ClockChanges {
    /// Reports changes of the system's wall clock: a timerfd that never expires, with
    /// `TFD_TIMER_CANCEL_ON_SET`.
    ///
    /// # Errors
    /// The error of the system: `EMFILE` means that `ulimit -n` is too low.
    #[doc(alias = "TFD_TIMER_CANCEL_ON_SET")]
    pub fn of_the_system() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let fd = timerfd_create(TimerfdClockId::Realtime, flags)?;
        let never = Timespec {
            tv_sec: i64::MAX,
            tv_nsec: 0,
        };
        let spec = Itimerspec {
            it_interval: Timespec::default(),
            it_value: never,
        };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        timerfd_settime(&fd, flags, &spec)?;
        Ok(Self(fd))
    }

    /// Reads the change, so that it is not reported again. No effect if there was none.
    ///
    /// # Errors
    /// The error of the system, if the descriptor cannot be read any longer.
    pub fn accept(&self) -> io::Result<()> {
        match read(&self.0, &mut [0; 8]) {
            // A timerfd reports a change of its clock as an error.
            Ok(_) | Err(Errno::CANCELED | Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(why) => Err(why.into()),
        }
    }
}

/// Reports the changes of another clock. After a change the descriptor is readable until eight bytes are read
/// from it, as with an eventfd.
impl From<OwnedFd> for ClockChanges {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for ClockChanges {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    /// The effect of `TFD_TIMER_CANCEL_ON_SET` cannot be tested without setting the clock; its acceptance by
    /// the kernel can.
    #[test]
    fn t6_b7_the_systems_changes_are_asked_for_and_closed_on_exec() {
        let changes = ClockChanges::of_the_system().unwrap();
        let flags = rustix::io::fcntl_getfd(&changes).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", changes.as_fd().as_raw_fd()));
        let info = info.unwrap().replace(char::is_whitespace, "");
        // The wall clock; TFD_TIMER_ABSTIME and TFD_TIMER_CANCEL_ON_SET.
        assert!(
            info.contains("clockid:0") && info.contains("settimeflags:03"),
            "{info}"
        );
        assert_eq!(read(&changes, &mut [0; 8]), Err(Errno::AGAIN), "it never expires");
        changes.accept().unwrap();
    }

    #[test]
    fn t6_a_change_is_accepted_once_and_a_failure_is_reported() {
        let (reader, writer) = std::io::pipe().unwrap();
        let changes = ClockChanges::from(OwnedFd::from(reader));
        rustix::io::write(&writer, &[0; 8]).unwrap();
        changes.accept().unwrap();
        let directory = std::fs::File::open("/").unwrap();
        assert!(ClockChanges::from(OwnedFd::from(directory)).accept().is_err());
    }
}
