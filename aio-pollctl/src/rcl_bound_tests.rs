//! The bound of the ladder, against adversaries that see the policy and choose the next wait.

use super::*;

/// The largest sum of `cost - bound * min(wait, 1024)` over any window, in 1/1024 units.
struct Window {
    bound: i64,
    sum: i64,
    worst: i64,
}

impl Window {
    fn add(&mut self, cost: u64, wait: u64) {
        let cost = i64::try_from(cost).unwrap() * 1024;
        let optimum = i64::try_from(wait.min(1024)).unwrap();
        self.sum = (self.sum + cost - self.bound * optimum).max(0);
        self.worst = self.worst.max(self.sum);
    }
}

/// An adversary that reads the policy and returns the next wait.
type Adversary<const BANKS: usize> = fn(&Rcl<BANKS>, &mut fastrand::Rng) -> u64;

fn adversaries<const BANKS: usize>() -> Vec<(&'static str, Adversary<BANKS>)> {
    fn budget<const BANKS: usize>(policy: &Rcl<BANKS>) -> u64 {
        ns(policy.budget())
    }
    /// Returns the wait that adds most to the deficit, computed this number of waits ahead.
    fn worst<const BANKS: usize>(policy: &Rcl<BANKS>, depth: u32) -> (i64, u64) {
        let times = policy.ladder.times.map(ns);
        let choices = times.into_iter().flat_map(|time| [time, time + 1]);
        choices
            .map(|wait| {
                let mut next = policy.clone();
                let cost = i64::try_from(step(&mut next, wait)).unwrap();
                let gain = cost * 4 - 9 * i64::try_from(wait.min(1024)).unwrap();
                let later = if depth > 1 { worst(&next, depth - 1).0 } else { 0 };
                (gain + later, wait)
            })
            .max()
            .unwrap()
    }
    std::vec![
        ("just missed", |policy, _| budget(policy) + 1),
        ("just missed, at most b", |policy, _| (budget(policy) + 1)
            .min(1024)),
        ("just missed or just caught", |policy, rng| budget(policy)
            + rng.u64(0..2)),
        ("far away or at once", |policy, rng| {
            if budget(policy) > 0 && rng.u32(0..8) > 0 {
                1 << 20
            } else {
                rng.u64(0..64)
            }
        }),
        ("the largest increase", |policy, _| worst(policy, 1).1),
        ("the largest increase in two waits", |policy, _| worst(policy, 2)
            .1),
        ("trains it, then turns", |policy, rng| {
            if policy.deficit > -60 * 1024 {
                rng.u64(900..1024)
            } else {
                budget(policy) + 1
            }
        }),
        ("random lengths", |_, rng| 1 << rng.u32(0..16)),
        ("random levels", |policy, rng| {
            let level = policy.ladder.times[rng.usize(0..LEVELS)];
            ns(level) + rng.u64(0..2)
        }),
        ("idle", |_, _| 1 << 30),
        ("at once", |_, _| 0),
    ]
}

fn bound_holds<const BANKS: usize>(max_ns: u64, waits: usize) {
    let seed = seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    for (name, adversary) in adversaries::<BANKS>() {
        let mut policy = exact::<BANKS>(max_ns);
        let mut window = Window {
            bound: policy.ladder.bound,
            sum: 0,
            worst: 0,
        };
        for _ in 0..waits {
            let wait = adversary(&policy, &mut rng);
            window.add(step(&mut policy, wait), wait);
        }
        let limit = 82 * 1024 * 1024;
        assert!(
            window.worst <= limit,
            "{name}: {} b (AIO_SEED={seed})",
            window.worst >> 20
        );
    }
}

#[test]
fn any_window_costs_at_most_the_bound() {
    bound_holds::<64>(u64::MAX, 5000);
    bound_holds::<256>(u64::MAX, 5000);
}

#[test]
fn the_bound_holds_below_a_maximum_too() {
    for max_ns in [1, 100, 512, 700, 1024, 2000] {
        bound_holds::<64>(max_ns, 1500);
    }
}

#[test]
fn the_bound_holds_when_adversaries_take_turns() {
    let seed = seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let adversaries = adversaries::<64>();
    let mut policy = exact::<64>(u64::MAX);
    let mut window = Window {
        bound: policy.ladder.bound,
        sum: 0,
        worst: 0,
    };
    for _ in 0..2000 {
        let (name, adversary) = adversaries[rng.usize(0..adversaries.len())];
        for _ in 0..rng.usize(1..200) {
            let wait = adversary(&policy, &mut rng);
            window.add(step(&mut policy, wait), wait);
        }
        assert!(
            window.worst <= 82 << 20,
            "after {name}: {} b (AIO_SEED={seed})",
            window.worst >> 20
        );
    }
    assert!(policy.counts().guarded > 0, "the guard had something to do");
}

#[test]
fn the_guard_chooses_above_sixteen_break_even_times_and_credit_ends_at_sixty_four() {
    for (deficit, guarded) in [(16 * 1024, 0), (16 * 1024 + 1, 1)] {
        let mut policy = exact::<64>(u64::MAX);
        policy.deficit = deficit;
        step(&mut policy, 0); // costs nothing
        assert_eq!(policy.counts().guarded, guarded, "{deficit}");
    }
    let mut policy = exact::<64>(u64::MAX);
    for _ in 0..2000 {
        step(&mut policy, 100);
    }
    assert_eq!(policy.deficit, -64 * 1024);
}

#[test]
fn the_bound_grows_as_the_maximum_falls_below_the_break_even_time() {
    // 2.25 with unlimited time, and 1.125 * (1 + b / max) with less.
    for (max_ns, expected) in [
        (u64::MAX, 2304),
        (1000, 2304),
        (0, 2304),
        (500, 3456),
        (100, 12_672),
    ] {
        let wake = WakeCost::of_total(Duration::from_nanos(1000));
        let params = PollParams::up_to(Duration::from_nanos(max_ns)).with_wake(wake);
        assert_eq!(Ladder::new(&params).bound, expected, "{max_ns}");
    }
}

#[test]
fn a11_any_window_costs_at_most_the_bound_with_the_kicks_of_the_peers() {
    let seed = seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    for max_ns in [u64::MAX, 700] {
        for (name, adversary) in adversaries::<64>() {
            let mut policy = kicked(max_ns);
            let (mut sum, mut worst) = (0i64, 0i64);
            let (mut kicks, mut left) = (1, 0);
            for _ in 0..4000 {
                if left == 0 {
                    // The kicks of a sleep, and with them its price, change now and then.
                    (kicks, left) = (rng.u32(0..4), rng.u32(1..400));
                }
                left -= 1;
                let wait = adversary(&policy, &mut rng);
                let (sleep, bound) = (i64::from(policy.ladder.sleep), policy.ladder.bound);
                let budget = ns(policy.budget());
                let slept = wait > budget;
                let [elapsed, spun] = [wait, wait.min(budget)].map(Duration::from_nanos);
                policy.observe(&Iteration::new(elapsed, spun, slept, !slept).with_kicks(kicks));
                let cost = spun.as_nanos() as i64 + if slept { sleep } else { 0 };
                let optimum = i64::try_from(wait).unwrap().min(sleep);
                sum = (sum + cost * 1024 - bound * optimum).max(0);
                worst = worst.max(sum);
            }
            let limit = 84 * 1024 * 1024;
            assert!(
                worst <= limit,
                "{name}, {max_ns}: {} b (AIO_SEED={seed})",
                worst >> 20
            );
        }
    }
}
