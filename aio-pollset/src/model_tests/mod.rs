//! Random operations, also from inside the sources, compared with a simple model: a vector of the registered sources with a
//! record of their calls.
//!
//! Devices have work. A device whose source is in poll mode does not announce it; the others kick. So if the set misses a
//! source, the loop sleeps over work, or with a peer in poll mode.

use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::{Rc, Weak};

use aio_backend::Token;

use crate::{Hit, PollSet, Source};

mod agents;
mod guards;

use agents::{Agent, Other};
use guards::{Depth, Found, Running};

const DEVICES: usize = 7;
const SEQUENCES: usize = 6000;
const STEPS: usize = 60;
/// The largest depth of nested iterations, and the largest number of operations by callbacks in one step.
const DEEPEST: u32 = 3;
const MOST_ACTS: u32 = 12;

/// Random numbers whose seed is printed, so that a failure can be repeated with `AIO_SEED`.
fn rng() -> fastrand::Rng {
    let given = std::env::var("AIO_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    println!("AIO_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// The state of a device, shared by all its sources.
#[derive(Debug, Default)]
struct Device {
    work: Cell<bool>,
    /// Set while there is work that the device has not announced.
    unannounced: Cell<bool>,
    kicked: Cell<bool>,
}

#[derive(Clone)]
struct Known {
    agent: Rc<Agent>,
    suspended: bool,
    /// The number of guards that exclude it.
    excluded: u32,
}

struct World {
    set: PollSet,
    rng: RefCell<fastrand::Rng>,
    devices: [Device; DEVICES],
    known: RefCell<Vec<Option<Known>>>,
    generation: Cell<u32>,
    depth: Cell<u32>,
    acts: Cell<u32>,
    in_round: Cell<bool>,
    agents: RefCell<Vec<Weak<Agent>>>,
}

impl World {
    fn new(seed: u64) -> Rc<Self> {
        Rc::new(Self {
            set: PollSet::new(),
            rng: RefCell::new(fastrand::Rng::with_seed(seed)),
            devices: Default::default(),
            known: RefCell::new(vec![None; DEVICES]),
            generation: Cell::new(0),
            depth: Cell::new(0),
            acts: Cell::new(0),
            in_round: Cell::new(false),
            agents: RefCell::default(),
        })
    }

    fn below(&self, limit: u32) -> u32 {
        self.rng.borrow_mut().u32(..limit)
    }

    fn one_in(&self, cases: u32) -> bool {
        self.below(cases) == 0
    }

    fn place(&self) -> usize {
        self.below(DEVICES as u32) as usize
    }

    fn known(&self, place: usize) -> Option<Known> {
        self.known.borrow()[place].clone()
    }

    fn change(&self, place: usize, change: impl FnOnce(&mut Known)) {
        if let Some(known) = &mut self.known.borrow_mut()[place] {
            change(known);
        }
    }

    /// Rules A8, A9, B5, R9: a source that has left, is suspended, demoted or excluded is not polled.
    fn may_be_polled(&self, agent: &Agent) {
        assert!(agent.live.get(), "R9: {agent:?}");
        let known = self.known(agent.place).expect("it is live");
        assert!(!known.suspended, "B5: {agent:?}");
        assert!(known.excluded == 0, "A9: {agent:?}");
        assert!(self.set.is_promoted(agent.token), "A8: {agent:?}");
    }

    /// Runs some random operations, in a callback. May panic on purpose.
    fn act(self: &Rc<Self>) {
        while self.one_in(5) && self.acts.get() < MOST_ACTS {
            self.acts.set(self.acts.get() + 1);
            self.operation();
            if self.one_in(12) {
                resume_unwind(Box::new("on purpose"));
            }
        }
    }

    fn operation(self: &Rc<Self>) {
        let place = self.place();
        match self.below(16) {
            0..2 => self.join(place),
            2 => self.leave(place),
            3 => self.suspend(place),
            4 => self.resume(place),
            5 => self.with_token(place, |token| assert!(self.set.promote(token))),
            6 => self.recheck(place),
            7..10 => self.iterate(),
            _ => self.work(place),
        }
    }

    fn with_token(&self, place: usize, run: impl FnOnce(Token)) {
        if let Some(known) = self.known(place) {
            run(known.agent.token);
        }
    }

    /// Adds a source, which may replace the present one, or one of a former generation.
    fn join(self: &Rc<Self>, place: usize) {
        let former = self.known(place);
        let keeps = former.as_ref().is_some_and(|_| self.one_in(2));
        let token = match &former {
            Some(former) if keeps => former.agent.token,
            _ => {
                self.generation.set(self.generation.get() + 1);
                Token::new(place as u32, self.generation.get())
            }
        };
        let agent = Rc::new(Agent {
            world: Rc::downgrade(self),
            place,
            token,
            nests: self.one_in(6),
            begun: Cell::new(false),
            knows: Cell::new(
                former
                    .as_ref()
                    .is_some_and(|former| keeps && (former.agent.begun.get() || former.agent.knows.get())),
            ),
            live: Cell::new(true),
            polls: Cell::new(0),
        });
        self.agents.borrow_mut().push(Rc::downgrade(&agent));
        let known = Known {
            agent: agent.clone(),
            suspended: keeps && former.as_ref().is_some_and(|former| former.suspended),
            excluded: former
                .as_ref()
                .map_or(0, |former| if keeps { former.excluded } else { 0 }),
        };
        self.known.borrow_mut()[place] = Some(known);
        if let Some(former) = &former {
            former.agent.live.set(false);
        }
        let owed = if self.one_in(2) {
            self.set.join(token, agent)
        } else {
            self.set.join(token, Other(agent))
        };
        if !keeps {
            self.announce(place);
        }
        assert_eq!(
            owed.is_owed(),
            former.as_ref().is_some_and(|former| former.agent.begun.get())
        );
        if let Some(former) = former {
            owed.finish(|| former.agent.poll_end());
        }
    }

    /// Announces the work that a former source has left to a new one.
    fn announce(&self, place: usize) {
        let device = &self.devices[place];
        device.unannounced.set(false);
        device.kicked.set(device.work.get());
    }

    fn recheck(&self, place: usize) {
        if let Some(known) = self.known(place) {
            known.agent.knows.set(true);
            self.set.recheck(known.agent.token);
        }
    }

    fn leave(&self, place: usize) {
        let former = self.known.borrow_mut()[place].take();
        let Some(former) = former else { return };
        former.agent.live.set(false);
        let owed = self.set.leave(former.agent.token);
        assert!(!self.set.contains(former.agent.token));
        assert_eq!(owed.is_owed(), former.agent.begun.get());
        owed.finish(|| former.agent.poll_end());
    }

    /// Suspends up to three sources before the first call of a `poll_end`.
    fn suspend(self: &Rc<Self>, place: usize) {
        let places = [place, self.place(), self.place()];
        let some = &places[..1 + self.below(3) as usize];
        let suspend = |place: &usize| {
            let known = self.known(*place)?;
            self.change(*place, |known| known.suspended = true);
            let owed = self.set.suspend(known.agent.token);
            assert_eq!(owed.is_owed(), known.agent.begun.get());
            Some((*place, owed))
        };
        let owed: Vec<_> = some.iter().filter_map(suspend).collect();
        let mut first_panic = None;
        for (place, owed) in owed {
            // Calls before this one may have replaced or resumed the source.
            let end = || {
                self.known(place)
                    .expect("nothing is owed otherwise")
                    .agent
                    .poll_end()
            };
            let ended = catch_unwind(AssertUnwindSafe(|| owed.finish(end)));
            first_panic = first_panic.or(ended.err());
        }
        if let Some(panic) = first_panic {
            resume_unwind(panic);
        }
    }

    fn resume(&self, place: usize) {
        self.change(place, |known| known.suspended = false);
        self.with_token(place, |token| self.set.resume(token));
    }

    /// Gives a device work, which it announces unless it is in poll mode.
    fn work(&self, place: usize) {
        let Some(known) = self.known(place) else { return };
        let device = &self.devices[place];
        device.work.set(true);
        if known.agent.begun.get() {
            device.unannounced.set(true);
        } else {
            device.kicked.set(true);
        }
    }

    /// One iteration of a loop: polls, sleeps if it may, serves.
    fn iterate(self: &Rc<Self>) {
        if self.depth.get() == DEEPEST {
            return;
        }
        let _depth = Depth::enter(self);
        let mut found = Found::of(self);
        let room = if self.one_in(3) {
            1 + self.below(4) as usize
        } else {
            usize::MAX
        };
        let polls = !self.one_in(4);
        let mut hit = false;
        if polls && !self.set.is_calling() {
            self.set.enter();
            for _ in 0..=self.below(3) {
                hit |= self.round(&mut found, room);
            }
            if self.one_in(4) {
                hit |= self.demote(&mut found, room);
            }
        }
        if !hit && self.one_in(3) {
            let must_not_sleep = self.set.exit(|token| found.take(token, room));
            if !must_not_sleep && !self.set.is_calling() {
                self.sleep();
            }
        }
        while let Some(token) = found.next() {
            self.serve(token);
        }
    }

    fn round(self: &Rc<Self>, found: &mut Found<'_>, room: usize) -> bool {
        let all: Vec<_> = self.known.borrow().iter().flatten().cloned().collect();
        all.iter().for_each(|known| known.agent.polls.set(0));
        let (before, acts, calling) = (found.tokens.len(), self.acts.get(), self.set.is_calling());
        let nested = self.in_round.replace(!calling);
        let serves = self.one_in(3);
        let (hit, only) = if serves {
            self.round_for_one(found, room)
        } else {
            (self.set.round(|token| found.take(token, room)), None)
        };
        self.in_round.set(nested);
        let listed = usize::from(hit && only.is_none());
        let is_full = found.tokens.len() - before < listed || found.tokens.len() >= room;
        for known in all {
            let polls = known.agent.polls.get();
            let is_due = !known.suspended && known.excluded == 0;
            let expected = u32::from(is_due && self.set.is_promoted(known.agent.token) && !calling);
            if self.acts.get() == acts && !is_full {
                assert_eq!(polls, expected, "A3: {:?}", known.agent);
            }
            assert!(polls <= 1 || self.acts.get() != acts, "A3: {:?}", known.agent);
        }
        if let Some(only) = only {
            self.serve_by(only.token(), |run| only.serve(run));
        }
        hit
    }

    /// Polls a round. If it has only one hit, returns that instead of putting it on the list.
    fn round_for_one(&self, found: &mut Found<'_>, room: usize) -> (bool, Option<Hit<'_>>) {
        match self.set.hits() {
            (Some(first), true) => {
                if found.take(first.token(), room).is_continue() {
                    let _taken = first.into_token();
                    self.set.pass_rest(|token| found.take(token, room));
                }
                (true, None)
            }
            (only, _) => (only.is_some(), only),
        }
    }

    fn demote(&self, found: &mut Found<'_>, room: usize) -> bool {
        let (idle_after, most) = (self.below(6), self.below(8) as usize);
        let may_leave = |token: Token| token.index() != 0;
        let surplus = |promoted: usize, idle: usize| {
            assert!(idle <= promoted && promoted == self.set.promoted());
            idle.min(most)
        };
        let before = self
            .set
            .is_promoted(self.known(0).map_or(Token::new(0, 0), |known| known.agent.token));
        let acts = self.acts.get();
        let hit = self
            .set
            .demote_idle(idle_after, may_leave, surplus, |token| found.take(token, room));
        if before && acts == self.acts.get() {
            let known = self.known(0).expect("nothing was done to it");
            assert!(self.set.is_promoted(known.agent.token), "A8: it may not leave");
        }
        hit
    }

    /// Checks rule A5: the loop does not sleep over work without a kick, or with a peer in poll mode.
    fn sleep(self: &Rc<Self>) {
        for known in self.known.borrow().iter().flatten() {
            assert!(
                !known.agent.begun.get(),
                "A5: asleep, and {:?} is in poll mode",
                known.agent
            );
            let device = &self.devices[known.agent.place];
            let is_asked_later = known.suspended || known.excluded > 0;
            let is_missed = device.work.get() && device.unannounced.get() && !is_asked_later;
            assert!(!is_missed, "A5: asleep over the work of {:?}", known.agent);
        }
        for place in 0..DEVICES {
            let Some(known) = self.known(place).filter(|known| !known.suspended) else {
                continue;
            };
            if self.devices[place].kicked.replace(false) {
                assert!(self.set.promote(known.agent.token));
                let _guards = (self.set.exclude(known.agent.token), self.record_exclusion(&known));
                self.devices[place].work.set(false);
                self.devices[place].unannounced.set(false);
                self.act();
            }
        }
    }

    /// Records that a source is excluded, until the guard is dropped. This holds for a source that replaces it, but not for one with
    /// another token.
    fn record_exclusion<'a>(&'a self, known: &Known) -> Option<Running<'a>> {
        let (place, token) = (known.agent.place, known.agent.token);
        self.change(place, |known| known.excluded += u32::from(!known.agent.nests));
        (!known.agent.nests).then(|| Running(self, place, token))
    }

    fn serve(self: &Rc<Self>, token: Token) {
        self.serve_by(token, |run| self.set.serve(token, run));
    }

    fn serve_by(self: &Rc<Self>, token: Token, serve: impl FnOnce(&mut dyn FnMut()) -> Option<()>) {
        let place = token.index() as usize;
        let Some(known) = self.known(place).filter(|known| known.agent.token == token) else {
            assert_eq!(serve(&mut || ()), None, "R9: it has left");
            return;
        };
        let served = serve(&mut || {
            let _running = self.record_exclusion(&known);
            // A source that nests takes its work before it does it, so that a nested poll finds none.
            if !known.agent.nests && !self.one_in(4) {
                self.act();
            }
            let device = &self.devices[place];
            device.work.set(false);
            device.unannounced.set(false);
            self.act();
        });
        assert!(served.is_none() || !known.suspended, "B5: {:?}", known.agent);
    }

    /// Checks the conditions that hold whenever no source is being called.
    fn check(&self) {
        self.set.check();
        let known = self.known.borrow();
        assert_eq!(self.set.len(), known.iter().flatten().count());
        for known in known.iter().flatten() {
            assert!(self.set.contains(known.agent.token));
            let is_promoted = self.set.is_promoted(known.agent.token);
            assert!(!(known.suspended && is_promoted));
            assert!(
                !known.agent.begun.get() || (is_promoted && self.set.is_on()),
                "{:?}",
                known.agent
            );
        }
        for agent in self.agents.borrow().iter().filter_map(Weak::upgrade) {
            assert!(agent.live.get(), "{agent:?} was not dropped");
        }
    }
}

fn run(seed: u64) {
    let world = World::new(seed);
    for _ in 0..STEPS {
        world.acts.set(0);
        world.in_round.set(false);
        let _ = catch_unwind(AssertUnwindSafe(|| {
            if world.one_in(2) {
                world.iterate();
            } else {
                world.operation();
            }
        }))
        .map_err(|panic| {
            let why = panic.downcast_ref::<&str>().copied();
            if why != Some("on purpose") {
                resume_unwind(panic);
            }
        });
        world.check();
    }
    world.acts.set(MOST_ACTS);
    // Finally all work is served.
    for place in 0..DEVICES {
        world.resume(place);
    }
    while world.set.exit(|token| {
        world.set.recheck(token);
        ControlFlow::Continue(())
    }) {
        for place in 0..DEVICES {
            world.with_token(place, |token| world.serve(token));
        }
    }
    world.sleep();
    (0..DEVICES).for_each(|place| world.leave(place));
    world.check();
    assert!(world.set.is_empty());
}

#[test]
fn a5_a8_a9_r6_r7_r9_random_operations_agree_with_a_model() {
    let mut rng = rng();
    for _ in 0..SEQUENCES {
        let seed = rng.u64(..);
        if let Err(panic) = catch_unwind(|| run(seed)) {
            println!("in the sequence of seed {seed}");
            resume_unwind(panic);
        }
    }
}
