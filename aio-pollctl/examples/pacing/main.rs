//! A hand-written polling loop, paced by this crate, in a simulated world: a shared-memory queue that is
//! polled, with a request every 4 us and pauses, and a descriptor that only a check notices.
//!
//! `cargo run -p aio-pollctl --example pacing` prints the work of the loop in 100 ms.

mod before_sleep;
mod steps;
mod world;

use std::convert::Infallible;

use aio_pollctl::{Learned, Pacing, Plan, PollParams, PollPolicy, Waited};

use world::World;

/// Queues that never have a request.
const IDLE_QUEUES: usize = 100;

/// One iteration: polls, spins, sleeps, and serves.
fn iterate(world: &mut World, pacing: &Pacing, policy: &mut impl PollPolicy) -> Result<(), Infallible> {
    let searched = pacing.search(world, policy.budget(), None)?;
    if searched.hit {
        pacing.after_hit(world)?;
    }
    let mut plan = pacing.plan(world, None, searched, false)?;
    if let Plan::Spin(timeout) = plan {
        plan = pacing.spin_on(world, timeout, || true)?;
    }
    let blocked = matches!(plan, Plan::Wait(_));
    if blocked {
        world.sleep();
    }
    let waited = Waited {
        searched,
        timeout: None,
        blocked,
    };
    let ended = pacing.ended(waited, || world.now_ns);
    let progress = world.serve();
    policy.observe(ended.measure());
    pacing.pre_sleep.step(|spin| spin.served(progress));
    Ok(())
}

/// Runs the loop for 100 ms of simulated time.
pub(crate) fn run() -> World {
    let mut world = World::new(1 + IDLE_QUEUES);
    let params = PollParams::unlimited();
    // The time of this world is unrelated to the machine's cores.
    let pacing = Pacing::new(false);
    pacing.reset(&params);
    let mut policy = Learned::new(params);
    while world.now_ns < 100_000_000 {
        let Ok(()) = iterate(&mut world, &pacing, &mut policy);
    }
    world
}

pub(crate) fn main() {
    let world = run();
    println!("{world:#?}");
}
