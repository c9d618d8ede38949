//! [`Policy`]: any policy of this crate, chosen by name, without allocation.

use core::time::Duration;

use crate::ceiling::Ceiling;
use crate::{
    Always, Effective, Ewma, Fixed, HandlerMemory, Iteration, Kvm, Learned, Learned2, Never, PollParams,
    PollPolicy, Qemu10, Qemu2020, QemuWeighted, SkiRental,
};

/// One of [`Policy::NAMES`], under the ceiling of [`PollParams::cpu_max`].
///
/// ```
/// # use std::time::Duration;
/// # use aio_pollctl::{Policy, PollParams, PollPolicy};
/// let params = PollParams::unlimited();
/// let policy = Policy::by_name("learned", params).expect("there is one");
/// assert_eq!(policy.budget(), Duration::from_micros(10));
/// assert!(policy.effective().to_string().starts_with("poll-policy=learned poll-max-ns=32000 "));
/// assert!(Policy::by_name("clairvoyant", params).is_none());
/// ```
#[derive(Clone, Debug)]
pub struct Policy {
    kind: Kind,
    ceiling: Option<Ceiling>,
}

macro_rules! kinds {
    ($($variant:ident, $name:literal, $new:expr;)*) => {
        #[derive(Clone, Debug)]
        #[allow(clippy::large_enum_variant, reason = "there is one per context, and nothing is allocated here")]
        enum Kind {
            $($variant($variant),)*
        }

        impl Policy {
            /// The names of all policies, as options spell them.
            pub const NAMES: &'static [&'static str] = &[$($name),*];

            /// Makes the policy of that name. Returns `None` if there is none.
            #[must_use]
            pub fn by_name(name: &str, params: PollParams) -> Option<Self> {
                let kind = match name {
                    $($name => {
                        let new: fn(PollParams) -> $variant = $new;
                        Kind::$variant(new(params))
                    })*
                    _ => return None,
                };
                Some(Self { kind, ceiling: Ceiling::new(&params) })
            }

            /// Returns the chosen policy.
            #[inline]
            fn get(&self) -> &dyn PollPolicy {
                match &self.kind {
                    $(Kind::$variant(policy) => policy,)*
                }
            }

            #[inline]
            fn get_mut(&mut self) -> &mut dyn PollPolicy {
                match &mut self.kind {
                    $(Kind::$variant(policy) => policy,)*
                }
            }
        }
    };
}

kinds! {
    Never, "never", |_| Never;
    Always, "always", Always::new;
    Fixed, "fixed", Fixed::new;
    SkiRental, "ski-rental", SkiRental::new;
    Qemu2020, "qemu-2020", Qemu2020::new;
    Qemu10, "qemu-10", Qemu10::new;
    QemuWeighted, "qemu-weighted", QemuWeighted::new;
    Kvm, "kvm", Kvm::new;
    Ewma, "ewma", Ewma::new;
    Learned, "learned", Learned::new;
    Learned2, "learned-2", Learned2::new;
}

impl Default for Policy {
    /// Makes `learned` with polling off, until [`reset`](PollPolicy::reset) sets other parameters.
    fn default() -> Self {
        Self {
            kind: Kind::Learned(Learned::new(PollParams::OFF)),
            ceiling: None,
        }
    }
}

impl PollPolicy for Policy {
    fn name(&self) -> &'static str {
        self.get().name()
    }

    fn budget(&self) -> Duration {
        let budget = self.get().budget();
        match &self.ceiling {
            Some(ceiling) => budget.min(ceiling.allowance()),
            None => budget,
        }
    }

    fn budget_until(&self, deadline: Option<Duration>) -> Duration {
        let budget = self.get().budget_until(deadline);
        match &self.ceiling {
            Some(ceiling) => budget.min(ceiling.allowance()),
            None => budget,
        }
    }

    fn observe(&mut self, seen: Iteration) {
        if let Some(ceiling) = &mut self.ceiling {
            ceiling.observe(&seen);
        }
        self.get_mut().observe(seen);
    }

    fn is_per_handler(&self) -> bool {
        self.get().is_per_handler()
    }

    fn observe_handler(&mut self, memory: &mut HandlerMemory, had_event: bool, seen: Iteration) {
        self.get_mut().observe_handler(memory, had_event, seen);
    }

    fn reset(&mut self, params: PollParams) {
        self.ceiling = Ceiling::new(&params);
        self.get_mut().reset(params);
    }

    fn reprice(&mut self, params: PollParams) {
        self.get_mut().reprice(params);
    }

    fn effective(&self) -> Effective {
        let percent = self.ceiling.as_ref().map_or(100, Ceiling::percent);
        Effective {
            cpu_max: Some(percent),
            ..self.get().effective()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;
    use crate::WakeCost;

    const US: Duration = Duration::from_micros(1);

    fn all(params: PollParams) -> impl Iterator<Item = Policy> {
        Policy::NAMES
            .iter()
            .map(move |name| Policy::by_name(name, params).unwrap())
    }

    #[test]
    fn names_lead_to_policies_of_that_name() {
        for (policy, name) in all(PollParams::OFF).zip(Policy::NAMES) {
            assert_eq!(policy.name(), *name);
        }
        for strange in ["", "Learned", "rcl", "qemu"] {
            assert!(Policy::by_name(strange, PollParams::OFF).is_none());
        }
    }

    #[test]
    fn the_default_is_learned_and_off_until_a_reset() {
        let mut policy = Policy::default();
        assert_eq!((policy.name(), policy.budget()), ("learned", Duration::ZERO));
        let params = PollParams::unlimited().with_cpu_max(50);
        policy.reset(params);
        let named = Policy::by_name("learned", params).unwrap();
        assert_eq!(
            (policy.budget(), policy.effective()),
            (named.budget(), named.effective())
        );
    }

    #[test]
    fn a1_no_budget_exceeds_the_maximum_and_zero_means_off() {
        let waits = [0, 1, 3, 10, 11, 30, 90, 5000, 2, 2, 2, 2, 2, 2, 40, 41];
        for max in [Duration::ZERO, US, 15 * US, 32_768 * US / 1000, Duration::MAX] {
            for mut policy in all(PollParams::up_to(max)) {
                let mut memory = HandlerMemory::default();
                for wait in waits.map(|us| us * US).into_iter().cycle().take(400) {
                    for deadline in [None, Some(Duration::ZERO), Some(5 * US), Some(500 * US)] {
                        let budget = policy.budget_until(deadline);
                        let limit = deadline.map_or(max, |deadline| deadline.min(max));
                        assert!(budget <= limit, "{policy:?}: {budget:?} above {limit:?}");
                    }
                    let budget = policy.budget();
                    assert!(budget <= max, "{policy:?}: {budget:?} above {max:?}");
                    let blocked = wait > budget;
                    let late = if blocked { 8 * US } else { Duration::ZERO };
                    let seen = Iteration::new(wait + late, budget.min(wait), blocked, !blocked);
                    if policy.is_per_handler() {
                        policy.observe_handler(&mut memory, true, seen);
                    }
                    policy.observe(seen);
                }
            }
        }
    }

    #[test]
    fn the_same_waits_give_the_same_answers_after_a_reset() {
        let params = PollParams::up_to(50 * US);
        for mut policy in all(params) {
            let run = |policy: &mut Policy| {
                let mut budgets = std::vec::Vec::new();
                for wait in [3, 3, 100, 12, 5, 5, 900, 900, 900, 1].map(|us| us * US) {
                    let budget = policy.budget();
                    policy.observe(Iteration::new(
                        wait,
                        budget.min(wait),
                        wait > budget,
                        wait <= budget,
                    ));
                    budgets.push(policy.budget());
                }
                budgets
            };
            let first = run(&mut policy);
            policy.reset(params);
            assert_eq!(run(&mut policy), first, "{}", policy.name());
        }
    }

    #[test]
    fn a12_another_cost_of_a_sleep_lets_policies_keep_what_they_have_learned() {
        let wake = |halves: u32| WakeCost::of_total(halves * US / 2);
        for name in Policy::NAMES {
            let params = PollParams::up_to(50 * US).with_measured_wake(wake(20));
            let mut policy = Policy::by_name(name, params).unwrap();
            let mut memory = HandlerMemory::default();
            for wait in [3, 5, 900, 900, 900, 900] {
                let seen = Iteration::new(wait * US, Duration::ZERO, true, true);
                policy.observe_handler(&mut memory, true, seen);
                policy.observe(seen);
            }
            let before = policy.budget();
            policy.reprice(params.with_measured_wake(wake(21)));
            let now = policy.budget();
            let ratio = now.as_nanos() as f64 / before.as_nanos().max(1) as f64;
            assert!(
                now == before || (1.0..1.06).contains(&ratio),
                "{name}: {before:?}, {now:?}"
            );
            assert!(
                policy.effective().break_even_ns.is_none_or(|ns| ns == 10_500),
                "{name}"
            );
        }
    }

    #[test]
    fn simple_policies_match_their_descriptions() {
        let params = PollParams::up_to(50 * US).with_wake(WakeCost::of_total(20 * US));
        for (name, params, expected) in [
            ("never", params, Duration::ZERO),
            ("always", params, 50 * US),
            ("always", PollParams::unlimited(), Duration::MAX),
            ("fixed", params, 50 * US),
            ("fixed", params.with_fixed(7 * US), 7 * US),
            ("fixed", params.with_fixed(70 * US), 50 * US),
            ("ski-rental", params, 20 * US),
            ("ski-rental", PollParams::up_to(5 * US), 5 * US),
            ("ski-rental", params.with_cpu_price(400), 8 * US),
        ] {
            let mut policy = Policy::by_name(name, params).unwrap();
            for wait in [1, 100, 10_000] {
                assert_eq!(policy.budget(), expected, "{name} {params:?}");
                policy.observe(Iteration::new(wait * US, Duration::ZERO, true, false));
            }
            policy.reset(PollParams::up_to(3 * US));
            let small = expected
                .min(3 * US)
                .max(if name == "never" { Duration::ZERO } else { 3 * US });
            assert_eq!(policy.budget(), small, "{name} after a reset");
        }
    }

    #[test]
    fn effective_values_hide_no_default() {
        let params = PollParams::up_to(Duration::from_nanos(32_768));
        for (name, expected) in [
            (
                "qemu-2020",
                "poll-policy=qemu-2020 poll-max-ns=32768 poll-grow=2 poll-shrink=to zero poll-cpu-max=100 \
                 (not used: poll-weight, poll-cpu-price)",
            ),
            (
                "qemu-weighted",
                "poll-policy=qemu-weighted poll-max-ns=32768 poll-grow=2 poll-shrink=2 poll-weight=3 \
                 poll-cpu-max=100 (not used: poll-cpu-price)",
            ),
            (
                "learned",
                "poll-policy=learned poll-max-ns=32000 poll-cpu-price=100 poll-cpu-max=100 wake-latency-ns=8000 \
                 break-even-ns=10000 (not used: poll-grow, poll-shrink, poll-weight)",
            ),
            (
                "never",
                "poll-policy=never poll-max-ns=0 poll-cpu-max=100 \
                 (not used: poll-grow, poll-shrink, poll-weight, poll-cpu-price)",
            ),
        ] {
            let policy = Policy::by_name(name, params).unwrap();
            assert_eq!(policy.effective().to_string(), expected);
        }
        let unlimited = Policy::by_name("always", PollParams::unlimited().with_cpu_max(30)).unwrap();
        let shown = unlimited.effective().to_string();
        assert!(
            shown.contains("poll-max-ns=unlimited") && shown.contains("poll-cpu-max=30"),
            "{shown}"
        );
    }

    #[test]
    fn a_ceiling_cuts_budgets_of_any_policy() {
        let mut policy = Policy::by_name("fixed", PollParams::up_to(100 * US).with_cpu_max(10)).unwrap();
        for _ in 0..100 {
            policy.observe(Iteration::new(100 * US, policy.budget(), true, false));
        }
        let budget = policy.budget();
        assert!((9 * US..=11 * US).contains(&budget), "{budget:?}");
        policy.reset(PollParams::up_to(100 * US));
        assert_eq!(policy.budget(), 100 * US);
    }

    /// Returns the report of a loop that never polls, for a wait below.
    fn slept(wait: Duration) -> Iteration {
        Iteration::new(wait, Duration::ZERO, true, false)
    }

    #[test]
    fn a7_only_per_handler_policies_observe_handlers() {
        for policy in all(PollParams::up_to(50 * US)) {
            let expected = ["qemu-10", "qemu-weighted"].contains(&policy.name());
            assert_eq!(policy.is_per_handler(), expected, "{}", policy.name());
        }
    }

    #[test]
    fn a7_the_memory_of_a_handler_lasts_until_a_reset() {
        let params = PollParams::up_to(50 * US);
        for name in ["qemu-10", "qemu-weighted"] {
            let mut policy = Policy::by_name(name, params).unwrap();
            let mut memory = HandlerMemory::default();
            policy.observe_handler(&mut memory, true, slept(10 * US));
            policy.observe(slept(10 * US));
            assert!(!memory.time().is_zero() && !policy.budget().is_zero(), "{name}");
            policy.reset(params);
            let mut fresh = HandlerMemory::default();
            let mut other = Policy::by_name(name, params).unwrap();
            policy.observe_handler(&mut memory, true, slept(20 * US));
            other.observe_handler(&mut fresh, true, slept(20 * US));
            assert_eq!(memory.time(), fresh.time(), "{name} began anew");
        }
    }

    #[test]
    fn near_timers_are_polled_for_after_learning_not_to_poll() {
        for name in ["learned", "learned-2"] {
            let mut policy = Policy::by_name(name, PollParams::unlimited()).unwrap();
            for _ in 0..10 {
                policy.observe(Iteration::new(1000 * US, policy.budget(), true, false));
            }
            assert_eq!(policy.budget(), Duration::ZERO);
            assert_eq!(policy.budget_until(Some(5 * US)), 5 * US, "{name}");
        }
        let policy = Policy::by_name("fixed", PollParams::up_to(50 * US)).unwrap();
        assert_eq!(policy.budget_until(None), 50 * US);
        assert_eq!(policy.budget_until(Some(5 * US)), 5 * US);
    }

    #[test]
    fn sleeps_that_were_none_are_counted() {
        let mut learned = Learned::new(PollParams::unlimited());
        let seen = Iteration::new(learned.budget(), learned.budget(), true, false);
        learned.observe(seen);
        let mut second = Learned2::new(PollParams::unlimited());
        second.observe(seen);
        assert_eq!((learned.counts().ready_now, second.counts().ready_now), (1, 1));
    }

    #[test]
    fn effective_values_show_the_latency_in_use() {
        let params = PollParams::unlimited();
        let shown = Policy::by_name("ski-rental", params).unwrap().effective();
        assert_eq!(shown.wake_latency_ns, Some(8000));
        // An estimate that proves too high is corrected, and the corrected value is shown.
        let wake = WakeCost::of_total(40 * US);
        let mut policy = Policy::by_name("learned", params.with_measured_wake(wake)).unwrap();
        assert_eq!(policy.effective().wake_latency_ns, Some(32_000));
        for _ in 0..64 {
            let budget = policy.budget();
            policy.observe(Iteration::new(budget + 10 * US, budget, true, false));
        }
        assert_eq!(policy.effective().wake_latency_ns, Some(15_000));
    }
}
