//! [`Plan`]: whether a loop checks its descriptors or waits for them, after it has searched for work.

use core::time::Duration;

use crate::{Pacing, PreSleepSpin, Search, Searched};

/// The plan of an iteration for its descriptors, after its search. [`Pacing::plan`] makes it.
///
/// ```
/// use aio_pollctl::Plan;
///
/// assert_ne!(Plan::Check, Plan::Wait(None));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Do nothing: there is other work.
    Skip,
    /// Check the descriptors, without waiting.
    Check,
    /// Check the descriptors and, if none is ready, continue with [`Pacing::spin_on`]. The time is the
    /// longest allowed wait.
    Spin(Option<Duration>),
    /// Wait for this time, or (`None`) until an event. The wait was [announced](Prepare::announce).
    Wait(Option<Duration>),
}

/// The steps before a wait, as a loop provides them to [`Pacing::plan`].
///
/// ```
/// use std::convert::Infallible;
/// use std::time::Duration;
/// use aio_pollctl::{Pacing, Plan, Prepare, Searched};
///
/// /// A loop without polled sources, which no other thread has notified.
/// struct Loop;
///
/// impl Prepare for Loop {
///     type Error = Infallible;
///     fn is_simulated(&self) -> bool { false }
///     fn leave_poll_mode(&mut self) -> bool { false }
///     fn poll_unkicked(&mut self) -> Result<(), Infallible> { Ok(()) }
///     fn after_hit(&mut self) -> Result<(), Infallible> { Ok(()) }
///     fn outlast_write(&mut self) -> bool { false }
///     fn announce(&mut self) -> bool { true }
/// }
///
/// let (pacing, second) = (Pacing::new(true), Some(Duration::from_secs(1)));
/// let plan = |timeout| pacing.plan(&mut Loop, timeout, Searched::default(), false);
/// assert_eq!(plan(second), Ok(Plan::Wait(second)));
/// assert_eq!(plan(Some(Duration::ZERO)), Ok(Plan::Check));
/// // An iteration with progress may be followed by another event at once.
/// pacing.pre_sleep.step(|spin| spin.served(true));
/// assert_eq!(plan(second), Ok(Plan::Spin(second)));
/// ```
pub trait Prepare {
    /// The error of a check of the descriptors.
    type Error;

    /// Returns whether the loop's clock is simulated: no time passes while the loop checks.
    fn is_simulated(&self) -> bool;

    /// Takes the polled sources out of poll mode, if they are in it, and polls them one last time. Returns
    /// whether one has work.
    fn leave_poll_mode(&mut self) -> bool;

    /// Polls the sources once, if they are in poll mode: their peers do not notify an iteration that may not
    /// wait.
    ///
    /// # Errors
    /// The error of a check of the descriptors.
    fn poll_unkicked(&mut self) -> Result<(), Self::Error>;

    /// Calls [`Pacing::after_hit`].
    ///
    /// # Errors
    /// The error of a check.
    fn after_hit(&mut self) -> Result<(), Self::Error>;

    /// If another thread is making the write that wakes the loop, stays awake until the write returns.
    /// Returns whether there is a notification.
    fn outlast_write(&mut self) -> bool;

    /// Announces the wait to other threads. Returns `false` if one has notified the loop already, so that it
    /// must not wait.
    fn announce(&mut self) -> bool;
}

/// The reason why a wait begins without checks of the descriptors before it.
///
/// ```
/// use aio_pollctl::{Pacing, SkipSpin};
///
/// let pacing = Pacing::new(true);
/// pacing.pre_sleep.step(|spin| spin.served(true));
/// pacing.skip_spin(SkipSpin::Workers, true);
/// assert!(!pacing.spins_next());
/// pacing.skip_spin(SkipSpin::Workers, false);
/// assert!(pacing.spins_next());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SkipSpin {
    /// Operations were submitted: the wait itself passes them to the system. This makes one system call
    /// instead of two, and a thread that executes them may be waiting for this core.
    Operations = 1,
    /// Threads of the user have work, and may be waiting for this core.
    Workers = 2,
}

impl Pacing {
    /// Plans the rest of an iteration after its search. `timeout` is the time that the iteration may search
    /// and wait (rule A4). If `is_urgent`, it may not wait because of deferred work.
    ///
    /// An iteration that may not wait checks the descriptors. While deferred work prevents one iteration
    /// after the other from waiting, the first one checks, and later ones only if a check is due (rule D8).
    /// On a simulated clock all of them check, because no time passes there.
    ///
    /// Poll mode ends before a wait. A loop that has served events, and has not polled since, checks its
    /// descriptors for a moment before it sleeps. After polling it does not, because it has waited long
    /// enough.
    ///
    /// # Errors
    /// The error of a check.
    #[inline(always)]
    pub fn plan<P: Prepare>(
        &self,
        on: &mut P,
        timeout: Option<Duration>,
        searched: Searched,
        is_urgent: bool,
    ) -> Result<Plan, P::Error> {
        if searched.hit {
            Ok(Plan::Skip)
        } else if timeout == Some(Duration::ZERO) {
            self.plan_not_to_wait(on, is_urgent)
        } else {
            self.checks.step(|checks| checks.prevents_again(false));
            let left = timeout.map(|timeout| timeout.saturating_sub(searched.spun));
            Ok(self.plan_to_wait(on, left, searched.spun.is_zero()))
        }
    }

    #[inline(always)]
    fn plan_not_to_wait<P: Prepare>(&self, on: &mut P, is_urgent: bool) -> Result<Plan, P::Error> {
        on.poll_unkicked()?;
        let is_prevented = is_urgent && !on.is_simulated();
        if self.checks.step(|checks| checks.prevents_again(is_prevented)) {
            on.after_hit()?;
            Ok(Plan::Skip)
        } else {
            Ok(Plan::Check)
        }
    }

    #[inline(always)]
    fn plan_to_wait<P: Prepare>(&self, on: &mut P, left: Option<Duration>, may_spin: bool) -> Plan {
        if left == Some(Duration::ZERO) || on.leave_poll_mode() {
            return Plan::Check;
        }
        if !on.is_simulated() {
            if on.outlast_write() {
                // The gaps of a burst are short, so a spin is worth it.
                self.pre_sleep.step(PreSleepSpin::found_at_once);
                return Plan::Check;
            }
            if may_spin && !self.take_skips() && self.pre_sleep.step(|spin| spin.is_worth_it()) {
                return Plan::Spin(left);
            }
        }
        Plan::to_wait(left, on.announce())
    }

    /// Continues [`Plan::Spin`] after a check that has found nothing: checks the descriptors again and again,
    /// for up to the time that has recently paid (see [`PreSleepSpin`]), at most `timeout`. If it finds
    /// nothing, `announce` announces the wait, as [`Prepare::announce`].
    ///
    /// # Errors
    /// The error of a check.
    pub fn spin_on<S: Search>(
        &self,
        on: &mut S,
        timeout: Option<Duration>,
        announce: impl FnOnce() -> bool,
    ) -> Result<Plan, S::Error> {
        let (is_found, passed) = self.spin(on, timeout)?;
        let left = timeout.map(|timeout| timeout.saturating_sub(passed));
        if is_found || left == Some(Duration::ZERO) {
            Ok(Plan::Skip)
        } else {
            Ok(Plan::to_wait(left, announce()))
        }
    }

    /// Returns whether there is work, and the duration of the spin.
    pub(crate) fn spin<S: Search>(
        &self,
        on: &mut S,
        timeout: Option<Duration>,
    ) -> Result<(bool, Duration), S::Error> {
        let longest = self.pre_sleep.get().longest();
        let bound = timeout.map_or(longest, |timeout| timeout.min(longest));
        let (began_ns, mut passed, mut is_found) = (on.now_ns(), Duration::ZERO, false);
        while !is_found && passed < bound {
            is_found = self.check(on)? || on.is_notified();
            passed = Duration::from_nanos(on.now_ns().saturating_sub(began_ns));
        }
        self.pre_sleep.step(|spin| {
            if is_found {
                spin.found(passed);
            } else {
                spin.missed();
            }
        });
        Ok((is_found, passed))
    }

    /// Sets whether the next wait that could spin first begins at once, for this reason. Such a wait clears
    /// all reasons.
    #[inline]
    pub fn skip_spin(&self, why: SkipSpin, skips: bool) {
        let others = self.skips.get() & !(why as u8);
        self.skips.set(if skips { others | why as u8 } else { others });
    }

    /// Returns whether a wait that begins now would spin first, and not as a probe.
    #[inline(always)]
    #[must_use]
    pub fn spins_next(&self) -> bool {
        self.pre_sleep.get().is_promising() && self.skips.get() == 0
    }

    #[inline(always)]
    fn take_skips(&self) -> bool {
        let skips = self.skips.get() != 0;
        if skips {
            self.skips.set(0);
        }
        skips
    }
}

impl Plan {
    #[inline(always)]
    const fn to_wait(left: Option<Duration>, is_announced: bool) -> Self {
        if is_announced {
            Self::Wait(left)
        } else {
            Self::Check
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    const SECOND: Option<Duration> = Some(Duration::from_secs(1));
    const AT_ONCE: Option<Duration> = Some(Duration::ZERO);

    /// A loop whose steps return values set by a test. It logs the steps that have an effect.
    #[derive(Default)]
    struct Steps {
        log: Vec<&'static str>,
        is_simulated: bool,
        has_last_work: bool,
        is_burst: bool,
        is_notified: bool,
        is_broken: bool,
    }

    impl Steps {
        fn plan(&mut self, pacing: &Pacing, timeout: Option<Duration>, searched: Searched) -> Plan {
            let plan = pacing.plan(self, timeout, searched, false);
            plan.expect("no step fails")
        }
    }

    impl Prepare for Steps {
        type Error = &'static str;
        fn is_simulated(&self) -> bool {
            self.is_simulated
        }
        fn leave_poll_mode(&mut self) -> bool {
            self.log.push("leave");
            self.has_last_work
        }
        fn poll_unkicked(&mut self) -> Result<(), &'static str> {
            self.log.push("poll");
            if self.is_broken { Err("broken") } else { Ok(()) }
        }
        fn after_hit(&mut self) -> Result<(), &'static str> {
            self.log.push("after hit");
            Ok(())
        }
        fn outlast_write(&mut self) -> bool {
            self.log.push("outlast");
            self.is_burst
        }
        fn announce(&mut self) -> bool {
            self.log.push("announce");
            !self.is_notified
        }
    }

    /// Returns the pacing of a loop that has just served an event.
    fn served() -> Pacing {
        let pacing = Pacing::new(true);
        pacing.pre_sleep.step(|spin| spin.served(true));
        pacing
    }

    #[test]
    fn a3_after_a_hit_nothing_is_checked_and_poll_mode_goes_on() {
        let (mut steps, hit) = (
            Steps::default(),
            Searched {
                hit: true,
                ..Searched::default()
            },
        );
        for timeout in [None, SECOND, AT_ONCE] {
            assert_eq!(steps.plan(&served(), timeout, hit), Plan::Skip);
        }
        assert!(steps.log.is_empty());
    }

    #[test]
    fn a4_the_search_is_part_of_the_timeout_and_poll_mode_ends_before_the_wait_is_announced() {
        let (mut steps, pacing) = (Steps::default(), Pacing::new(true));
        let spun = |micros| Searched {
            spun: Duration::from_micros(micros),
            ..Searched::default()
        };
        let left = Some(Duration::from_micros(999_990));
        assert_eq!(steps.plan(&pacing, SECOND, spun(10)), Plan::Wait(left));
        assert_eq!(steps.log, ["leave", "outlast", "announce"]);
        assert_eq!(steps.plan(&pacing, None, spun(10)), Plan::Wait(None));
        // The time is over: the loop checks once, still in poll mode.
        steps.log.clear();
        assert_eq!(steps.plan(&pacing, SECOND, spun(1_000_000)), Plan::Check);
        assert!(steps.log.is_empty());
    }

    #[test]
    fn a5_n2_work_that_no_kick_announces_and_a_notification_prevent_the_wait() {
        let pacing = Pacing::new(true);
        let mut steps = Steps {
            has_last_work: true,
            ..Steps::default()
        };
        assert_eq!(steps.plan(&pacing, None, Searched::default()), Plan::Check);
        assert_eq!(steps.log, ["leave"]);
        let mut steps = Steps {
            is_notified: true,
            ..Steps::default()
        };
        assert_eq!(steps.plan(&pacing, None, Searched::default()), Plan::Check);
    }

    #[test]
    fn n6_a_burst_keeps_the_loop_awake_and_is_worth_a_spin() {
        let pacing = served();
        while pacing.spins_next() {
            pacing.pre_sleep.step(PreSleepSpin::missed);
        }
        let mut steps = Steps {
            is_burst: true,
            ..Steps::default()
        };
        assert_eq!(steps.plan(&pacing, None, Searched::default()), Plan::Check);
        assert_eq!(steps.log, ["leave", "outlast"]);
        assert!(pacing.spins_next());
    }

    #[test]
    fn a1_a_loop_spins_after_it_has_served_unless_it_has_polled_or_is_simulated() {
        let mut steps = Steps::default();
        assert_eq!(
            steps.plan(&Pacing::new(true), None, Searched::default()),
            Plan::Wait(None)
        );
        let polled = Searched {
            spun: Duration::from_micros(1),
            ..Searched::default()
        };
        assert_eq!(steps.plan(&served(), None, polled), Plan::Wait(None));
        assert_eq!(
            steps.plan(&served(), SECOND, Searched::default()),
            Plan::Spin(SECOND)
        );
        assert!(steps.log.ends_with(&["leave", "outlast"]), "not announced");
        steps.is_simulated = true;
        steps.log.clear();
        assert_eq!(steps.plan(&served(), None, Searched::default()), Plan::Wait(None));
        assert_eq!(steps.log, ["leave", "announce"]);
    }

    #[test]
    fn s1_the_next_wait_that_could_spin_forgets_why_it_does_not() {
        let (mut steps, pacing) = (Steps::default(), served());
        for why in [SkipSpin::Operations, SkipSpin::Workers] {
            pacing.skip_spin(why, true);
        }
        pacing.skip_spin(SkipSpin::Workers, false);
        assert!(!pacing.spins_next(), "there are operations");
        assert_eq!(steps.plan(&pacing, None, Searched::default()), Plan::Wait(None));
        assert!(pacing.spins_next());
        assert_eq!(steps.plan(&pacing, None, Searched::default()), Plan::Spin(None));
    }

    #[test]
    fn d8_deferred_work_that_prevents_waits_prevents_checks_after_the_first() {
        let (mut steps, pacing) = (Steps::default(), Pacing::new(true));
        let mut plan = |is_urgent| {
            steps.log.clear();
            let plan = pacing.plan(&mut steps, AT_ONCE, Searched::default(), is_urgent);
            (plan, steps.log.clone())
        };
        let (checks, skips) = (
            (Ok(Plan::Check), Vec::from(["poll"])),
            (Ok(Plan::Skip), Vec::from(["poll", "after hit"])),
        );
        assert_eq!(
            [plan(true), plan(true), plan(true)],
            [checks.clone(), skips.clone(), skips]
        );
        assert_eq!([plan(false), plan(true)], [checks.clone(), checks.clone()]);
        steps.is_simulated = true;
        for _ in 0..2 {
            let plan = pacing.plan(&mut steps, AT_ONCE, Searched::default(), true);
            assert_eq!(plan, checks.0);
        }
        steps.is_broken = true;
        let plan = pacing.plan(&mut steps, AT_ONCE, Searched::default(), true);
        assert_eq!(plan, Err("broken"));
    }
}
