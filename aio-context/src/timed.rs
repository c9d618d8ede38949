//! Timing callbacks (rule M2): [`Context::measure`], and the limit of slow callbacks.
//!
//! # Why it costs nothing while off
//! A timed handler has a [`Timing`] and is marked as special, so that its events take the longer path of
//! special handlers. Plain events are delivered without a test for it. Each run of bottom halves makes one
//! test, and so does each other callback.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aio_backend::Token;
use aio_notify::{HandlerCounters, HandlerMetrics};
use aio_timers::Exceeded;

use crate::context::Inner;
use crate::descriptors::{is_own, not_registered};
use crate::handler::Entry;
use crate::stats::Timing;
use crate::{Context, Registration, Remote};

impl Context {
    /// Measures a handler from now on: its events, its polling hits and the time in its callbacks. `name`
    /// appears in messages about it, and in the list of [`Remote::measured_handlers`]; it need not be unique.
    ///
    /// The measurement lasts as long as the registration, and goes on if the handler is replaced. Measuring a
    /// handler again restarts the figures, under the new name. A callback of a measured handler costs two
    /// more readings of the [monotonic clock](crate::ClockId::Monotonic); other handlers cost no more than
    /// before.
    ///
    /// # Errors
    /// `NotFound` if no handler is registered under the token.
    ///
    /// ```
    /// use aio_context::{Context, Wait};
    /// use std::io::{PipeReader, Read, Write};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let (cx, (reader, mut writer)) = (Context::new()?, std::io::pipe()?);
    /// let read = |mut pipe: &PipeReader, _cx: &Context| drop(pipe.read(&mut [0; 64]));
    /// let registration = cx.on(reader).readable(read).watch()?;
    /// let metrics = cx.measure(registration.token(), "log")?;
    /// writer.write_all(b"a line")?;
    /// cx.poll(Wait::Block)?;
    /// // From any thread:
    /// std::thread::spawn(move || {
    ///     let stats = metrics.stats();
    ///     println!("{}: {} events, {:?}", metrics.name(), stats.events, stats.busy);
    /// #   assert_eq!(stats.events, 1);
    /// }).join().unwrap();
    /// # Ok(()) }
    /// ```
    pub fn measure(&self, token: Token, name: impl Into<String>) -> io::Result<HandlerMetrics> {
        let inner = &self.0;
        if is_own(token) || inner.descriptors.registry.borrow().get(token).is_none() {
            return Err(not_registered());
        }
        let counters = Arc::new(HandlerCounters::new(name.into()));
        inner.shared.measured.insert(token, &counters);
        inner.metrics.is_on.set(true);
        inner.time_again(token);
        Ok(counters.into())
    }

    /// Sets the longest time that a callback may take before it counts as slow; `None`: no limit.
    ///
    /// Callbacks are those of handlers, [`poll_ready`](crate::Pollable::poll_ready), bottom halves, timers,
    /// and the closures of [`defer`](Self::defer) and [`Remote::run`].
    /// [`Stats::slow_callbacks`](crate::Stats::slow_callbacks) counts the slow ones. A `tracing` warning
    /// reports each slow callback the first time, with its name: that of a [measured](Self::measure) handler
    /// or of a [source](Self::source), the number of another handler's descriptor, or the name of a bottom
    /// half or a [timer](crate::TimerBuilder::named). After a new limit is set, all are reported anew.
    ///
    /// With a limit, each callback costs two readings of the clock. [`HandlerStats`](crate::HandlerStats)
    /// describes how the time is measured. [`poll`](crate::Pollable::poll), `poll_begin` and `poll_end` are
    /// not timed.
    ///
    /// This walks over all registrations. Another thread calls it through [`Remote::run`].
    ///
    /// ```
    /// use aio_context::{Context, Wait};
    /// use std::time::Duration;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let cx = Context::new()?;
    /// cx.set_slow_callback_limit(Some(Duration::from_millis(5)));
    /// let slow = cx.bottom_half("compress", |_cx| std::thread::sleep(Duration::from_millis(6)));
    /// slow.schedule();
    /// cx.poll(Wait::Block)?; // warns of "compress"
    /// assert_eq!(cx.remote().stats().slow_callbacks, 1);
    /// # Ok(()) }
    /// ```
    pub fn set_slow_callback_limit(&self, limit: Option<Duration>) {
        tracing::debug!(?limit, "the limit of slow callbacks");
        let inner = &self.0;
        inner.metrics.slow.set(limit);
        inner.metrics.is_on.set(true);
        let registry = inner.descriptors.registry.borrow();
        let tokens: Vec<_> = registry.tokens().filter(|token| !is_own(*token)).collect();
        drop(registry);
        tokens.into_iter().for_each(|token| inner.time_again(token));
    }

    /// Runs a callback that belongs to no handler. If there is a limit, counts and reports a slow callback.
    #[inline(always)]
    pub(crate) fn call_named(
        &self,
        kind: &'static str,
        name: impl FnOnce() -> &'static str,
        code: impl FnOnce(&Self),
    ) {
        if !self.0.metrics.slow.is_set() {
            return self.call(code);
        }
        let name = name();
        let is_first = |_| self.0.metrics.slow.is_first((kind, name));
        self.time(code, |took| _ = self.is_slow(kind, name, took, is_first));
    }

    /// Counts a callback that took too long, and reports it if `is_first` returns `true`. Returns `true` if
    /// it was too long.
    fn is_slow<F>(&self, kind: &str, name: &str, took: Duration, is_first: F) -> bool
    where
        F: FnOnce(Exceeded) -> bool,
    {
        let Some(exceeded) = self.0.metrics.slow.exceeded(took) else {
            return false;
        };
        self.0.shared.counters.slow_callbacks.add(1);
        if is_first(exceeded) {
            let limit = exceeded.limit;
            tracing::warn!(kind, %name, ?took, ?limit, "a callback is slow; it is counted from now on");
        }
        true
    }

    /// Calls a handler. If its callbacks are timed, `count` counts the call.
    #[inline(always)]
    pub(crate) fn call_timing(
        &self,
        timing: Option<Rc<Timing>>,
        count: impl FnOnce(&HandlerCounters),
        code: impl FnOnce(&Self),
    ) {
        let Some(timing) = timing else {
            return self.call(code);
        };
        self.assert_free();
        count(&timing.counters);
        self.time(code, |took| timing.took(self, took));
    }

    /// Runs `code`, then passes its own time to `done`, also if it panics.
    #[cold]
    #[inline(never)]
    fn time<R>(&self, code: impl FnOnce(&Self) -> R, done: impl FnMut(Duration)) -> R {
        let inner = &self.0;
        let read = || (inner.now(), inner.shared.counters.slept.time());
        inner.metrics.times.measure(read, || code(self), done)
    }
}

impl Registration {
    /// Measures the handler from now on; see [`Context::measure`].
    ///
    /// # Errors
    /// As [`Context::measure`].
    pub fn measure(&self, name: impl Into<String>) -> io::Result<HandlerMetrics> {
        self.context()?.measure(self.token(), name)
    }
}

impl Remote {
    /// Returns the [measured](Context::measure) handlers, in the order of their tokens: those that are
    /// registered, and those for which a [`HandlerMetrics`] still exists.
    #[must_use]
    pub fn measured_handlers(&self) -> Vec<HandlerMetrics> {
        let all = self.shared.measured.values();
        all.into_iter().map(HandlerMetrics::from).collect()
    }
}

impl Inner {
    /// Times a new handler if its registration is measured, or if there is a limit.
    #[inline]
    pub(crate) fn time_if_on(&self, token: Token) {
        if self.metrics.is_on.get() {
            self.time_again(token);
        }
    }

    #[cold]
    #[inline(never)]
    fn time_again(&self, token: Token) {
        let counters = self.shared.measured.get(&token);
        let is_timed = counters.is_some() || self.metrics.slow.is_set();
        let mut registry = self.descriptors.registry.borrow_mut();
        // The handler stays, so no user code is dropped while the registry is borrowed.
        if let Some(entry) = registry.get_mut(token) {
            let timing = is_timed.then(|| Timing::new(counters, entry));
            entry.set_timing(timing.map(Rc::new));
            registry.set_special(token);
        }
    }
}

impl Timing {
    /// Makes the state for timing a handler. Without `counters` it makes new ones for an unmeasured handler,
    /// which contain its name for warnings.
    fn new(counters: Option<Arc<HandlerCounters>>, entry: &Entry) -> Self {
        let unmeasured = || {
            let source = entry.pollable().and_then(|polled| polled.name());
            let number = || format!("descriptor {}", entry.handler.as_fd().as_raw_fd());
            Arc::new(HandlerCounters::new(source.map_or_else(number, str::to_owned)))
        };
        Self {
            counters: counters.unwrap_or_else(unmeasured),
            reported_for: Cell::new(None),
        }
    }

    fn took(&self, cx: &Context, took: Duration) {
        self.counters.busy.add_time(took);
        let is_first = |exceeded: Exceeded| exceeded.is_first(&self.reported_for);
        let is_slow = cx.is_slow("handler", &self.counters.name, took, is_first);
        self.counters.slow_callbacks.add(is_slow.into());
    }
}
