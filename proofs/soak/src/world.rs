//! The mixed load: one context that lives as long as the run, and the operations on it, one random round at a
//! time.
//!
//! Every round ends when all events that it has caused have arrived. A round that does not end has lost an
//! event.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aio_context::{
    BottomHalf, ClockId, Context, GroupId, Interest, Moment, PollParams, Polled, Registration, Timer, Wait,
};

use crate::churn;
use crate::handlers::{Bell, Queue, QueueHandler};
use crate::helpers::{Helper, Order};
use crate::tally::Tally;
use crate::watchdog::Watchdog;

/// The number of descriptors, of bottom halves, and of timers.
const WIDTH: usize = 64;
const HELPERS: usize = 2;

/// The kinds of rounds, with their names for the report at the end.
const KINDS: [(&str, u32, Round); 11] = [
    ("descriptors", 6, World::descriptors),
    ("bottom halves", 6, World::bottom_halves),
    ("timers", 6, World::timers),
    ("jobs from threads", 4, World::jobs),
    ("schedules from threads", 2, World::schedules),
    ("notify storms", 1, World::storm),
    ("polled queues", 3, World::work),
    ("comings and goings", 3, World::churn),
    ("pauses", 2, World::pauses),
    ("contexts", 1, World::contexts),
    ("polling on and off", 1, World::polling),
];
type Round = fn(&mut World) -> io::Result<()>;

/// The objects of the load. Fields are dropped in this order: helpers before the objects that they use.
pub(crate) struct World {
    helpers: Vec<Helper>,
    tally: Arc<Tally>,
    orders: u64,
    jobs: u64,
    work: u64,
    /// The callbacks whose exact number is fixed.
    served: Rc<Cell<u64>>,
    /// The callbacks that other threads cause. Two that arrive close together may be served as one.
    merged: Rc<Cell<u64>>,
    bells: Vec<(Rc<Bell>, Registration)>,
    group: GroupId,
    halves: Vec<BottomHalf>,
    timers: Vec<Timer>,
    /// The earliest time at which each timer may fire.
    due: Rc<RefCell<Vec<Moment>>>,
    queue: Rc<QueueHandler>,
    _queue: Registration,
    rounds: [u64; KINDS.len()],
    cx: Context,
}

impl World {
    pub(crate) fn new() -> io::Result<Self> {
        let cx = Context::new()?;
        let served = Rc::new(Cell::new(0));
        let group = cx.new_group();
        let bell = |_| {
            let bell = Bell::new(&served)?;
            let registration = cx.watch_in(group, bell.clone(), Interest::READ)?;
            Ok((bell, registration))
        };
        let half = |number| {
            let served = served.clone();
            cx.bottom_half("soak", move |cx| {
                served.set(served.get() + 1);
                // Some poll again, during an iteration.
                if number % 16 == 0 {
                    // If this poll finds an error, the outer iteration finds it as well.
                    let _ = cx.poll(Wait::NoBlock);
                }
            })
        };
        let due = Rc::new(RefCell::new(vec![Moment::NEVER; WIDTH]));
        let timer = |number| {
            let (served, due) = (served.clone(), due.clone());
            cx.timer(ClockId::Monotonic, move |cx, _| {
                assert!(
                    cx.now(ClockId::Monotonic) >= due.borrow()[number],
                    "a timer fired early"
                );
                served.set(served.get() + 1);
            })
            .disarmed()
        };
        let tally = Arc::new(Tally::default());
        let merged = Rc::new(Cell::new(0));
        let queue = Queue::handler(&tally, &merged)?;
        let registration = cx.watch(Polled(queue.clone()), Interest::READ)?;
        let helper = |_| {
            let (tally, merged) = (tally.clone(), merged.clone());
            let seen = tally.clone();
            let half = cx.bottom_half("from a thread", move |_| {
                seen.saw_schedules();
                merged.set(merged.get() + 1);
            });
            Helper::start(cx.remote(), half, queue.queue.clone(), tally)
        };
        Ok(Self {
            helpers: (0..HELPERS).map(helper).collect(),
            orders: 0,
            jobs: 0,
            work: 0,
            bells: (0..WIDTH).map(bell).collect::<io::Result<_>>()?,
            group,
            halves: (0..WIDTH).map(half).collect(),
            timers: (0..WIDTH).map(timer).collect(),
            due,
            queue,
            _queue: registration,
            rounds: [0; KINDS.len()],
            tally,
            served,
            merged,
            cx,
        })
    }

    /// Runs rounds until `events` callbacks have run. Returns their number.
    pub(crate) fn run(&mut self, events: u64, watchdog: &Watchdog) -> io::Result<u64> {
        let before = self.events();
        while self.events() - before < events {
            let (number, round) = pick();
            round(self)?;
            self.rounds[number] += 1;
            watchdog.progress();
        }
        Ok(self.events() - before)
    }

    fn events(&self) -> u64 {
        self.served.get() + self.merged.get() + self.tally.jobs_run.load(Ordering::Relaxed)
    }

    /// Polls until the number of served callbacks is `target`.
    fn until_served(&self, target: u64) -> io::Result<()> {
        while self.served.get() < target {
            self.cx.poll(Wait::Block)?;
        }
        assert_eq!(self.served.get(), target, "something ran twice");
        Ok(())
    }

    fn ring(&self, count: usize) {
        let first = fastrand::usize(..WIDTH);
        for number in 0..count {
            self.bells[(first + number) % WIDTH].0.ring();
        }
    }

    fn descriptors(&mut self) -> io::Result<()> {
        let count = fastrand::usize(1..=WIDTH);
        let target = self.served.get() + count as u64;
        self.ring(count);
        self.until_served(target)
    }

    fn bottom_halves(&mut self) -> io::Result<()> {
        let count = fastrand::usize(1..=WIDTH);
        let target = self.served.get() + count as u64;
        for half in &self.halves[..count] {
            half.schedule();
        }
        // These two are cancelled.
        for half in &self.halves[count..(count + 2).min(WIDTH)] {
            half.schedule();
            half.cancel();
        }
        self.until_served(target)
    }

    fn timers(&mut self) -> io::Result<()> {
        let count = fastrand::usize(1..=WIDTH);
        let target = self.served.get() + count as u64;
        let now = self.cx.now(ClockId::Monotonic);
        for (number, timer) in self.timers.iter().enumerate() {
            // Twice, because most timers are moved.
            timer.arm_at(now.saturating_add(Duration::from_secs(3600)));
            let deadline = now.saturating_add(Duration::from_micros(fastrand::u64(..50)));
            self.due.borrow_mut()[number] = deadline;
            timer.arm_at(deadline);
            if number >= count {
                timer.cancel();
            }
        }
        self.until_served(target)
    }

    /// Sends an order to all helpers, and polls until they are done and `arrived` returns `true`.
    fn tell(&mut self, order: Order, arrived: impl Fn(&Self) -> bool) -> io::Result<()> {
        for helper in &self.helpers {
            helper.tell(order);
            self.orders += 1;
        }
        let is_done = || self.tally.orders_done.load(Ordering::Acquire) == self.orders && arrived(self);
        self.cx.wait_while(|| !is_done())?;
        Ok(())
    }

    fn jobs(&mut self) -> io::Result<()> {
        let each = fastrand::u64(1..=WIDTH as u64);
        self.jobs += each * HELPERS as u64;
        self.tell(Order::Jobs(each), |world| {
            world.tally.jobs_run.load(Ordering::Relaxed) == world.jobs
        })
    }

    fn schedules(&mut self) -> io::Result<()> {
        self.tell(Order::Schedules(fastrand::u64(1..=200)), |world| {
            world.tally.schedules_are_seen()
        })
    }

    fn storm(&mut self) -> io::Result<()> {
        self.tell(Order::Notifications(200), |_| true)
    }

    fn work(&mut self) -> io::Result<()> {
        let each = fastrand::u64(1..=100);
        self.work += each * HELPERS as u64;
        self.tell(Order::Work(each), |world| world.queue.taken() == world.work)
    }

    fn churn(&mut self) -> io::Result<()> {
        for _ in 0..8 {
            let number = fastrand::usize(..WIDTH);
            let bell = Bell::new(&self.served)?;
            let registration = self.cx.watch(bell.clone(), Interest::READ)?;
            bell.ring();
            registration.set_interest(Interest::READ | Interest::WRITE)?;
            registration.set_interest(Interest::READ)?;
            let target = self.served.get() + 1;
            if fastrand::bool() {
                // Removed before its call, so it is never called.
                drop(registration);
                self.cx.poll(Wait::NoBlock)?;
                assert_eq!(self.served.get(), target - 1, "called after its removal");
            } else {
                self.until_served(target)?;
                drop(registration);
                let registration = self.cx.watch_in(self.group, bell.clone(), Interest::READ)?;
                self.bells[number] = (bell, registration);
            }
        }
        Ok(())
    }

    fn pauses(&mut self) -> io::Result<()> {
        let outer = self.cx.pause(self.group);
        let before = self.served.get();
        let (first, count) = (fastrand::usize(..WIDTH), fastrand::usize(1..=WIDTH));
        let members = || (0..count).map(|number| &self.bells[(first + number) % WIDTH]);
        members().for_each(|(bell, _)| bell.ring());
        let inner = self.cx.pause(self.group);
        self.cx.poll(Wait::NoBlock)?;
        drop(outer);
        self.cx.poll(Wait::NoBlock)?;
        assert_eq!(self.served.get(), before, "called while paused");
        drop(inner);
        self.until_served(before + count as u64)
    }

    fn contexts(&mut self) -> io::Result<()> {
        churn::come_and_go(&self.served)
    }

    fn polling(&mut self) -> io::Result<()> {
        let max = Duration::from_micros(fastrand::choice([0, 0, 4, 32]).unwrap_or(0));
        self.cx.set_poll_params(PollParams::up_to(max));
        self.cx.poll(Wait::NoBlock)?;
        Ok(())
    }
}

/// Chooses a round, by weight.
fn pick() -> (usize, Round) {
    let all: u32 = KINDS.iter().map(|(_, weight, _)| weight).sum();
    let mut left = fastrand::u32(..all);
    for (number, (_, weight, round)) in KINDS.into_iter().enumerate() {
        if left < weight {
            return (number, round);
        }
        left -= weight;
    }
    (0, KINDS[0].2)
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounds = KINDS.iter().zip(self.rounds);
        let rounds = rounds.map(|((name, ..), count)| format!("{name} {count}"));
        let (sent, elided) = self.cx.remote().wakeups();
        write!(
            f,
            "rounds: {}; wake-ups: {sent} sent, {elided} elided; backend {}",
            rounds.collect::<Vec<_>>().join(", "),
            self.cx.backend_name()
        )
    }
}
