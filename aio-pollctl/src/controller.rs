//! [`Controller`]: a policy in a loop, with the parameters in force. [`PolledHandler`]: the controller's
//! state for each handler.

use core::cell::{Cell, RefCell};
use core::ops::DerefMut;
use core::time::Duration;

use crate::{EndedWait, HandlerMemory, Iteration, Pacing, PollPolicy, PollSetting, Waited};

/// Applies a [`PollPolicy`] in a loop: adopts parameters, keeps the budget within their maximum, counts the
/// kicks that the policy observes, and switches polling off while it is suspended.
///
/// `P` points to the policy: a `Box<dyn PollPolicy>`, or a `&mut Policy`. All functions take a shared
/// reference. The policy is borrowed while one of its functions runs, which must not use the controller.
///
/// ```
/// use core::time::Duration;
/// use aio_pollctl::{Controller, Pacing, Policy, PollParams, PollSetting, Searched, Waited};
///
/// let us = Duration::from_micros;
/// let (mut policy, pacing) = (Policy::default(), Pacing::new(true));
/// let controller = Controller::new(&mut policy);
/// assert!(!controller.is_enabled());
/// let setting = PollSetting::new(PollParams::up_to(us(32)));
/// assert!(controller.adopt(setting, &pacing)); // starts anew
/// assert!(!controller.adopt(setting, &pacing)); // the same one: only the cost of a sleep may differ
/// assert!(controller.is_enabled() && controller.budget(Some(us(5))) <= us(5));
///
/// // After each wait: its end and the kicks so far. After dispatch: the observation of the wait.
/// let (before, after) = (7, 8);
/// let waited = Waited { searched: Searched::not_at(0), timeout: None, blocked: true };
/// let ended = controller.waited(&pacing, waited, before, || 900_000).expect("polling is on");
/// controller.observe(ended.measure(), after);
/// assert!(controller.budget(None) <= us(32));
/// ```
#[derive(Debug)]
pub struct Controller<P> {
    policy: RefCell<P>,
    /// The number of the setting in force; 0 before the first one.
    number: Cell<u64>,
    is_enabled: Cell<bool>,
    suspended: Cell<u32>,
    max: Cell<Duration>,
    /// The last decision of the policy.
    decided: Cell<Duration>,
    /// The polling time before a wait without a limit: the decision, and at most the maximum.
    budget: Cell<Duration>,
    /// The number of kicks before the last sleep.
    kicks: Cell<u64>,
    is_per_handler: Cell<bool>,
}

impl<P> Controller<P> {
    /// Makes a controller with polling off until parameters are [adopted](Self::adopt).
    #[must_use]
    pub const fn new(policy: P) -> Self {
        Self {
            policy: RefCell::new(policy),
            number: Cell::new(0),
            is_enabled: Cell::new(false),
            suspended: Cell::new(0),
            max: Cell::new(Duration::ZERO),
            decided: Cell::new(Duration::ZERO),
            budget: Cell::new(Duration::ZERO),
            kicks: Cell::new(0),
            is_per_handler: Cell::new(false),
        }
    }

    /// Returns whether to poll at all: the maximum is not zero, and polling is not
    /// [suspended](Self::suspend).
    #[inline]
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.is_enabled.get()
    }

    fn enable(&self) {
        self.is_enabled
            .set(!self.max.get().is_zero() && self.suspended.get() == 0);
    }

    /// Switches polling off until each call of this was followed by a call of [`resume`](Self::resume).
    ///
    /// # Panics
    /// If the number of calls overflows, after 2^32.
    pub fn suspend(&self) {
        self.suspended.set(self.suspended.get() + 1);
        self.enable();
    }

    /// Ends one [`suspend`](Self::suspend). Returns whether it was the last.
    ///
    /// # Panics
    /// If there was none.
    pub fn resume(&self) -> bool {
        let left = self.suspended.get().checked_sub(1);
        self.suspended
            .set(left.expect("resumed more often than suspended"));
        self.enable();
        left == Some(0)
    }

    /// Returns whether the policy observes each handler: see [`with_policy`](Self::with_policy).
    #[inline]
    #[must_use]
    pub fn is_per_handler(&self) -> bool {
        self.is_per_handler.get()
    }

    /// Returns whether no function of the policy is running.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.policy.try_borrow_mut().is_ok()
    }

    /// Records the end of an iteration's search and wait, before its handlers run. Returns the wait, to be
    /// measured and [observed](Self::observe) after them. Returns `None` if it is no measure of waits,
    /// because polling is off or the iteration may not wait.
    ///
    /// `kicks` is the number of polled handlers that were kicked so far. If the wait was a sleep, later kicks
    /// in this iteration count for it. `now_ns`: see [`Pacing::ended`].
    #[inline]
    pub fn waited(
        &self,
        pacing: &Pacing,
        waited: Waited,
        kicks: u64,
        now_ns: impl FnOnce() -> u64,
    ) -> Option<EndedWait> {
        if !self.is_enabled() || waited.timeout == Some(Duration::ZERO) {
            return None;
        }
        if waited.blocked {
            self.kicks.set(kicks);
        }
        Some(pacing.ended(waited, now_ns))
    }
}

impl<P: DerefMut<Target: PollPolicy>> Controller<P> {
    /// Adopts a setting. If it has another number than the one in force, starts anew, with `pacing`.
    /// Otherwise only the cost of a sleep has changed, and the policy keeps what it has learned. Returns
    /// whether it started anew.
    pub fn adopt(&self, setting: PollSetting, pacing: &Pacing) -> bool {
        let PollSetting { params, number } = setting;
        let is_new = self.number.replace(number) != number;
        let mut policy = self.policy.borrow_mut();
        if is_new {
            pacing.reset(&params);
            self.max.set(params.max);
            self.enable();
            policy.reset(params);
            self.is_per_handler.set(policy.is_per_handler());
        } else {
            pacing.reprice(&params);
            policy.reprice(params);
        }
        self.decide(policy.budget());
        is_new
    }

    fn decide(&self, budget: Duration) {
        self.decided.set(budget);
        self.budget.set(budget.min(self.max.get()));
    }

    /// Returns the polling time before a wait that ends after `timeout`, or (`None`) that has no end: at most
    /// `timeout`, and at most the maximum (rule A2).
    #[inline]
    #[must_use]
    pub fn budget(&self, timeout: Option<Duration>) -> Duration {
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

    /// Lends the policy, for a loop in which it observes each promoted handler after dispatch, by
    /// [`PolledHandler::observe`].
    pub fn with_policy<R>(&self, use_it: impl FnOnce(&mut P::Target) -> R) -> R {
        use_it(&mut self.policy.borrow_mut())
    }

    /// Passes an iteration to the policy, after dispatch. `kicks` is the number of polled handlers that were
    /// kicked so far: those kicked since the loop [slept](Self::waited) were kicked because it slept (rule
    /// A11). Returns `true` if the [budget](Self::budget) may have changed.
    #[inline(always)]
    pub fn observe(&self, mut seen: Iteration, kicks: u64) -> bool {
        if seen.blocked {
            seen.kicks = Some(kicks.wrapping_sub(self.kicks.get()) as u32);
        }
        let mut policy = self.policy.borrow_mut();
        policy.observe(seen);
        let budget = policy.budget();
        let is_new = self.decided.get() != budget;
        if is_new {
            self.decide(budget);
        }
        is_new
    }
}

/// A loop's state for a polled handler, for a policy that observes each handler.
///
/// ```
/// use core::time::Duration;
/// use aio_pollctl::{Iteration, PolledHandler, PollParams, PollPolicy, Qemu10};
///
/// let us = Duration::from_micros;
/// let mut policy = Qemu10::new(PollParams::up_to(us(32)));
/// let mut handler = PolledHandler::default();
/// // The loop slept for 3 us, until the handler's peer kicked it.
/// let seen = Iteration::new(us(3), us(0), true, false);
/// handler.had_event(true);
/// handler.observe(&mut policy, seen);
/// assert_eq!(handler.time(), us(4));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct PolledHandler {
    memory: HandlerMemory,
    /// Set if the handler had an event in the iteration that the policy observes next.
    had_event: bool,
    was_kicked: bool,
}

impl PolledHandler {
    /// Records an event in the present iteration. If `was_kicked`, the handler's peer has kicked it because
    /// the loop slept.
    #[inline]
    pub fn had_event(&mut self, was_kicked: bool) {
        self.had_event = true;
        self.was_kicked |= was_kicked;
    }

    /// Passes the handler to the policy, and clears its events.
    pub fn observe<P: PollPolicy + ?Sized>(&mut self, policy: &mut P, seen: Iteration) {
        let seen = if seen.blocked {
            seen.with_kicks(self.was_kicked.into())
        } else {
            seen
        };
        policy.observe_handler(&mut self.memory, self.had_event, seen);
        (self.had_event, self.was_kicked) = (false, false);
    }

    /// Returns the handler's polling time: see [`HandlerMemory::time`].
    #[must_use]
    pub fn time(&self) -> Duration {
        self.memory.time()
    }
}

#[cfg(test)]
mod tests {
    use std::boxed::Box;
    use std::rc::Rc;
    use std::vec::Vec;

    use super::*;
    use crate::{PollParams, Searched, WakeCost};

    /// Logs its observations, and returns a longer budget than allowed.
    #[derive(Debug, Default)]
    struct Recorder {
        log: Rc<RefCell<Vec<Seen>>>,
    }

    #[derive(Debug, PartialEq)]
    enum Seen {
        Reset(Duration),
        Repriced,
        Iteration(Option<u32>),
        Handler(bool, Option<u32>),
    }

    impl PollPolicy for Recorder {
        fn name(&self) -> &'static str {
            "recorder"
        }
        fn budget(&self) -> Duration {
            Duration::from_secs(1)
        }
        fn observe(&mut self, seen: Iteration) {
            self.log.borrow_mut().push(Seen::Iteration(seen.kicks));
        }
        fn is_per_handler(&self) -> bool {
            true
        }
        fn observe_handler(&mut self, memory: &mut HandlerMemory, had_event: bool, seen: Iteration) {
            memory.store(1, 7, 0);
            self.log.borrow_mut().push(Seen::Handler(had_event, seen.kicks));
        }
        fn reset(&mut self, params: PollParams) {
            self.log.borrow_mut().push(Seen::Reset(params.max));
        }
        fn reprice(&mut self, _: PollParams) {
            self.log.borrow_mut().push(Seen::Repriced);
        }
    }

    type Log = Rc<RefCell<Vec<Seen>>>;

    fn controller() -> (Controller<Box<dyn PollPolicy>>, Log) {
        let log = Log::default();
        (Controller::new(Box::new(Recorder { log: log.clone() })), log)
    }

    const fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    #[test]
    fn a6_another_setting_starts_anew_and_the_same_one_only_costs_something_else() {
        let ((controller, log), pacing) = (controller(), Pacing::new(true));
        let estimate = PollParams::up_to(us(50)).with_measured_wake(WakeCost::of_total(us(8)));
        let first = PollSetting::new(estimate);
        let repriced = first.refine_wake(WakeCost::of_total(us(9)));
        assert!(controller.adopt(first, &pacing) && controller.is_per_handler());
        assert!(!controller.adopt(repriced.expect("it was not given"), &pacing));
        assert!(controller.adopt(first.with(PollParams::OFF), &pacing));
        let expected = [Seen::Reset(us(50)), Seen::Repriced, Seen::Reset(us(0))];
        assert_eq!(*log.borrow(), expected);
        assert!(!controller.is_enabled());
    }

    #[test]
    fn a2_no_policy_polls_beyond_the_maximum_or_the_timeout() {
        let ((controller, _), pacing) = (controller(), Pacing::new(true));
        assert_eq!(controller.budget(None), us(0));
        controller.adopt(PollSetting::new(PollParams::up_to(us(50))), &pacing);
        let budget = |timeout| controller.budget(timeout);
        assert_eq!(
            [budget(None), budget(Some(us(80))), budget(Some(us(8)))],
            [us(50), us(50), us(8)]
        );
        controller.observe(Iteration::new(us(1), us(1), false, true), 0);
        assert_eq!(budget(None), us(50));
    }

    #[test]
    fn a6_a_budget_that_the_policy_keeps_is_not_reported_as_new() {
        let mut policy = crate::Qemu2020::new(PollParams::OFF);
        let controller = Controller::new(&mut policy);
        controller.adopt(PollSetting::new(PollParams::up_to(us(32))), &Pacing::new(true));
        let observe = |waited| controller.observe(Iteration::new(us(waited), us(0), true, false), 0);
        assert!(observe(20) && controller.budget(None) == us(4), "it grows");
        assert!(
            !observe(3) && controller.budget(None) == us(4),
            "it was long enough"
        );
        assert!(observe(100) && controller.budget(None) == us(0), "it shrinks");
    }

    #[test]
    fn g1_polling_is_off_until_the_last_suspension_ends_also_with_new_parameters() {
        let ((controller, _), pacing) = (controller(), Pacing::new(true));
        let setting = PollSetting::new(PollParams::up_to(us(50)));
        controller.suspend();
        controller.adopt(setting, &pacing);
        controller.suspend();
        assert!(!controller.resume() && !controller.is_enabled());
        controller.adopt(setting.with(PollParams::up_to(us(60))), &pacing);
        assert!(!controller.is_enabled());
        assert!(controller.resume() && controller.is_enabled());
    }

    #[test]
    fn a11_the_kicks_of_a_sleep_are_those_since_it_ended_and_of_no_sleep_none_are_shown() {
        let ((controller, log), pacing) = (controller(), Pacing::new(true));
        controller.adopt(PollSetting::new(PollParams::up_to(us(50))), &pacing);
        log.take();
        let searched = Searched::not_at(0);
        for (blocked, before, after) in [(true, 3, 5), (false, 5, 6), (true, 9, 9)] {
            let waited = Waited {
                searched,
                timeout: None,
                blocked,
            };
            let ended = controller.waited(&pacing, waited, before, || 1000);
            controller.observe(ended.expect("polling is on").measure(), after);
        }
        let expected = [Some(2), None, Some(0)].map(Seen::Iteration);
        assert_eq!(*log.borrow(), expected);
    }

    #[test]
    fn a1_a6_only_a_wait_that_polling_could_spare_is_measured() {
        let ((controller, _), pacing) = (controller(), Pacing::new(true));
        let is_measured = |timeout| {
            let waited = Waited {
                searched: Searched::not_at(0),
                timeout,
                blocked: true,
            };
            controller.waited(&pacing, waited, 0, || 1000).is_some()
        };
        assert!(!is_measured(None), "polling is off");
        let setting = PollSetting::new(PollParams::up_to(us(50)));
        controller.adopt(setting, &pacing);
        assert!(is_measured(None) && is_measured(Some(us(1))));
        assert!(!is_measured(Some(us(0))), "the iteration may not wait");
        controller.suspend();
        assert!(!is_measured(None));
    }

    #[test]
    fn a11_each_handler_is_shown_its_own_event_and_kick_once() {
        let ((controller, log), mut handler) = (controller(), PolledHandler::default());
        let seen = |blocked| Iteration::new(us(1), us(0), blocked, false);
        let observe = |handler: &mut PolledHandler, blocked| {
            controller.with_policy(|policy| handler.observe(policy, seen(blocked)));
        };
        handler.had_event(true);
        handler.had_event(false);
        for blocked in [true, true, false] {
            observe(&mut handler, blocked);
        }
        let of = |had_event, kicks| Seen::Handler(had_event, kicks);
        let expected = [of(true, Some(1)), of(false, Some(0)), of(false, None)];
        assert_eq!(
            (&*log.borrow(), handler.time()),
            (&Vec::from(expected), Duration::from_nanos(7))
        );
    }

    #[test]
    fn a_controller_is_free_unless_its_policy_runs() {
        let (controller, _) = controller();
        assert!(controller.is_free());
        controller.with_policy(|_| assert!(!controller.is_free()));
        assert!(controller.is_free());
    }
}
