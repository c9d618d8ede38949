//! Families with a memory: several sources at once, rates that change, events that call for more.

use crate::families::{Maker, US};
use crate::{Random, Trace};

/// A source of events by itself: gives its gaps.
type Source = fn(&mut Random, &mut u64) -> f64;

/// Events of independent sources in the order of time; a wait is the time to the next event of any.
fn merge(trace: &mut Trace, random: &mut Random, count: usize, sources: &[Source]) {
    let mut next = std::vec![(0.0, 0u64); sources.len()];
    for ((time, state), source) in next.iter_mut().zip(sources) {
        *time = source(random, state);
    }
    let mut now = 0.0;
    while trace.len() < count {
        let mut soonest = 0;
        for index in 1..next.len() {
            if next[index].0 < next[soonest].0 {
                soonest = index;
            }
        }
        let (time, state) = &mut next[soonest];
        trace.push((*time - now) as u64, soonest as u8);
        now = *time;
        *time += sources[soonest](random, state);
    }
}

/// `long` events `gap` us apart, then `idle` us on the average.
fn burst(random: &mut Random, left: &mut u64, long: u64, gap: f64, idle: f64) -> f64 {
    if *left == 0 {
        *left = long;
        return random.exponential(idle * US);
    }
    *left -= 1;
    random.exponential(gap * US)
}

fn kicks(random: &mut Random, left: &mut u64) -> f64 {
    burst(random, left, 20, 4.0, 800.0)
}

fn disk(random: &mut Random, _: &mut u64) -> f64 {
    random.log_normal(80.0 * US, 0.5)
}

fn network(random: &mut Random, _: &mut u64) -> f64 {
    random.exponential(200.0 * US)
}

fn ticks(random: &mut Random, _: &mut u64) -> f64 {
    1000.0 * US * random.between(0.999, 1.001)
}

fn steady(random: &mut Random, _: &mut u64) -> f64 {
    12.0 * US * random.between(0.9, 1.1)
}

/// A fast source beside a slow one.
pub(super) fn two_sources(maker: &mut Maker) {
    let mixes: [(&str, [Source; 2]); 3] = [
        ("mix2-kicks-disk", [kicks, disk]),
        ("mix2-steady-network", [steady, network]),
        ("mix2-kicks-ticks", [kicks, ticks]),
    ];
    for (name, sources) in mixes {
        let count = maker.count;
        maker.make("mix2", name, |trace, random| {
            merge(trace, random, count, &sources)
        });
    }
}

/// Kicks, a disk and a network.
pub(super) fn three_sources(maker: &mut Maker) {
    let count = maker.count;
    maker.make("mix3", "mix3", |trace, random| {
        merge(trace, random, count, &[kicks, disk, network]);
    });
}

/// Poisson processes between whose rates chance switches.
pub(super) fn modulated(maker: &mut Maker) {
    for (name, means, length) in [
        ("mmpp-5-200", [5.0, 200.0], 20.0),
        ("mmpp-8-80", [8.0, 80.0], 6.0),
        ("mmpp-20-1000", [20.0, 1000.0], 40.0),
    ] {
        let mut state = 0;
        maker.each("mmpp", name, |random| {
            if random.chance(1.0 / length) {
                state = 1 - state;
            }
            random.exponential(means[state] * US)
        });
    }
}

/// What came later, as far as it has a memory.
pub(super) fn compared(maker: &mut Maker) {
    hawkes(maker);
    swings(maker);
    nested(maker);
    batching(maker);
    echoes(maker);
    disks(maker);
}

/// Each event makes more of them likely for a while (a self-exciting process, by thinning).
fn hawkes(maker: &mut Maker) {
    for (name, base, jump, fade) in [("hawkes-60", 0.004, 0.06, 0.1), ("hawkes-90", 0.001, 0.18, 0.2)] {
        let mut extra = 0.0;
        maker.each("hawkes", name, |random| {
            let mut passed = 0.0;
            loop {
                let most = base + extra;
                let gap = random.exponential(1.0 / most);
                passed += gap;
                extra *= (-fade * gap).exp();
                if random.unit() * most <= base + extra {
                    extra += jump;
                    return passed * US;
                }
            }
        });
    }
}

/// A rate that swings to and fro, as by day and night in a small world.
fn swings(maker: &mut Maker) {
    for (name, period) in [("swing-5ms", 5.0), ("swing-200ms", 200.0)] {
        let mut now = 0.0f64;
        maker.each("swing", name, |random| {
            let phase = (now / (period * 1e6)).fract() * std::f64::consts::TAU;
            let wait = random.exponential(US * 10f64.powf(1.5 + phase.sin()));
            now += wait;
            wait
        });
    }
}

/// Trains of bursts of requests: three lengths of time.
fn nested(maker: &mut Maker) {
    for (name, scale) in [("nested-fast", 1.0), ("nested-slow", 4.0)] {
        let mut left = [0, 0];
        maker.each("nested", name, |random| {
            if left[0] > 0 {
                left[0] -= 1;
                return random.exponential(2.0 * scale * US);
            }
            left[0] = random.below(12);
            if left[1] > 0 {
                left[1] -= 1;
                return random.exponential(25.0 * scale * US);
            }
            left[1] = random.below(30);
            random.pareto(1.3, 300.0 * scale * US).min(1e9)
        });
    }
}

/// Poisson arrivals in absolute time at a loop that needs a microsecond for each: what comes meanwhile is no wait.
fn batching(maker: &mut Maker) {
    for rate in [30, 300] {
        let mean = 1e6 / f64::from(rate);
        maker.each("open-loop", &format!("open-loop-{rate}k"), |random| {
            let (mut served_until, mut arrival) = (US, random.exponential(mean));
            while arrival <= served_until {
                served_until += US;
                arrival += random.exponential(mean);
            }
            arrival - served_until
        });
    }
}

/// A request and its echo: long and short in turns, both of them varying slowly.
fn echoes(maker: &mut Maker) {
    for (name, near, far) in [("echo-6-120", 6.0, 120.0), ("echo-15-40", 15.0, 40.0)] {
        let (mut drift, mut echo) = (0.0f64, false);
        maker.each("echo", name, |random| {
            echo = !echo;
            drift = (drift + 0.02 * random.normal()).clamp(-0.7, 0.7);
            let median = if echo { near } else { far };
            random.log_normal(median * US * drift.exp(), 0.25)
        });
    }
}

/// What came last.
pub(super) fn fresh(maker: &mut Maker) {
    for (name, stay) in [("chain-fast", 0.8), ("chain-slow", 0.98)] {
        let mut state = 0;
        maker.each("chain", name, |random| {
            if !random.chance(stay) {
                state = (state + 1 + random.below(2) as usize) % 3;
            }
            random.log_normal([5.0, 40.0, 400.0][state] * US, 0.4)
        });
    }
    for (name, round_trip) in [("slow-start-60us", 60.0), ("slow-start-250us", 250.0)] {
        let (mut window, mut left) = (1, 0);
        maker.each("slow-start", name, |random| {
            if left > 0 {
                left -= 1;
                return random.between(0.8, 1.6) * US;
            }
            window = if window == 64 { 1 } else { window * 2 };
            left = window - 1;
            round_trip * US * random.between(0.9, 1.1)
        });
    }
    for (name, idle) in [("heavy-bursts-40us", 40.0), ("heavy-bursts-400us", 400.0)] {
        let mut left = 0;
        maker.each("heavy-bursts", name, |random| {
            if left > 0 {
                left -= 1;
                return random.exponential(3.0 * US);
            }
            left = random.pareto(1.1, 2.0).min(10_000.0) as u64;
            random.exponential(idle * US)
        });
    }
    ramps(maker);
    shifts(maker);
}

/// Gaps that grow steadily and fall back; arrivals that a device holds back for a while.
fn ramps(maker: &mut Maker) {
    for (name, growth) in [("ramp-5", 1.05), ("ramp-50", 1.5)] {
        let mut gap = 2.0;
        maker.each("ramp", name, |random| {
            gap = if gap > 200.0 { 2.0 } else { gap * growth };
            gap * US * random.between(0.9, 1.1)
        });
    }
    for (name, mean) in [("held-back-10us", 10.0), ("held-back-100us", 100.0)] {
        maker.each("held-back", name, |random| {
            let slots = (random.exponential(mean * US) / (16.0 * US)).ceil();
            (slots * 16.0 - 2.0) * US * random.between(0.99, 1.01)
        });
    }
}

/// Work in shifts: a device at work, then long nothing.
fn shifts(maker: &mut Maker) {
    for (name, length) in [("shifts-50", 50), ("shifts-1000", 1000)] {
        let mut left = length;
        maker.each("shifts", name, |random| {
            if left == 0 {
                left = random.below(2 * length);
                return random.exponential(50_000.0 * US);
            }
            left -= 1;
            random.log_normal(12.0 * US, 0.4)
        });
    }
}

fn fast_disk(random: &mut Random, _: &mut u64) -> f64 {
    random.log_normal(18.0 * US, 0.25)
}

/// Two disks, each with one request at a time; and four of them.
fn disks(maker: &mut Maker) {
    let count = maker.count;
    maker.make("disks", "disks-fast-slow", |trace, random| {
        merge(trace, random, count, &[fast_disk, disk]);
    });
    maker.make("disks", "disks-two-two", |trace, random| {
        merge(trace, random, count, &[fast_disk, fast_disk, disk, disk]);
    });
}
