//! One run: from a seed to a verdict.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use aio_backend_epoll::Epoll;
use aio_backend_ladder::Ladder;
use aio_backend_ppoll::Ppoll;
use aio_backend_uring::{Config, Uring};
use aio_context::{Backend, Context, GroupId, Policy, PollParams, Wait};

use crate::calls::Calls;
use aio_testing::Layered;

use crate::clock::SimulatedClock;
use crate::kernel::{Kernel, NUMBERS};
use crate::plant::{Faulty, Plant};
use crate::world::{self, Planned, Rates, Violation, World};

/// The results of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Steps of the simulated user.
    pub steps: u64,
    /// Iterations of the outermost level that succeeded.
    pub iterations: u64,
    /// Callbacks of all kinds.
    pub callbacks: u64,
    /// Operations that have ended and were delivered.
    pub operations: u64,
    /// Faults by the kernel, the clock and the callbacks.
    pub faults: u64,
    /// A digest of all steps. The same seed has the same digest.
    pub digest: u64,
}

/// A violation, and the run that repeats it.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed of the run.
    pub seed: u64,
    /// The number of steps of the run.
    pub steps: u64,
    /// The description of the violation.
    pub why: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "AIO_SEED={} fails within {} steps: {} (again: cargo run -p aio-simulation -- --one {} --each {})",
            self.seed, self.steps, self.why, self.seed, self.steps
        )
    }
}

impl std::error::Error for Failure {}

/// Runs a seed for `steps` steps, and then without faults until no work is pending.
///
/// `plant` is a fault to plant; `trace` prints every step; `alone` also checks for descriptors that were left
/// open, which is possible only in a process without other work.
///
/// # Errors
/// The first violation.
///
/// # Panics
/// If `/dev/null` cannot be opened.
pub fn run(
    seed: u64,
    steps: u64,
    plant: Option<Plant>,
    trace: bool,
    alone: bool,
) -> Result<Summary, Failure> {
    keep_quiet();
    let null = File::open("/dev/null").expect("there is a /dev/null");
    let before = lowest_free(&null);
    let backing = (0..NUMBERS).map(|_| null.try_clone().map(|file| Rc::new(OwnedFd::from(file))));
    let backing: Vec<_> = backing
        .collect::<Result<_, _>>()
        .expect("there are descriptors left");
    let file = Arc::new(null.try_clone().expect("there are descriptors left"));
    let world = Rc::new(new_world(seed, backing, file, plant, trace));
    world::install(Some(world.clone()));
    let ran = catch_unwind(AssertUnwindSafe(|| live(&world, steps)));
    world.quiet.set(true);
    // A failed run may leave any state, so the state is not checked.
    let ended = catch_unwind(AssertUnwindSafe(|| bury(&world)));
    let mut failure = world.failure.take();
    if failure.is_none() && (ran.is_err() || ended.is_err()) {
        let payload = ran.err().or(ended.err());
        let text = payload.as_ref().and_then(|payload| {
            let text = payload.downcast_ref::<String>().map(String::as_str);
            text.or_else(|| payload.downcast_ref::<&str>().copied())
        });
        failure = Some(format!(
            "a panic outside every iteration: {}",
            text.unwrap_or("?")
        ));
    }
    if failure.is_none() && world.ports_alive.get() > 0 {
        failure = Some(format!(
            "I8: {} handlers were never dropped",
            world.ports_alive.get()
        ));
    }
    if failure.is_none() && world.owners.get() != 0 {
        let count = world.owners.get();
        failure = Some(format!("S1: the memory of {count} operations was not freed"));
    }
    let summary = Summary {
        steps,
        iterations: world.iterations.get(),
        callbacks: world.callbacks.get(),
        operations: world.operations.get(),
        faults: world.injected.get(),
        digest: world.history.get(),
    };
    world::install(None);
    drop(world);
    if failure.is_none() && alone && lowest_free(&null) != before {
        failure = Some("I8: a descriptor was left open".to_owned());
    }
    match failure {
        None => Ok(summary),
        Some(why) => Err(Failure { seed, steps, why }),
    }
}

fn lowest_free(null: &File) -> i32 {
    null.try_clone().map_or(-1, |file| file.as_raw_fd())
}

fn new_world(
    seed: u64,
    backing: Vec<Rc<OwnedFd>>,
    null: Arc<File>,
    plant: Option<Plant>,
    trace: bool,
) -> World {
    World {
        dice: RefCell::new(fastrand::Rng::with_seed(seed)),
        kernel: RefCell::new(Kernel::new(backing)),
        plant,
        rates: Cell::default(),
        started: Instant::now(),
        time: Cell::new(1_000_000_000),
        grain: Cell::new(1),
        frozen: Cell::new((0, 0)),
        readings: Cell::new(0),
        peeking: Cell::new(false),
        busy_acting: Cell::new(false),
        agenda: RefCell::default(),
        next_id: Cell::new(0),
        context: RefCell::default(),
        remote: RefCell::default(),
        doorbell: RefCell::default(),
        silent_at: Cell::new(0),
        groups: RefCell::default(),
        pauses: RefCell::default(),
        slots: RefCell::default(),
        halves: RefCell::default(),
        alarms: RefCell::default(),
        jobs: RefCell::default(),
        owed_halves: RefCell::default(),
        owed_alarms: RefCell::default(),
        levels: RefCell::default(),
        tick: Cell::new(0),
        iterations: Cell::new(0),
        virtual_runs: Cell::new(true),
        virtual_stops: Cell::new(0),
        idle_calls: Cell::new((0, 0)),
        injected: Cell::new(0),
        refused: Cell::new(0),
        callbacks: Cell::new(0),
        quiet: Cell::new(false),
        ports_alive: Cell::new(0),
        null,
        has_ring: Cell::new(false),
        submissions: RefCell::default(),
        submitting: Cell::new(0),
        ended: RefCell::default(),
        owners: Cell::new(0),
        operations: Cell::new(0),
        failure: RefCell::default(),
        history: Cell::new(seed),
        trace,
    }
}

/// Suppresses the messages of planned panics.
fn keep_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let ours = info.payload().is::<Planned>() || info.payload().is::<Violation>();
            if !ours {
                usual(info);
            }
        }));
    });
}

fn backend(world: &Rc<World>) -> Box<dyn Backend> {
    let calls = || Calls(world.clone());
    let ppoll = || Ppoll::with_sys(calls());
    let make = {
        let world = world.clone();
        move || Epoll::with_sys(Calls(world.clone()))
    };
    let inner: Box<dyn Backend> = match world.below(9) {
        0 => Box::new(ppoll()),
        1 => match make() {
            Ok(epoll) => Box::new(epoll),
            Err(_) => Box::new(ppoll()),
        },
        2 => Box::new(Ladder::new(ppoll(), make, 0)),
        3 => Box::new(Ladder::new(ppoll(), make, 4)),
        4 => Box::new(Ladder::new(ppoll(), make, 8).climbing_after(32)),
        5 => Box::new(Ladder::new(ppoll(), make, 64).climbing_after(256)),
        _ => Box::new(Uring::with_sys(calls(), Config::new()).expect("a simulated ring")),
    };
    match world.plant {
        Some(plant) => Box::new(Layered(Faulty {
            inner,
            plant,
            calls: 0,
            kept: Vec::new(),
            lost: Vec::new(),
        })),
        None => inner,
    }
}

fn rates(world: &World) -> Rates {
    // A third of the runs have no fault of a kind, so that faults of this kind do not hide others.
    let rate = |most: u64| {
        if world.one_in(3) {
            0
        } else {
            world.below(most) as u16
        }
    };
    Rates {
        interrupted: rate(400),
        spurious: rate(400),
        refused: rate(300),
        failed_waits: rate(12),
        panics: rate(40),
        jumps: rate(4),
    }
}

fn build(world: &Rc<World>) -> Context {
    let params = match world.below(3) {
        0 => PollParams::up_to(Duration::ZERO),
        _ => PollParams::up_to(Duration::from_nanos(world.below(16_000))),
    };
    let policies = Policy::NAMES;
    let policy = policies[world.below(policies.len() as u64) as usize];
    let batch = [1, 2, 3, 64][world.below(4) as usize];
    let mut builder = Context::builder()
        .backend(backend(world))
        .monotonic(Arc::new(SimulatedClock))
        .poll_params(params)
        .batch(batch);
    if let Some(policy) = Policy::by_name(policy, params) {
        builder = builder.policy(Box::new(policy));
    }
    let cx = builder.build().expect("no call fails before the start");
    world.record(|| format!("{cx:?}, {policy}, {params:?}, batch {batch}"), 0);
    let groups = vec![GroupId::DEFAULT, cx.new_group(), cx.new_group()];
    world.groups.replace(groups);
    world.remote.replace(Some(cx.remote()));
    world.context.replace(Some(cx.downgrade()));
    cx
}

fn live(world: &Rc<World>, steps: u64) {
    let cx = build(world);
    let rates = rates(world);
    world.rates.set(rates);
    world.record(|| format!("{rates:?}"), 0);
    for _ in 0..steps {
        world.step(&cx);
    }
    // Some contexts are dropped with unfinished work.
    if world.one_in(4) {
        world.record(|| "the context is dropped".to_owned(), 0);
        world.quiet.set(true);
        return;
    }
    recover(world, &cx);
}

/// Runs without faults until all pending work is done. Then the loop must sleep.
fn recover(world: &World, cx: &Context) {
    world.record(|| "no faults from here on".to_owned(), 0);
    world.rates.set(Rates::default());
    world.quiet.set(true);
    world.frozen.set((0, world.peek_time()));
    world.grain.set(1);
    let pauses = world.pauses.take();
    drop(pauses);
    // No other thread acts during a change of the clock.
    let busy = world.busy_acting.replace(true);
    world.act(crate::action::Action::StartClock);
    world.busy_acting.set(busy);
    let doomed = |world: &World| {
        let slots = world.slots.borrow();
        let kernel = world.kernel.borrow();
        let doomed = slots
            .iter()
            .find(|slot| slot.port.doomed.get() || kernel.files[slot.port.file].regular);
        doomed.map(|slot| slot.port.id)
    };
    while let Some(id) = doomed(world) {
        world.remove(id);
    }
    world.release_operations();
    let most = 400 + 70 * world.slots.borrow().len() + 2 * world.agenda.borrow().len();
    for _ in 0..most {
        if world.is_quiet() {
            break;
        }
        world.poll(cx, Wait::AtMost(Duration::from_secs(40 * 86_400)));
    }
    world.require(world.is_quiet(), || {
        format!(
            "I1: after {most} iterations without faults something is still owed: {}",
            world.debts()
        )
    });
    sleeps(world, cx);
}

/// Checks that a loop without work sleeps: one iteration takes its second, and few calls.
fn sleeps(world: &World, cx: &Context) {
    let mut last = (0, 0);
    for _ in 0..4 {
        let (began, idle) = (world.time.get(), world.callbacks.get());
        world.idle_calls.set((0, began));
        let progress = world.poll(cx, Wait::AtMost(Duration::from_secs(1)));
        let (calls, _) = world.idle_calls.get();
        last = (world.time.get() - began, calls);
        if last.0 >= 1_000_000_000 {
            world.require(!progress && world.callbacks.get() == idle, || {
                "D4: progress without anything to do".to_owned()
            });
            return;
        }
    }
    world.fail(format!(
        "a loop with nothing to do does not sleep: {last:?} (ns, calls)"
    ));
}

/// Drops the objects of the run, those of the user first.
fn bury(world: &World) {
    let (pauses, slots) = (world.pauses.take(), world.slots.take());
    let (halves, alarms) = (world.halves.take(), world.alarms.take());
    let submissions = world.submissions.take();
    drop((pauses, slots, halves, alarms, submissions));
    drop((world.remote.take(), world.context.take(), world.doorbell.take()));
    world.agenda.borrow_mut().clear();
}
