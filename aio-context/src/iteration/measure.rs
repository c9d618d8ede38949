//! Measurements of an iteration for the polling policy (rules A6, A7, A10): the waits that `aio-pollctl`
//! measures, and the handlers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use aio_backend::{Readiness, Token};
use aio_notify::Counter;
use aio_pollctl::{EndedWait, Iteration, Waited};

use crate::context::Inner;
use crate::descriptors::{is_own, not_registered};
use crate::handler::Entry;

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
    /// Returns the time for which the policy would poll for this handler, as of the last wait. Only policies
    /// with a time for each handler, such as `qemu-10`, have one (for `qemu-weighted` it is the handler's
    /// mean wait). Zero with other policies, whose time is [`Stats::budget`](crate::Stats::budget).
    #[must_use]
    pub fn get(&self) -> Duration {
        self.0.time()
    }
}

impl Inner {
    /// Returns a handle from which the polling time of a handler can be read from now on.
    pub(crate) fn poll_time(&self, token: Token) -> io::Result<PollTime> {
        let mut registry = self.descriptors.registry.borrow_mut();
        let entry = registry.get_mut(token).ok_or_else(not_registered)?;
        let polled = entry.polled_mut().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::Unsupported,
                "the handler is never polled: register it as `Polled`",
            )
        })?;
        let shown = polled.shown.get_or_insert_default();
        shown.set_time(polled.policy.time());
        Ok(PollTime(shown.clone()))
    }

    /// Returns the search and the wait of an iteration, for the policy to observe after dispatch. `None` for
    /// iterations that do not measure waits: a nested one, or one that may not wait (QEMU's original adapts
    /// to both).
    #[inline]
    pub(crate) fn ended(&self, waited: Waited) -> Option<EndedWait> {
        if self.nesting.depth() != 1 {
            return None;
        }
        let kicks = self.shared.counters.kicks.get();
        let now_ns = || self.now().as_nanos();
        self.polling
            .controller
            .waited(&self.pacing, waited, kicks, now_ns)
    }

    /// Passes a wait and its events to the policy, after dispatch. Handlers that are gone by then do not
    /// count (rule A7).
    #[inline(always)]
    pub(crate) fn adapt(&self, ended: EndedWait, found: &[(Token, Readiness)]) {
        let seen = match found.iter().find(|(token, _)| !is_own(*token)) {
            Some((first, _)) => ended
                .measure()
                .with_source(first.index())
                .with_events(found.len() as u32),
            None => ended.measure(),
        };
        let controller = &self.polling.controller;
        if controller.is_per_handler() {
            self.adapt_each(seen, found);
        }
        // The handlers have run. Kicks since the wait happened because the loop slept (rule A11).
        if controller.observe(seen, self.shared.counters.kicks.get()) {
            self.polling.publish_budget(&self.shared);
        }
    }

    #[inline(never)]
    fn adapt_each(&self, seen: Iteration, found: &[(Token, Readiness)]) {
        let mut registry = self.descriptors.registry.borrow_mut();
        for (token, readiness) in found {
            if let Some(polled) = registry.get_mut(*token).and_then(Entry::polled_mut) {
                // A hit has no readiness.
                polled.policy.had_event(seen.blocked && !readiness.is_empty());
            }
        }
        self.polling.controller.with_policy(|policy| {
            self.polling.set.for_each_promoted(|token| {
                if let Some(polled) = registry.get_mut(token).and_then(Entry::polled_mut) {
                    polled.policy.observe(policy, seen);
                    let time = polled.policy.time();
                    polled.shown.as_ref().inspect(|shown| shown.set_time(time));
                }
            });
        });
    }
}
