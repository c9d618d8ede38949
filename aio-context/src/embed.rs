//! [`Embedded`]: a context inside a foreign loop, as one descriptor, a deadline, and three steps (rules G1, G2).

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use aio_backend::{ReadyList, Refused};

use crate::Context;
use crate::any_backend::pollable;
use crate::bottom_half;
use crate::descriptors::is_own;
use crate::iteration::found::Found;
use crate::macros::{impl_as_fd, impl_debug};
use crate::sync::faulty;
use crate::timer::fire_due;

/// A context inside another event loop, a *foreign loop*, which waits for it.
///
/// It keeps the context alive and has no lifetime, so it can be moved into a source of the foreign loop.
///
/// In each turn of the foreign loop, [`prepare`](Self::prepare) returns the longest time that it may wait.
/// The foreign loop waits for that long until the descriptor of this value is readable.
/// [`check`](Self::check) returns `true` if anything is due, and [`dispatch`](Self::dispatch) does it. A
/// foreign loop may leave `check` out, as GLib does if `prepare` returns that the context is ready:
/// `dispatch` then checks by itself.
///
/// A loop that cannot run code before each wait calls `prepare` at the end of its turn instead, and again
/// whenever the descriptor was readable or the time is over. The context stays prepared meanwhile: a change
/// that shortens the wait, such as a timer that is armed or a bottom half that is scheduled on the home
/// thread, makes the descriptor readable. `Nested` in the crate `aio-sources` does so.
///
/// The descriptor stays the same for the life of this value. It is level-triggered. A foreign loop that waits
/// for edges, as mio and tokio do, may clear its readiness when `check` returns that nothing is due, not
/// before. The examples of this crate show a context in an epoll loop, in mio, in calloop and in tokio.
///
/// All functions may be called inside callbacks of the context. Dropping the value restores the context,
/// except for its backend.
///
/// ```
/// use aio_context::Context;
/// use rustix::event::{PollFd, PollFlags, Timespec, poll};
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// let embedded = cx.embed()?;
/// let remote = cx.remote();
/// std::thread::spawn(move || remote.run(|_| println!("hello")));
/// let limit = embedded.prepare().map(|limit| Timespec::try_from(limit).unwrap());
/// poll(&mut [PollFd::new(&embedded, PollFlags::IN)], limit.as_ref())?;
/// assert!(embedded.check()?);
/// assert!(embedded.dispatch());
/// # Ok(()) }
/// ```
pub struct Embedded {
    cx: Context,
    fd: OwnedFd,
    /// The events that were found and not dispatched.
    list: RefCell<Box<ReadyList>>,
    /// Set while a foreign loop may be waiting.
    is_prepared: Cell<bool>,
    /// Set if the descriptors were checked since the last turn began.
    is_checked: Cell<bool>,
    /// Set if a check has found registrations invalid, which is progress of the dispatch that follows.
    has_invalidated: Cell<bool>,
    /// Set once a failed check of the descriptors was logged.
    has_complained: Cell<bool>,
}

impl Context {
    /// Makes a value through which a foreign loop waits for this context. The backend moves for good to one
    /// that is itself a descriptor: a backend without one, such as ppoll, is replaced by epoll. A ring goes
    /// on executing [operations](crate::Submit), while epoll watches the descriptors; its operations are
    /// cancelled only if the kernel refuses to register an eventfd with the ring. The end of an operation
    /// that reads from an *eventfd* may not wake the foreign loop: the next check finds it. Watch the eventfd
    /// instead.
    ///
    /// While the foreign loop may be waiting, the context does not enter poll mode, even if it is polled
    /// directly.
    ///
    /// Several values may embed one context. Each of them serves it.
    ///
    /// # Errors
    /// The error of the system, in a [`Refused`]: `EMFILE` if there is no descriptor left, `EBADF` if other
    /// code closed a watched descriptor. The backend is then as before.
    pub fn embed(&self) -> io::Result<Embedded> {
        let mut backend = self.0.descriptors.backend.borrow_mut();
        let name = backend.name();
        let mut ended = Vec::new();
        let fd = pollable(&mut backend, self.report_of_operations(), &mut ended)
            .map_err(|why| Refused::wrap_embedding(name, why))?;
        drop(backend);
        if !ended.is_empty() {
            self.deliver_ended(ended);
        }
        Ok(Embedded {
            cx: self.clone(),
            fd,
            list: RefCell::new(self.0.descriptors.lists.take()),
            is_prepared: Cell::new(false),
            is_checked: Cell::new(false),
            has_invalidated: Cell::new(false),
            has_complained: Cell::new(false),
        })
    }
}

impl Embedded {
    /// Returns the context.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.cx
    }

    /// Prepares the context for a wait of the foreign loop. Returns the longest time of the wait (`None`:
    /// until the descriptor is readable).
    ///
    /// Leaves poll mode. Until [`check`](Self::check), other threads that have work for this context make the
    /// descriptor readable.
    pub fn prepare(&self) -> Option<Duration> {
        let inner = &self.cx.0;
        self.is_checked.set(false);
        if !self.is_prepared.replace(true) {
            // Otherwise the context could enter poll mode, and could not leave it before the foreign loop
            // waits.
            inner.polling.controller.suspend();
        }
        inner.polling.adopt_params(&inner.shared, &inner.pacing);
        let mut list = self.take_list();
        drop(Found::new(inner, list));
        list = inner.descriptors.lists.take();
        inner.descriptors.registry.borrow_mut().recall(&mut list);
        let hit = inner.leave_poll_mode(&self.cx, &mut list);
        self.keep(list);
        faulty!(ChecksBeforeFlag: return (self.time_left(), inner.mailbox.set_foreign(true)).0);
        inner.mailbox.set_foreign(true);
        if hit {
            return Some(Duration::ZERO);
        }
        self.time_left()
    }

    /// Returns the longest time that a foreign loop may wait, once other threads are informed that it waits.
    fn time_left(&self) -> Option<Duration> {
        let inner = &self.cx.0;
        if inner.mailbox.is_notified() || !self.arm_backend() {
            return Some(Duration::ZERO);
        }
        inner.foreign_timeout()
    }

    /// Passes the changes that the backend has put off to the system. Returns `false` if the descriptors must
    /// be checked at once. If the backend fails, it also returns `false`, because a check then returns the
    /// error, or goes on with another backend.
    fn arm_backend(&self) -> bool {
        let mut backend = self.cx.0.descriptors.backend.borrow_mut();
        let is_armed = backend.make_pollable().is_ok();
        is_armed && !backend.always_ready()
    }

    /// As [`prepare`](Self::prepare), in whole milliseconds, rounded up, -1 for no limit: the format of
    /// `poll(2)`.
    pub fn prepare_ms(&self) -> i32 {
        self.prepare().map_or(-1, |timeout| {
            i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
        })
    }

    /// Checks the descriptors. Returns `true` if anything is due.
    ///
    /// # Errors
    /// The error of the system.
    pub fn check(&self) -> io::Result<bool> {
        let inner = &self.cx.0;
        Ok(self.check_descriptors()?
            || self.has_invalidated.get()
            || inner.foreign_timeout() == Some(Duration::ZERO)
            || inner.mailbox.inbox().pending())
    }

    /// Ends the foreign loop's wait, accepts the notifications of other threads, and puts ready events on the
    /// list. Returns `true` if a handler is ready.
    fn check_descriptors(&self) -> io::Result<bool> {
        let inner = &self.cx.0;
        self.end_wait();
        inner.mailbox.accept();
        let before = inner.nesting.before();
        let mut list = self.take_list();
        let checked = inner.check(&self.cx, &mut list);
        let is_ready = list.iter().any(|(token, _)| !is_own(token));
        self.keep(list);
        self.is_checked.set(checked.is_ok());
        if inner.nesting.has_progressed(before) {
            self.has_invalidated.set(true);
        }
        checked.map(|()| is_ready)
    }

    /// Runs the bottom halves, the ready handlers and the timers that are due. Returns `true` if there was
    /// progress.
    ///
    /// Checks the descriptors first, unless [`check`](Self::check) has done so since
    /// [`prepare`](Self::prepare). If the system refuses the check, one `tracing` event reports it, and work
    /// that needs no descriptor is done all the same.
    pub fn dispatch(&self) -> bool {
        let inner = &self.cx.0;
        if !self.is_checked.get()
            && let Err(error) = self.check_descriptors()
        {
            self.complain(&error);
        }
        self.is_checked.set(false);
        inner.shared.counters.iteration();
        let list = self.take_list();
        let found = Found::new(inner, list);
        let mut progress = self.has_invalidated.take();
        if inner.deferred.has_due(inner.mailbox.inbox()) {
            progress |= bottom_half::run(&inner.deferred, &inner.mailbox, &self.cx);
        }
        match inner.deliver(&self.cx, found.into_list(), true, &mut progress) {
            Ok(list) => inner.descriptors.lists.give_back(list),
            Err(error) => self.complain(&error),
        }
        progress |= inner.timers.run(|timers| fire_due(timers, &self.cx));
        progress
    }

    /// Logs, once, that the descriptors cannot be checked, because a foreign loop has no use for the error.
    #[cold]
    fn complain(&self, error: &io::Error) {
        if !self.has_complained.replace(true) {
            tracing::error!(%error, "a foreign loop cannot check the descriptors of its context");
        }
    }

    /// Records that the foreign loop no longer waits. Another one may, through another value.
    fn end_wait(&self) {
        let inner = &self.cx.0;
        if self.is_prepared.replace(false) && inner.polling.controller.resume() {
            inner.mailbox.set_foreign(false);
        }
    }

    /// Returns the events found so far, and takes them: callbacks run meanwhile, and may use this very value.
    fn take_list(&self) -> Box<ReadyList> {
        let inner = &self.cx.0;
        self.list.replace(inner.descriptors.lists.take())
    }

    /// Keeps the found events for [`dispatch`](Self::dispatch).
    fn keep(&self, list: Box<ReadyList>) {
        // If a callback has used this very value meanwhile, the next check finds the events of that list
        // again.
        drop(Found::new(&self.cx.0, self.list.replace(list)));
    }
}

impl_as_fd!(Embedded, fd);

impl AsRawFd for Embedded {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        let inner = &self.cx.0;
        drop(Found::new(inner, std::mem::take(self.list.get_mut())));
        self.end_wait();
        // This value may have found or accepted events after another one was prepared.
        inner.mailbox.notify_if_about_to_wait();
    }
}

impl_debug!(Embedded, "Embedded": |it| context = it.cx, fd = it.fd);
