//! [`Polling`]: the polled handlers, and the policy that decides how long to poll for them.

use std::cell::Cell;

use aio_backend::Flag;
use aio_pollctl::{Controller, Pacing, PollPolicy};
use aio_pollset::PollSet;

use crate::stats::Shared;

/// The poll set, and the policy with the parameters that are in force.
pub(crate) struct Polling {
    pub(crate) set: PollSet,
    pub(crate) controller: Controller<Box<dyn PollPolicy>>,
    /// The version of the parameters in force; 0 before the first ones.
    version: Cell<u64>,
}

impl Polling {
    pub(crate) fn new(policy: Box<dyn PollPolicy>, [on, rechecks]: [Flag; 2]) -> Self {
        Self {
            set: PollSet::flagged(on, rechecks),
            controller: Controller::new(policy),
            version: Cell::new(0),
        }
    }

    /// Adopts parameters that were set since the last call.
    #[inline]
    pub(crate) fn adopt_params(&self, shared: &Shared, pacing: &Pacing) {
        let version = shared.params.version();
        if self.version.get() != version {
            self.adopt(version, shared, pacing);
        }
    }

    #[cold]
    #[inline(never)]
    fn adopt(&self, version: u64, shared: &Shared, pacing: &Pacing) {
        self.version.set(version);
        let setting = shared.setting();
        if self.controller.adopt(setting, pacing) {
            tracing::debug!(params = ?setting.params, "polling parameters");
        } else {
            tracing::debug!(wake = ?setting.params.wake, "the cost of a sleep");
        }
        self.publish_budget(shared);
    }

    /// Publishes the budget that the policy has decided, for other threads.
    #[inline]
    pub(crate) fn publish_budget(&self, shared: &Shared) {
        shared.counters.budget.set_time(self.controller.budget(None));
    }
}
