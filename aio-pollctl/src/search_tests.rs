//! Searches in a simulated loop, whose steps take time and find the events that a test has planned.

use core::cell::Cell;
use std::vec::Vec;

use super::*;
use crate::{PollParams, Waited};

#[path = "search_end_tests.rs"]
mod ends;
#[path = "search_spin_tests.rs"]
mod spins;

/// The costs of the steps, in nanoseconds.
const ROUND_NS: u64 = 50;
const CHECK_NS: u64 = 300;
const READING_NS: u64 = 20;

/// A loop whose events have planned times.
#[derive(Default)]
struct World {
    now_ns: Cell<u64>,
    readings: Cell<u32>,
    cpu_ns: Cell<u64>,
    /// The total time for which the thread has waited for its core.
    delay_ns: Cell<Option<u64>>,
    /// The time that it waits when another thread takes its core.
    waits_ns: u64,
    rounds: u32,
    /// The times at which a source has work, a descriptor has an event, and another thread notifies.
    work_at: Option<u64>,
    event_at: Option<u64>,
    notified_at: Option<u64>,
    peeks: bool,
    in_poll_mode: bool,
    /// Set for a clock that only `pass` moves.
    is_simulated: bool,
    /// Set if the first check fails.
    is_broken: bool,
    /// The time from which another thread takes the core, once, and for how long.
    stolen: Cell<Option<(u64, u64)>>,
    checks: Vec<u64>,
    peeked: u32,
    demotions: u32,
    suspensions: u32,
}

impl World {
    fn spend(&self, ns: u64) {
        if !self.is_simulated {
            self.now_ns.set(self.now_ns.get() + ns);
            self.cpu_ns.set(self.cpu_ns.get() + ns);
        }
    }

    fn is_past(&self, at: Option<u64>) -> bool {
        at.is_some_and(|at| at <= self.now_ns.get())
    }

    fn pacing() -> Pacing {
        let pacing = Pacing::new(true);
        pacing.reset(&PollParams::unlimited());
        pacing
    }

    fn search(&mut self, pacing: &Pacing, budget_us: u64) -> Searched {
        let searched = pacing.search(self, Duration::from_micros(budget_us), None);
        searched.expect("no check fails")
    }
}

impl Search for World {
    type Error = &'static str;

    fn now_ns(&self) -> u64 {
        self.readings.set(self.readings.get() + 1);
        self.spend(READING_NS);
        if let Some((from, length)) = self.stolen.get()
            && self.now_ns.get() >= from
        {
            self.now_ns.set(self.now_ns.get() + length);
            self.delay_ns
                .set(self.delay_ns.get().map(|before| before + self.waits_ns));
            self.stolen.set(None);
        }
        self.now_ns.get()
    }

    fn cpu_time(&self) -> Duration {
        Duration::from_nanos(self.cpu_ns.get())
    }

    fn run_delay(&self) -> Option<Duration> {
        self.delay_ns.get().map(Duration::from_nanos)
    }

    fn is_in_poll_mode(&self) -> bool {
        self.in_poll_mode
    }

    fn enter_poll_mode(&mut self) {
        self.in_poll_mode = true;
    }

    fn round(&mut self) -> bool {
        self.rounds += 1;
        self.spend(ROUND_NS);
        self.is_past(self.work_at)
    }

    fn rounds(&self) -> u32 {
        self.rounds
    }

    fn is_notified(&self) -> bool {
        self.is_past(self.notified_at)
    }

    fn is_full(&self) -> bool {
        false
    }

    fn check(&mut self) -> Result<bool, &'static str> {
        if self.is_broken {
            return Err("it fails");
        }
        self.checks.push(self.now_ns.get());
        self.spend(CHECK_NS);
        Ok(self.is_past(self.event_at))
    }

    fn can_peek(&self) -> bool {
        self.peeks
    }

    fn peek(&mut self) -> Result<bool, &'static str> {
        self.peeked += 1;
        Ok(self.is_past(self.event_at))
    }

    fn peek_beside_hits(&mut self) -> Result<bool, &'static str> {
        self.peeked += 1;
        self.spend(CHECK_NS);
        Ok(true)
    }

    fn demote_idle(&mut self, _: &IdleCosts) -> bool {
        self.demotions += 1;
        false
    }

    fn pass(&mut self, left: Duration) -> bool {
        if self.is_simulated {
            self.now_ns.set(self.now_ns.get() + left.as_nanos() as u64);
        }
        self.is_simulated
    }

    fn suspended(&mut self) {
        self.suspensions += 1;
    }
}

#[test]
fn a2_a_search_in_vain_takes_its_budget_and_little_more() {
    for budget_us in [1, 10, 100, 1000] {
        let mut world = World::default();
        let searched = world.search(&World::pacing(), budget_us);
        assert!(!searched.hit && world.in_poll_mode);
        let over = searched.spun.checked_sub(Duration::from_micros(budget_us));
        // A stride of rounds, and a check.
        assert!(
            over.is_some_and(|over| over < Duration::from_micros(5)),
            "{searched:?}"
        );
    }
}

#[test]
fn a3_work_in_the_first_round_costs_no_reading_of_the_clock() {
    let mut world = World {
        work_at: Some(0),
        ..World::default()
    };
    let searched = world.search(&World::pacing(), 50);
    assert_eq!(
        (searched.hit, searched.ended_ns, world.readings.get()),
        (true, None, 0)
    );
}

#[test]
fn a3_r10_work_events_and_notifications_end_a_search() {
    let at = Some(70_000);
    let plans: [fn(&mut World, Option<u64>); 4] = [
        |world, at| world.work_at = at,
        |world, at| world.event_at = at,
        |world, at| world.notified_at = at,
        |world, at| (world.event_at, world.peeks) = (at, true),
    ];
    for (number, plan) in plans.into_iter().enumerate() {
        let mut world = World::default();
        plan(&mut world, at);
        let searched = world.search(&World::pacing(), 1000);
        let late = searched.ended_ns.map(|ended| ended - 70_000);
        assert!(searched.hit, "plan {number}");
        assert!(
            late.is_some_and(|late| late < 50_000),
            "plan {number}: {searched:?}"
        );
    }
}

#[test]
fn r10_checks_are_at_most_fifty_microseconds_apart_and_none_where_the_loop_can_peek() {
    let mut world = World::default();
    world.search(&World::pacing(), 1000);
    let apart = world.checks.windows(2).map(|two| two[1] - two[0]);
    assert!(world.checks.len() >= 19, "{:?}", world.checks);
    assert!(
        apart.max().is_some_and(|most| most < 55_000),
        "{:?}",
        world.checks
    );

    let mut world = World {
        peeks: true,
        ..World::default()
    };
    world.search(&World::pacing(), 1000);
    assert!(world.checks.is_empty());
    assert_eq!(world.peeked, world.rounds - 1, "each round but the first");
}

#[test]
fn d8_a_full_list_is_checked_again_before_a_search() {
    let (mut world, pacing) = (World::default(), World::pacing());
    world.event_at = Some(0);
    pacing.checks.step(|checks| checks.checked(true));
    assert!(world.search(&pacing, 50).hit);
    assert_eq!((world.checks.len(), world.rounds), (1, 1));
}

#[test]
fn a8_idle_sources_are_tested_every_256_rounds() {
    let mut world = World::default();
    world.search(&World::pacing(), 200);
    assert_eq!(world.demotions, world.rounds / 256);
    assert!(world.demotions > 5);
}

#[test]
fn d6_simulated_time_passes_at_once() {
    let mut world = World {
        is_simulated: true,
        ..World::default()
    };
    let searched = world.search(&World::pacing(), 50);
    assert_eq!(searched.spun, Duration::from_micros(50));
    assert_eq!(searched.ended_ns, Some(50_000));
}

#[test]
fn a13_a_gap_ends_the_search_and_suspends_the_next_ones() {
    let (mut world, pacing) = (World::default(), World::pacing());
    world.stolen.set(Some((20_000, 3_000_000)));
    world.search(&pacing, 1000);
    assert_eq!(world.suspensions, 1);
    world.in_poll_mode = false;
    let rounds = world.rounds;
    let searched = world.search(&pacing, 1000);
    assert!(!searched.hit && searched.spun.is_zero());
    assert_eq!(world.rounds, rounds, "no round");
    assert!(!world.in_poll_mode, "its peers go on notifying");
}

#[test]
fn a13_with_a_core_of_its_own_the_loop_searches_on_after_a_gap() {
    let (mut world, pacing) = (World::default(), Pacing::new(true));
    pacing.reset(&PollParams {
        exclusive_core: true,
        ..PollParams::unlimited()
    });
    world.stolen.set(Some((20_000, 3_000_000)));
    world.search(&pacing, 4000);
    assert!(world.now_ns.get() >= 4_000_000, "{}", world.now_ns.get());
    assert_eq!(world.suspensions, 0);
}

#[test]
fn a13_what_a_hypervisor_takes_is_no_turn_of_another_thread() {
    // The first of two suspicions makes the loop watch.
    for (waits_ns, suspensions) in [(Some(300), 0), (Some(20_000), 1), (None, 1)] {
        let (mut world, pacing) = (World::default(), World::pacing());
        world.delay_ns.set(waits_ns.map(|_| 0));
        world.waits_ns = waits_ns.unwrap_or(0);
        for _ in 0..2 {
            // Less than a gap.
            world.stolen.set(Some((world.now_ns.get() + 8_000, 20_000)));
            world.search(&pacing, 30);
            world.in_poll_mode = false;
            // Beyond the pause.
            world.spend(3_000_000);
        }
        assert_eq!(world.suspensions, suspensions, "{waits_ns:?}");
    }
}

#[test]
fn a_check_that_fails_ends_the_search_with_its_error() {
    let mut world = World {
        is_broken: true,
        ..World::default()
    };
    let pacing = World::pacing();
    assert_eq!(
        pacing.search(&mut world, Duration::from_millis(1), None),
        Err("it fails")
    );
    assert_eq!(pacing.spin(&mut world, None), Err("it fails"));
}

#[test]
fn d8_after_hits_the_loop_checks_in_time() {
    let (mut world, pacing) = (World::default(), World::pacing());
    let mut latest = 0;
    for _ in 0..10_000 {
        world.spend(1_000);
        pacing.after_hit(&mut world).expect("no check fails");
        if world.checks.is_empty() {
            latest = world.now_ns.get();
        }
    }
    assert!(latest <= 100_000, "{latest}");
    let apart = world.checks.windows(2).map(|two| two[1] - two[0]);
    assert!(
        apart.max().is_some_and(|most| most <= 105_000),
        "{:?}",
        world.checks
    );
}

#[test]
fn r10_peeks_beside_hits_in_vain_take_a_tenth_of_the_time() {
    let (mut world, pacing) = (World::default(), World::pacing());
    world.peeks = true;
    for _ in 0..40_000 {
        world.spend(25);
        pacing.after_hit(&mut world).expect("no check fails");
    }
    let share = f64::from(world.peeked) * CHECK_NS as f64 / world.now_ns.get() as f64;
    assert!(
        world.peeked > 100 && share < 0.11,
        "{} peeks, {share}",
        world.peeked
    );
}

/// Runs a search during which another thread takes the core for 10 us; work comes at the end of that.
fn beside_a_client_on_this_core(world: &mut World, pacing: &Pacing) -> Searched {
    let now_ns = world.now_ns.get();
    world.waits_ns = 10_000;
    world.stolen.set(Some((now_ns + 8_000, 10_000)));
    world.work_at = Some(now_ns + 18_000);
    let searched = world.search(pacing, 30);
    world.in_poll_mode = false;
    world.spend(10_000);
    searched
}

#[test]
fn a13_what_a_client_on_this_core_has_done_is_no_success_of_polling() {
    let (mut world, pacing) = (World::default(), World::pacing());
    world.delay_ns.set(Some(0));
    let mut found = 0;
    for _ in 0..100_000 {
        found += u32::from(beside_a_client_on_this_core(&mut world, &pacing).hit);
    }
    assert!(found < 1_000, "{found} of 100,000 waits were polled for");
    assert!(world.suspensions > 8, "{}", world.suspensions);
}

#[test]
fn a13_a_probe_lasts_longer_than_the_budget_but_not_beyond_a_timer() {
    let us = Duration::from_micros;
    for (max, timeout, expected) in [
        (Duration::MAX, None, us(200)),
        (us(50), None, us(50)),
        (Duration::MAX, Some(us(120)), us(120)),
    ] {
        let (mut world, pacing) = (World::default(), Pacing::new(true));
        pacing.reset(&PollParams::up_to(max));
        let mut probes = Vec::new();
        for _ in 0..64 + 300 {
            let Ok(searched) = pacing.search(&mut world, us(10), timeout) else {
                unreachable!("no check fails")
            };
            world.in_poll_mode = false;
            world.spend(100_000);
            let waited = Waited {
                searched,
                blocked: true,
                ..Waited::default()
            };
            let _not_shown = pacing.ended(waited, || world.now_ns.get());
            if searched.spun > us(15) {
                probes.push(searched.spun);
            }
        }
        let [probe] = probes[..] else { panic!("{probes:?}") };
        assert!(
            probe >= expected && probe < expected + us(3),
            "{probe:?}, not {expected:?}"
        );
    }
}

#[test]
fn a13_an_event_that_was_there_before_the_search_is_no_success_of_polling() {
    // A kick that came too late to be needed alternates with a search in vain: a client on this core that
    // wakes up in its call.
    let (mut world, pacing) = (World::default(), World::pacing());
    let (mut at_once, mut in_vain) = (0, 0);
    for _ in 0..1_000 {
        for kicked in [true, false] {
            world.event_at = kicked.then(|| world.now_ns.get());
            world.spend(60_000); // so that a check is due
            let searched = world.search(&pacing, 30);
            world.in_poll_mode = false;
            at_once += u32::from(searched.hit);
            in_vain += u32::from(!searched.hit && !searched.spun.is_zero());
        }
    }
    assert!((64..70).contains(&in_vain), "{in_vain} searches in vain");
    assert!(at_once >= 64, "{at_once} events at once");
}

#[test]
fn a13_a_client_that_takes_the_core_at_the_start_of_a_search_is_noticed() {
    // The client kicks in its turn, before the search is long enough to be compared.
    let (mut world, pacing) = (World::default(), World::pacing());
    (world.waits_ns, world.delay_ns) = (10_000, Cell::new(Some(0)));
    let mut searches = 0;
    for number in 0..100_000 {
        let now_ns = world.now_ns.get();
        if number % 2 == 0 {
            world.stolen.set(Some((now_ns + 400, 10_000)));
            world.event_at = Some(now_ns + 10_000);
        } else {
            world.event_at = None;
        }
        searches += u32::from(!world.search(&pacing, 30).spun.is_zero());
        world.in_poll_mode = false;
        world.spend(10_000);
    }
    assert!(searches < 1_000, "{searches} searches before 100,000 waits");
}
