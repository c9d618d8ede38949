//! The rules, one by one. `model_tests` tests all of them together.

mod changes;
mod cost;
mod hits;
mod idle;
mod poll_mode;
mod serving;

use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use aio_backend::Token;

use crate::{PollSet, Source};

type Hook = Rc<dyn Fn(&Probe)>;

/// A source that logs its calls, returns a given result, and runs a hook meanwhile.
#[derive(Default)]
struct Probe {
    log: RefCell<Vec<&'static str>>,
    polls: Cell<u32>,
    has_work: Cell<bool>,
    nests: bool,
    at_poll: RefCell<Option<Hook>>,
    at_begin: RefCell<Option<Hook>>,
    at_end: RefCell<Option<Hook>>,
}

impl Probe {
    fn new() -> Rc<Self> {
        Rc::default()
    }

    fn with_work(has_work: bool) -> Rc<Self> {
        let probe = Self::new();
        probe.has_work.set(has_work);
        probe
    }

    fn run(&self, hook: &RefCell<Option<Hook>>) {
        let hook = hook.borrow().clone();
        hook.into_iter().for_each(|hook| hook(self));
    }
}

fn set_hook(hook: &RefCell<Option<Hook>>, run: impl Fn(&Probe) + 'static) {
    hook.replace(Some(Rc::new(run)));
}

impl Source for Probe {
    fn poll(&self) -> bool {
        self.polls.set(self.polls.get() + 1);
        self.run(&self.at_poll);
        self.has_work.get()
    }
    fn poll_begin(&self) {
        self.log.borrow_mut().push("begin");
        self.run(&self.at_begin);
    }
    fn poll_end(&self) {
        self.log.borrow_mut().push("end");
        self.run(&self.at_end);
    }
    fn nests(&self) -> bool {
        self.nests
    }
}

/// Another type of sources, which has an array of its own.
struct Other(Rc<Probe>);

impl Source for Other {
    fn poll(&self) -> bool {
        self.0.poll()
    }
    fn poll_begin(&self) {
        self.0.poll_begin();
    }
    fn poll_end(&self) {
        self.0.poll_end();
    }
}

fn token(index: usize) -> Token {
    Token::new(index as u32, 1)
}

fn join(set: &PollSet, index: usize, probe: &Rc<Probe>) {
    let owed = if index.is_multiple_of(2) {
        set.join(token(index), probe.clone())
    } else {
        set.join(token(index), Other(probe.clone()))
    };
    owed.finish(|| panic!("nothing was there"));
}

/// Returns a set with this number of sources, alternately of two types.
fn scene(count: usize) -> (Rc<PollSet>, Vec<Rc<Probe>>) {
    let set = Rc::new(PollSet::new());
    let probes: Vec<_> = (0..count).map(|_| Probe::new()).collect();
    (0..count).for_each(|index| join(&set, index, &probes[index]));
    (set, probes)
}

/// Returns the indices of the sources with hits.
fn round(set: &PollSet) -> Vec<usize> {
    let mut hits = Vec::new();
    let found = set.round(|token| take(&mut hits, token));
    assert_eq!(found, !hits.is_empty());
    hits
}

fn exit(set: &PollSet) -> (bool, Vec<usize>) {
    let mut hits = Vec::new();
    let must_not_sleep = set.exit(|token| take(&mut hits, token));
    (must_not_sleep, hits)
}

fn take(hits: &mut Vec<usize>, token: Token) -> ControlFlow<()> {
    hits.push(token.index() as usize);
    ControlFlow::Continue(())
}

fn panics(run: impl FnOnce()) {
    assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
}

fn on_purpose() {
    resume_unwind(Box::new("on purpose"));
}

fn polls(probes: &[Rc<Probe>]) -> Vec<u32> {
    probes.iter().map(|probe| probe.polls.replace(0)).collect()
}

fn log(probe: &Probe) -> Vec<&'static str> {
    probe.log.borrow().clone()
}

/// Runs rounds in which one source has an event.
fn busy_rounds(set: &PollSet, probe: &Probe, count: u32) {
    probe.has_work.set(true);
    (0..count).for_each(|_| drop(round(set)));
    probe.has_work.set(false);
}

fn demote(set: &PollSet, idle_after: u32) -> Vec<usize> {
    let mut hits = Vec::new();
    let found = set.demote_idle(
        idle_after,
        |_| true,
        |_, idle| idle,
        |token| take(&mut hits, token),
    );
    assert_eq!(found, !hits.is_empty());
    hits
}
