//! [`Polling`]: the polled handlers, and how long to poll for them.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use aio_pollctl::{Pacing, PollPolicy};
use aio_pollset::PollSet;

use crate::shared::Shared;

/// The poll set, the policy, and the parameters that are in force.
pub(crate) struct Polling {
    pub(crate) set: PollSet,
    pub(crate) policy: RefCell<Box<dyn PollPolicy>>,
    /// The version of the parameters in force; 0 before the first ones.
    version: Cell<u64>,
    /// How often the parameters were set.
    sets: Cell<u64>,
    is_enabled: Cell<bool>,
    /// How many foreign loops may be waiting.
    suspended: Cell<u32>,
    max: Cell<Duration>,
    /// How long to poll before a wait without a limit, as the policy decided last.
    budget: Cell<Duration>,
    /// The kicks before the last sleep.
    pub(crate) kicks: Cell<u64>,
    /// The policy observes each handler.
    pub(crate) is_per_handler: Cell<bool>,
}

impl Polling {
    pub(crate) fn new(policy: Box<dyn PollPolicy>) -> Self {
        Self {
            set: PollSet::new(),
            policy: RefCell::new(policy),
            version: Cell::new(0),
            sets: Cell::new(0),
            is_enabled: Cell::new(false),
            suspended: Cell::new(0),
            max: Cell::new(Duration::ZERO),
            budget: Cell::new(Duration::ZERO),
            kicks: Cell::new(0),
            is_per_handler: Cell::new(false),
        }
    }

    /// Adopts parameters that were set since the last call.
    #[inline]
    pub(crate) fn adopt_params(&self, shared: &Shared, pacing: &Pacing) {
        let version = shared.params_version();
        if self.version.get() != version {
            self.adopt(version, shared, pacing);
        }
    }

    #[cold]
    #[inline(never)]
    fn adopt(&self, version: u64, shared: &Shared, pacing: &Pacing) {
        let (params, sets) = shared.params();
        self.version.set(version);
        if self.sets.replace(sets) == sets {
            tracing::debug!(wake = ?params.wake, "the cost of a sleep");
            pacing.reprice(&params);
            let mut policy = self.policy.borrow_mut();
            policy.reprice(params);
            self.decided(policy.budget(), shared);
            return;
        }
        pacing.reset(&params);
        tracing::debug!(?params, "polling parameters");
        self.max.set(params.max);
        self.enable();
        let mut policy = self.policy.borrow_mut();
        policy.reset(params);
        self.is_per_handler.set(policy.is_per_handler());
        self.decided(policy.budget(), shared);
    }

    /// Records what the policy has decided.
    #[inline]
    pub(crate) fn decided(&self, budget: Duration, shared: &Shared) {
        let budget = budget.min(self.max.get());
        self.budget.set(budget);
        shared.counters.budget.set_time(budget);
    }

    fn enable(&self) {
        self.is_enabled
            .set(!self.max.get().is_zero() && self.suspended.get() == 0);
    }

    /// Keeps iterations out of poll mode, because a foreign loop may be waiting: it cannot leave poll mode before it waits on.
    pub(crate) fn suspend(&self) {
        self.suspended.set(self.suspended.get() + 1);
        self.enable();
    }

    /// Ends one [`suspend`](Self::suspend). Returns whether it was the last.
    pub(crate) fn resume(&self) -> bool {
        self.suspended.set(self.suspended.get() - 1);
        self.enable();
        self.suspended.get() == 0
    }

    #[inline]
    pub(crate) fn is_enabled(&self) -> bool {
        self.is_enabled.get()
    }

    /// How long to poll before a wait that ends after `timeout` (rule A2).
    #[inline]
    pub(crate) fn budget(&self, timeout: Option<Duration>) -> Duration {
        match timeout {
            None => self.budget.get(),
            Some(timeout) => self.budget_until(timeout),
        }
    }

    #[inline(never)]
    fn budget_until(&self, timeout: Duration) -> Duration {
        let budget = self.policy.borrow().budget_until(Some(timeout));
        budget.min(self.max.get()).min(timeout)
    }

    /// Whether nothing is borrowed.
    pub(crate) fn is_free(&self) -> bool {
        self.policy.try_borrow_mut().is_ok()
    }
}
