//! A polling loop by hand, paced by this crate, in a simulated world: a shared-memory queue that is polled, with a request every
//! 4 us and pauses, and a descriptor that only a check sees.
//!
//! `cargo run -p aio-pollctl --example pacing` prints the work of the loop in 100 ms.

use std::time::Duration;

use aio_pollctl::{
    CheckPacer, ClockStride, IdleCosts, Iteration, Learned, PollParams, PollPolicy, PreSleepSpin,
};

/// What polling one source, checking the descriptors, and a sleep cost here, in nanoseconds.
const POLL_NS: u64 = 30;
const CHECK_NS: u64 = 300;
const WAKE_NS: u64 = 10_000;
/// Queues that never have a request.
const IDLE_QUEUES: usize = 100;

/// The simulated events, and the work of the loop.
#[derive(Debug, Default)]
pub(crate) struct World {
    now_ns: u64,
    next_request_ns: u64,
    next_event_ns: u64,
    /// A check or a wake-up has found the event.
    found: bool,
    pub(crate) requests: u64,
    pub(crate) events: u64,
    pub(crate) polls: u64,
    pub(crate) checks: u64,
    pub(crate) sleeps: u64,
    /// The longest time for which an event waited for a check while the loop was awake.
    pub(crate) latest_ns: u64,
    /// Queues that are still polled.
    pub(crate) polled: usize,
}

impl World {
    /// One round; whether the queue has a request.
    fn poll(&mut self) -> bool {
        self.polls += 1;
        self.now_ns += POLL_NS + (self.polled - 1) as u64;
        self.next_request_ns <= self.now_ns
    }

    fn check(&mut self) -> bool {
        self.checks += 1;
        self.now_ns += CHECK_NS;
        self.found = self.next_event_ns <= self.now_ns;
        self.found
    }

    fn sleep(&mut self) {
        self.sleeps += 1;
        self.now_ns = self.now_ns.max(self.next_request_ns.min(self.next_event_ns)) + WAKE_NS;
        self.found = self.next_event_ns <= self.now_ns;
    }

    /// Serves the events that were found. Returns whether there were any.
    fn serve(&mut self) -> bool {
        let before = self.requests + self.events;
        if self.next_request_ns <= self.now_ns {
            self.requests += 1;
            let pause = if self.requests.is_multiple_of(100) {
                1_000_000
            } else {
                4_000
            };
            self.next_request_ns = self.now_ns + pause;
        }
        if std::mem::take(&mut self.found) {
            self.events += 1;
            self.latest_ns = self.latest_ns.max(self.now_ns - self.next_event_ns);
            self.next_event_ns = self.now_ns + 77_000;
        }
        self.requests + self.events > before
    }
}

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
    let mut world = World {
        polled: 1 + IDLE_QUEUES,
        ..World::default()
    };
    let mut policy = Learned::new(PollParams::unlimited());
    let (mut pacer, mut spin, costs) = (CheckPacer::new(), PreSleepSpin::new(), IdleCosts::TYPICAL);
    let mut tested = 0;
    while world.now_ns < 100_000_000 {
        let began_ns = world.now_ns;
        let hit = search(&mut world, &mut pacer, policy.budget());
        let spun_ns = world.now_ns - began_ns;
        let mut blocked = false;
        if !hit && spin.is_worth_it() {
            let until_ns = world.now_ns + u64::try_from(PreSleepSpin::LONGEST.as_nanos()).unwrap_or(0);
            let found =
                std::iter::from_fn(|| (world.now_ns < until_ns).then(|| world.check())).any(|found| found);
            spin.found(found);
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
