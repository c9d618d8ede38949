//! A context inside another one: [`Context::watch_context`] (rule G4).

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::{Rc, Weak};

use aio_backend::{Interest, Token};

use crate::timer::Timer;
use crate::{ClockId, Context, Embedded, Handler, Registration};
use aio_backend::Refused;

/// The handler of the inner context in the outer one.
///
/// The inner context is prepared whenever it is not served, because the outer one runs no code before its waits.
struct Inside {
    embedded: Embedded,
    /// Ends the wait of the outer context when the inner one is due.
    deadline: Timer,
    token: Cell<Option<Token>>,
}

impl Context {
    /// Serves `inner` as a part of this context: its descriptors, timers and bottom halves run while this context is polled.
    ///
    /// The registration keeps `inner` alive. Its removal, or its pause, ends or suspends the service, and `inner` can then be polled by
    /// itself. It may be polled by itself meanwhile, too.
    ///
    /// Handlers of `inner` are not busy-polled for. A panic in a callback of `inner` comes out of the poll of this context; what
    /// is left is served by the next one.
    ///
    /// # Errors
    /// `InvalidInput` if both are the same context. As [`embed`](Self::embed); and as [`watch`](Self::watch), with `ELOOP` if
    /// `inner` serves this context, directly or through others, or if contexts are too deep in each other: Linux allows five epoll
    /// sets in a row, and an inner context takes two of them.
    ///
    /// ```
    /// use aio_context::{ClockId, Context, Wait};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let (outer, inner) = (Context::new()?, Context::new()?);
    /// let _inside = outer.watch_context(&inner)?;
    /// let (done, ready) = std::sync::mpsc::channel();
    /// let _timer = inner
    ///     .timer(ClockId::Monotonic, move |_, _| drop(done.send(())))
    ///     .armed_after(std::time::Duration::from_millis(1));
    /// while ready.try_recv().is_err() {
    ///     outer.poll(Wait::Block)?;
    /// }
    /// # Ok(()) }
    /// ```
    pub fn watch_context(&self, inner: &Self) -> io::Result<Registration> {
        if Rc::ptr_eq(&self.0, &inner.0) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a context cannot serve itself: poll it, or watch it with another context",
            ));
        }
        let embedded = inner.embed()?;
        let inside = Rc::new_cyclic(|own: &Weak<Inside>| {
            let own = own.clone();
            let is_due = move |outer: &Self, _: &Timer| {
                if let Some(inside) = own.upgrade() {
                    inside.is_due(outer);
                }
            };
            Inside {
                embedded,
                deadline: self.timer(ClockId::Monotonic, is_due).disarmed(),
                token: Cell::new(None),
            }
        });
        let watched = self.watch(inside.clone(), Interest::READ);
        let registration = watched.map_err(|why| self.cannot_nest(why.into()))?;
        inside.token.set(Some(registration.token()));
        inside.prepare();
        Ok(registration)
    }
}

impl Context {
    #[cold]
    fn cannot_nest(&self, why: io::Error) -> io::Error {
        Refused::wrap("watch a context", self.backend_name(), why)
    }
}

impl Inside {
    fn serve(&self) {
        let again = AgainAfterPanic(&self.deadline);
        self.embedded.dispatch();
        drop(again);
        self.prepare();
    }

    fn prepare(&self) {
        match self.embedded.prepare() {
            Some(limit) => self.deadline.arm_after(limit),
            None => self.deadline.cancel(),
        }
    }

    /// The deadline has passed. If the registration is paused, the descriptor stays readable until it is resumed.
    fn is_due(&self, outer: &Context) {
        if self.is_heard(outer) {
            self.serve();
        } else {
            self.embedded.prepare();
            self.embedded.context().0.mailbox.notify();
        }
    }

    /// Whether the registration is neither paused nor silenced.
    fn is_heard(&self, outer: &Context) -> bool {
        let Some(token) = self.token.get() else {
            return false;
        };
        let registry = outer.0.descriptors.registry.borrow();
        let interest = registry.interest(token).unwrap_or(Interest::NONE);
        let is_paused = registry
            .group(token)
            .is_some_and(|group| registry.is_paused(group));
        interest.contains(Interest::READ) && !is_paused
    }
}

/// Has the inner context served again if one of its callbacks panics.
struct AgainAfterPanic<'a>(&'a Timer);

impl Drop for AgainAfterPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.arm_after(std::time::Duration::ZERO);
        }
    }
}

impl AsFd for Inside {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.embedded.as_fd()
    }
}

impl Handler for Inside {
    fn readable(&self, _: &Context) {
        self.serve();
    }
}
