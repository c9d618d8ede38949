//! Replays operations on a real context and logs its calls.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aio_context::{
    BottomHalf, Clock, Context, GroupId, ManualClock, Paused, Policy, PollParams, Registration, Timer, Wait,
};
use aio_testing::Layered;

use crate::alive::Alive;
use crate::crowd::Bystander;
use crate::files::Files;
use crate::foreign;
use crate::log::{Entry, Scripts, Verb, What};
use crate::op::{COUNT, Callback, DEFAULT_GROUP, Fd, Kind, Name, Op, Side};
use crate::plant::{Faulty, Plant};
use crate::setup::{Setup, Waiter};
use crate::{DEEPEST, MOST_ITERATIONS, MOST_POLLS, MOST_SCRIPTS, MOST_WORK};

/// The payload of a planned panic in a callback.
struct OnPurpose;

/// The peer of a descriptor: work in memory that both sides can read, and whether it need not kick.
#[derive(Debug, Default)]
pub(crate) struct Device {
    pub(crate) work: Cell<u32>,
    pub(crate) is_polled: Cell<bool>,
}

/// A context, and everything that a sequence has named.
pub(crate) struct Real {
    pub(crate) setup: Setup,
    pub(crate) plant: Option<Plant>,
    pub(crate) cx: Context,
    pub(crate) clock: Arc<ManualClock>,
    log: RefCell<Vec<Entry>>,
    pub(crate) scripts: RefCell<Scripts>,
    depth: Cell<u32>,
    polls: Cell<u32>,
    /// The number of scripts that this step has run.
    pub(crate) scripts_run: Cell<u32>,
    pub(crate) files: RefCell<Files>,
    pub(crate) devices: [Device; COUNT],
    pub(crate) registrations: RefCell<[Option<Rc<Registration>>; COUNT]>,
    /// The handler that is registered for each descriptor, and its group.
    pub(crate) current: [Cell<(u32, Name)>; COUNT],
    pub(crate) serial: Cell<u32>,
    /// The descriptor whose handler is being replaced, and the length of the log when that began.
    pub(crate) replacing: Cell<Option<(Fd, usize)>>,
    pub(crate) polling_was_on: Cell<bool>,
    groups: RefCell<Vec<(Name, GroupId)>>,
    pauses: RefCell<Vec<(Name, Paused)>>,
    pub(crate) halves: RefCell<Vec<(Name, BottomHalf)>>,
    pub(crate) timers: RefCell<Vec<(Name, Timer)>>,
    crowd: RefCell<Vec<Registration>>,
    /// Handlers, and closures of bottom halves and timers, that have not been dropped.
    pub(crate) handlers: Alive,
    pub(crate) closures: Alive,
    /// The number of occasions of a fault that occurs only sometimes.
    pub(crate) chances: Cell<u32>,
    /// Objects that a planted fault keeps instead of dropping them.
    pub(crate) kept: RefCell<Vec<BottomHalf>>,
}

impl Real {
    pub(crate) fn new(setup: Setup, plant: Option<Plant>, files: Files) -> Rc<Self> {
        let clock = Arc::new(ManualClock::new());
        clock.advance(Duration::from_secs(1));
        let backend = match plant {
            Some(plant) => Box::new(Layered(Faulty::new(setup.waiter.backend(), plant))),
            None => setup.waiter.backend(),
        };
        let mut builder = Context::builder().backend(backend).monotonic(clock.clone());
        if let Some(policy) = Policy::by_name(setup.policy, PollParams::OFF) {
            builder = builder.policy(Box::new(policy));
        }
        let cx = builder.build().expect("there is a descriptor left");
        if setup.waiter == Waiter::Foreign {
            // The ladder moves to its upper level at once and stays there.
            drop(cx.embed().expect("it can be embedded"));
        }
        Rc::new(Self {
            setup,
            plant,
            cx,
            clock,
            log: RefCell::default(),
            scripts: RefCell::default(),
            depth: Cell::new(0),
            polls: Cell::new(0),
            scripts_run: Cell::new(0),
            files: RefCell::new(files),
            devices: Default::default(),
            registrations: RefCell::default(),
            current: std::array::from_fn(|_| Cell::new((0, DEFAULT_GROUP))),
            serial: Cell::new(0),
            replacing: Cell::new(None),
            polling_was_on: Cell::new(false),
            groups: RefCell::new(vec![(DEFAULT_GROUP, GroupId::DEFAULT)]),
            pauses: RefCell::default(),
            halves: RefCell::default(),
            timers: RefCell::default(),
            crowd: RefCell::default(),
            handlers: Alive::default(),
            closures: Alive::default(),
            chances: Cell::new(0),
            kept: RefCell::default(),
        })
    }

    /// Runs an operation and adds its calls to `log`.
    pub(crate) fn step(self: &Rc<Self>, op: &Op, log: &mut Vec<Entry>) {
        self.begin();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.run(op))) {
            if !panic.is::<OnPurpose>() {
                resume_unwind(panic);
            }
            self.depth.set(0);
            self.replacing.set(None);
            self.record(What::Panicked);
        }
        log.append(&mut self.log.borrow_mut());
    }

    fn begin(&self) {
        self.polls.set(0);
        self.scripts_run.set(0);
    }

    pub(crate) fn now(&self) -> u64 {
        self.clock.now().as_nanos()
    }

    pub(crate) fn record(&self, what: What) {
        let entry = Entry { at: self.now(), what };
        self.log.borrow_mut().push(entry);
    }

    /// Returns the length of the log.
    pub(crate) fn written(&self) -> usize {
        self.log.borrow().len()
    }

    /// Records at position `began` that the operation was refused.
    pub(crate) fn refused_at(&self, began: usize, verb: Verb, fd: Fd) {
        let entry = Entry {
            at: self.now(),
            what: What::Refused(verb, fd),
        };
        self.log.borrow_mut().insert(began, entry);
    }

    /// Records the end of a registration. If a replacement of it is in progress, that must have failed.
    pub(crate) fn has_ended(&self, fd: Fd) {
        if let Some((replaced, began)) = self.replacing.get()
            && replaced == fd
        {
            self.replacing.set(None);
            self.refused_at(began, Verb::Replace, fd);
        }
    }

    /// Records a callback and runs its script.
    pub(crate) fn called(self: &Rc<Self>, callback: Callback, otherwise: &[Op]) {
        self.record(What::Called(callback));
        self.act(callback, otherwise);
    }

    pub(crate) fn act(self: &Rc<Self>, callback: Callback, otherwise: &[Op]) {
        let script = self.scripts.borrow().get(callback);
        self.run_script(script.as_deref().unwrap_or(otherwise));
    }

    pub(crate) fn run_script(self: &Rc<Self>, ops: &[Op]) {
        self.scripts_run.set(self.scripts_run.get() + 1);
        if self.scripts_run.get() <= MOST_SCRIPTS {
            ops.iter().for_each(|op| self.run(op));
        }
    }

    /// Returns `true` if this fault is planted. It occurs each time.
    pub(crate) fn is_planted(&self, plant: Plant) -> bool {
        self.plant == Some(plant)
    }

    /// Returns `true` each third time, if this fault is planted.
    pub(crate) fn strikes(&self, plant: Plant) -> bool {
        if self.plant != Some(plant) {
            return false;
        }
        self.chances.set(self.chances.get() + 1);
        self.chances.get().is_multiple_of(3)
    }

    pub(crate) fn run(self: &Rc<Self>, op: &Op) {
        match op {
            Op::On(callback, script) => self.scripts.borrow_mut().set(*callback, script),
            Op::Repeat(times, script) => (0..*times).for_each(|_| {
                self.begin();
                script.iter().for_each(|op| self.run(op));
            }),
            Op::Advance(ms) => self.clock.advance(Duration::from_millis(*ms)),
            Op::Poll => self.nest(|| self.iterate(Wait::NoBlock)),
            Op::Wait(ms) => self.nest(|| self.wait(Duration::from_millis(*ms))),
            Op::Panic => resume_unwind(Box::new(OnPurpose)),
            Op::Polling(us) => {
                self.polling_was_on.set(self.polling_was_on.get() || *us > 0);
                let max = Duration::from_micros(*us);
                self.cx.set_poll_params(PollParams::up_to(max));
            }
            Op::Pause(group) => self.pause(*group),
            Op::Resume(group) => self.resume(*group),
            Op::Gather => self.gather(),
            Op::Scatter => drop(self.crowd.take()),
            Op::Kick(fd) => self.files.borrow_mut().kick(*fd),
            Op::Drain(fd) => self.drain(*fd),
            Op::Work(fd) => self.work(*fd),
            Op::Close(fd) => self.files.borrow_mut().close(*fd),
            Op::CloseRaw(fd) => self.files.borrow_mut().close_raw(*fd),
            Op::Dup(from, to) => {
                if !self.is_registered(*to) {
                    self.files.borrow_mut().dup(*from, *to);
                }
            }
            Op::Watch(fd, interest, group, polled) => self.watch(*fd, *interest, *group, *polled),
            Op::Replace(fd, by, interest, polled) => self.replace(*fd, *by, *interest, *polled),
            Op::Remove(fd) => self.remove(*fd),
            Op::Interest(fd, interest) => self.set_interest(*fd, *interest),
            Op::Rearm(fd) => self.rearm(*fd),
            _ => self.run_deferred(op),
        }
    }

    fn nest(&self, poll: impl FnOnce() -> bool) {
        let depth = self.depth.get();
        self.polls.set(self.polls.get() + 1);
        if depth == DEEPEST || self.polls.get() > MOST_POLLS {
            return;
        }
        if depth > 0 {
            self.record(What::Nested);
        }
        self.depth.set(depth + 1);
        let progress = poll() != self.is_planted(Plant::ProgressForNothing);
        self.depth.set(depth);
        self.record(if depth == 0 {
            What::Polled(progress)
        } else {
            What::Back(progress)
        });
    }

    fn iterate(&self, wait: Wait) -> bool {
        let progress = if self.setup.waiter == Waiter::Foreign {
            foreign::turn(&self.cx, wait, &self.clock)
        } else {
            self.cx.poll(wait).expect("the backend works")
        };
        self.record(What::Iterated);
        progress
    }

    /// Polls until there is progress or the time is over.
    fn wait(&self, limit: Duration) -> bool {
        let end = self.clock.now().saturating_add(limit);
        for _ in 0..MOST_ITERATIONS {
            let left = end.since(self.clock.now());
            let progress = self.iterate(Wait::AtMost(left));
            if progress || self.clock.now() >= end {
                return progress;
            }
        }
        self.record(What::Busy);
        false
    }

    fn drain(&self, fd: Fd) {
        self.files.borrow_mut().drain(fd);
        self.devices[fd.place()].work.set(0);
    }

    /// Produces work in memory for the peer, and kicks unless the handler is in poll mode.
    fn work(&self, fd: Fd) {
        let device = &self.devices[fd.place()];
        device.work.set((device.work.get() + 1).min(MOST_WORK));
        if !device.is_polled.get() {
            self.files.borrow_mut().kick(fd);
        }
    }

    /// Kicks for work that is older than its handler.
    pub(crate) fn kick_if_there_is_work(&self, fd: Fd) {
        if self.devices[fd.place()].work.get() > 0 {
            self.files.borrow_mut().kick(fd);
        }
    }

    /// Returns the operation of a callback without a script.
    pub(crate) fn usual(&self, fd: Fd, side: Side) -> Option<Op> {
        let fills = side == Side::Writable && self.files.borrow_mut().kind(fd) == Kind::Outlet;
        let drains = matches!(side, Side::Readable | Side::Priority | Side::PollReady);
        (fills || drains).then_some(Op::Drain(fd))
    }

    pub(crate) fn group(&self, name: Name) -> GroupId {
        let mut groups = self.groups.borrow_mut();
        if let Some((_, group)) = groups.iter().find(|(known, _)| *known == name) {
            return *group;
        }
        let group = self.cx.new_group();
        groups.push((name, group));
        group
    }

    pub(crate) fn is_paused(&self, group: Name) -> bool {
        self.pauses.borrow().iter().any(|(paused, _)| *paused == group)
    }

    fn pause(&self, name: Name) {
        // The pause is logged first, because handlers get their `poll_end` while it begins.
        let pause = self.cx.pause(self.group(name));
        if !self.strikes(Plant::PauseLost) {
            self.pauses.borrow_mut().push((name, pause));
        }
    }

    fn resume(&self, name: Name) {
        let mut pauses = self.pauses.borrow_mut();
        let place = pauses.iter().rposition(|(paused, _)| *paused == name);
        let pause = place.map(|place| pauses.remove(place));
        drop(pauses);
        if self.strikes(Plant::ResumeLost) {
            std::mem::forget(pause);
        }
    }

    fn gather(&self) {
        if !self.crowd.borrow().is_empty() {
            return;
        }
        let members = self.files.borrow_mut().crowd().to_vec();
        let watch = |fd| {
            let member = Rc::new(Bystander(fd));
            let watched = self.cx.watch(member, aio_context::Interest::READ);
            watched.expect("it is open")
        };
        let registrations = members.into_iter().map(watch).collect();
        *self.crowd.borrow_mut() = registrations;
    }

    /// Ends a sequence: drops everything, and returns the files and the number of handlers and closures that
    /// were kept.
    pub(crate) fn end(self: Rc<Self>) -> (Option<Files>, u32) {
        let (handlers, closures) = (self.handlers.clone(), self.closures.clone());
        let (registrations, crowd, pauses) =
            (self.registrations.take(), self.crowd.take(), self.pauses.take());
        let (halves, timers) = (self.halves.take(), self.timers.take());
        *self.scripts.borrow_mut() = Scripts::default();
        drop((registrations, crowd, pauses, halves, timers));
        let files = Rc::into_inner(self).map(|real| {
            let Self { cx, files, .. } = real;
            drop(cx);
            files.into_inner()
        });
        (files, handlers.count() + closures.count())
    }
}
