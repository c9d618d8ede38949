//! [`Builder`]: makes a context from its parts.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aio_backend::{Backend, Interest, OnDemand, Refused, Watched};
use aio_handlers::{GroupId, Registry};
use aio_notify::{ClockChanges, Nesting};
use aio_pollctl::{Pacing, Policy, PollParams, PollPolicy};
use aio_timers::{Clock, Monotonic, VirtualClock, Wall};

use crate::Context;
use crate::any_backend::{AnyBackend, BackendKind, LoopBackend};
use crate::context::{Deferred, Inner, Mailbox, Metrics, move_in};
use crate::descriptors::{Descriptors, is_own};
use crate::extension::Extensions;
use crate::handler::{Entry, Silent};
use crate::iteration::concerns::{BOTTOM_HALVES, Concerns};
use crate::macros::impl_debug;
use crate::polling::Polling;
use crate::stats::Shared;
use crate::timers::{SharedClock, Timers};

/// A function that opens a descriptor which becomes readable when the wall clock is changed, until eight
/// bytes are read from it.
type OpenChanges = Box<dyn Fn() -> io::Result<ClockChanges>>;

/// The most events of one wait by default.
const BATCH: usize = 1024;

/// Makes a [`Context`] with other parts than the usual ones.
#[derive(Default)]
#[must_use]
pub struct Builder {
    backend: Option<Box<dyn Backend>>,
    kind: Option<BackendKind>,
    policy: Option<Box<dyn PollPolicy>>,
    monotonic: Option<SharedClock>,
    virtual_clock: Option<Arc<VirtualClock>>,
    wall: Option<(SharedClock, OpenChanges)>,
    params: PollParams,
    batch: Option<usize>,
    slow_callback_limit: Option<Duration>,
}

impl Context {
    /// Makes a context whose home is this thread, with ppoll that climbs to epoll when it pays, and without
    /// polling.
    ///
    /// # Errors
    /// The error of the system for one more eventfd; `EMFILE` means that `ulimit -n` is too low.
    #[doc(alias = "aio_context_new")]
    pub fn new() -> io::Result<Self> {
        Self::builder().build()
    }

    /// Returns a builder, for a context with other parts.
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl Builder {
    /// Sets the backend; otherwise that of [`backend_kind`](Self::backend_kind).
    pub fn backend(mut self, backend: Box<dyn Backend>) -> Self {
        self.backend = Some(backend);
        self
    }

    /// Sets the kind of the backend. Without this, [`build`](Self::build) reads the kind from the environment
    /// variable `AIO_BACKEND`; if that is not set, it is [`BackendKind::Auto`].
    pub fn backend_kind(mut self, kind: BackendKind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// Sets the polling policy; otherwise `learned` ([`Policy::default`]). It has no effect before the
    /// maximum polling time is set.
    pub fn policy(mut self, policy: Box<dyn PollPolicy>) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Sets the loop's own clock; otherwise the system's. With an [`aio_timers::ManualClock`] the loop lets
    /// time pass instead of waiting for it.
    pub fn monotonic(mut self, clock: Arc<dyn Clock + Send + Sync>) -> Self {
        self.monotonic = Some(clock);
        self
    }

    /// Sets the clock behind [`ClockId::Wall`](crate::ClockId::Wall); otherwise the system's.
    ///
    /// `changes` opens a descriptor that becomes readable when the clock is set, and stays readable until
    /// eight bytes are read from it: for a simulated clock, a non-blocking eventfd. The loop calls `changes`
    /// before it first waits for a timer of this clock, and ends such a wait when the descriptor becomes
    /// readable. If `changes` fails, no such wait lasts longer than a second.
    ///
    /// ```
    /// use aio_context::{ClockId, Context, ManualClock, Moment};
    /// use std::sync::Arc;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let clock = Arc::new(ManualClock::new());
    /// let unreported = || Err(std::io::ErrorKind::Unsupported.into());
    /// let cx = Context::builder().wall_clock(clock.clone(), unreported).build()?;
    /// clock.set(Moment::from_nanos(7));
    /// assert_eq!(cx.now(ClockId::Wall), Moment::from_nanos(7));
    /// # Ok(()) }
    /// ```
    pub fn wall_clock(
        mut self,
        clock: Arc<dyn Clock + Send + Sync>,
        changes: impl Fn() -> io::Result<OwnedFd> + 'static,
    ) -> Self {
        self.wall = Some((clock, Box::new(move || changes().map(ClockChanges::from))));
        self
    }

    /// Sets the clock behind [`ClockId::Virtual`](crate::ClockId::Virtual); otherwise one that runs with the
    /// monotonic clock.
    pub fn virtual_clock(mut self, clock: Arc<VirtualClock>) -> Self {
        self.virtual_clock = Some(clock);
        self
    }

    /// Sets the first polling parameters; otherwise polling is off.
    pub fn poll_params(mut self, params: PollParams) -> Self {
        self.params = params;
        self
    }

    /// Sets the most events that one iteration takes, at least one; otherwise 1024.
    pub fn batch(mut self, events: usize) -> Self {
        self.batch = Some(events.max(1));
        self
    }

    /// Sets the longest time that a callback may take before it is counted and reported as slow; otherwise no
    /// limit. See [`Context::set_slow_callback_limit`].
    pub fn slow_callback_limit(mut self, limit: Duration) -> Self {
        self.slow_callback_limit = Some(limit);
        self
    }

    /// Makes the context. Its home is this thread.
    ///
    /// # Errors
    /// The error of the system for one more eventfd (`EMFILE`: raise `ulimit -n`), or the error of the
    /// backend for watching it. `InvalidInput` if `AIO_BACKEND` is read and names no backend.
    pub fn build(self) -> io::Result<Context> {
        let pacing = Pacing::new(self.monotonic.is_none());
        let monotonic = self.monotonic.unwrap_or_else(|| Arc::new(Monotonic::new()));
        let virtual_clock = self
            .virtual_clock
            .unwrap_or_else(|| Arc::new(VirtualClock::new(monotonic.clone())));
        let backend = match (self.backend, self.kind) {
            (Some(backend), _) => AnyBackend::Other(backend),
            (None, Some(kind)) => kind.open()?,
            (None, None) => BackendKind::from_environment()?.open()?,
        };
        let (name, backend) = (backend.name(), LoopBackend::new(backend));
        let mailbox = Arc::new(Mailbox::new().map_err(|why| Refused::wrap("eventfd", name, why))?);
        let concerns = Concerns::default();
        let [edges, paused] = concerns.of_registry();
        let mut registry = Registry::flagged(edges, paused);
        let placeholder = Rc::new(Silent(mailbox.clone()));
        let mut reserve = || {
            let entry = Entry::from(placeholder.clone());
            let token = registry.insert(None, entry, Interest::READ, GroupId::DEFAULT)?;
            registry.set_special(token);
            Ok::<_, io::Error>(token)
        };
        let (wakeup, wall_changes) = (reserve()?, reserve()?);
        debug_assert!(is_own(wakeup) && is_own(wall_changes));
        let added = backend
            .borrow_mut()
            .add(Watched::from(placeholder), wakeup, Interest::READ);
        added.map_err(|why| Refused::wrap("watch the loop's own eventfd", name, why))?;
        let (wall, open_changes) = self.wall.unwrap_or_else(|| {
            let changes = Box::new(ClockChanges::of_the_system);
            (Arc::new(Wall::new()), changes)
        });
        let wall_changes = OnDemand::new(wall_changes, open_changes);
        let inner = Rc::new(Inner {
            descriptors: Descriptors::new(backend, registry, wakeup, self.batch.unwrap_or(BATCH)),
            polling: Polling::new(
                self.policy.unwrap_or_else(|| Box::new(Policy::default())),
                concerns.of_poll_set(),
            ),
            pacing,
            timers: Timers::new(monotonic, wall, virtual_clock, wall_changes, &mailbox, &concerns),
            deferred: Deferred::sharing(concerns.word(), BOTTOM_HALVES),
            nesting: Nesting::default(),
            metrics: Metrics::default(),
            concerns,
            extensions: Extensions::default(),
            shared: Arc::new(Shared::new(self.params)),
            mailbox,
        });
        let cx = Context(inner);
        if self.slow_callback_limit.is_some() {
            cx.set_slow_callback_limit(self.slow_callback_limit);
        }
        move_in(&cx);
        Ok(cx)
    }
}

impl_debug!(Builder, "Builder": |it| backend = it.backend, kind = it.kind, policy = it.policy, params = it.params, batch = it.batch);
