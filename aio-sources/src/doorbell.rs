//! [`Doorbell`]: an eventfd that any thread, or another process, writes to be served. The loop does not read
//! it.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::sync::Arc;

use aio_context::{Context, GroupId, Handler, Interest, Registration};
use aio_notify::EventNotifier;

/// An eventfd that a context waits for without reading it.
///
/// Reading an eventfd costs as much as the event that it was written. A backend that [reports
/// edges](Context::reports_edges), such as epoll, reports each ring once, and the counter grows unread. With
/// another backend the counter is cleared before each call. Clones are the same doorbell. One context watches
/// it at a time.
///
/// ```
/// use aio_context::{Context, Wait};
/// use aio_sources::Doorbell;
///
/// # fn main() -> std::io::Result<()> {
/// let (cx, bell) = (Context::new()?, Doorbell::new()?);
/// let registration = bell.watch(&cx, |_cx| println!("the bell was rung"))?;
/// let guest = bell.clone();
/// std::thread::spawn(move || guest.ring());
/// cx.poll(Wait::Block)?;
/// # drop(registration); Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Doorbell(Arc<EventNotifier>);

impl Doorbell {
    /// Makes a doorbell that was not rung.
    ///
    /// # Errors
    /// The error of the system: `EMFILE` means that `ulimit -n` is too low.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(EventNotifier::new()?)))
    }

    /// Rings: the callback is called at least once after this. One system call, from any thread. Another
    /// process rings by writing a number to the [descriptor](AsFd::as_fd), as to any eventfd. Never blocks.
    ///
    /// # Errors
    /// The error of the system. An open eventfd has none.
    pub fn ring(&self) -> io::Result<()> {
        self.0.set_anew()
    }

    /// Calls `serve` after the doorbell was rung, once for all earlier rings, until the registration is
    /// dropped.
    /// Publish the work before the ring; the callback finds it.
    ///
    /// # Errors
    /// As [`Context::watch`].
    pub fn watch(&self, cx: &Context, serve: impl Fn(&Context) + 'static) -> io::Result<Registration> {
        self.watch_in(cx, GroupId::DEFAULT, serve)
    }

    /// As [`watch`](Self::watch), as a member of `group`, which can be [paused](Context::pause).
    ///
    /// # Errors
    /// As [`Context::watch`].
    pub fn watch_in(
        &self,
        cx: &Context,
        group: GroupId,
        serve: impl Fn(&Context) + 'static,
    ) -> io::Result<Registration> {
        let listener = Listener {
            bell: self.clone(),
            serve,
        };
        Ok(cx.watch_in(group, Rc::new(listener), Interest::READ | Interest::EDGE)?)
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Serves a doorbell.
struct Listener<F> {
    bell: Doorbell,
    serve: F,
}

impl<F: Fn(&Context) + 'static> Handler for Listener<F> {
    fn readable(&self, cx: &Context) {
        if !cx.reports_edges() {
            // Before the call, so that a later ring is a new one. After an error the counter is reported
            // again.
            let _ = self.bell.0.test_and_clear();
        }
        (self.serve)(cx);
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
