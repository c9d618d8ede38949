//! What the polling policy is shown of an iteration (rules A6, A7, A10), and when.
//!
//! It measures and reports; how long to poll is decided in `aio-pollctl`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use aio_backend::{ReadyList, Token};
use aio_notify::Counter;
use aio_pollctl::{Iteration, Searched};

use crate::context::Inner;
use crate::descriptors::not_registered;
use crate::wall::is_own;

/// The polling time of one handler, readable from any thread; see [`Registration::poll_time`](crate::Registration::poll_time).
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use aio_context::{Context, Policy, PollParams, Wait};
///
/// # fn main() -> std::io::Result<()> {
/// let params = PollParams::unlimited();
/// let policy = Policy::by_name("qemu-10", params).expect("a policy of that name");
/// let cx = Context::builder().policy(Box::new(policy)).poll_params(params).build()?;
/// let (reader, writer) = std::io::pipe()?;
/// let registration = cx.on(reader).polled(|_| false).readable(|_, _| ()).watch()?;
/// let time = registration.poll_time()?;
/// assert_eq!(time.get(), Duration::ZERO);
/// drop(writer);
/// cx.poll(Wait::Block)?;
/// assert_eq!(time.get(), Duration::from_micros(4)); // the first time of this policy
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct PollTime(Arc<Counter>);

impl PollTime {
    /// As it was after the last wait: how long a policy that has a time for each handler, such as `qemu-10`, would poll for
    /// this one (for `qemu-weighted`, its mean wait). Zero with other policies, whose time is
    /// [`Stats::budget`](crate::Stats::budget).
    #[must_use]
    pub fn get(&self) -> Duration {
        self.0.time()
    }
}

/// What an iteration did before it called anything.
#[derive(Clone, Copy)]
pub(crate) struct Waited {
    pub(crate) timeout: Option<Duration>,
    pub(crate) searched: Searched,
    /// Whether it waited.
    pub(crate) blocked: bool,
}

/// A wait that the policy is shown once the handlers have run.
#[derive(Clone, Copy)]
pub(crate) struct Ended {
    waited: Waited,
    /// When it ended. Not read if polling has found work.
    at_ns: u64,
}

impl Ended {
    /// Polling has found work at once: no clock was read.
    pub(crate) const HIT: Self = Self {
        waited: Waited {
            timeout: None,
            searched: Searched {
                hit: true,
                spun: Duration::ZERO,
                ended_ns: None,
            },
            blocked: false,
        },
        at_ns: 0,
    };
}

/// Adds the events of an iteration, and where the first one comes from.
#[inline]
fn with_events(seen: Iteration, found: &ReadyList) -> Iteration {
    let mut tokens = found.iter().map(|(token, _)| token);
    match tokens.find(|token| !is_own(*token)) {
        Some(first) => seen.with_source(first.index()).with_events(found.len() as u32),
        None => seen,
    }
}

impl Inner {
    /// Where the polling time of a handler can be read from now on.
    pub(crate) fn poll_time(&self, token: Token) -> io::Result<PollTime> {
        let mut registry = self.descriptors.registry.borrow_mut();
        let entry = registry.get_mut(token).ok_or_else(not_registered)?;
        let polled = entry.polled.as_mut().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::Unsupported,
                "the handler is never polled: register it with `watch_polled`",
            )
        })?;
        let shown = polled.shown.get_or_insert_default();
        shown.set_time(polled.policy.time());
        Ok(PollTime(shown.clone()))
    }

    /// When there was something to do, after polling and waiting. `None` if it is no measure of waits: an iteration that may not wait, or
    /// a nested one (the original adapts to both).
    ///
    /// Read before any handler runs: what they cost is no waiting (rule A10). All else can be computed after them.
    #[inline]
    pub(crate) fn ended(&self, waited: Waited) -> Option<Ended> {
        let may_wait = waited.timeout != Some(Duration::ZERO);
        if !self.polling.is_enabled() || !may_wait || self.nesting.depth.get() != 1 {
            return None;
        }
        let kicks = self.shared.counters.kicks.get();
        self.polling.controller.waited(waited.blocked, kicks);
        let at_ns = if waited.searched.hit {
            0
        } else {
            self.now().as_nanos()
        };
        Some(Ended { waited, at_ns })
    }

    /// What the policy is shown of a wait and what it has found.
    #[inline(always)]
    pub(crate) fn measure(&self, ended: Ended, found: &ReadyList) -> Iteration {
        let Waited {
            timeout, searched, ..
        } = ended.waited;
        let seen = if searched.hit && searched.ended_ns.is_none() && timeout.is_none() {
            // Most are found in the very first round, for which no clock was read.
            Iteration::new(Duration::ZERO, Duration::ZERO, false, true)
        } else {
            self.measure_time(ended)
        };
        with_events(seen, found)
    }

    #[inline(never)]
    fn measure_time(&self, ended: Ended) -> Iteration {
        let Ended { waited, at_ns } = ended;
        self.pacing
            .measure(waited.searched, waited.timeout, waited.blocked, || at_ns)
    }

    /// Shows it to the policy, after dispatch: handlers that are gone by then do not count (rule A7).
    pub(crate) fn adapt(&self, seen: Iteration, found: &ReadyList) {
        let controller = &self.polling.controller;
        if controller.is_per_handler() {
            self.adapt_each(seen, found);
        }
        // The handlers have run: what was kicked since the wait was kicked because the loop slept (rule A11).
        controller.observe(seen, self.shared.counters.kicks.get());
        self.polling.publish_budget(&self.shared);
    }

    #[inline(never)]
    fn adapt_each(&self, seen: Iteration, found: &ReadyList) {
        let mut registry = self.descriptors.registry.borrow_mut();
        for (token, readiness) in found.iter() {
            if let Some(polled) = registry.get_mut(token).and_then(|entry| entry.polled.as_mut()) {
                // A hit has no readiness.
                polled.policy.had_event(seen.blocked && !readiness.is_empty());
            }
        }
        self.polling.controller.with_policy(|policy| {
            self.polling.set.for_each_promoted(|token| {
                if let Some(polled) = registry.get_mut(token).and_then(|entry| entry.polled.as_mut()) {
                    polled.policy.observe(policy, seen);
                    let time = polled.policy.time();
                    polled.shown.as_ref().inspect(|shown| shown.set_time(time));
                }
            });
        });
    }
}
