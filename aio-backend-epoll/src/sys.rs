//! The system calls, and the trait with which a test can replace them.
//!
//! A backend is generic in its [`Sys`], which is [`Kernel`] by default, at no cost. Tests use
//! a kernel that fails on purpose, or a simulated one.

use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use aio_backend::{Interest, Readiness};
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec};

/// The calls that an [`Epoll`](crate::Epoll) makes.
///
/// Implementations MUST behave as `epoll(7)` does, even if they do not pass a call on.
///
/// # Examples
/// ```
/// # use std::io;
/// # use std::os::fd::{BorrowedFd, OwnedFd};
/// # use std::rc::Rc;
/// # use std::time::{Duration, Instant};
/// # use aio_backend::{Backend, Interest, Token};
/// use aio_backend_epoll::{Epoll, sys::{Events, Kernel, Sys}};
///
/// /// A kernel without memory for another registration.
/// #[derive(Debug)]
/// struct Full;
///
/// impl Sys for Full {
///     fn add(&self, _: BorrowedFd<'_>, _: BorrowedFd<'_>, _: u64, _: Interest) -> io::Result<()> {
///         Err(io::ErrorKind::OutOfMemory.into())
///     }
///     fn create(&self) -> io::Result<OwnedFd> {
///         Kernel.create()
///     }
///     // ... and so on
/// #   fn modify(&self, set: BorrowedFd<'_>, fd: BorrowedFd<'_>, key: u64, interest: Interest) -> io::Result<()> {
/// #       Kernel.modify(set, fd, key, interest)
/// #   }
/// #   fn delete(&self, set: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> io::Result<()> {
/// #       Kernel.delete(set, fd)
/// #   }
/// #   fn wait(&self, set: BorrowedFd<'_>, events: &mut Events<'_>, timeout: Option<Duration>) -> io::Result<usize> {
/// #       Kernel.wait(set, events, timeout)
/// #   }
/// #   fn poll(&self, set: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
/// #       Kernel.poll(set, timeout)
/// #   }
/// #   fn now(&self) -> Instant {
/// #       Kernel.now()
/// #   }
/// }
///
/// let (reader, _writer) = io::pipe()?;
/// let mut backend = Epoll::with_sys(Full)?;
/// let error = backend.add(Rc::new(reader).into(), Token::new(0, 0), Interest::READ).unwrap_err();
/// assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
/// assert_eq!(backend.watched(), 0);
/// # Ok::<(), io::Error>(())
/// ```
pub trait Sys: fmt::Debug + 'static {
    /// Calls `epoll_create1`. The set is closed on exec.
    ///
    /// # Errors
    /// As the system call.
    fn create(&self) -> io::Result<OwnedFd>;

    /// `EPOLL_CTL_ADD`: from now on, readiness within `interest`, errors and hang-ups are reported with `key`.
    ///
    /// # Errors
    /// As the system call.
    fn add(&self, set: BorrowedFd<'_>, fd: BorrowedFd<'_>, key: u64, interest: Interest) -> io::Result<()>;

    /// `EPOLL_CTL_MOD`: replaces the key and the interest.
    ///
    /// # Errors
    /// As the system call.
    fn modify(&self, set: BorrowedFd<'_>, fd: BorrowedFd<'_>, key: u64, interest: Interest)
    -> io::Result<()>;

    /// `EPOLL_CTL_DEL`: removes the descriptor from the set.
    ///
    /// # Errors
    /// As the system call.
    fn delete(&self, set: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> io::Result<()>;

    /// `epoll_wait` for at most as many events as there is room for, and for `timeout`, which is in whole milliseconds
    /// (`None`: no limit). Returns the number of events it wrote.
    ///
    /// # Errors
    /// As the system call.
    fn wait(
        &self,
        set: BorrowedFd<'_>,
        events: &mut Events<'_>,
        timeout: Option<Duration>,
    ) -> io::Result<usize>;

    /// `ppoll` of the set alone, to the nanosecond. Returns whether any descriptor in it is ready.
    ///
    /// # Errors
    /// As the system call.
    fn poll(&self, set: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool>;

    /// Returns the time of the monotonic clock.
    fn now(&self) -> Instant;
}

/// Room for the events of one wait.
///
/// # Examples
/// ```
/// # use std::{cell::Cell, io, os::fd::{BorrowedFd, OwnedFd}, rc::Rc, time::{Duration, Instant}};
/// # use aio_backend::{Backend, Interest, Readiness, ReadyList, Token};
/// # use aio_backend_epoll::{Epoll, sys::{Events, Kernel, Sys}};
/// /// A simulated kernel: the descriptor that was added last has hung up.
/// #[derive(Debug, Default)]
/// struct HangUp(Cell<u64>);
///
/// impl Sys for HangUp {
///     fn add(&self, _: BorrowedFd<'_>, _: BorrowedFd<'_>, key: u64, _: Interest) -> io::Result<()> {
///         self.0.set(key);
///         Ok(())
///     }
///     fn wait(&self, _: BorrowedFd<'_>, events: &mut Events<'_>, _: Option<Duration>) -> io::Result<usize> {
///         events.write(0, self.0.get(), Readiness::HUP);
///         Ok(1)
///     }
///     // ... and so on
/// #   fn create(&self) -> io::Result<OwnedFd> { Kernel.create() }
/// #   fn modify(&self, _: BorrowedFd<'_>, _: BorrowedFd<'_>, _: u64, _: Interest) -> io::Result<()> { Ok(()) }
/// #   fn delete(&self, _: BorrowedFd<'_>, _: BorrowedFd<'_>) -> io::Result<()> { Ok(()) }
/// #   fn poll(&self, _: BorrowedFd<'_>, _: Duration) -> io::Result<bool> { Ok(true) }
/// #   fn now(&self) -> Instant { Kernel.now() }
/// }
///
/// let (reader, _writer) = io::pipe()?;
/// let (mut backend, mut ready) = (Epoll::with_sys(HangUp::default())?, ReadyList::new());
/// backend.add(Rc::new(reader).into(), Token::new(3, 0), Interest::READ)?;
/// backend.wait(None, &mut ready)?;
/// assert_eq!(ready.iter().next(), Some((Token::new(3, 0), Readiness::HUP)));
/// # Ok::<(), io::Error>(())
/// ```
pub struct Events<'a>(pub(crate) &'a mut [Event]);

impl Events<'_> {
    /// Returns the number of events there is room for.
    #[must_use]
    pub fn room(&self) -> usize {
        self.0.len()
    }

    /// Records at `place` that the descriptor with `key` is ready, as a simulated kernel does. epoll never
    /// reports [`Readiness::NVAL`], so this ignores it.
    ///
    /// # Panics
    /// If there is no such place.
    pub fn write(&mut self, place: usize, key: u64, readiness: Readiness) {
        let readiness = readiness.difference(Readiness::NVAL);
        self.0[place] = Event {
            flags: EventFlags::from_bits_retain(readiness.to_system()),
            data: EventData::new_u64(key),
        };
    }
}

impl fmt::Debug for Events<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("room", &self.room()).finish()
    }
}

/// The kernel itself.
///
/// # Examples
/// ```
/// use aio_backend::Backend;
/// use aio_backend_epoll::{Epoll, sys::Kernel};
///
/// let backend: Epoll<Kernel> = Epoll::with_sys(Kernel)?;
/// assert_eq!(backend.watched(), 0);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Kernel;

impl Sys for Kernel {
    fn create(&self) -> io::Result<OwnedFd> {
        Ok(epoll::create(CreateFlags::CLOEXEC)?)
    }

    #[inline(always)]
    fn add(&self, set: BorrowedFd<'_>, fd: BorrowedFd<'_>, key: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(set, fd, EventData::new_u64(key), flags(interest))?)
    }

    #[inline(always)]
    fn modify(
        &self,
        set: BorrowedFd<'_>,
        fd: BorrowedFd<'_>,
        key: u64,
        interest: Interest,
    ) -> io::Result<()> {
        Ok(epoll::modify(set, fd, EventData::new_u64(key), flags(interest))?)
    }

    #[inline(always)]
    fn delete(&self, set: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(epoll::delete(set, fd)?)
    }

    #[inline(always)]
    fn wait(
        &self,
        set: BorrowedFd<'_>,
        events: &mut Events<'_>,
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        /// A constant, so that the compiler converts it to milliseconds.
        const NOW: &Timespec = &Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let found = match timeout {
            Some(Duration::ZERO) => epoll::wait(set, &mut *events.0, Some(NOW)),
            Some(timeout) => epoll::wait(set, &mut *events.0, Some(&timespec(timeout))),
            None => epoll::wait(set, &mut *events.0, None),
        };
        Ok(found?)
    }

    fn poll(&self, set: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
        let mut fds = [PollFd::from_borrowed_fd(set, PollFlags::IN)];
        Ok(rustix::event::poll(&mut fds, Some(&timespec(timeout)))? > 0)
    }

    #[inline]
    fn now(&self) -> Instant {
        Instant::now()
    }
}

/// Returns the flags that the kernel gets for an interest.
#[inline]
fn flags(interest: Interest) -> EventFlags {
    const LAST: usize = Interest::all().bits() as usize;
    /// The flags by the bits of an interest.
    const FLAGS: [EventFlags; LAST + 1] = {
        let mut flags = [EventFlags::empty(); LAST + 1];
        let mut bits = 0;
        while bits < flags.len() {
            flags[bits] = reckon_flags(Interest::from_bits_retain(bits as u8));
            bits += 1;
        }
        flags
    };
    FLAGS[interest.bits() as usize & LAST]
}

const fn reckon_flags(interest: Interest) -> EventFlags {
    let events = interest.mask().difference(Readiness::NVAL);
    // The kernel always reports errors and hang-ups.
    let asked = events.difference(Readiness::HUP.union(Readiness::ERR));
    let mut flags = EventFlags::from_bits_retain(asked.to_system());
    if interest.contains(Interest::EDGE) {
        flags = flags.union(EventFlags::ET);
    }
    if interest.contains(Interest::ONESHOT) {
        flags = flags.union(EventFlags::ONESHOT);
    }
    flags
}

/// Converts to nanoseconds, and reduces a time beyond the range of `Timespec` to the largest possible one.
#[inline]
fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}
