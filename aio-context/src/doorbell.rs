//! [`Doorbell`]: a descriptor that any thread, or another process, rings to be served, and that nobody has to read.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::sync::Arc;

use aio_notify::EventNotifier;

use crate::{Context, Handler, Interest, Registration};

/// An eventfd that a context listens to without reading it.
///
/// To read an eventfd costs as much as to learn that it was written. With a backend that
/// [reports edges](Context::reports_edges), such as epoll, a ring is reported once, and the count is left to grow; with others
/// it is cleared before each call. Clones are the same doorbell. It belongs to one context.
///
/// ```
/// use aio_context::{Context, Doorbell, Wait};
///
/// # fn main() -> std::io::Result<()> {
/// let (cx, bell) = (Context::new()?, Doorbell::new()?);
/// let _registration = cx.watch_doorbell(&bell, |_cx| println!("somebody is at the door"))?;
/// let guest = bell.clone();
/// std::thread::spawn(move || guest.ring());
/// cx.poll(Wait::Block)?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Doorbell(Arc<EventNotifier>);

impl Doorbell {
    /// A doorbell that nobody has rung.
    ///
    /// # Errors
    /// What the system says: `EMFILE` means that `ulimit -n` is too low.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(EventNotifier::new()?)))
    }

    /// Rings: whoever listens is called at least once after this. One system call, from any thread; another process rings by
    /// writing a number to the [descriptor](AsFd::as_fd), as to any eventfd. Never blocks.
    ///
    /// # Errors
    /// What the system says; nothing that can happen to an eventfd that is open.
    pub fn ring(&self) -> io::Result<()> {
        self.0.set_anew()
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Context {
    /// Calls `rung` after the doorbell was rung, once for all rings that came before. What is rung for is published before
    /// the ring, and looked for in the callback. Until the registration is dropped.
    ///
    /// # Errors
    /// As [`watch`](Self::watch).
    pub fn watch_doorbell(
        &self,
        bell: &Doorbell,
        rung: impl Fn(&Self) + 'static,
    ) -> io::Result<Registration> {
        let listener = Listener {
            bell: bell.clone(),
            rung,
        };
        Ok(self.watch(Rc::new(listener), Interest::READ | Interest::EDGE)?)
    }

    /// Whether a handler with [`Interest::EDGE`] is called once for each new activity, as the backend is now, rather than
    /// for as long as there is something to read. A context may climb to such a backend at any wait, and come down again.
    #[must_use]
    pub fn reports_edges(&self) -> bool {
        self.0.descriptors.backend.borrow().reports_edges()
    }
}

/// Serves a doorbell.
struct Listener<F> {
    bell: Doorbell,
    rung: F,
}

impl<F: Fn(&Context) + 'static> Handler for Listener<F> {
    fn readable(&self, cx: &Context) {
        if !cx.reports_edges() {
            // Cleared first, so that a ring from now on is a new one. An error would show again, and does no harm.
            let _ = self.bell.0.test_and_clear();
        }
        (self.rung)(cx);
    }
}

impl<F> AsFd for Listener<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl<F> fmt::Debug for Listener<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Listener").field(&self.bell).finish()
    }
}
