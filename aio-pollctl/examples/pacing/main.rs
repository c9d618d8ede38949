//! A polling loop by hand, paced by this crate, in a simulated world: a shared-memory queue that is polled, with a request every
//! 4 us and pauses, and a descriptor that only a check sees.
//!
//! `cargo run -p aio-pollctl --example pacing` prints the work of the loop in 100 ms.

mod world;

use std::time::Duration;

use aio_pollctl::{
    CheckPacer, ClockStride, IdleCosts, Iteration, Learned, PollParams, PollPolicy, PreSleepSpin,
};

use world::World;

/// Queues that never have a request.
const IDLE_QUEUES: usize = 100;

/// Polls until there is something to serve or the budget is used up; whether there is.
fn search(world: &mut World, pacer: &mut CheckPacer, budget: Duration) -> bool {
    let budget_ns = u64::try_from(budget.as_nanos()).unwrap_or(u64::MAX);
    let (began_ns, mut stride) = (world.now_ns, ClockStride::new());
    while world.now_ns - began_ns < budget_ns {
        if pacer.is_due(world.now_ns) {
            let check_ns = world.now_ns;
            let found = world.check();
            pacer.checked(false);
            pacer.done(check_ns, world.now_ns, found);
            if found {
                return true;
            }
        }
        let before_ns = world.now_ns;
        if (0..stride.rounds()).any(|_| world.poll()) {
            return true;
        }
        stride.took(Duration::from_nanos(world.now_ns - before_ns));
    }
    false
}

/// Runs the loop for 100 ms of simulated time.
pub(crate) fn run() -> World {
    let mut world = World::new(1 + IDLE_QUEUES);
    let mut policy = Learned::new(PollParams::unlimited());
    let (mut pacer, mut spin, costs) = (CheckPacer::new(), PreSleepSpin::new(), IdleCosts::TYPICAL);
    let mut tested = 0;
    while world.now_ns < 100_000_000 {
        let began_ns = world.now_ns;
        let hit = search(&mut world, &mut pacer, policy.budget());
        let spun_ns = world.now_ns - began_ns;
        let mut blocked = false;
        if !hit && spin.is_worth_it() {
            let until_ns = world.now_ns + u64::try_from(spin.longest().as_nanos()).unwrap_or(0);
            let found =
                std::iter::from_fn(|| (world.now_ns < until_ns).then(|| world.check())).any(|found| found);
            if found {
                spin.found(Duration::from_nanos(world.now_ns - began_ns - spun_ns));
            } else {
                spin.missed();
            }
            blocked = !found;
        } else if !hit {
            blocked = true;
        }
        if blocked {
            world.sleep();
        }
        let [elapsed, spun] = [world.now_ns - began_ns, spun_ns].map(Duration::from_nanos);
        policy.observe(Iteration::new(elapsed, spun, blocked, hit));
        spin.served(world.serve());
        if costs.is_check_due((world.polls - tested) as u32) {
            tested = world.polls;
            // All but one have been idle from the beginning.
            let is_idle = tested >= u64::from(costs.idle_after());
            world.polled -= costs.surplus(world.polled, if is_idle { world.polled - 1 } else { 0 });
        }
    }
    world
}

pub(crate) fn main() {
    let world = run();
    println!("{world:#?}");
}
