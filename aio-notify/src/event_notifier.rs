//! [`EventNotifier`]: the eventfd behind a notification, also for other uses.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

use crate::process::HomeProcess;
use crate::sync::Eventfd;

/// A flag in the kernel that any thread can set and a loop can wait for: an eventfd, non-blocking, closed on exec.
///
/// ```
/// use aio_notify::EventNotifier;
///
/// # fn main() -> std::io::Result<()> {
/// let notifier = EventNotifier::new()?;
/// notifier.set()?;
/// notifier.set()?; // it is a flag
/// assert!(notifier.test_and_clear()?);
/// assert!(!notifier.test_and_clear()?);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct EventNotifier(Eventfd);

impl EventNotifier {
    /// Makes a notifier that is not set.
    ///
    /// # Errors
    /// The error of `eventfd2`: `EMFILE` means that `ulimit -n` is too low.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Eventfd::new()?))
    }

    /// Sets the flag. If the eventfd is full, the flag is set already, and the call succeeds.
    ///
    /// # Errors
    /// The error of the system call; an open eventfd has none.
    pub fn set(&self) -> io::Result<()> {
        self.add(1)
    }

    /// Sets the flag so that an edge-triggered waiter is notified, too: a full eventfd is cleared first.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn set_anew(&self) -> io::Result<()> {
        loop {
            match self.0.write(1) {
                Ok(()) => return Ok(()),
                // Full, after a huge number was written: another write would make no edge.
                Err(Errno::AGAIN) => self.count()?,
                Err(error) => return Err(error.into()),
            };
        }
    }

    /// Clears the flag. Returns `true` if it was set.
    ///
    /// # Errors
    /// The error of the system call; an open eventfd has none.
    pub fn test_and_clear(&self) -> io::Result<bool> {
        Ok(self.count()? != 0)
    }

    pub(crate) fn add(&self, count: u64) -> io::Result<()> {
        match self.0.write(count) {
            Ok(()) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn count(&self) -> io::Result<u64> {
        match self.0.read() {
            Ok(count) => Ok(count),
            Err(Errno::AGAIN) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for EventNotifier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The wake-up eventfd of a loop: an [`EventNotifier`] whose errors are not reported, because they cannot
/// happen. A forked child shares the kernel's counter, and never writes it (rule R15): the loop would see a
/// write that none of its threads has announced.
#[derive(Debug)]
pub(crate) struct WakeUp(EventNotifier, HomeProcess);

impl WakeUp {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(EventNotifier::new()?, HomeProcess::here()))
    }

    pub(crate) fn write(&self) {
        if !self.1.is_here() {
            return;
        }
        let written = self.0.set();
        debug_assert!(written.is_ok(), "an open eventfd can be written: {written:?}");
    }

    /// Reads the eventfd. Returns the number of writes since the last read.
    pub(crate) fn drain(&self) -> u64 {
        self.0.count().unwrap_or(0)
    }
}

impl AsFd for WakeUp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{OFlags, fcntl_getfl};
    use rustix::io::{FdFlags, fcntl_getfd};

    use super::*;

    #[test]
    fn r12_b7_nonblocking_and_closed_on_exec() {
        let notifier = EventNotifier::new().unwrap();
        assert!(fcntl_getfl(&notifier).unwrap().contains(OFlags::NONBLOCK));
        assert!(fcntl_getfd(&notifier).unwrap().contains(FdFlags::CLOEXEC));
    }

    #[test]
    fn r12_test_and_clear_says_whether_it_was_set() {
        let notifier = EventNotifier::new().unwrap();
        assert!(!notifier.test_and_clear().unwrap());
        notifier.set().unwrap();
        notifier.set().unwrap();
        assert!(notifier.test_and_clear().unwrap());
        assert!(!notifier.test_and_clear().unwrap());
    }

    #[test]
    fn r12_a_full_eventfd_is_set_anew() {
        use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
        let notifier = EventNotifier::new().unwrap();
        let set = epoll::create(CreateFlags::CLOEXEC).unwrap();
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(&set, &notifier, EventData::new_u64(0), flags).unwrap();
        notifier.add(u64::MAX - 1).unwrap();
        for set_anew in [false, true, true] {
            if set_anew {
                notifier.set_anew().unwrap();
            }
            let mut events = [epoll::Event {
                flags: EventFlags::empty(),
                data: EventData::new_u64(0),
            }; 2];
            let now = rustix::event::Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            assert_eq!(epoll::wait(&set, &mut events[..], Some(&now)).unwrap(), 1);
        }
    }

    /// Rule R12.
    #[test]
    fn case_71_a_full_eventfd_is_set_already() {
        let notifier = EventNotifier::new().unwrap();
        notifier.add(u64::MAX - 1).unwrap();
        notifier.set().unwrap();
        assert!(notifier.test_and_clear().unwrap());
        assert!(!notifier.test_and_clear().unwrap());
    }
}
