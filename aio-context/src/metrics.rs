//! Figures of single callbacks (rule M2): [`HandlerMetrics`], and the limit of slow ones.
//!
//! This accumulates; `timed.rs` times the callbacks, and only those that are to be.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use aio_backend::Token;
use aio_timers::Moment;

use crate::stats::{add, count, nanos, time};

/// What a handler has done since [`Context::measure`](crate::Context::measure). The figures are read one by one: between two of them
/// the loop may go on.
///
/// The time in a callback begins when the loop calls it and ends when it returns or panics. It contains neither what polls inside the
/// callback have slept, nor the callbacks that those polls have called and that are timed, too.
///
/// # Examples
/// ```
/// use std::io::Write as _;
/// use aio_context::{Context, Wait};
///
/// # fn main() -> std::io::Result<()> {
/// let (cx, (reader, mut writer)) = (Context::new()?, std::io::pipe()?);
/// let registration = cx.on(reader).readable(|_, _| ()).watch()?;
/// let log = registration.measure("log")?;
/// writer.write_all(b"x")?;
/// cx.poll(Wait::Block)?;
/// let stats = log.stats();
/// assert_eq!((stats.events, stats.poll_hits), (1, 0));
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandlerStats {
    /// Calls for readiness of the descriptor; of a [`Source`](crate::Source), calls because it was woken.
    pub events: u64,
    /// Calls for work that [`poll`](crate::Pollable::poll) has found.
    pub poll_hits: u64,
    /// The time in its callbacks.
    pub busy: Duration,
    /// Callbacks that took longer than the [limit](crate::Builder::slow_callback_limit) in force.
    pub slow_callbacks: u64,
}

/// The figures of one handler, readable from any thread while the loop runs. Made by
/// [`Context::measure`](crate::Context::measure). Clones show the same figures; dropping them does not end the measurement.
///
/// # Examples
/// ```
/// use aio_context::{Context, Wait};
///
/// # fn main() -> std::io::Result<()> {
/// let (cx, (reader, writer)) = (Context::new()?, std::io::pipe()?);
/// let registration = cx.on(reader).readable(|_, _| ()).watch()?;
/// let log = registration.measure("log")?;
/// drop(writer);
/// cx.poll(Wait::Block)?;
/// let reads = std::thread::spawn(move || (log.name().to_owned(), log.stats().events));
/// assert_eq!(reads.join().unwrap(), ("log".to_owned(), 1));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct HandlerMetrics(Arc<HandlerCounters>);

impl HandlerMetrics {
    /// The name given to [`Context::measure`](crate::Context::measure).
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What the handler has done so far.
    #[must_use]
    pub fn stats(&self) -> HandlerStats {
        HandlerStats {
            events: count(&self.0.events),
            poll_hits: count(&self.0.poll_hits),
            busy: time(&self.0.busy_ns),
            slow_callbacks: count(&self.0.slow_callbacks),
        }
    }
}

/// The counters behind [`HandlerStats`]. Only the home thread writes.
#[derive(Debug)]
pub(crate) struct HandlerCounters {
    pub(crate) name: String,
    events: AtomicU64,
    poll_hits: AtomicU64,
    busy_ns: AtomicU64,
    slow_callbacks: AtomicU64,
}

impl HandlerCounters {
    fn new(name: String) -> Self {
        Self {
            name,
            events: AtomicU64::new(0),
            poll_hits: AtomicU64::new(0),
            busy_ns: AtomicU64::new(0),
            slow_callbacks: AtomicU64::new(0),
        }
    }

    pub(crate) fn event(&self) {
        add(&self.events, 1);
    }

    pub(crate) fn poll_hit(&self) {
        add(&self.poll_hits, 1);
    }

    /// Records a callback that took so long.
    pub(crate) fn took(&self, time: Duration, is_slow: bool) {
        add(&self.busy_ns, nanos(time));
        add(&self.slow_callbacks, u64::from(is_slow));
    }
}

/// The measured handlers of a context, by token. Locked when one is measured, replaced or listed; never in an iteration.
#[derive(Debug, Default)]
pub(crate) struct Measured(Mutex<Listed>);

#[derive(Debug, Default)]
struct Listed {
    handlers: BTreeMap<u64, Weak<HandlerCounters>>,
    /// At this size, those that are gone are removed.
    prune_at: usize,
}

impl Measured {
    /// Begins to measure a handler. A former measurement of it ends.
    pub(crate) fn begin(&self, token: Token, name: String) -> HandlerMetrics {
        let counters = Arc::new(HandlerCounters::new(name));
        self.with(|listed| {
            if listed.handlers.len() >= listed.prune_at {
                listed.handlers.retain(|_, handler| handler.strong_count() != 0);
                listed.prune_at = 16.max(2 * listed.handlers.len());
            }
            listed.handlers.insert(token.to_bits(), Arc::downgrade(&counters));
        });
        HandlerMetrics(counters)
    }

    /// The counters of a handler that is measured.
    pub(crate) fn find(&self, token: Token) -> Option<Arc<HandlerCounters>> {
        self.with(|listed| listed.handlers.get(&token.to_bits()).and_then(Weak::upgrade))
    }

    /// All of them, in the order of their registrations.
    pub(crate) fn all(&self) -> Vec<HandlerMetrics> {
        let alive = |listed: &mut Listed| listed.handlers.values().filter_map(Weak::upgrade).collect();
        let all: Vec<_> = self.with(alive);
        all.into_iter().map(HandlerMetrics).collect()
    }

    fn with<R>(&self, use_it: impl FnOnce(&mut Listed) -> R) -> R {
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a context keeps to time callbacks.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// There was a limit, or a measured handler.
    is_on: Cell<bool>,
    limit: Cell<Option<Duration>>,
    /// How many limits there were: each callback is reported once for each.
    limits: Cell<u32>,
    /// The time of timed callbacks inside the present one.
    nested: Cell<Duration>,
    /// The bottom halves and timers that were reported: kind and name.
    reported: RefCell<BTreeSet<(&'static str, &'static str)>>,
}

/// A callback that is being timed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Started {
    at: Moment,
    slept: Duration,
    outer: Duration,
}

impl Metrics {
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.is_on.get()
    }

    pub(crate) fn turn_on(&self) {
        self.is_on.set(true);
    }

    /// Whether all callbacks are timed.
    #[inline]
    pub(crate) fn has_limit(&self) -> bool {
        self.limit.get().is_some()
    }

    pub(crate) fn set_limit(&self, limit: Option<Duration>) {
        self.limit.set(limit);
        self.limits.set(self.limits.get().wrapping_add(1));
        self.reported.borrow_mut().clear();
    }

    /// The number of the limit in force, if a callback of this length exceeds it.
    pub(crate) fn exceeded(&self, took: Duration) -> Option<(Duration, u32)> {
        let limit = self.limit.get().filter(|limit| took > *limit)?;
        Some((limit, self.limits.get()))
    }

    /// Whether a bottom half or timer that is slow was not reported yet.
    pub(crate) fn is_news(&self, kind: &'static str, name: &'static str) -> bool {
        self.reported.borrow_mut().insert((kind, name))
    }

    /// Begins to time a callback. `slept` is how long the loop has slept so far.
    pub(crate) fn start(&self, at: Moment, slept: Duration) -> Started {
        let outer = self.nested.replace(Duration::ZERO);
        Started { at, slept, outer }
    }

    /// Returns how long a callback took by itself.
    pub(crate) fn finish(&self, started: Started, now: Moment, slept: Duration) -> Duration {
        let slept = slept.saturating_sub(started.slept);
        let awake = now.since(started.at).saturating_sub(slept);
        let inside = self.nested.replace(started.outer.saturating_add(awake));
        awake.saturating_sub(inside)
    }
}
