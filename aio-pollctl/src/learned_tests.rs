//! The learned policy: what it does step by step, what it settles on, and the bound on what it costs.

use std::println;
use std::vec::Vec;

use super::*;

const B: u64 = 20_000;

fn wake() -> WakeCost {
    WakeCost::told(Duration::from_nanos(B))
}

fn policy() -> Learned {
    Learned::new(PollParams::up_to(Duration::MAX), wake())
}

/// A wait whose event comes after `w` nanoseconds; what it costs. A sleep takes the latency longer.
fn live(policy: &mut Learned, w: u64) -> u64 {
    let s = saturating_ns(policy.budget());
    if w <= s {
        let spun = Duration::from_nanos(w);
        policy.observe(Iteration::new(spun, spun, false, true));
        return w;
    }
    let (elapsed, spun) = (Duration::from_nanos(w + B), Duration::from_nanos(s));
    policy.observe(Iteration::new(elapsed, spun, true, false));
    s + B
}

fn rng() -> fastrand::Rng {
    let asked = std::env::var("AIO_SEED").ok().and_then(|text| text.parse().ok());
    let seed = asked.unwrap_or_else(|| fastrand::u64(..));
    println!("AIO_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

#[test]
fn it_begins_with_the_break_even() {
    assert_eq!(policy().budget(), Duration::from_nanos(B));
    let capped = Learned::new(PollParams::up_to(Duration::from_micros(5)), wake());
    assert_eq!(capped.budget(), Duration::from_micros(5));
}

#[test]
fn a1_off_means_off() {
    let mut off = Learned::new(PollParams::OFF, wake());
    for w in [0, 1, B, 1 << 40] {
        live(&mut off, w);
        assert_eq!(off.budget(), Duration::ZERO);
        assert_eq!(off.budget_until(Some(Duration::from_nanos(1))), Duration::ZERO);
    }
}

#[test]
fn a2_a_near_deadline_is_polled_for() {
    let mut policy = policy();
    for _ in 0..100 {
        live(&mut policy, 100 * B);
    }
    assert_eq!(policy.budget(), Duration::ZERO);
    let until = |ns| policy.budget_until(Some(Duration::from_nanos(ns)));
    assert_eq!(until(B), Duration::from_nanos(B));
    assert_eq!(until(B + 1), Duration::ZERO);
    assert_eq!(policy.budget_until(None), Duration::ZERO);
}

/// After so many waits alike, the polling time is within these bounds, in parts of the break-even.
#[test]
fn it_settles_on_what_costs_least() {
    for (w, low, high) in [
        (100, 0.1, 3.2),
        (B / 2, 0.5, 3.2),
        (B - 200, 0.9, 3.2),
        (2 * B, 0.0, 0.0),
        (100 * B, 0.0, 0.0),
    ] {
        let mut policy = policy();
        (0..50).for_each(|_| {
            live(&mut policy, w);
        });
        let time = policy.budget().as_nanos() as f64 / B as f64;
        assert!(
            (low..=high).contains(&time),
            "for waits of {w} ns it polls for {time} of the break-even"
        );
    }
}

#[test]
fn a_step_takes_a_few_waits_either_way() {
    let mut policy = policy();
    let until_right = |policy: &mut Learned, w: u64, right: fn(u64) -> bool| {
        (0..1000).find(|_| {
            let found = right(saturating_ns(policy.budget()));
            live(policy, w);
            found
        })
    };
    for _ in 0..5 {
        (0..500).for_each(|_| {
            live(&mut policy, 1_000_000);
        });
        let to_busy = until_right(&mut policy, 18_000, |s| s >= 18_000);
        assert!(
            to_busy.is_some_and(|waits| waits <= 8),
            "idle to busy: {to_busy:?}"
        );
        (0..500).for_each(|_| {
            live(&mut policy, 18_000);
        });
        let to_idle = until_right(&mut policy, 1_000_000, |s| s == 0);
        assert!(
            to_idle.is_some_and(|waits| waits <= 8),
            "busy to idle: {to_idle:?}"
        );
    }
}

#[test]
fn the_previous_wait_tells_bursts_from_pauses() {
    let mut policy = policy();
    // Eight short waits, then a long one, for ever.
    for turn in 0..2000 {
        live(&mut policy, if turn % 9 == 8 { 50 * B } else { 500 });
    }
    // After a pause comes a burst.
    live(&mut policy, 50 * B);
    assert!(
        policy.budget() > Duration::from_nanos(500),
        "{:?}",
        policy.budget()
    );
}

#[test]
fn a_wait_that_did_not_sleep_teaches_nothing() {
    let mut policy = policy();
    live(&mut policy, 100);
    let before = policy.clone();
    let spun = policy.budget();
    policy.observe(Iteration::new(
        spun + Duration::from_nanos(B / 2 - 1),
        spun,
        true,
        false,
    ));
    assert_eq!(policy.ready_at_once(), 1);
    assert_eq!(
        (policy.budget(), policy.deficit),
        (before.budget(), before.deficit)
    );
}

#[test]
fn a_latency_that_was_measured_too_long_is_corrected() {
    let wake = WakeCost::measured(Duration::from_micros(50), Duration::from_micros(2));
    let mut policy = Learned::new(PollParams::up_to(Duration::MAX), wake);
    for _ in 0..SLEEPS_A_MEASUREMENT {
        let spun = policy.budget();
        policy.observe(Iteration::new(
            spun + Duration::from_micros(30),
            spun,
            true,
            false,
        ));
    }
    assert_eq!(policy.wake_cost().latency_ns(), 30_000);
    assert_eq!(policy.break_even(), Duration::from_micros(32));
    let mut told = Learned::new(PollParams::up_to(Duration::MAX), self::wake());
    for _ in 0..2 * SLEEPS_A_MEASUREMENT {
        told.observe(Iteration::new(
            Duration::from_micros(15),
            Duration::ZERO,
            true,
            false,
        ));
    }
    assert_eq!(
        told.break_even(),
        Duration::from_nanos(B),
        "what a person said stays"
    );
}

#[test]
fn setting_parameters_starts_anew() {
    let mut policy = policy();
    (0..100).for_each(|_| {
        live(&mut policy, 100 * B);
    });
    policy.reset(PollParams::up_to(Duration::from_micros(8)));
    assert_eq!(policy.budget(), Duration::from_micros(8));
}

/// What the guard promises, in the controller's own units, on every window at once: the largest sum of
/// `cost - 2.25 * optimum` over any stretch of waits stays below 82 break-evens.
fn assert_bound(mut policy: Learned, mut adversary: impl FnMut(&Learned) -> u64, waits: usize) {
    let (mut worst, mut running) = (0i64, 0i64);
    for _ in 0..waits {
        let w = adversary(&policy);
        let threshold = policy.threshold[policy.current];
        let s = saturating_ns(policy.budget());
        live(&mut policy, w);
        let seen = policy.units(w);
        let (seen, cost) = if w <= s {
            (seen.min(threshold), seen.min(threshold))
        } else {
            (seen.max(threshold + 1), threshold + UNIT)
        };
        // In quarters, so that nothing is rounded.
        running = (running + i64::from(4 * cost - 9 * seen.min(UNIT))).max(0);
        worst = worst.max(running);
    }
    // One more quarter a wait may hide in the rounding of the guard's own sum, but never accumulates beyond its floor.
    let bound = 4 * 82 * i64::from(UNIT);
    assert!(
        worst <= bound,
        "{} break-evens over 2.25 times the optimum",
        worst / (4 * i64::from(UNIT))
    );
}

#[test]
fn the_cost_of_any_stretch_is_bounded() {
    let mut random = rng();
    for order in [1, 2] {
        let new = || Learned::with_order(PollParams::up_to(Duration::MAX), wake(), order);
        // Adaptive: just beyond what it is going to poll for; or just within; or whichever hurts.
        assert_bound(new(), |policy| saturating_ns(policy.budget()) + 50, 100_000);
        assert_bound(new(), |policy| saturating_ns(policy.budget()) / 2 + 1, 100_000);
        assert_bound(
            new(),
            |policy| match saturating_ns(policy.budget()) {
                0 => 1,
                s if s >= B => s + 50,
                s => s + 50,
            },
            100_000,
        );
        let mut turn = 0u64;
        assert_bound(
            new(),
            |policy| {
                turn += 1;
                if turn % 300 < 150 {
                    saturating_ns(policy.budget()) + 50
                } else {
                    10
                }
            },
            100_000,
        );
        for _ in 0..20 {
            let scale = 1 << random.u32(4..20);
            let mut random = random.fork();
            assert_bound(
                new(),
                move |policy| match random.u8(..4) {
                    0 => saturating_ns(policy.budget()) + 50,
                    1 => saturating_ns(policy.budget()),
                    2 => random.u64(..scale),
                    _ => random.u64(..8 * B),
                },
                10_000,
            );
        }
    }
}

#[test]
fn invariants_hold_on_random_waits() {
    let mut random = rng();
    for _ in 0..50 {
        let max = Duration::from_nanos(1 << random.u32(8..40));
        let wake = WakeCost::told(Duration::from_nanos(1 << random.u32(0..30)));
        let mut policy = Learned::with_order(PollParams::up_to(max), wake, random.u8(1..=2));
        for _ in 0..2000 {
            let elapsed = Duration::from_nanos(random.u64(..) >> random.u32(0..64));
            let spun = Duration::from_nanos(random.u64(..) >> random.u32(0..64));
            policy.observe(Iteration::new(elapsed, spun, random.bool(), random.bool()));
            assert!(policy.budget() <= max);
            let bank: Vec<i16> = policy.banks.iter().flatten().copied().collect();
            assert!(
                bank.iter().all(|excess| (0..=CLAMP as i16).contains(excess)),
                "{bank:?}"
            );
        }
    }
}
