//! A set whose callbacks use it: rules T2 to T4, D6, D9 and R8 without a context.

use core::cell::Cell;
use std::boxed::Box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::vec::Vec;

use super::*;
use crate::ManualClock;
use crate::fuzz::Model;

type Callback = Box<dyn Fn(&Set, TimerId)>;
type Timers = TimerSet<Callback, ManualClock>;

/// The argument of callbacks: the set, and a log.
struct Set {
    timers: Timers,
    log: RefCell<Vec<u32>>,
}

fn at(nanoseconds: u64) -> Moment {
    Moment::from_nanos(nanoseconds)
}

fn new() -> Rc<Set> {
    let timers = TimerSet::new(ManualClock::new());
    timers.clock().set(at(10));
    Rc::new(Set {
        timers,
        log: RefCell::default(),
    })
}

impl Set {
    fn insert(&self, callback: impl Fn(&Self, TimerId) + 'static) -> TimerId {
        self.timers.insert(Box::new(callback))
    }

    /// Adds a timer that logs `number`.
    fn logging(&self, number: u32) -> TimerId {
        self.insert(move |set, _| set.log(number))
    }

    fn log(&self, number: u32) {
        self.log.borrow_mut().push(number);
    }

    fn fire(&self) -> bool {
        self.timers.fire_due(|callback, id| {
            assert!(self.timers.state.try_borrow_mut().is_ok());
            callback(self, id);
        })
    }

    fn logged(&self) -> Vec<u32> {
        self.log.take()
    }
}

#[test]
fn t3_equal_deadlines_fire_in_the_order_of_arming() {
    let set = new();
    let ids = [1, 2, 3].map(|number| set.logging(number));
    for id in ids.iter().rev() {
        set.timers.arm_at(*id, at(5));
    }
    assert!(set.fire() && !set.fire());
    assert_eq!(set.logged(), [3, 2, 1]);
}

#[test]
fn t3_arming_returns_whether_the_earliest_deadline_changed() {
    let set = new();
    let (a, b) = (set.logging(1), set.logging(2));
    let timers = &set.timers;
    assert!(timers.arm_after(a, Duration::from_nanos(10)));
    assert!(!timers.arm_at(b, at(20)) && !timers.anticipate(b, at(21)));
    assert!(timers.anticipate(b, at(19)));
    assert_eq!(
        (timers.deadline(b), timers.next_deadline()),
        (Some(at(19)), Some(at(19)))
    );
    assert!(timers.cancel(b) && !timers.cancel(b));
    assert_eq!(timers.time_left(), Some(Duration::from_nanos(10)));
}

#[test]
fn t2_a_stopped_clock_has_no_deadline_and_an_idle_set_reads_none() {
    #[derive(Debug, Default)]
    struct Counted {
        stopped: Cell<bool>,
        reads: Cell<u32>,
    }
    impl Clock for Counted {
        fn now(&self) -> Moment {
            self.reads.set(self.reads.get() + 1);
            at(10)
        }
        fn is_running(&self) -> bool {
            !self.stopped.get()
        }
    }
    let timers = TimerSet::new(Counted::default());
    let id = timers.insert(());
    let fire = || timers.fire_due(|(), _| {});
    assert!(!fire() && timers.time_left().is_none());
    timers.arm_at(id, Moment::NEVER);
    assert!(timers.time_left().is_none());
    assert_eq!(
        timers.clock().reads.get(),
        0,
        "nothing that could be due is armed"
    );
    timers.arm_at(id, at(10));
    timers.clock().stopped.set(true);
    assert!(!fire() && timers.time_left().is_none());
    assert_eq!(timers.clock().reads.get(), 0, "it is stopped");
    timers.clock().stopped.set(false);
    timers.arm_at(id, Moment::ZERO);
    assert_eq!(timers.time_left(), Some(Duration::ZERO));
    assert_eq!(timers.clock().reads.get(), 0, "a deadline that is always due");
    assert!(fire() && !fire());
    assert_eq!(timers.clock().reads.get(), 1, "once for a run");
}

#[test]
fn t4_a_timer_that_re_arms_itself_for_the_past_fires_once_a_run() {
    let set = new();
    let id = set.insert(|set, id| {
        set.log(1);
        set.timers.arm_at(id, Moment::ZERO);
    });
    set.timers.arm_at(id, at(3));
    for _ in 0..5 {
        assert!(set.fire());
        assert_eq!(set.logged(), [1]);
    }
}

#[test]
fn t4_a_callback_may_cancel_and_remove_due_timers_and_itself() {
    let set = new();
    let (cancelled, removed, kept) = (set.logging(1), set.logging(2), set.logging(3));
    let killer = set.insert(move |set, own| {
        assert!(set.timers.cancel(cancelled));
        assert!(set.timers.remove(removed).is_some());
        assert!(set.timers.remove(own).is_none(), "its callback is running");
        assert!(!set.timers.arm_at(own, at(1)) && set.timers.deadline(own).is_none());
        set.log(9);
    });
    for id in [killer, cancelled, removed, kept] {
        set.timers.arm_at(id, at(5));
    }
    assert!(set.fire() && !set.fire());
    assert_eq!((set.logged(), set.timers.len()), ([9, 3].into(), 2));
}

#[test]
fn t4_a_timer_inserted_by_a_callback_is_for_the_next_run() {
    let set = new();
    let id = set.insert(|set, own| {
        set.timers.remove(own);
        let new = set.logging(7);
        set.timers.arm_at(new, at(1));
        assert!(!set.timers.cancel(own), "its slot was reused, its id was not");
    });
    set.timers.arm_at(id, at(5));
    assert!(set.fire() && set.logged().is_empty());
    assert!(set.fire() && set.logged() == [7]);
}

#[test]
fn d6_a_nested_run_takes_over_the_rest_and_fires_a_running_timer() {
    let set = new();
    let first = set.insert(|set, own| {
        let depth = set.log.borrow().len();
        set.log(0);
        if depth < 3 {
            set.timers.arm_at(own, at(1));
            assert!(set.fire());
            set.log(10);
        }
    });
    let rest = [1, 2].map(|number| set.logging(number));
    set.timers.arm_at(first, at(5));
    rest.iter().for_each(|id| {
        set.timers.arm_at(*id, at(5));
    });
    assert!(set.fire() && !set.fire());
    assert_eq!(set.logged(), [0, 1, 2, 0, 10]);
}

/// Counts its drops.
struct Dropped(Rc<Cell<u32>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

#[test]
fn r8_a_removed_callback_is_dropped_once_after_its_outermost_call() {
    let (set, drops) = (new(), Rc::new(Cell::new(0)));
    let (witness, seen) = (Dropped(drops.clone()), drops.clone());
    let id = set.insert(move |set, own| {
        set.log(1);
        if set.log.borrow().len() == 1 {
            set.timers.arm_at(own, at(1));
            assert!(set.fire());
        } else {
            set.timers.clear();
        }
        assert_eq!((seen.get(), witness.0.get()), (0, 0));
    });
    set.timers.arm_at(id, at(1));
    assert!(set.fire());
    assert_eq!((drops.get(), set.logged()), (1, [1, 1].into()));
    assert!(set.timers.is_empty() && !set.timers.arm_at(id, at(1)));
}

#[test]
fn r8_a_dropped_callback_may_use_the_set() {
    struct Last(Rc<Set>);
    impl Drop for Last {
        fn drop(&mut self) {
            let id = self.0.logging(1);
            self.0.timers.arm_at(id, at(1));
        }
    }
    let set = new();
    let insert = || {
        let last = Last(set.clone());
        set.insert(move |_, own| drop(last.0.timers.remove(own)))
    };
    let removed = insert();
    drop(set.timers.remove(removed));
    assert!(set.fire() && set.logged() == [1]);
    let fired = insert();
    set.timers.arm_at(fired, at(1));
    assert!(set.fire() && set.logged().is_empty());
    assert!(set.fire() && set.logged() == [1]);
    insert();
    set.timers.clear();
    assert_eq!(set.timers.len(), 1, "the timer that the drop inserted");
    set.timers.clear(); // the last two refer to the set
    assert_eq!(Rc::strong_count(&set), 1);
}

#[test]
fn r8_after_clear_ids_are_stale_and_the_set_is_usable() {
    let set = new();
    let old: Vec<_> = (0..40).map(|number| set.logging(number)).collect();
    for (id, deadline) in old.iter().zip(1..) {
        set.timers.arm_at(*id, at(deadline));
    }
    let killer = set.insert(|set, _| set.timers.clear());
    set.timers.arm_at(killer, Moment::ZERO);
    assert!(set.fire() && !set.fire(), "the due ones are gone, too");
    assert!(set.logged().is_empty() && set.timers.is_empty() && set.timers.time_left().is_none());
    let new: Vec<_> = (100..150).map(|number| set.logging(number)).collect();
    assert!(
        !old.iter()
            .any(|id| set.timers.arm_at(*id, at(1)) || set.timers.remove(*id).is_some())
    );
    for id in &new {
        set.timers.arm_at(*id, at(2));
    }
    assert!(set.fire());
    assert_eq!(set.logged(), (100..150).collect::<Vec<_>>());
}

#[test]
fn d9_a_panic_loses_nothing_and_fires_nothing_twice() {
    let set = new();
    let nested = set.insert(|set, _| {
        set.log(1);
        if set.log.borrow().len() == 1 {
            set.fire();
            unreachable!("the nested run panics");
        }
    });
    let bad = set.insert(|set, _| {
        set.log(2);
        panic!("on purpose");
    });
    let good = set.logging(3);
    for round in 0..3 {
        for id in [nested, bad, good] {
            set.timers.arm_at(id, at(5));
        }
        assert!(catch_unwind(AssertUnwindSafe(|| set.fire())).is_err());
        assert_eq!(
            (set.logged(), set.timers.state.borrow().depth),
            ([1, 2].into(), 0)
        );
        assert!(set.fire() && !set.fire(), "round {round}");
        assert_eq!(set.logged(), [3]);
    }
}

#[test]
fn debug_of_a_set_shows_its_timers() {
    let set = new();
    let id = set.logging(1);
    set.timers.arm_at(id, at(1_500));
    let shown = std::format!("{:?}", set.timers);
    assert!(shown.contains("timers: 1") && shown.contains("+1.5"), "{shown}");
}

/// The panic of a random callback, as opposed to that of an assertion.
struct OnPurpose;

/// A random program: callbacks that do anything, beside a model that is searched from end to end.
struct Random {
    timers: TimerSet<Rc<Cell<bool>>, ManualClock>,
    model: RefCell<Model>,
    live: RefCell<Vec<TimerId>>,
    rng: RefCell<fastrand::Rng>,
    depth: Cell<u32>,
    /// The number of callbacks, and of those that panicked on purpose.
    calls: Cell<u32>,
    panics: Cell<u32>,
}

impl Random {
    fn below(&self, limit: usize) -> usize {
        self.rng.borrow_mut().usize(0..limit)
    }

    fn step(&self) {
        let (timers, deadline) = (&self.timers, at(self.below(40) as u64));
        let chosen = self.below(self.live.borrow().len() + 1);
        let Some(id) = self.live.borrow().get(chosen).copied() else {
            return self.live.borrow_mut().push(timers.insert(Rc::default()));
        };
        match self.below(12) {
            0..5 => assert_eq!(
                timers.arm_at(id, deadline),
                self.model.borrow_mut().arm(id, deadline)
            ),
            5 => {
                let expected = self.model.borrow_mut().anticipate(id, deadline);
                assert_eq!(timers.anticipate(id, deadline), expected);
            }
            6 => assert_eq!(timers.cancel(id), self.model.borrow_mut().cancel(id)),
            7 => {
                self.live.borrow_mut().swap_remove(chosen);
                self.model.borrow_mut().cancel(id);
                timers.remove(id);
            }
            8 => timers.clock().set(deadline),
            9 if self.depth.get() == 0 && self.below(20) == 0 => {
                timers.clear();
                self.live.take();
                self.model.take();
            }
            _ if self.depth.get() < 4 => self.fire(),
            _ => {}
        }
        assert_eq!(timers.next_deadline(), self.model.borrow().next_deadline());
        assert_eq!(timers.len(), self.live.borrow().len());
    }

    fn fire(&self) {
        let now = self.timers.clock().now();
        if self
            .model
            .borrow()
            .next_deadline()
            .is_some_and(|first| first <= now)
        {
            self.model.borrow_mut().begin(now);
        }
        let depth = self.depth.replace(self.depth.get() + 1);
        let fired = catch_unwind(AssertUnwindSafe(|| {
            self.timers.fire_due(|running, id| self.call(running, id))
        }));
        self.depth.set(depth);
        match fired {
            Ok(_) => assert_eq!(self.model.borrow_mut().next_due(), None, "all were fired"),
            Err(panic) if panic.is::<OnPurpose>() => self.panics.set(self.panics.get() + 1),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    fn call(&self, running: &Cell<bool>, id: TimerId) {
        assert_eq!(self.model.borrow_mut().next_due(), Some(id));
        self.calls.set(self.calls.get() + 1);
        let outer = running.replace(true);
        for _ in 0..self.below(4) {
            self.step();
        }
        running.set(outer);
        if self.below(10) == 0 {
            std::panic::resume_unwind(Box::new(OnPurpose));
        }
    }
}

#[test]
fn t3_t4_d6_d9_random_callbacks_agree_with_a_model() {
    let mut rng = crate::tests::random();
    let (mut calls, mut panics) = (0, 0);
    for _ in 0..200 {
        let random = Random {
            timers: TimerSet::new(ManualClock::new()),
            model: RefCell::default(),
            live: RefCell::default(),
            rng: RefCell::new(rng.fork()),
            depth: Cell::new(0),
            calls: Cell::new(0),
            panics: Cell::new(0),
        };
        for _ in 0..300 {
            random.step();
        }
        calls += random.calls.get();
        panics += random.panics.get();
        let state = random.timers.state.borrow();
        assert!(state.depth == 0 && state.slots.len() <= 5);
        assert!(state.slots.iter().all(|slot| slot.0.borrow().is_none()));
        state.queue.heap.check();
    }
    assert!(calls > 2_000 && panics > 100, "{calls} calls, {panics} panics");
}
