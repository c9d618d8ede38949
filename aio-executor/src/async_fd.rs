//! [`AsyncFd`]: a descriptor whose readiness tasks await.
//!
//! The registration begins without an interest. An interest is added when a task first waits for it, and
//! stays: a task that reads, waits, and reads again makes no system call to wait. The interest is removed
//! when the descriptor is ready twice in a row while no task waits, because a level-triggered event would be
//! reported for ever. This works with every backend.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as Polling, Poll, Waker};

use aio_context::{Context, Handler, Interest, Registration};

use crate::waiters::{POLLER, Waiters};

/// A descriptor in non-blocking mode for which tasks wait.
///
/// It belongs to the context with which it was made, and to its thread. Any number of tasks may wait for it.
/// Dropping it removes it from the context and drops the owner of the descriptor.
///
/// It implements [`futures_io::AsyncRead`] and [`futures_io::AsyncWrite`] if a reference to the owner is
/// [`io::Read`] and [`io::Write`], as for sockets and pipes. These have one waiter for each direction.
///
/// ```
/// use std::io::{Read, Write};
/// use std::os::unix::net::UnixStream;
/// use aio_context::Context;
/// use aio_executor::{AsyncFd, ContextExt};
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// let (ours, mut theirs) = UnixStream::pair()?;
/// let ours = AsyncFd::new(&cx, ours)?;
/// let peer = std::thread::spawn(move || theirs.write_all(b"hello"));
/// let mut text = [0; 5];
/// let read = cx.block_on(ours.read_with(|mut socket| socket.read(&mut text)))??;
/// assert_eq!(&text[..read], b"hello");
/// # peer.join().unwrap() }
/// ```
#[must_use = "dropped at once, it closes the descriptor"]
pub struct AsyncFd<F> {
    shared: Rc<Shared<F>>,
}

/// The shared state of the handler and the [`AsyncFd`].
struct Shared<F> {
    owner: F,
    read: Direction,
    write: Direction,
    /// The registration with the context; `None` before it is made and after its end.
    registration: RefCell<Option<Registration>>,
    interest: Cell<Interest>,
    /// The reason why the descriptor can no longer be waited for.
    ended: RefCell<Option<Ended>>,
}

/// One direction of a descriptor.
#[derive(Default)]
struct Direction {
    waiters: Waiters,
    /// Set if it was ready while no task waited.
    is_unwanted: Cell<bool>,
}

struct Ended {
    kind: ErrorKind,
    text: String,
}

impl<F: AsFd + 'static> AsyncFd<F> {
    /// Adds the owner of a descriptor to a context, and makes the descriptor non-blocking. A descriptor number can be added once.
    ///
    /// # Errors
    /// `AlreadyExists` if the number has a handler already, or the error of the system for watching the
    /// descriptor.
    pub fn new(cx: &Context, owner: F) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&owner, true)?;
        let shared = Rc::new(Shared {
            owner,
            read: Direction::default(),
            write: Direction::default(),
            registration: RefCell::new(None),
            interest: Cell::new(Interest::NONE),
            ended: RefCell::new(None),
        });
        let handler = Rc::new(Watched(shared.clone()));
        let registration = cx.watch(handler, Interest::NONE)?;
        shared.registration.replace(Some(registration));
        Ok(Self { shared })
    }
}

impl<F: AsFd> AsyncFd<F> {
    /// Returns the owner of the descriptor.
    #[must_use]
    pub fn get_ref(&self) -> &F {
        &self.shared.owner
    }

    /// Waits until there are data to read, the peer has hung up, or the descriptor has an error. May return
    /// spuriously.
    ///
    /// # Errors
    /// If the descriptor cannot be watched any longer: its number was closed, or its context was dropped.
    pub fn readable(&self) -> Ready<'_, F> {
        self.ready(Interest::READ)
    }

    /// Waits until there is room to write, or the descriptor has an error. May return spuriously.
    ///
    /// # Errors
    /// As [`readable`](Self::readable).
    pub fn writable(&self) -> Ready<'_, F> {
        self.ready(Interest::WRITE)
    }

    fn ready(&self, interest: Interest) -> Ready<'_, F> {
        Ready {
            shared: &self.shared,
            interest,
            waiter: None,
        }
    }

    /// Calls `read` until its result is not `WouldBlock`, and waits in between until there are data to read.
    ///
    /// # Errors
    /// The error of `read`, or as [`readable`](Self::readable).
    pub async fn read_with<R>(&self, mut read: impl FnMut(&F) -> io::Result<R>) -> io::Result<R> {
        self.when_ready(Interest::READ, &mut read).await
    }

    /// Calls `write` until its result is not `WouldBlock`, and waits in between until there is room to write.
    ///
    /// # Errors
    /// The error of `write`, or as [`writable`](Self::writable).
    pub async fn write_with<R>(&self, mut write: impl FnMut(&F) -> io::Result<R>) -> io::Result<R> {
        self.when_ready(Interest::WRITE, &mut write).await
    }

    async fn when_ready<R>(
        &self,
        interest: Interest,
        work: &mut impl FnMut(&F) -> io::Result<R>,
    ) -> io::Result<R> {
        loop {
            match work(&self.shared.owner) {
                Err(why) if why.kind() == ErrorKind::WouldBlock => self.ready(interest).await?,
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    /// As `when_ready`, for the one waiter of its direction.
    pub(crate) fn poll_io<R>(
        &self,
        interest: Interest,
        polling: &Polling<'_>,
        mut work: impl FnMut(&F) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        loop {
            match work(&self.shared.owner) {
                Err(why) if why.kind() == ErrorKind::WouldBlock => {
                    self.shared.add_interest(interest)?;
                    self.shared.direction(interest).add(POLLER, polling.waker());
                    return Poll::Pending;
                }
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                done => return Poll::Ready(done),
            }
        }
    }
}

impl<F> Drop for AsyncFd<F> {
    fn drop(&mut self) {
        let registration = self.shared.registration.take();
        drop(registration); // outside the borrow: it drops the handler
    }
}

impl<F> Shared<F> {
    fn direction(&self, interest: Interest) -> &Direction {
        if interest == Interest::READ {
            &self.read
        } else {
            &self.write
        }
    }

    /// Makes the backend watch for this interest, too.
    fn add_interest(&self, interest: Interest) -> io::Result<()> {
        if let Some(Ended { kind, text }) = &*self.ended.borrow() {
            return Err(io::Error::new(*kind, text.clone()));
        }
        if !self.interest.get().contains(interest) {
            self.set_interest(self.interest.get() | interest)?;
        }
        Ok(())
    }

    fn set_interest(&self, interest: Interest) -> io::Result<()> {
        if let Some(registration) = &*self.registration.borrow() {
            registration.set_interest(interest)?;
            self.interest.set(interest);
        }
        Ok(())
    }

    /// Wakes the tasks that wait for the descriptor, which is ready.
    fn notify_ready(&self, interest: Interest) {
        let direction = self.direction(interest);
        if !direction.waiters.is_empty() {
            direction.is_unwanted.set(false);
            direction.waiters.wake();
        } else if direction.is_unwanted.replace(true) {
            // If this fails, the next event tries again.
            let _ = self.set_interest(self.interest.get() - interest);
            direction.is_unwanted.set(false);
        }
    }

    fn end(&self, kind: ErrorKind, text: impl FnOnce() -> String) {
        let mut ended = self.ended.borrow_mut();
        if ended.is_none() {
            *ended = Some(Ended { kind, text: text() });
        }
        drop(ended);
        self.read.waiters.wake();
        self.write.waiters.wake();
    }
}

impl Direction {
    fn add(&self, id: u64, waker: &Waker) {
        self.is_unwanted.set(false);
        self.waiters.add(id, waker);
    }
}

/// The handler. The context drops it with the registration, or at its own end, which wakes all remaining
/// wakers.
struct Watched<F>(Rc<Shared<F>>);

impl<F: AsFd + 'static> Handler for Watched<F> {
    fn readable(&self, _: &Context) {
        self.0.notify_ready(Interest::READ);
    }

    fn writable(&self, _: &Context) {
        self.0.notify_ready(Interest::WRITE);
    }

    fn invalidated(&self, _: &Context, why: io::Error) {
        self.0.end(why.kind(), || why.to_string());
    }
}

impl<F: AsFd> AsFd for Watched<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.owner.as_fd()
    }
}

impl<F> Drop for Watched<F> {
    fn drop(&mut self) {
        let text = || "the context that watched the descriptor was dropped".to_owned();
        self.0.end(ErrorKind::NotConnected, text);
    }
}

impl<F: AsFd> AsFd for AsyncFd<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.owner.as_fd()
    }
}

impl<F: fmt::Debug> fmt::Debug for AsyncFd<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AsyncFd").field(&self.shared.owner).finish()
    }
}

/// The future of [`AsyncFd::readable`] and [`AsyncFd::writable`].
///
/// # Examples
/// ```
/// use aio_context::Context;
/// use aio_executor::{AsyncFd, ContextExt, current};
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// cx.block_on(async {
///     let (reader, writer) = std::io::pipe()?;
///     let (reader, writer) = (AsyncFd::new(&current(), reader)?, AsyncFd::new(&current(), writer)?);
///     writer.writable().await?;
///     drop(writer);
///     reader.readable().await // the hang-up
/// })?
/// # }
/// ```
#[must_use = "a future does nothing before it is awaited"]
pub struct Ready<'a, F> {
    shared: &'a Shared<F>,
    interest: Interest,
    waiter: Option<Waiter>,
}

/// A waiter, and the number of events when it began to wait.
#[derive(Clone, Copy)]
struct Waiter {
    id: u64,
    events: u64,
}

impl<F> Ready<'_, F> {
    fn waiters(&self) -> &Waiters {
        &self.shared.direction(self.interest).waiters
    }
}

impl<F> Future for Ready<'_, F> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, polling: &mut Polling<'_>) -> Poll<Self::Output> {
        self.shared.add_interest(self.interest)?;
        let waiters = self.waiters();
        let events = waiters.events();
        let waiter = match self.waiter {
            Some(waiter) if waiter.events != events => return Poll::Ready(Ok(())),
            Some(waiter) => waiter,
            None => Waiter {
                id: waiters.new_id(),
                events,
            },
        };
        self.shared
            .direction(self.interest)
            .add(waiter.id, polling.waker());
        self.waiter = Some(waiter);
        Poll::Pending
    }
}

impl<F> Drop for Ready<'_, F> {
    /// Removes its waker, also if the future was not awaited to its end.
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter {
            self.waiters().remove(waiter.id);
        }
    }
}

impl<F> fmt::Debug for Ready<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready")
            .field("interest", &self.interest)
            .finish_non_exhaustive()
    }
}
