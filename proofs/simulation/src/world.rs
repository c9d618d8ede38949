//! The world of one run: time, random choices, the calls of the loop, and the pending work.
//!
//! It is a thread-local, because callbacks on behalf of "other threads" must be `Send`.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aio_context::{BottomHalf, Context, GroupId, Paused, Registration, Remote, Timer, Wait, WeakContext};

use crate::action::Action;
use crate::kernel::Kernel;
use crate::plant::Plant;
use crate::port::Port;
use crate::submission::Submission;

/// The rates of the faults, in 1/4096 of the calls.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rates {
    pub(crate) interrupted: u16,
    pub(crate) spurious: u16,
    pub(crate) refused: u16,
    pub(crate) failed_waits: u16,
    pub(crate) panics: u16,
    pub(crate) jumps: u16,
}

/// The panic of a violation. It propagates through the loop to the driver.
pub(crate) struct Violation;
/// The planned panic of a callback of the simulated user.
pub(crate) struct Planned;

/// A `poll` that is on the stack.
#[derive(Debug)]
pub(crate) struct Level {
    pub(crate) wait: Wait,
    /// The reading of the clock when it began.
    pub(crate) began: u64,
    pub(crate) tick: u64,
    pub(crate) calls: u64,
    /// The calls of ports: 0 readable, 1 writable, 2 poll_ready.
    pub(crate) served: Vec<(u32, u8)>,
}

pub(crate) struct Slot {
    pub(crate) port: Rc<Port>,
    pub(crate) registration: Registration,
}

pub(crate) struct Half {
    pub(crate) id: u32,
    pub(crate) handle: BottomHalf,
    pub(crate) owed: Rc<Owed>,
}

/// The pending work of a bottom half.
#[derive(Debug, Default)]
pub(crate) struct Owed {
    /// The iteration in which it was scheduled, if it is.
    pub(crate) since: Cell<Option<u64>>,
    pub(crate) idle: Cell<bool>,
    pub(crate) deleted: Cell<bool>,
}

#[derive(Debug)]
pub(crate) struct Alarm {
    pub(crate) timer: Timer,
    pub(crate) state: Rc<Armed>,
}

/// The state of a timer.
#[derive(Debug, Default)]
pub(crate) struct Armed {
    pub(crate) id: u64,
    pub(crate) is_virtual: bool,
    pub(crate) deadline: Cell<Option<u64>>,
    pub(crate) order: Cell<u64>,
    pub(crate) tick: Cell<u64>,
    pub(crate) dropped: Cell<bool>,
}

pub(crate) struct World {
    pub(crate) dice: RefCell<fastrand::Rng>,
    pub(crate) kernel: RefCell<Kernel>,
    pub(crate) plant: Option<Plant>,
    pub(crate) rates: Cell<Rates>,
    pub(crate) started: Instant,
    /// Nanoseconds since the start.
    pub(crate) time: Cell<u64>,
    /// The resolution of the clock: it shows multiples of this.
    pub(crate) grain: Cell<u64>,
    /// The number of readings for which the clock stands still, and the reading that it shows then.
    pub(crate) frozen: Cell<(u32, u64)>,
    /// Readings of the clock since the loop entered the kernel or made a callback.
    pub(crate) readings: Cell<u32>,
    /// Set while the checks read the clock: no time passes, and no action runs.
    pub(crate) peeking: Cell<bool>,
    pub(crate) busy_acting: Cell<bool>,
    pub(crate) agenda: RefCell<BTreeMap<(u64, u64), Action>>,
    pub(crate) next_id: Cell<u64>,
    pub(crate) context: RefCell<Option<WeakContext>>,
    pub(crate) remote: RefCell<Option<Remote>>,
    pub(crate) doorbell: RefCell<Option<OwnedFd>>,
    pub(crate) silent_at: Cell<u64>,
    pub(crate) groups: RefCell<Vec<GroupId>>,
    pub(crate) pauses: RefCell<Vec<(usize, Paused)>>,
    pub(crate) slots: RefCell<Vec<Slot>>,
    pub(crate) halves: RefCell<Vec<Half>>,
    pub(crate) alarms: RefCell<Vec<Alarm>>,
    /// The jobs that were sent and have not run: number, and iteration of the sending.
    pub(crate) jobs: RefCell<BTreeMap<u64, u64>>,
    /// The state of all live bottom halves and timers, for the checks.
    pub(crate) owed_halves: RefCell<Vec<Rc<Owed>>>,
    pub(crate) owed_alarms: RefCell<Vec<Rc<Armed>>>,
    pub(crate) levels: RefCell<Vec<Level>>,
    pub(crate) tick: Cell<u64>,
    /// The number of iterations of the outermost level that succeeded.
    pub(crate) iterations: Cell<u64>,
    pub(crate) virtual_runs: Cell<bool>,
    pub(crate) virtual_stops: Cell<u64>,
    /// The number of calls into the kernel since a callback ran or time passed, and the time of that.
    pub(crate) idle_calls: Cell<(u32, u64)>,
    pub(crate) injected: Cell<u64>,
    /// The number of errors injected since all registrations were intact.
    pub(crate) refused: Cell<u64>,
    pub(crate) callbacks: Cell<u64>,
    pub(crate) quiet: Cell<bool>,
    pub(crate) ports_alive: Cell<u32>,
    /// The file of all operations.
    pub(crate) null: Arc<File>,
    /// `true` if the loop waits on a ring, which executes operations.
    pub(crate) has_ring: Cell<bool>,
    /// The operations that the user waits for, or that the kernel has.
    pub(crate) submissions: RefCell<BTreeMap<u64, Rc<Submission>>>,
    /// The operation that is being submitted.
    pub(crate) submitting: Cell<u64>,
    /// Operations that have ended, and that the ring has not received.
    pub(crate) ended: RefCell<VecDeque<u64>>,
    /// The number of live owners of foreign memory.
    pub(crate) owners: Cell<i64>,
    /// The number of operations that have ended and were delivered.
    pub(crate) operations: Cell<u64>,
    pub(crate) failure: RefCell<Option<String>>,
    pub(crate) history: Cell<u64>,
    pub(crate) trace: bool,
}

thread_local! {
    static WORLD: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
}

pub(crate) fn install(world: Option<Rc<World>>) {
    let former = WORLD.replace(world);
    drop(former);
}

/// Returns this thread's world.
pub(crate) fn here() -> Rc<World> {
    WORLD.with_borrow(|world| world.clone().expect("a run is under way"))
}

pub(crate) fn with<R>(use_world: impl FnOnce(&World) -> R) -> R {
    use_world(&here())
}

impl World {
    pub(crate) fn below(&self, limit: u64) -> u64 {
        self.dice.borrow_mut().u64(..limit.max(1))
    }

    /// Returns `true` in `rate` of 4096 cases. If `rate` is zero, it draws no random number.
    pub(crate) fn strikes(&self, rate: u16) -> bool {
        rate > 0 && self.below(4096) < u64::from(rate)
    }

    pub(crate) fn one_in(&self, cases: u64) -> bool {
        self.below(cases) == 0
    }

    pub(crate) fn id(&self) -> u64 {
        self.next_id.set(self.next_id.get() + 1);
        self.next_id.get()
    }

    pub(crate) fn pass(&self, nanos: u64) {
        self.time.set(self.time.get().saturating_add(nanos));
    }

    /// Lets time pass for a reading of the clock. The more readings in a row, the longer each takes:
    /// otherwise a run would spend most of its time in searches for work, and further rounds test no more
    /// than the first.
    pub(crate) fn pass_for_a_reading(&self) {
        let readings = self.readings.get();
        self.readings.set(readings + 1);
        let times = 1 << readings.min(4);
        self.pass(times * (20 + self.below(100)));
    }

    /// Returns the reading of the clock, which is never later than the time.
    pub(crate) fn shown_time(&self) -> u64 {
        let (readings, at) = self.frozen.get();
        if readings > 0 {
            self.frozen.set((readings - 1, at));
            return at;
        }
        let grain = self.grain.get();
        let shown = self.time.get() / grain * grain;
        shown.max(at)
    }

    /// Like [`shown_time`](Self::shown_time), without counting as a reading.
    pub(crate) fn peek_time(&self) -> u64 {
        let (readings, at) = self.frozen.get();
        if readings > 0 {
            return at;
        }
        let grain = self.grain.get();
        (self.time.get() / grain * grain).max(at)
    }

    pub(crate) fn instant(&self) -> Instant {
        self.started + Duration::from_nanos(self.time.get())
    }

    pub(crate) fn cx(&self) -> Option<Context> {
        self.context.borrow().as_ref().and_then(WeakContext::upgrade)
    }

    pub(crate) fn remote(&self) -> Option<Remote> {
        self.remote.borrow().clone()
    }

    pub(crate) fn is_paused(&self, group: usize) -> bool {
        self.pauses.borrow().iter().any(|(paused, _)| *paused == group)
    }

    /// Adds a step to the digest of this run, and prints it if the run is traced.
    pub(crate) fn record(&self, what: impl FnOnce() -> String, digest: u64) {
        let mixed = (self.history.get() ^ digest ^ self.time.get()).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.history.set(mixed.rotate_left(29));
        if self.trace {
            println!(
                "{:>14} {:>3} {}",
                self.time.get(),
                self.levels.borrow().len(),
                what()
            );
        }
    }

    /// Records a callback, which is progress of the loop.
    pub(crate) fn called(&self) {
        self.callbacks.set(self.callbacks.get() + 1);
        self.idle_calls.set((0, self.time.get()));
        self.readings.set(0);
    }

    /// Ends the run because of a violation.
    pub(crate) fn fail(&self, why: String) -> ! {
        self.fail_later(why);
        std::panic::panic_any(Violation);
    }

    /// Like [`fail`](Self::fail), for code that must not panic: the run fails at its end.
    pub(crate) fn fail_later(&self, why: String) {
        self.failure.borrow_mut().get_or_insert(why);
    }

    pub(crate) fn require(&self, holds: bool, why: impl FnOnce() -> String) {
        if !holds && std::thread::panicking() {
            self.fail_later(why());
        } else if !holds {
            self.fail(why());
        }
    }
}
