//! What the polling policy is shown of an iteration (rules A6, A7, A10), and when.
//!
//! It measures and reports; how long to poll is decided in `aio-pollctl`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aio_backend::{ReadyList, Token};
use aio_pollctl::{Iteration, PollPolicy, Searched};

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
pub struct PollTime(Arc<AtomicU64>);

impl PollTime {
    /// As it was after the last wait: how long a policy that has a time for each handler, such as `qemu-10`, would poll for
    /// this one (for `qemu-weighted`, its mean wait). Zero with other policies, whose time is
    /// [`Stats::budget`](crate::Stats::budget).
    #[must_use]
    pub fn get(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
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
        let now = polled.memory.time().as_nanos() as u64;
        let shown = polled.shown.get_or_insert_with(|| Arc::new(AtomicU64::new(now)));
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
        if waited.blocked {
            self.polling.kicks.set(self.shared.counters.kicks());
        }
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
        let mut policy = self.polling.policy.borrow_mut();
        if self.polling.is_per_handler.get() {
            self.adapt_each(&mut **policy, seen, found);
        }
        let seen = if seen.blocked {
            // The handlers have run: these peers have kicked because the loop slept (rule A11).
            let kicks = self.shared.counters.kicks() - self.polling.kicks.get();
            seen.with_kicks(kicks as u32)
        } else {
            seen
        };
        policy.observe(seen);
        self.polling.decided(policy.budget(), &self.shared);
    }

    #[inline(never)]
    fn adapt_each(&self, policy: &mut dyn PollPolicy, seen: Iteration, found: &ReadyList) {
        let mut registry = self.descriptors.registry.borrow_mut();
        for (token, readiness) in found.iter() {
            if let Some(polled) = registry.get_mut(token).and_then(|entry| entry.polled.as_mut()) {
                polled.had_event = true;
                // A hit has no readiness.
                polled.was_kicked |= seen.blocked && !readiness.is_empty();
            }
        }
        self.polling.set.for_each_promoted(|token| {
            if let Some(entry) = registry.get_mut(token).and_then(|entry| entry.polled.as_mut()) {
                let had_event = std::mem::take(&mut entry.had_event);
                let was_kicked = std::mem::take(&mut entry.was_kicked);
                let seen = if seen.blocked {
                    seen.with_kicks(was_kicked.into())
                } else {
                    seen
                };
                policy.observe_handler(&mut entry.memory, had_event, seen);
                if let Some(shown) = &entry.shown {
                    shown.store(entry.memory.time().as_nanos() as u64, Ordering::Relaxed);
                }
            }
        });
    }
}
