//! [`Nested`]: a context inside another one (rule G4).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::{Rc, Weak};
use std::time::Duration;

use aio_context::{
    BottomHalf, ClockId, Context, Embedded, GroupId, Handler, Interest, Refused, Registration, Timer,
};

/// A context that another one serves: its descriptors, timers and bottom halves run while the outer context is polled.
///
/// It keeps the inner context alive. Dropping it ends the service; the inner context can then be polled by
/// itself, as it also can meanwhile. A pause of the group suspends the service.
///
/// Handlers of the inner context are not busy-polled. If a callback of the inner context panics, the poll of
/// the outer one panics; the next poll serves the remaining events.
///
/// ```
/// use aio_context::{BottomHalf, ClockId, Context, Wait};
/// use aio_sources::Nested;
///
/// # fn main() -> std::io::Result<()> {
/// let (outer, inner) = (Context::new()?, Context::new()?);
/// let _nested = Nested::new(&outer, &inner)?;
/// let (done, ready) = std::sync::mpsc::channel();
/// let _timer = inner
///     .timer(ClockId::Monotonic, move |_, _| drop(done.send(())))
///     .armed_after(std::time::Duration::from_millis(1));
/// while ready.try_recv().is_err() {
///     outer.poll(Wait::Block)?;
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "dropped at once, the inner context is not served"]
pub struct Nested {
    _registration: Registration,
}

impl Nested {
    /// Makes `outer` serve `inner`.
    ///
    /// # Errors
    /// `InvalidInput` if both are the same context. As [`Context::embed`]. As [`Context::watch`], with
    /// `ELOOP` if `inner` serves `outer`, directly or through others, or if contexts are nested too deep:
    /// Linux allows five epoll sets in a row, and an inner context takes two of them.
    pub fn new(outer: &Context, inner: &Context) -> io::Result<Self> {
        Self::new_in(outer, GroupId::DEFAULT, inner)
    }

    /// As [`new`](Self::new), as a member of `group`, which can be [paused](Context::pause).
    ///
    /// # Errors
    /// As [`new`](Self::new).
    ///
    /// # Panics
    /// If the group was not made by `outer`.
    pub fn new_in(outer: &Context, group: GroupId, inner: &Context) -> io::Result<Self> {
        if outer.remote().is_same(&inner.remote()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a context cannot serve itself: poll it, or nest it in another context",
            ));
        }
        let embedded = inner.embed()?;
        let server = Rc::new_cyclic(|own: &Weak<Server>| {
            let (of_timer, of_bottom_half) = (own.clone(), own.clone());
            let on_deadline = move |outer: &Context, _: &Timer| {
                if let Some(server) = of_timer.upgrade() {
                    server.deadline_passed(outer);
                }
            };
            let arm_again = move |_: &Context| {
                if let Some(server) = of_bottom_half.upgrade() {
                    server.deadline.arm_after(Duration::ZERO);
                }
            };
            Server {
                embedded,
                deadline: outer.timer(ClockId::Monotonic, on_deadline).disarmed(),
                missed: inner.bottom_half("nested", arm_again),
                group,
            }
        });
        let watched = outer.watch_in(group, server.clone(), Interest::READ);
        let registration =
            watched.map_err(|why| Refused::wrap("watch a context", outer.backend_name(), why.into()))?;
        server.prepare();
        Ok(Self {
            _registration: registration,
        })
    }
}

/// The handler of the inner context in the outer one.
///
/// The inner context is prepared whenever it is not served, because the outer one runs no code before its waits.
struct Server {
    embedded: Embedded,
    /// Ends the wait of the outer context when the inner one is due.
    deadline: Timer,
    /// A bottom half of the inner context, scheduled when the deadline has passed in a pause. It makes the
    /// deadline be set again: the inner context may be polled by itself before the outer one resumes.
    missed: BottomHalf,
    group: GroupId,
}

impl Server {
    fn serve(&self) {
        let again = AgainAfterPanic(&self.deadline);
        self.embedded.dispatch();
        drop(again);
        self.prepare();
    }

    fn prepare(&self) {
        self.set_deadline(self.embedded.prepare());
    }

    fn set_deadline(&self, limit: Option<Duration>) {
        match limit {
            Some(limit) => self.deadline.arm_after(limit),
            None => self.deadline.cancel(),
        }
    }

    /// Handles a deadline that has passed. If anything is due during a pause, the descriptor becomes
    /// readable, so that the outer context serves the inner one when it resumes.
    fn deadline_passed(&self, outer: &Context) {
        if !outer.is_paused(self.group) {
            return self.serve();
        }
        match self.embedded.prepare() {
            Some(Duration::ZERO) => self.missed.schedule(),
            limit => self.set_deadline(limit),
        }
    }
}

/// Makes the inner context be served again if one of its callbacks panics.
struct AgainAfterPanic<'a>(&'a Timer);

impl Drop for AgainAfterPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.arm_after(Duration::ZERO);
        }
    }
}

impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.embedded.as_fd()
    }
}

impl Handler for Server {
    fn readable(&self, _: &Context) {
        self.serve();
    }
}
