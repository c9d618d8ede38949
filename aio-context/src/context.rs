//! [`Context`] and its [`Builder`]: the face, and what lies behind it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::{Rc, Weak};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use aio_backend::{Backend, Interest, Token, Watched};
use aio_handlers::{GroupId, Registry};
use aio_notify::Notifier;
use aio_pollctl::{PollParams, PollPolicy, Qemu2020};
use aio_timers::{Clock, Moment, Monotonic, Subscription, VirtualClock, Wall};

use crate::adapting::Adapting;
use crate::any_backend::AnyBackend;
use crate::bh::{BottomHalf, BottomHalves};
use crate::cooling::Cooling;
use crate::edges::Edges;
use crate::error::explained;
use crate::found::Lists;
use crate::glance::Glance;
use crate::handler::{Entry, Silent};
use crate::hot::Hot;
use crate::polling::Looks;
use crate::registration::{Paused, Registration};
use crate::remote::{Remote, Shared, move_in, move_out};
use crate::sync::{Fault, Mutex, Ordering, fence, planted};
use crate::timer::{ClockId, Timer, Timers};
use crate::waiting::REBALANCE_EVERY;
use crate::{Gone, Handler, Pollable};

/// Events per wait unless told otherwise.
const BATCH: usize = 1024;

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
    pub(crate) hot: Hot,
    pub(crate) glance: Glance,
    pub(crate) looks: Looks,
    pub(crate) cooling: Cooling,
    pub(crate) edges: Edges,
    pub(crate) adapting: Adapting,
    pub(crate) timers: Timers,
    pub(crate) bottom_halves: BottomHalves,
    pub(crate) policy: RefCell<Box<dyn PollPolicy>>,
    /// The version of the polling parameters that are in force.
    adopted: Cell<u64>,
    pub(crate) polling_enabled: Cell<bool>,
    pub(crate) poll_max: Cell<Duration>,
    virtual_clock: Arc<VirtualClock>,
    /// A clock that outlives the context must not keep its eventfd.
    _virtual_changes: Subscription,
    /// The loop's own clock is a simulated one: waiting for time lets it pass.
    pub(crate) simulated: bool,
    pub(crate) batch: usize,
    /// The token of the notifier's own descriptor.
    pub(crate) doorbell: Token,
    pub(crate) depth: Cell<u32>,
    pub(crate) looks_since_rebalance: Cell<u32>,
    /// Paused while in poll mode: each is asked once more after the resume.
    pub(crate) owed_a_look: RefCell<Vec<Token>>,
    pub(crate) stale: Cell<u64>,
    pub(crate) broken: Cell<u64>,
    /// The loop's own eventfd was found closed.
    pub(crate) deaf: Cell<bool>,
}

/// The notifier as the owner of a watched descriptor.
struct Doorbell(Arc<Shared>);

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.notifier.as_fd()
    }
}

/// Makes a [`Context`] with other parts than the usual ones.
#[derive(Debug, Default)]
#[must_use]
pub struct Builder {
    backend: Option<Box<dyn Backend>>,
    policy: Option<Box<dyn PollPolicy>>,
    monotonic: Option<Arc<dyn Clock + Send + Sync>>,
    virtual_clock: Option<Arc<VirtualClock>>,
    params: PollParams,
    batch: Option<usize>,
}

impl Builder {
    /// The backend; otherwise ppoll, which climbs to epoll at 64 watched descriptors, or after 256 waits.
    pub fn backend(mut self, backend: Box<dyn Backend>) -> Self {
        self.backend = Some(backend);
        self
    }

    /// The polling policy; otherwise QEMU's of 2020. It does nothing before the maximum polling time is set.
    pub fn policy(mut self, policy: Box<dyn PollPolicy>) -> Self {
        self.policy = Some(policy);
        self
    }

    /// The loop's own clock; otherwise the system's. With an [`aio_timers::ManualClock`] the loop lets time pass instead
    /// of waiting for it.
    pub fn monotonic(mut self, clock: Arc<dyn Clock + Send + Sync>) -> Self {
        self.monotonic = Some(clock);
        self
    }

    /// The clock behind [`ClockId::Virtual`]; otherwise one that runs with the monotonic clock.
    pub fn virtual_clock(mut self, clock: Arc<VirtualClock>) -> Self {
        self.virtual_clock = Some(clock);
        self
    }

    /// The polling parameters to begin with; otherwise polling is off.
    pub fn poll_params(mut self, params: PollParams) -> Self {
        self.params = params;
        self
    }

    /// How many events one iteration takes at the most, at least one; otherwise 1024.
    pub fn batch(mut self, events: usize) -> Self {
        self.batch = Some(events.max(1));
        self
    }

    /// The context, at home on this thread.
    ///
    /// # Errors
    /// What the system says to one more eventfd (`EMFILE`: raise `ulimit -n`), or what the backend says to it.
    pub fn build(self) -> io::Result<Context> {
        let monotonic = self.monotonic.unwrap_or_else(|| Arc::new(Monotonic::new()));
        let virtual_clock = self
            .virtual_clock
            .unwrap_or_else(|| Arc::new(VirtualClock::new(monotonic.clone())));
        let mut backend = self.backend.map_or_else(AnyBackend::usual, AnyBackend::Other);
        let name = backend.name();
        let notifier = Notifier::new().map_err(|why| explained("eventfd", name, why))?;
        let shared = Arc::new(Shared::new(notifier, self.params));
        let mut registry = Registry::new();
        let doorbell_owner = Rc::new(Doorbell(shared.clone()));
        let placeholder = Entry::plain(Rc::new(Silent(shared.clone())));
        let doorbell = registry
            .insert(None, placeholder, Interest::READ, GroupId::DEFAULT)
            .map_err(|_| io::Error::other("a new registry is not empty"))?;
        let added = backend.add(Watched::from(doorbell_owner), doorbell, Interest::READ);
        added.map_err(|why| explained("watch the loop's own eventfd", name, why))?;
        let simulated = monotonic.pass(Duration::ZERO);
        let waker = Remote(shared.clone());
        let virtual_changes = virtual_clock.subscribe(move || waker.notify());
        let inner = Rc::new(Inner {
            shared,
            backend: RefCell::new(backend),
            registry: RefCell::new(registry),
            lists: Lists::default(),
            hot: Hot::default(),
            glance: Glance::default(),
            looks: Looks::default(),
            cooling: Cooling::default(),
            edges: Edges::default(),
            adapting: Adapting::default(),
            timers: Timers::new([monotonic, Arc::new(Wall::new()), virtual_clock.clone()]),
            bottom_halves: BottomHalves::default(),
            policy: RefCell::new(
                self.policy
                    .unwrap_or_else(|| Box::new(Qemu2020::new(self.params))),
            ),
            adopted: Cell::new(0),
            polling_enabled: Cell::new(false),
            poll_max: Cell::new(Duration::ZERO),
            virtual_clock,
            _virtual_changes: virtual_changes,
            simulated,
            batch: self.batch.unwrap_or(BATCH),
            doorbell,
            depth: Cell::new(0),
            looks_since_rebalance: Cell::new(REBALANCE_EVERY),
            owed_a_look: RefCell::default(),
            stale: Cell::new(0),
            broken: Cell::new(0),
            deaf: Cell::new(false),
        });
        move_in(&inner);
        Ok(Context(inner))
    }
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
    /// A handler that is registered for the same descriptor number gives way to this one.
    ///
    /// # Errors
    /// What the system says to watching the descriptor; nothing is registered then.
    #[doc(alias = "aio_set_fd_handler")]
    pub fn watch<H: Handler>(&self, handler: Rc<H>, interest: Interest) -> io::Result<Registration> {
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
    ) -> io::Result<Registration> {
        self.0
            .add(self, Entry::plain(handler), interest, group)
            .map(|token| Registration::new(self, token))
    }

    /// As [`watch`](Self::watch), for a handler that can also be asked in user space. With [`Interest::NONE`] it is only
    /// ever polled.
    ///
    /// # Errors
    /// As [`watch`](Self::watch).
    #[doc(alias = "aio_set_fd_poll")]
    pub fn watch_polled<H: Pollable>(&self, handler: Rc<H>, interest: Interest) -> io::Result<Registration> {
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
    ) -> io::Result<Registration> {
        self.0
            .add(self, Entry::polled(handler, self.0.hot.rounds()), interest, group)
            .map(|token| Registration::new(self, token))
    }

    /// Removes a handler by the name of its registration, such as one that was detached; false if it is not registered
    /// any more. After this returns, no callback of the handler starts.
    pub fn unwatch(&self, token: Token) -> bool {
        self.0.remove(self, token)
    }

    /// Does one iteration; true if there was progress: a handler or a bottom half ran, or a timer fired.
    ///
    /// Callbacks run inside this call. Any of them may call `poll` again. If one panics, the panic comes out here, and
    /// the context can go on: what had been found and not been called is found again.
    ///
    /// A blocking call returns false only if somebody [notified](Remote::notify) without giving it work.
    ///
    /// # Errors
    /// What the system says to waiting; interruptions by signals are no errors. `EBADF`, after doing what there was to do, if
    /// the context's own eventfd was closed behind its back: then no thread can wake it any more.
    #[doc(alias = "aio_poll")]
    pub fn poll(&self, wait: Wait) -> io::Result<bool> {
        let explain = |why| explained("wait", self.backend_name(), why);
        self.0.iterate(self, wait).map_err(explain)
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

    /// A deferred callback; `name` appears in messages about it.
    #[doc(alias = "aio_bh_new")]
    pub fn bottom_half(&self, name: &'static str, run: impl Fn(&Self) + 'static) -> BottomHalf {
        let slot = self.0.bottom_halves.insert(Rc::new(run));
        BottomHalf::new(slot, name, self.0.shared.clone())
    }

    /// A timer on `clock`, not armed yet.
    #[doc(alias = "aio_timer_new")]
    pub fn timer(&self, clock: ClockId, fire: impl Fn(&Self, &Timer) + 'static) -> Timer {
        Timer::new(self, clock, Box::new(fire))
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

    /// Polls until `condition` is false; true if it had to wait. Who changes what the condition reads calls
    /// [`Remote::kick`] afterwards, from any thread.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    #[doc(alias = "AIO_WAIT_WHILE")]
    pub fn wait_while(&self, mut condition: impl FnMut() -> bool) -> io::Result<bool> {
        let enter = || Waiter::enter(&self.0.shared);
        let mut waiter = (!planted(Fault::CountedLate)).then(enter);
        let mut waited = false;
        while condition() {
            waited = true;
            waiter.get_or_insert_with(enter);
            self.poll(Wait::Block)?;
        }
        Ok(waited)
    }

    /// Has `job` run once on another context and waits for its result, while this context goes on polling: two contexts
    /// can wait for each other. On this very context the job runs at once.
    ///
    /// # Errors
    /// [`Gone`] if the other context is gone, goes away before the job is done, or the job panics; or if this context
    /// cannot be polled any longer.
    #[doc(alias = "aio_wait_bh_oneshot")]
    pub fn run_on<R: Send + 'static>(
        &self,
        other: &Remote,
        job: impl FnOnce(&Self) -> R + Send + 'static,
    ) -> Result<R, Gone> {
        if other.is_same(&self.remote()) {
            return Ok(job(self));
        }
        let slot = Arc::new(Mutex::new(Answer::Pending));
        let reply = Reply {
            slot: slot.clone(),
            waiter: self.remote(),
        };
        other.run(move |cx| reply.give(job(cx)))?;
        let state = || slot.lock().unwrap_or_else(PoisonError::into_inner);
        self.wait_while(|| matches!(*state(), Answer::Pending))
            .map_err(|_| Gone)?;
        let answer = std::mem::replace(&mut *state(), Answer::Lost);
        match answer {
            Answer::Given(result) => Ok(result),
            Answer::Pending | Answer::Lost => Err(Gone),
        }
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

enum Answer<R> {
    Pending,
    Given(R),
    Lost,
}

/// The far end of [`Context::run_on`]: answers, or tells by being dropped that there will be no answer.
struct Reply<R> {
    slot: Arc<Mutex<Answer<R>>>,
    waiter: Remote,
}

impl<R> Reply<R> {
    fn give(&self, result: R) {
        if planted(Fault::KickedBeforeAnswer) {
            self.waiter.kick();
        }
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Answer::Given(result);
    }
}

impl<R> Drop for Reply<R> {
    fn drop(&mut self) {
        let mut answer = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*answer, Answer::Pending) {
            *answer = Answer::Lost;
        }
        drop(answer);
        if !planted(Fault::KickedBeforeAnswer) {
            self.waiter.kick();
        }
    }
}

/// Counts a `wait_while`, before its condition is read (rule W1).
struct Waiter<'a>(&'a Shared);

impl<'a> Waiter<'a> {
    fn enter(shared: &'a Shared) -> Self {
        shared.waiters.fetch_add(1, Ordering::Relaxed);
        // Pairs with the fence in `Remote::kick`: either it sees us, or we see the change.
        if !planted(Fault::CountedWithoutFence) {
            fence(Ordering::SeqCst);
        }
        Self(shared)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.waiters.fetch_sub(1, Ordering::Relaxed);
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
            && self.timers.is_free()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        move_out(self.shared.id);
        let mut line = self.bottom_halves.abandon();
        if planted(Fault::LeftOpen) {
            line.take(&self.shared.inbox);
        } else {
            self.shared.inbox.close(&mut line);
        }
        let mut never_ran = Vec::new();
        while let Some(taken) = line.pop() {
            if let Some(place) = taken.payload()
                && taken.is_scheduled()
            {
                never_ran.push(place.name);
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
            .map(|registry| registry.len().saturating_sub(1))
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
