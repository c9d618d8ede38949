//! Hostile cases 89 and 90: with any parameters and measurements, a policy polls for no longer than the
//! limit.

use std::time::Duration;

use aio_pollctl::{HandlerMemory, Iteration, Policy, PollParams, PollPolicy, WakeCost};

/// Extreme durations. (None is negative: if a clock goes back, the wait is zero.)
const DURATIONS: [u64; 9] = [
    0,
    1,
    4_000,
    32_000,
    32_768,
    1_000_000,
    i64::MAX as u64 - 1,
    i64::MAX as u64,
    u64::MAX,
];
const FACTORS: [u32; 8] = [0, 1, 2, 3, 63, 64, 100, u32::MAX];

struct Dice(fastrand::Rng);

impl Dice {
    fn new(round: u64) -> Self {
        let given = std::env::var("AIO_SEED").ok().and_then(|text| text.parse().ok());
        let seed: u64 = given.unwrap_or_else(|| fastrand::u64(..));
        if round == 0 {
            println!("AIO_SEED={seed}");
        }
        Self(fastrand::Rng::with_seed(seed.wrapping_add(round)))
    }

    fn duration(&mut self) -> Duration {
        match self.0.u32(..8) {
            0 => Duration::MAX,
            1..5 => Duration::from_nanos(DURATIONS[self.0.usize(..DURATIONS.len())]),
            _ => {
                let bits = self.0.u32(..63);
                Duration::from_nanos(self.0.u64(..1 << bits))
            }
        }
    }

    fn factor(&mut self) -> u32 {
        FACTORS[self.0.usize(..FACTORS.len())]
    }

    fn params(&mut self) -> PollParams {
        let wake = WakeCost {
            latency: self.duration(),
            cpu: self.duration(),
            kick: Duration::ZERO,
        };
        let params = PollParams::up_to(self.duration())
            .with_grow(self.factor())
            .with_shrink(self.factor())
            .with_weight(self.factor())
            .with_fixed(self.duration())
            .with_cpu_price(self.factor())
            .with_cpu_max(self.factor());
        match self.0.u32(..3) {
            0 => params,
            1 => params.with_wake(wake),
            _ => params.with_measured_wake(wake),
        }
    }

    /// Returns an arbitrary report of an iteration, plausible or not.
    fn iteration(&mut self) -> Iteration {
        let mut seen = Iteration::new(self.duration(), self.duration(), self.0.bool(), self.0.bool())
            .with_busy(self.duration())
            .with_events(self.0.u32(..));
        if self.0.bool() {
            seen = seen.with_deadline(self.duration(), self.0.bool());
        }
        if self.0.bool() {
            seen = seen.with_source(self.0.u32(..4));
        }
        seen
    }
}

#[track_caller]
fn keeps_to(params: &PollParams, policy: &Policy, deadline: Option<Duration>) {
    let (budget, until) = (policy.budget(), policy.budget_until(deadline));
    assert!(budget <= params.max, "{budget:?} with {params:?}");
    assert!(until <= params.max && deadline.is_none_or(|deadline| until <= deadline));
}

/// Rules A1 and A6.
#[test]
fn case_89_absurd_parameters() {
    let ends = [
        Duration::ZERO,
        Duration::from_nanos(i64::MAX as u64),
        Duration::MAX,
    ];
    for name in Policy::NAMES {
        for (max, grow, shrink) in ends
            .into_iter()
            .flat_map(|max| FACTORS.into_iter().map(move |grow| (max, grow)))
            .flat_map(|(max, grow)| FACTORS.into_iter().map(move |shrink| (max, grow, shrink)))
        {
            let params = PollParams::up_to(max).with_grow(grow).with_shrink(shrink);
            let mut policy = Policy::by_name(name, params).expect("a policy of that name");
            for elapsed in DURATIONS.into_iter().chain(DURATIONS.into_iter().rev()) {
                let elapsed = Duration::from_nanos(elapsed);
                policy.observe(Iteration::new(elapsed, Duration::ZERO, true, false));
                keeps_to(&params, &policy, None);
            }
        }
    }
    let mut dice = Dice::new(0);
    for name in Policy::NAMES {
        let mut params = dice.params();
        let mut policy = Policy::by_name(name, params).expect("a policy of that name");
        for _ in 0..20_000 {
            keeps_to(&params, &policy, Some(dice.duration()));
            if dice.0.u32(..4) == 0 {
                params = dice.params();
                policy.reset(params);
                keeps_to(&params, &policy, None);
            }
            policy.observe(dice.iteration());
            assert!(!policy.effective().to_string().is_empty());
        }
    }
}

/// Rules A6 and A7, with waits that change between zero and endless, and with handlers.
#[test]
fn case_90_waits_that_swing() {
    for (round, name) in (0..).zip(Policy::NAMES) {
        let mut dice = Dice::new(round);
        for _ in 0..40 {
            let params = dice.params();
            let mut policy = Policy::by_name(name, params).expect("a policy of that name");
            let mut memories = [HandlerMemory::default(); 3];
            let swings = [dice.duration(), dice.duration()];
            for wait in 0..1_000 {
                let elapsed = swings[wait % 2];
                let spun = elapsed.min(policy.budget());
                let seen = if dice.0.u32(..8) == 0 {
                    dice.iteration()
                } else {
                    Iteration::new(elapsed, spun, spun < elapsed, spun == elapsed)
                };
                if policy.is_per_handler() {
                    for memory in &mut memories {
                        policy.observe_handler(memory, dice.0.bool(), seen);
                        assert!(memory.time() <= params.max, "{name}: {memory:?}");
                    }
                }
                policy.observe(seen);
                keeps_to(&params, &policy, Some(elapsed));
            }
        }
    }
}
