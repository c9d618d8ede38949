//! Replays a trace on a real context and writes down what it calls.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use aio_context::{
    BottomHalf, Clock, ClockId, Context, GroupId, Handler, ManualClock, Paused, Registration, Timer, Wait,
};

use crate::common::Bench;
use crate::trace::{DEEPEST, MOST_BYTES, MOST_POLLS, Name, PATIENCE, Script, Step};

/// What comes out of a callback that panics on purpose.
struct OnPurpose;

/// A context, and everything that a trace has named.
pub(crate) struct Replay {
    bench: Bench,
    cx: Context,
    clock: Arc<ManualClock>,
    log: RefCell<Vec<String>>,
    scripts: RefCell<BTreeMap<Name, Script>>,
    depth: Cell<u32>,
    polls: Cell<u32>,
    streams: RefCell<BTreeMap<Name, Pair>>,
    registrations: RefCell<BTreeMap<Name, Registration>>,
    groups: RefCell<BTreeMap<Name, GroupId>>,
    pauses: RefCell<BTreeMap<Name, Vec<Paused>>>,
    bottom_halves: RefCell<BTreeMap<Name, BottomHalf>>,
    timers: RefCell<BTreeMap<Name, Timer>>,
}

/// Both ends of a stream; the far one until it is closed.
#[derive(Clone)]
struct Pair {
    near: Rc<UnixStream>,
    far: Rc<RefCell<Option<UnixStream>>>,
    bytes: Rc<Cell<u32>>,
}

/// A handler of a trace.
struct Actor {
    label: Name,
    descriptor: Name,
    stream: Rc<UnixStream>,
    world: Weak<Replay>,
}

impl AsFd for Actor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Handler for Actor {
    fn readable(&self, _: &Context) {
        if let Some(world) = self.world.upgrade() {
            let drain = Step::Drain(self.descriptor.clone());
            world.called(&format!("{}.readable", self.label), &[drain]);
        }
    }
    fn writable(&self, _: &Context) {
        if let Some(world) = self.world.upgrade() {
            world.called(&format!("{}.writable", self.label), &[]);
        }
    }
}

impl Replay {
    pub(crate) fn new(bench: Bench) -> Rc<Self> {
        let (cx, clock) = bench.simulated();
        Rc::new(Self {
            bench,
            cx,
            clock,
            log: RefCell::default(),
            scripts: RefCell::default(),
            depth: Cell::new(0),
            polls: Cell::new(0),
            streams: RefCell::default(),
            registrations: RefCell::default(),
            groups: RefCell::default(),
            pauses: RefCell::default(),
            bottom_halves: RefCell::default(),
            timers: RefCell::default(),
        })
    }

    /// Does a step and returns what was called.
    pub(crate) fn step(self: &Rc<Self>, step: &Step) -> Vec<String> {
        self.polls.set(0);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.run(step))) {
            if !panic.is::<OnPurpose>() {
                resume_unwind(panic);
            }
            self.depth.set(0);
            self.note("panic");
        }
        self.log.take()
    }

    fn note(&self, entry: &str) {
        self.log.borrow_mut().push(entry.to_owned());
    }

    /// A callback: writes it down and does what it is to do.
    fn called(self: &Rc<Self>, label: &str, otherwise: &[Step]) {
        self.note(label);
        let script = self.scripts.borrow().get(label).cloned();
        let steps = script.as_deref().unwrap_or(otherwise);
        steps.iter().for_each(|step| self.run(step));
    }

    fn run(self: &Rc<Self>, step: &Step) {
        match step {
            Step::On(label, script) => drop(self.scripts.borrow_mut().insert(label.clone(), script.clone())),
            Step::Advance(ms) => self.clock.advance(Duration::from_millis(*ms)),
            Step::Poll => self.poll(|| self.bench.look(&self.cx)),
            Step::Wait(ms) => self.poll(|| self.wait(Duration::from_millis(*ms))),
            Step::Panic => resume_unwind(Box::new(OnPurpose)),
            Step::Kick(_) | Step::Drain(_) | Step::Close(_) => self.run_on_stream(step),
            Step::BottomHalf(_) | Step::Schedule(_) | Step::Idle(_) | Step::Cancel(_) | Step::Delete(_) => {
                self.run_on_bottom_half(step)
            }
            Step::Timer(_) | Step::Arm(..) | Step::Anticipate(..) | Step::Disarm(_) | Step::Forget(_) => {
                self.run_on_timer(step);
            }
            Step::Watch(..)
            | Step::Replace(..)
            | Step::Remove(_)
            | Step::Interest(..)
            | Step::Pause(_)
            | Step::Resume(_) => self.run_on_registration(step),
        }
    }

    fn poll(&self, poll: impl FnOnce() -> bool) {
        let depth = self.depth.get();
        self.polls.set(self.polls.get() + 1);
        if depth == DEEPEST || self.polls.get() > MOST_POLLS {
            return;
        }
        if depth > 0 {
            self.note("[");
        }
        self.depth.set(depth + 1);
        let progress = poll();
        self.depth.set(depth);
        self.note(match (depth, progress) {
            (0, true) => "+",
            (0, false) => "-",
            (_, true) => "]+",
            (_, false) => "]-",
        });
    }

    /// Polls until there is progress or the time is over.
    fn wait(&self, limit: Duration) -> bool {
        let end = self.clock.now().saturating_add(limit);
        for _ in 0..PATIENCE {
            let left = end.since(self.clock.now());
            let progress = self.bench.poll(&self.cx, Wait::AtMost(left));
            if progress || self.clock.now() >= end {
                return progress;
            }
        }
        self.note("busy");
        false
    }

    fn pair(&self, name: &Name) -> Pair {
        let new = || {
            let (near, far) = UnixStream::pair().expect("there is a descriptor left");
            near.set_nonblocking(true).expect("a socket can be so");
            Pair {
                near: Rc::new(near),
                far: Rc::new(RefCell::new(Some(far))),
                bytes: Rc::default(),
            }
        };
        self.streams
            .borrow_mut()
            .entry(name.clone())
            .or_insert_with(new)
            .clone()
    }

    fn run_on_stream(&self, step: &Step) {
        match step {
            Step::Kick(name) => {
                let pair = self.pair(name);
                if let Some(far) = &mut *pair.far.borrow_mut()
                    && pair.bytes.get() < MOST_BYTES
                {
                    far.write_all(b"x").expect("there is room");
                    pair.bytes.set(pair.bytes.get() + 1);
                }
            }
            Step::Drain(name) => {
                let pair = self.pair(name);
                let mut near = &*pair.near;
                while near.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
                pair.bytes.set(0);
            }
            Step::Close(name) => drop(self.pair(name).far.take()),
            _ => unreachable!("{step:?}"),
        }
    }

    fn run_on_bottom_half(self: &Rc<Self>, step: &Step) {
        let get = |name: &Name| self.bottom_halves.borrow().get(name).cloned();
        match step {
            Step::BottomHalf(name) if get(name).is_none() => {
                let (world, label) = (Rc::downgrade(self), name.clone());
                let bh = self.cx.bottom_half("of a trace", move |_| {
                    if let Some(world) = world.upgrade() {
                        world.called(&label, &[]);
                    }
                });
                self.bottom_halves.borrow_mut().insert(name.clone(), bh);
            }
            Step::Schedule(name) => get(name).iter().for_each(BottomHalf::schedule),
            Step::Idle(name) => get(name).iter().for_each(BottomHalf::schedule_idle),
            Step::Cancel(name) => get(name).iter().for_each(BottomHalf::cancel),
            Step::Delete(name) => {
                let deleted = self.bottom_halves.borrow_mut().remove(name);
                drop(deleted);
            }
            _ => {}
        }
    }

    fn run_on_timer(self: &Rc<Self>, step: &Step) {
        let timers = self.timers.borrow();
        match step {
            Step::Timer(name) if !timers.contains_key(name) => {
                let (world, label) = (Rc::downgrade(self), name.clone());
                let timer = self.cx.timer(ClockId::Monotonic, move |_, _| {
                    if let Some(world) = world.upgrade() {
                        world.called(&label, &[]);
                    }
                });
                drop(timers);
                self.timers.borrow_mut().insert(name.clone(), timer);
            }
            Step::Arm(name, ms) => {
                if let Some(timer) = timers.get(name) {
                    timer.arm_after(Duration::from_millis(*ms));
                }
            }
            Step::Anticipate(name, ms) => {
                if let Some(timer) = timers.get(name) {
                    timer.anticipate(self.clock.now().saturating_add(Duration::from_millis(*ms)));
                }
            }
            Step::Disarm(name) => timers.get(name).into_iter().for_each(Timer::cancel),
            Step::Forget(name) => {
                drop(timers);
                let forgotten = self.timers.borrow_mut().remove(name);
                drop(forgotten);
            }
            _ => {}
        }
    }

    fn actor(self: &Rc<Self>, descriptor: &Name, label: &Name) -> Rc<Actor> {
        Rc::new(Actor {
            label: label.clone(),
            descriptor: descriptor.clone(),
            stream: self.pair(descriptor).near,
            world: Rc::downgrade(self),
        })
    }

    fn group(&self, name: &Name) -> GroupId {
        *self
            .groups
            .borrow_mut()
            .entry(name.clone())
            .or_insert_with(|| self.cx.new_group())
    }

    fn run_on_registration(self: &Rc<Self>, step: &Step) {
        let registrations = self.registrations.borrow();
        match step {
            Step::Watch(name, interest, group) => {
                drop(registrations);
                let actor = self.actor(name, name);
                let registration = self
                    .cx
                    .watch_in(self.group(group), actor, *interest)
                    .expect("it is open");
                let former = self.registrations.borrow_mut().insert(name.clone(), registration);
                assert!(former.is_none_or(|former| !former.is_live()), "it gave way");
            }
            Step::Replace(name, label) => {
                if let Some(registration) = registrations.get(name) {
                    registration
                        .replace(self.actor(name, label))
                        .expect("it is the same descriptor");
                }
            }
            Step::Remove(name) => {
                drop(registrations);
                let removed = self.registrations.borrow_mut().remove(name);
                drop(removed);
            }
            Step::Interest(name, interest) => {
                if let Some(registration) = registrations.get(name) {
                    registration.set_interest(*interest).expect("it is open");
                }
            }
            Step::Pause(name) => {
                let pause = self.cx.pause(self.group(name));
                self.pauses
                    .borrow_mut()
                    .entry(name.clone())
                    .or_default()
                    .push(pause);
            }
            Step::Resume(name) => {
                let pause = self.pauses.borrow_mut().get_mut(name).and_then(Vec::pop);
                drop(pause);
            }
            _ => unreachable!("{step:?}"),
        }
    }
}
