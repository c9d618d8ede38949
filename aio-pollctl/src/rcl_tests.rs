//! Tests of the ladder: its steps by hand, its bound against adversaries, its reaction to changes.

use std::vec::Vec;

use super::*;
use crate::WakeCost;
use crate::tests::seed;

#[path = "rcl_bound_tests.rs"]
mod bound;

/// Makes a policy with a break-even time of 1024 ns and no latency, so that a unit is a nanosecond, and costs
/// are exact.
fn exact<const BANKS: usize>(max_ns: u64) -> Rcl<BANKS> {
    let wake = WakeCost {
        latency: Duration::ZERO,
        cpu: Duration::from_nanos(1024),
        kick: Duration::ZERO,
    };
    Rcl::new(PollParams::up_to(Duration::from_nanos(max_ns)).with_wake(wake))
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap()
}

/// Runs a wait of `wait` ns and returns its cost.
fn step<const BANKS: usize>(policy: &mut Rcl<BANKS>, wait: u64) -> u64 {
    let budget = ns(policy.budget());
    let blocked = wait > budget;
    let spun = Duration::from_nanos(wait.min(budget));
    policy.observe(&Iteration::new(
        Duration::from_nanos(wait),
        spun,
        blocked,
        !blocked,
    ));
    if blocked { budget + 1024 } else { wait }
}

fn budgets<const BANKS: usize>(policy: &mut Rcl<BANKS>, waits: &[u64]) -> Vec<u64> {
    waits
        .iter()
        .map(|wait| {
            step(policy, *wait);
            ns(policy.budget())
        })
        .collect()
}

#[test]
fn it_begins_with_the_break_even_time_and_learns_from_the_first_wait() {
    let mut policy = exact::<64>(u64::MAX);
    assert_eq!(policy.budget(), Duration::from_nanos(1024));
    policy.learn(5000);
    // A long wait: every level cost itself and a sleep. The safe one had a head start of 256.
    let expected = [0, 128, 256, 430, 716, 768, 1638, 3276];
    for (got, expected) in policy.banks[0].iter().zip(expected) {
        assert!((got - expected).abs() <= 8, "{:?}", policy.banks[0]);
    }
}

#[test]
fn steps_by_hand() {
    for (waits, expected) in [
        // Idle: at once no polling, in the bank of long waits.
        (&[9000, 9000, 9000, 9000][..], &[1024, 0, 0, 0][..]),
        // Busy: every level above catches them, so there is no reason to leave the safe one.
        (&[100, 100, 100, 100], &[1024, 1024, 1024, 1024]),
        // Just above the break-even time: not worth it. The fourth is the first with a mean above it.
        (&[1100, 1100, 1100, 1100, 1100, 1100], &[1024, 0, 0, 1024, 0, 0]),
    ] {
        assert_eq!(budgets(&mut exact::<64>(u64::MAX), waits), expected, "{waits:?}");
    }
}

#[test]
fn a_pattern_is_known_by_the_wait_before() {
    let mut policy = exact::<64>(u64::MAX);
    let waits: Vec<u64> = [100, 9000].into_iter().cycle().take(40).collect();
    let budgets = budgets(&mut policy, &waits);
    assert_eq!(
        budgets[20..24],
        [0, 1024, 0, 1024],
        "sleeps after a short wait, polls after a long one"
    );
}

#[test]
fn longer_patterns_are_known_by_the_mean() {
    for (pattern, percent) in [
        (&[100, 9000, 9000][..], [106, 100]),
        (&[100, 100, 100, 9000], [110, 110]),
        (&[100, 100, 9000, 9000], [106, 100]),
    ] {
        let waits: Vec<u64> = pattern.iter().copied().cycle().take(4000).collect();
        let cost = |budgets: &[u64]| -> u64 {
            let pairs = budgets.iter().zip(&waits[1..]).skip(2000);
            pairs
                .map(|(budget, wait)| if wait > budget { budget + 1024 } else { *wait })
                .sum()
        };
        let optimum: u64 = waits[2001..].iter().map(|wait| *wait.min(&1024)).sum();
        let got = [
            cost(&budgets(&mut exact::<64>(u64::MAX), &waits)),
            cost(&budgets(&mut exact::<256>(u64::MAX), &waits)),
        ];
        for (got, percent) in got.into_iter().zip(percent) {
            assert!(
                got * 100 <= optimum * (percent + 1),
                "{pattern:?}: {got} over {optimum}"
            );
        }
    }
}

#[test]
fn handlers_are_distinguished() {
    // At random, one handler follows the other at once, or the other one much later.
    let mut rng = fastrand::Rng::with_seed(seed());
    let mut run = |knows: bool| {
        let mut policy = exact::<64>(u64::MAX);
        let (mut cost, mut optimum, mut wait) = (0, 0, 100);
        for step in 0..20_000 {
            let source = u32::from(rng.bool());
            let budget = ns(policy.budget());
            let blocked = wait > budget;
            let spun = Duration::from_nanos(wait.min(budget));
            let seen = Iteration::new(Duration::from_nanos(wait), spun, blocked, !blocked);
            policy.observe(&if knows { seen.with_source(source) } else { seen });
            if step > 10_000 {
                cost += if blocked { budget + 1024 } else { wait };
                optimum += wait.min(1024);
            }
            wait = if source == 0 { 300 } else { 9000 };
        }
        cost * 100 / optimum
    };
    let (apart, mixed) = (run(true), run(false));
    assert!(
        apart <= 102 && mixed >= 115,
        "per handler {apart} %, without handlers {mixed} %"
    );
}

#[test]
fn it_follows_a_change_within_eight_waits() {
    for (before, after, right) in [
        (9000, 100, 128..=3276),
        (100, 9000, 0..=0),
        (9000, 700, 716..=3276),
    ] {
        let mut policy = exact::<64>(u64::MAX);
        for _ in 0..5000 {
            step(&mut policy, before);
        }
        let waits = [after; 9];
        let budgets = budgets(&mut policy, &waits);
        let wrong = budgets.iter().filter(|budget| !right.contains(*budget)).count();
        assert!(
            wrong <= 8 && right.contains(&budgets[8]),
            "{before} to {after}: {budgets:?}"
        );
    }
}

#[test]
fn near_deadlines_are_polled_for() {
    let mut policy = exact::<64>(u64::MAX);
    for _ in 0..10 {
        step(&mut policy, 9000);
    }
    let until = |deadline| ns(policy.budget_until(Some(Duration::from_nanos(deadline))));
    assert_eq!([0, 1, 1024, 1025, 5000].map(until), [0, 1, 1024, 0, 0]);
    assert_eq!(policy.budget_until(None), Duration::ZERO);
    let capped = exact::<64>(500);
    let until = |deadline| ns(capped.budget_until(Some(Duration::from_nanos(deadline))));
    assert_eq!([0, 400, 500, 501, 5000].map(until), [0, 400, 500, 500, 500]);
}

#[test]
fn a_wait_that_a_timer_ends_is_as_long_as_the_timer_was_away() {
    let wake = WakeCost::of_total(Duration::from_nanos(1024));
    let mut policy = Rcl::<64>::new(PollParams::unlimited().with_wake(wake));
    let elapsed = Duration::from_nanos(3000);
    let seen = Iteration::new(elapsed, Duration::from_nanos(1024), true, false);
    let due = Duration::from_nanos(2500);
    assert_eq!(policy.measure(&seen).unwrap().0, 3000 - 820);
    assert_eq!(policy.measure(&seen.with_deadline(due, true)).unwrap().0, 2500);
    assert_eq!(
        policy.measure(&seen.with_deadline(elapsed * 9, false)).unwrap().0,
        3000 - 820
    );
    // Polled past the level towards a near timer: the length of the wait stays.
    for _ in 0..10 {
        policy.observe(&Iteration::new(
            Duration::from_secs(1),
            policy.budget(),
            true,
            false,
        ));
    }
    assert_eq!(policy.budget(), Duration::ZERO);
    let near = Duration::from_nanos(900);
    let spun = Iteration::new(near, near, false, false);
    assert_eq!(
        policy.measure(&spun).unwrap(),
        (0, 0),
        "past the level by a round of polling"
    );
    assert_eq!(
        policy.measure(&spun.with_deadline(near, true)).unwrap(),
        (900, 900)
    );
}

#[test]
fn polling_that_was_cut_short_is_no_evidence_of_a_long_wait() {
    let mut policy = exact::<64>(u64::MAX);
    let elapsed = Duration::from_nanos(300);
    let cut = Iteration::new(elapsed, Duration::from_nanos(200), true, false);
    assert_eq!(policy.measure(&cut).unwrap(), (300, 200));
    let not_cut = Iteration::new(elapsed, Duration::from_nanos(1100), true, false);
    assert_eq!(policy.measure(&not_cut).unwrap(), (1025, 1024));
}

#[test]
fn a_sleep_that_was_none_changes_nothing() {
    let wake = WakeCost::of_total(Duration::from_nanos(10_000));
    let mut policy = Rcl::<64>::new(PollParams::unlimited().with_wake(wake));
    let before = (policy.banks, policy.deficit, policy.context, policy.current);
    let spun = policy.budget();
    policy.observe(&Iteration::new(
        spun + Duration::from_nanos(3999),
        spun,
        true,
        false,
    ));
    assert_eq!(
        (policy.banks, policy.deficit, policy.context, policy.current),
        before
    );
    assert_eq!(policy.counts().ready_now, 1);
    policy.observe(&Iteration::new(
        spun + Duration::from_nanos(4000),
        spun,
        true,
        false,
    ));
    assert_ne!(policy.banks, before.0);
}

#[test]
fn off_means_off() {
    let mut policy = exact::<64>(0);
    for wait in [0, 100, 100, 9000, 100] {
        step(&mut policy, wait);
        assert_eq!(policy.budget(), Duration::ZERO);
        assert_eq!(policy.budget_until(Some(Duration::from_nanos(1))), Duration::ZERO);
    }
}

#[test]
fn every_situation_has_a_bank_of_its_own() {
    let mut banks = std::collections::BTreeSet::new();
    for source in [None, Some(0), Some(1), Some(2)] {
        for mean in [0, 512, 1024, 2048] {
            for wait in [0, 256, 1024, 4096] {
                let mut policy = exact::<64>(u64::MAX);
                policy.mean = 16 * (2 * mean - i32::from(wait));
                policy.remember(wait, source);
                assert!(policy.context < 64);
                banks.insert(policy.context);
            }
        }
    }
    assert_eq!(banks.len(), 64);
}

#[test]
fn a_rung_catches_a_wait_of_its_length_and_the_past_fades() {
    assert_eq!(exact::<64>(u64::MAX).learn(1024), 5);
    let mut policy = exact::<64>(u64::MAX);
    policy.banks[0] = [0, 2560, 2560, 2560, 2560, 2560, 2560, 2560];
    policy.learn(0);
    assert_eq!(policy.banks[0][1..], [2550; 7]);
}

#[test]
fn a_timer_that_did_not_end_the_wait_does_not_shorten_it() {
    let mut policy = exact::<64>(u64::MAX);
    let seen = Iteration::new(
        Duration::from_nanos(3000),
        Duration::from_nanos(1024),
        true,
        false,
    );
    let passed = seen.with_deadline(Duration::from_nanos(2500), false);
    assert_eq!(policy.measure(&passed).unwrap().0, 3000);
}

/// Makes a policy in which a unit is a nanosecond, too, and in which a sleep and each of its kicks cost 512
/// of them.
fn kicked(max_ns: u64) -> Rcl<64> {
    let wake = WakeCost {
        latency: Duration::ZERO,
        cpu: Duration::from_nanos(512),
        kick: Duration::from_nanos(512),
    };
    Rcl::new(PollParams::up_to(Duration::from_nanos(max_ns)).with_wake(wake))
}

#[test]
fn a11_sleeps_that_no_kick_ends_cost_less() {
    // 800 ns lie between the price of a sleep without a kick, 512, and with one, 1024.
    for (kicks, polls) in [(Some(0), false), (Some(1), true), (None, true)] {
        let mut policy = kicked(u64::MAX);
        for _ in 0..2000 {
            let budget = ns(policy.budget());
            let slept = 800 > budget;
            let [elapsed, spun] = [800, budget.min(800)].map(Duration::from_nanos);
            let seen = Iteration::new(elapsed, spun, slept, !slept);
            policy.observe(&kicks.map_or(seen, |kicks| seen.with_kicks(kicks)));
            if kicks == Some(0) && !slept {
                // Now and then it must sleep for another reason.
                policy.observe(
                    &Iteration::new(Duration::from_nanos(9000), Duration::ZERO, true, false).with_kicks(0),
                );
            }
        }
        assert_eq!(ns(policy.budget()) >= 800, polls, "{kicks:?}");
    }
}

#[test]
fn a12_another_cost_of_a_sleep_keeps_what_was_learned() {
    let mut policy = exact::<64>(u64::MAX);
    for _ in 0..100 {
        step(&mut policy, 9000);
    }
    let banks = policy.banks;
    let params = PollParams::unlimited().with_wake(WakeCost::of_total(Duration::from_nanos(2048)));
    policy.reprice(params);
    assert_eq!((policy.banks, policy.budget()), (banks, Duration::ZERO));
    assert_eq!(policy.ladder, Ladder::new(&params));
    assert_eq!(policy.effective("learned").break_even_ns, Some(2048));
}
