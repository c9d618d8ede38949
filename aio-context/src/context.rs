//! [`Context`]: the face, and what lies behind it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use aio_backend::{Interest, Token};
use aio_handlers::{GroupId, Registry};
use aio_pollctl::{PollParams, PollPolicy};
use aio_pollset::PollSet;
use aio_timers::{Moment, Subscription, VirtualClock};

use crate::adapting::Adapting;
use crate::any_backend::AnyBackend;
use crate::bh::{BottomHalf, BottomHalves, by_slot};
use crate::error::WatchError;
use crate::found::Lists;
use crate::glance::Glance;
use crate::handler::Entry;
use crate::polling::Looks;
use crate::registration::{Paused, Registration};
use crate::remote::{Remote, Shared, move_out};
use crate::sync::{Ordering, faulty};
use crate::timer::ClockId;
use crate::timers::Timers;
use crate::{Builder, Handler, Pollable};

/// Whether and how long [`Context::poll`] may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Until there is progress, or somebody notifies.
    Block,
    /// As [`Block`](Self::Block), but no longer than this.
    AtMost(Duration),
    /// Not at all: do what is ready now.
    NoBlock,
}

/// An event loop: waits for descriptors, timers and deferred callbacks on one thread and, when that is cheaper than
/// sleeping, looks for work in user space first.
///
/// A context lives on the thread that made it, its *home thread*: it is neither `Send` nor `Sync`. Clones are the same
/// context. Other threads hold a [`Remote`] or a [`BottomHalf`].
///
/// Closures and handlers that the context keeps should not keep the context: that is a cycle which is never freed. They
/// are handed a `&Context` when they run; where that does not do, keep a [`WeakContext`].
///
/// ```compile_fail
/// fn is_send<T: Send>() {}
/// is_send::<aio_context::Context>();
/// ```
/// ```
/// fn is_send<T: Send + Sync>() {}
/// is_send::<aio_context::Remote>();
/// is_send::<aio_context::BottomHalf>();
/// ```
#[doc(alias = "AioContext")]
#[derive(Clone)]
pub struct Context(pub(crate) Rc<Inner>);

/// A context that may be gone.
#[derive(Clone)]
pub struct WeakContext(Weak<Inner>);

impl WeakContext {
    /// The context, if it is still there.
    #[must_use]
    pub fn upgrade(&self) -> Option<Context> {
        self.0.upgrade().map(Context)
    }
}

pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
    pub(crate) backend: RefCell<AnyBackend>,
    pub(crate) registry: RefCell<Registry<Entry>>,
    pub(crate) lists: Lists,
    pub(crate) polled: PollSet,
    pub(crate) glance: Glance,
    pub(crate) looks: Looks,
    /// The round in which idle handlers were looked for last.
    pub(crate) idle_checked: Cell<u32>,
    pub(crate) adapting: Adapting,
    pub(crate) timers: Timers,
    pub(crate) bottom_halves: BottomHalves,
    pub(crate) policy: RefCell<Box<dyn PollPolicy>>,
    /// The version of the polling parameters that are in force.
    pub(crate) adopted: Cell<u64>,
    pub(crate) polling_enabled: Cell<bool>,
    pub(crate) poll_max: Cell<Duration>,
    pub(crate) virtual_clock: Arc<VirtualClock>,
    /// A clock that outlives the context must not keep its eventfd.
    pub(crate) _virtual_changes: Subscription,
    /// The loop's own clock is a simulated one: waiting for time lets it pass.
    pub(crate) simulated: bool,
    pub(crate) batch: usize,
    /// The token of the notifier's own descriptor.
    pub(crate) doorbell: Token,
    pub(crate) depth: Cell<u32>,
    pub(crate) looks_since_rebalance: Cell<u32>,
    pub(crate) stale: Cell<u64>,
    pub(crate) broken: Cell<u64>,
    /// How many of them were found invalid by an iteration.
    pub(crate) invalidated: Cell<u64>,
    /// How many polls inside other polls made progress.
    pub(crate) nested_progress: Cell<u64>,
    /// How many requests to return had been made when a poll returned without progress last.
    pub(crate) calls_seen: Cell<u64>,
    /// The loop's own eventfd was found closed.
    pub(crate) deaf: Cell<bool>,
}

impl Context {
    /// A context at home on this thread: ppoll that climbs to epoll when it pays, polling off.
    ///
    /// # Errors
    /// What the system says to one more eventfd; `EMFILE` means that `ulimit -n` is too low.
    #[doc(alias = "aio_context_new")]
    pub fn new() -> io::Result<Self> {
        Self::builder().build()
    }

    /// For a context with other parts.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Calls `handler` when its descriptor is ready for `interest`, until the registration is dropped.
    ///
    /// Readiness is level-triggered: a handler may read once and is called again if there is more. A handler that goes on until
    /// `WouldBlock`, as one that accepts clients does, needs a non-blocking descriptor: with a blocking one its last call waits,
    /// and the whole loop with it. Debug builds warn, by a `tracing` event, of listeners and edge-triggered descriptors that
    /// block.
    ///
    /// A descriptor number has at most one handler. To put another one in its place, see [`replace`](Self::replace).
    ///
    /// # Errors
    /// `AlreadyExists` if the number has a handler, which stays; `EBADF` if the number is not open, in a [`Refused`]; or what
    /// else the system says to watching the descriptor. Nothing is registered then, and `handler` comes back in the error.
    ///
    /// [`Refused`]: crate::Refused
    #[doc(alias = "aio_set_fd_handler")]
    pub fn watch<H: Handler>(
        &self,
        handler: Rc<H>,
        interest: Interest,
    ) -> Result<Registration, WatchError<H>> {
        self.watch_in(GroupId::DEFAULT, handler, interest)
    }

    /// As [`watch`](Self::watch), as a member of `group`, which can be [paused](Self::pause).
    ///
    /// # Errors
    /// As [`watch`](Self::watch).
    pub fn watch_in<H: Handler>(
        &self,
        group: GroupId,
        handler: Rc<H>,
        interest: Interest,
    ) -> Result<Registration, WatchError<H>> {
        let added = self.0.add(Entry::plain(handler.clone()), interest, group);
        self.registered(handler, added)
    }

    /// As [`watch`](Self::watch), for a handler that can also be asked in user space. With [`Interest::NONE`] it is only
    /// ever polled.
    ///
    /// # Errors
    /// As [`watch`](Self::watch).
    #[doc(alias = "aio_set_fd_poll")]
    pub fn watch_polled<H: Pollable>(
        &self,
        handler: Rc<H>,
        interest: Interest,
    ) -> Result<Registration, WatchError<H>> {
        self.watch_polled_in(GroupId::DEFAULT, handler, interest)
    }

    /// As [`watch_polled`](Self::watch_polled), as a member of `group`.
    ///
    /// # Errors
    /// As [`watch`](Self::watch).
    pub fn watch_polled_in<H: Pollable>(
        &self,
        group: GroupId,
        handler: Rc<H>,
        interest: Interest,
    ) -> Result<Registration, WatchError<H>> {
        let entry = Entry::polled(handler.clone());
        let added = self.0.add(entry, interest, group);
        self.registered(handler, added)
    }

    #[inline]
    fn registered<H>(&self, handler: Rc<H>, added: io::Result<Token>) -> Result<Registration, WatchError<H>> {
        match added {
            Ok(token) => Ok(Registration::new(self, token)),
            Err(why) => Err(WatchError::new(handler, why)),
        }
    }

    /// Removes a handler by the name of its registration, such as one that was detached; false if it is not registered
    /// any more. After this returns, no callback of the handler starts.
    pub fn unwatch(&self, token: Token) -> bool {
        self.0.remove(self, token)
    }

    /// A new group for handlers that are to be paused together.
    #[must_use]
    pub fn new_group(&self) -> GroupId {
        self.0.registry.borrow_mut().new_group()
    }

    /// Pauses a group: until the guard is dropped, its handlers are neither waited for, polled nor called. Pauses nest.
    /// What happened meanwhile is seen after the last guard is gone, which wakes the loop.
    #[doc(alias = "aio_disable_external")]
    pub fn pause(&self, group: GroupId) -> Paused {
        self.0.pause(self, group)
    }

    /// A deferred callback, to be scheduled any number of times from any thread; `name` appears in messages about it. For one
    /// that runs once, see [`defer`](Self::defer).
    #[doc(alias = "aio_bh_new")]
    pub fn bottom_half(&self, name: &'static str, run: impl Fn(&Self) + 'static) -> BottomHalf {
        let slot = self.0.bottom_halves.insert(Rc::new(run));
        BottomHalf::new(slot, name, self.0.shared.clone())
    }

    /// Has `run` run once, on this thread, in the next iteration, after what was scheduled before it. It needs no handle, and may
    /// own what cannot be sent to another thread; from another thread, see [`Remote::run`].
    ///
    /// If the context is dropped before, `run` is dropped with it without having run.
    ///
    /// ```
    /// use std::{cell::Cell, rc::Rc};
    /// use aio_context::{Context, Wait};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let (cx, done) = (Context::new()?, Rc::new(Cell::new(false)));
    /// let flag = done.clone();
    /// cx.defer(move |_cx| flag.set(true));
    /// cx.poll(Wait::NoBlock)?;
    /// assert!(done.get());
    /// # Ok(()) }
    /// ```
    pub fn defer(&self, run: impl FnOnce(&Self) + 'static) {
        let slot = self.0.bottom_halves.insert_once(Box::new(run));
        // The inbox is open as long as the context is there.
        let _ = self.0.shared.send(by_slot(slot));
    }

    /// What `clock` shows.
    #[must_use]
    pub fn now(&self, clock: ClockId) -> Moment {
        self.0.timers.now(clock)
    }

    /// The clock behind [`ClockId::Virtual`], to stop, start, set and warp it; any of it wakes the loop.
    #[must_use]
    pub fn virtual_clock(&self) -> Arc<VirtualClock> {
        self.0.virtual_clock.clone()
    }

    /// A handle for other threads.
    #[must_use]
    pub fn remote(&self) -> Remote {
        Remote(self.0.shared.clone())
    }

    /// A handle that does not keep the context alive.
    #[must_use]
    pub fn downgrade(&self) -> WeakContext {
        WeakContext(Rc::downgrade(&self.0))
    }

    /// Sets the polling parameters: the policy starts anew with them.
    pub fn set_poll_params(&self, params: PollParams) {
        self.remote().set_poll_params(params);
    }

    /// How many late events, for registrations that no longer exist, were recognised and dropped; and how many handlers
    /// were [broken](Handler::broken).
    #[must_use]
    pub fn oddities(&self) -> (u64, u64) {
        (self.0.stale.get(), self.0.broken.get())
    }

    /// The backend's name, as it is now.
    #[must_use]
    pub fn backend_name(&self) -> &'static str {
        self.0.backend.borrow().name()
    }

    /// Runs user code. Nothing of the context may be borrowed meanwhile, because the code may use the context.
    pub(crate) fn call<R>(&self, code: impl FnOnce(&Self) -> R) -> R {
        self.assert_free();
        code(self)
    }

    /// Asserts, in debug builds, that callbacks may be called now.
    pub(crate) fn assert_free(&self) {
        debug_assert!(
            self.0.is_free(),
            "a callback may not be called while something is borrowed"
        );
    }
}

impl Inner {
    /// Takes over polling parameters that were set since the last iteration.
    #[inline]
    pub(crate) fn adopt_poll_params(&self) {
        let version = self.shared.params_version.load(Ordering::Acquire);
        if self.adopted.get() != version {
            self.adopted.set(version);
            self.adopt();
        }
    }

    #[cold]
    #[inline(never)]
    fn adopt(&self) {
        let params = *self.shared.params.load_full();
        tracing::debug!(?params, "polling parameters");
        self.polling_enabled.set(!params.max.is_zero());
        self.poll_max.set(params.max);
        self.policy.borrow_mut().reset(params);
        self.adapt_anew();
    }

    /// Has whoever is about to wait look again: a foreign loop, or an iteration that is polling. Otherwise there is
    /// nothing to do, because a context whose home thread does something else looks before it waits.
    pub(crate) fn wake_if_about_to_wait(&self) {
        if self.shared.home.is_about_to_wait() {
            self.shared.notifier.notify();
        }
    }

    fn is_free(&self) -> bool {
        self.backend.try_borrow_mut().is_ok()
            && self.registry.try_borrow_mut().is_ok()
            && self.policy.try_borrow_mut().is_ok()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        move_out(self.shared.id);
        if std::thread::panicking() {
            self.shared
                .has_panicked
                .store(true, std::sync::atomic::Ordering::Release);
        }
        let mut queue = self.bottom_halves.abandon();
        let inbox = &self.shared.inbox;
        faulty!(LeftOpen, inbox.close(&mut queue), queue.take(inbox));
        let mut never_ran = Vec::new();
        while let Some(dequeued) = queue.pop() {
            if let Some(slot) = dequeued.payload()
                && dequeued.is_scheduled()
            {
                never_ran.push(slot.name);
            }
        }
        if !never_ran.is_empty() {
            tracing::warn!(bottom_halves = ?never_ran, "a context was dropped with bottom halves still scheduled");
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let handlers = self
            .0
            .registry
            .try_borrow()
            .map(|registry| registry.len().saturating_sub(crate::wall::OWN_TOKENS as usize))
            .ok();
        f.debug_struct("Context")
            .field(
                "backend",
                &self.0.backend.try_borrow().map(|backend| backend.name()).ok(),
            )
            .field("handlers", &handlers)
            .field("depth", &self.0.depth.get())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for WeakContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeakContext")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_callback_is_called_while_something_is_borrowed() {
        let cx = Context::builder().build().expect("there is a descriptor left");
        assert!(cx.0.is_free());
        {
            let _registry = cx.0.registry.borrow();
            assert!(!cx.0.is_free());
        }
        {
            let _backend = cx.0.backend.borrow();
            assert!(!cx.0.is_free());
        }
        {
            let _policy = cx.0.policy.borrow();
            assert!(!cx.0.is_free());
        }
        cx.assert_free();
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "while something is borrowed")]
    fn a_callback_while_something_is_borrowed_is_a_panic() {
        let cx = Context::builder().build().expect("there is a descriptor left");
        let _registry = cx.0.registry.borrow();
        cx.call(|_| {});
    }
}
