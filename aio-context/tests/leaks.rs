//! No descriptor and no byte is leaked, after ten thousand contexts and after ten million events.
//!
//! `AIO_EVENTS=10000000 AIO_CONTEXTS=1000000 cargo test --release --test leaks` is a long run; without them the numbers are
//! smaller.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "counting/bell.rs"]
mod bell;
mod counting;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aio_backend_epoll::Epoll;
use aio_backend_ladder::Ladder;
use aio_backend_ppoll::Ppoll;
use aio_context::{
    BackendKind, BottomHalf, ClockId, Context, GroupId, Interest, PollParams, Polled, Registration, Remote,
    Timer, Wait,
};

use bell::Bell;
use counting::Live;

/// Descriptors belong to the process, so one test at a time opens and closes them.
struct Turn {
    _turn: MutexGuard<'static, ()>,
}

fn alone() -> Turn {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    counting::observe_this_thread(true);
    Turn { _turn: turn }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // The next test must not count the memory that the harness frees when this thread ends.
        counting::observe_this_thread(false);
    }
}

/// Returns a number from the environment, or `otherwise`.
fn wanted(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |number| number.parse().expect(name))
}

fn events_wanted() -> u64 {
    wanted("AIO_EVENTS", 300_000)
}

/// Returns the live memory and the number of open descriptors.
fn inventory() -> (Live, usize) {
    let live = counting::live();
    (live, std::fs::read_dir("/proc/self/fd").unwrap().count())
}

/// Counts the events of its owners.
type Events = Rc<Cell<usize>>;

fn happened(events: &Events) {
    events.set(events.get() + 1);
}

/// Builds a context, uses it in every way, and drops it.
fn live_once(number: u64, events: &Events) {
    let kind = if number.is_multiple_of(7) {
        BackendKind::Ppoll
    } else {
        BackendKind::Auto
    };
    let cx = Context::builder().backend_kind(kind).build().unwrap();
    let (plain, polled) = (Bell::new(events), Bell::new(events));
    let registration = cx.watch(plain.clone(), Interest::READ).unwrap();
    let detached = cx.watch(Polled(polled), Interest::READ).unwrap().detach();
    let seen = events.clone();
    let bh = cx.bottom_half("leaks", move |_| happened(&seen));
    let seen = events.clone();
    let timer = cx
        .timer(ClockId::Monotonic, move |_, _| happened(&seen))
        .disarmed();
    plain.ring();
    bh.schedule();
    timer.arm_after(Duration::ZERO);
    cx.remote().run(|_| ()).unwrap();
    if number.is_multiple_of(3) {
        let embedded = cx.embed().unwrap();
        drop(cx.embed().unwrap());
        while embedded.prepare() == Some(Duration::ZERO) {
            embedded.dispatch();
        }
        drop(embedded);
    }
    while cx.poll(Wait::NoBlock).unwrap() {}
    // The context is dropped in different states: with work that never ran, with a paused group, before its handles.
    if number.is_multiple_of(2) {
        bh.schedule_idle();
        cx.remote().run(|_| unreachable!("no poll follows")).unwrap();
        timer.arm_after(Duration::from_secs(3600));
        assert!(cx.unwatch(detached));
        plain.ring();
    }
    let pause = number.is_multiple_of(5).then(|| cx.pause(GroupId::DEFAULT));
    let remote = cx.remote();
    drop(cx);
    assert!(remote.run(|_| ()).is_err());
    drop((registration, pause));
}

/// Rule B7.
#[test]
fn case_87_contexts_that_come_and_go_leave_nothing() {
    let _turn = alone();
    let events = Rc::default();
    (0..30).for_each(|number| live_once(number, &events));
    let before = inventory();
    let seen = events.get();
    let contexts = wanted("AIO_CONTEXTS", 10_000);
    (0..contexts).for_each(|number| live_once(number, &events));
    assert_eq!(inventory(), before);
    assert_eq!((events.get() - seen) as u64, 3 * contexts);
}

/// The number of rounds after which a world has done each of its actions.
const CYCLE: u64 = 1_024;

/// An array of the backend is as long as the highest number in use, which changes from cycle to cycle.
const LEEWAY: i64 = 4_096;

/// A context with all kinds of handlers, bottom halves and timers.
struct World {
    cx: Context,
    events: Events,
    plain: Vec<(Rc<Bell>, Registration)>,
    polled: Vec<(Rc<Bell>, Registration)>,
    bottom_halves: Vec<BottomHalf>,
    timers: Vec<Timer>,
    group: GroupId,
    shots: Arc<AtomicU64>,
}

impl World {
    fn new() -> Self {
        // A ladder that depends on the number of descriptors only, so that it also steps down.
        let ladder = Ladder::new(Ppoll::new(), Epoll::new, 64);
        let cx = Context::builder().backend(Box::new(ladder)).build().unwrap();
        let (events, group) = (Events::default(), cx.new_group());
        let bells = || (0..12).map(|_| Bell::new(&events));
        let bottom_half = |_| {
            let events = events.clone();
            cx.bottom_half("world", move |_| happened(&events))
        };
        let timer = |_| {
            let events = events.clone();
            cx.timer(ClockId::Monotonic, move |_, _| happened(&events))
                .disarmed()
        };
        Self {
            plain: bells()
                .map(|bell| (bell.clone(), cx.watch_in(group, bell, Interest::READ).unwrap()))
                .collect(),
            polled: bells()
                .map(|bell| (bell.clone(), cx.watch(Polled(bell), Interest::READ).unwrap()))
                .collect(),
            bottom_halves: (0..16).map(bottom_half).collect(),
            timers: (0..8).map(timer).collect(),
            shots: Arc::default(),
            group,
            events: events.clone(),
            cx,
        }
    }

    fn count(&self) -> u64 {
        self.events.get() as u64 + self.shots.load(Ordering::Relaxed)
    }

    /// Gives each object work, and runs the loop.
    fn round(&mut self, number: u64) {
        self.plain.iter().for_each(|(bell, _)| bell.ring());
        self.polled.iter().for_each(|(bell, _)| bell.work.set(true));
        self.bottom_halves.iter().for_each(BottomHalf::schedule);
        self.timers
            .iter()
            .for_each(|timer| timer.arm_after(Duration::ZERO));
        let remote = self.cx.remote();
        for _ in 0..8 {
            let shots = self.shots.clone();
            let job = move |_: &Context| {
                shots.fetch_add(1, Ordering::Relaxed);
            };
            remote.run(job).unwrap();
        }
        if number.is_multiple_of(16) {
            self.churn();
        }
        if number == CYCLE / 2 {
            self.crowd();
        }
        // Polling is switched on and off.
        if number.is_multiple_of(64) {
            let max = Duration::from_micros(if number.is_multiple_of(128) { 20 } else { 0 });
            self.cx.set_poll_params(PollParams::up_to(max));
        }
        self.settle();
    }

    /// Adds, removes and changes registrations.
    fn churn(&mut self) {
        let pause = self.cx.pause(self.group);
        self.cx.poll(Wait::NoBlock).unwrap();
        drop(pause);
        let (bell, registration) = &self.plain[0];
        registration.replace(bell.clone()).unwrap();
        registration.set_interest(Interest::NONE).unwrap();
        registration.set_interest(Interest::READ).unwrap();
        let fresh = Bell::new(&self.events);
        fresh.ring();
        let registration = self.cx.watch(fresh.clone(), Interest::READ).unwrap();
        self.plain[1] = (fresh, registration);
        let events = self.events.clone();
        self.bottom_halves[0] = self.cx.bottom_half("again", move |_| happened(&events));
        let events = self.events.clone();
        self.timers[0] = self
            .cx
            .timer(ClockId::Monotonic, move |_, _| happened(&events))
            .disarmed();
    }

    /// Registers so many descriptors that the backend climbs to epoll, then removes them, after which it steps down to ppoll.
    fn crowd(&self) {
        self.cx.set_poll_params(PollParams::default());
        let watch = |_| self.cx.watch(Bell::new(&self.events), Interest::READ).unwrap();
        let crowd: Vec<_> = (0..80).map(watch).collect();
        self.cx.poll(Wait::AtMost(Duration::from_nanos(1))).unwrap();
        assert_eq!(self.cx.backend_name(), "epoll");
        drop(crowd);
        self.settle();
        self.cx.poll(Wait::AtMost(Duration::from_nanos(1))).unwrap();
        assert_eq!(self.cx.backend_name(), "ppoll");
    }

    /// Polls until there is no more work.
    fn settle(&self) {
        while self.cx.poll(Wait::NoBlock).unwrap() || self.plain.iter().any(|(bell, _)| bell.rung.get()) {}
    }
}

/// Invariant 3, for all kinds of work.
#[test]
fn case_88_mixed_events_leave_nothing() {
    let _turn = alone();
    drop(World::new()); // memory that the process allocates once, at the first use
    let before = inventory();
    let wanted = events_wanted();
    let mut world = World::new();
    let (mut cycles, mut steady) = (0, None);
    while world.count() < wanted || cycles < 3 {
        (0..CYCLE).for_each(|number| world.round(number));
        cycles += 1;
        // Once all tables have reached their size, the numbers of blocks and of descriptors do not grow.
        if cycles >= 2 {
            let (now, descriptors) = inventory();
            let (then, before) = *steady.get_or_insert((now, descriptors));
            assert_eq!(
                (now.blocks, descriptors),
                (then.blocks, before),
                "{cycles} cycles"
            );
            assert!(
                now.bytes < then.bytes + LEEWAY,
                "{cycles} cycles: {then:?}, {now:?}"
            );
        }
    }
    let count = world.count();
    drop(world);
    assert_eq!(inventory(), before, "not one byte");
    println!("{count} events in {cycles} cycles: {steady:?}");
}

/// The `Send` parts of a context, for workers.
struct Face {
    remote: Remote,
    bottom_half: BottomHalf,
    shots: Arc<AtomicU64>,
}

#[test]
fn events_from_other_threads_leave_nothing() {
    const WORKERS: u64 = 3;
    const LIVES: u64 = 5;
    let _turn = alone();
    let each = events_wanted() / 10 / WORKERS / LIVES;
    let (face, meeting) = (
        Arc::new(Mutex::new(None::<Face>)),
        Arc::new(Barrier::new(WORKERS as usize + 1)),
    );
    let work = |face: Arc<Mutex<Option<Face>>>, meeting: Arc<Barrier>| {
        move || {
            counting::observe_this_thread(true);
            for _ in 0..=LIVES {
                meeting.wait();
                let (remote, bh, shots) = {
                    let face = face.lock().unwrap();
                    let face = face.as_ref().expect("it is there when they meet");
                    (face.remote.clone(), face.bottom_half.clone(), face.shots.clone())
                };
                for _ in 0..each {
                    let shots = shots.clone();
                    let job = move |_: &Context| {
                        shots.fetch_add(1, Ordering::Relaxed);
                    };
                    remote.run(job).expect("the context is there");
                    bh.schedule();
                }
                drop((remote, bh, shots));
                meeting.wait();
            }
            meeting.wait(); // memory of a thread is freed after the last inventory
        }
    };
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| std::thread::spawn(work(face.clone(), meeting.clone())))
        .collect();
    let live = || {
        let (cx, shots) = (Context::new().unwrap(), Arc::new(AtomicU64::new(0)));
        let bottom_half = cx.bottom_half("from others", |_| {});
        *face.lock().unwrap() = Some(Face {
            remote: cx.remote(),
            bottom_half,
            shots: shots.clone(),
        });
        meeting.wait();
        while shots.load(Ordering::Relaxed) < WORKERS * each {
            cx.poll(Wait::Block).unwrap();
        }
        meeting.wait();
        drop(face.lock().unwrap().take());
        assert_eq!(shots.load(Ordering::Relaxed), WORKERS * each);
    };
    live(); // memory that each thread allocates once
    let before = inventory();
    for _ in 0..LIVES {
        live();
        assert_eq!(inventory(), before);
    }
    meeting.wait();
    for worker in workers {
        worker.join().unwrap();
    }
}
