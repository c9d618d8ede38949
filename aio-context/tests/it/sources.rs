//! Sources without a descriptor: none of their work is missed, whether the loop polls, sleeps, is paused or panics.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use aio_context::{Context, GroupId, Interest, PollParams, Polled, Registration, Source, SourceWaker, Wait};

use crate::common::{self, Bench, Kick, everywhere};
use crate::polling::always;

everywhere! {
    n1_a_wake_serves_the_source_once
    n1_a_wake_before_the_source_is_registered_is_kept
    n1_a_wake_outlives_its_waker
    a1_without_polling_the_source_is_not_polled
    a9_a_source_is_not_entered_again_while_it_is_served
    a9_a_source_that_nests_is_entered_again
    b5_a_wake_during_a_pause_is_served_after_it
    b5_a_source_learns_of_the_first_pause_and_of_the_last_resume
    b5_a_panic_in_one_source_does_not_keep_the_pause_from_the_next
    d9_a_panic_leaves_the_work_to_be_found
    r8_a_removed_source_is_not_served
    r8_a_waker_outlives_its_context
}

type OnReady = Rc<dyn Fn(&Work, &Context)>;

/// A source with a given amount of work.
#[derive(Default)]
struct Work {
    left: Cell<u32>,
    nests: bool,
    polls: Cell<u32>,
    served: Cell<u32>,
    log: RefCell<Vec<&'static str>>,
    on_ready: RefCell<Option<OnReady>>,
    depth: Cell<u32>,
    deepest: Cell<u32>,
}

/// A share of the source, which the context owns.
struct Shared(Rc<Work>);

impl Source for Shared {
    fn poll(&self) -> bool {
        self.0.polls.set(self.0.polls.get() + 1);
        self.0.left.get() > 0
    }
    fn poll_ready(&self, cx: &Context) {
        let work = &self.0;
        work.served.set(work.served.get() + 1);
        work.depth.set(work.depth.get() + 1);
        work.deepest.set(work.deepest.get().max(work.depth.get()));
        let code = work.on_ready.borrow().clone();
        match code {
            Some(code) => code(work, cx),
            None => work.left.set(0),
        }
        work.depth.set(work.depth.get() - 1);
    }
    fn poll_begin(&self) {
        self.0.log.borrow_mut().push("begin");
    }
    fn poll_end(&self) {
        self.0.log.borrow_mut().push("end");
    }
    fn nests(&self) -> bool {
        self.0.nests
    }
}

impl Work {
    fn that_nests(nests: bool) -> Rc<Self> {
        Rc::new(Self {
            nests,
            ..Self::default()
        })
    }

    fn add_in(self: &Rc<Self>, cx: &Context, group: GroupId) -> (SourceWaker, Registration) {
        let source = cx.source("work").group(group);
        let waker = source.waker();
        (waker, source.register(Shared(self.clone())))
    }

    fn add(self: &Rc<Self>, cx: &Context) -> (SourceWaker, Registration) {
        self.add_in(cx, GroupId::DEFAULT)
    }

    fn when_ready(&self, code: impl Fn(&Self, &Context) + 'static) {
        *self.on_ready.borrow_mut() = Some(Rc::new(code));
    }

    /// Gives it work, and wakes it from another thread.
    fn give(&self, waker: &SourceWaker) {
        self.left.set(self.left.get() + 1);
        let waker = waker.clone();
        std::thread::spawn(move || waker.wake()).join().unwrap();
    }
}

fn settle(bench: Bench, cx: &Context) {
    for _ in 0..3 {
        while bench.check(cx) {}
    }
}

fn n1_a_wake_serves_the_source_once(bench: Bench) {
    let cx = bench.context();
    let work = Rc::new(Work::default());
    let (waker, _registration) = work.add(&cx);
    for times in 1..=3 {
        for _ in 0..5 {
            work.give(&waker);
        }
        assert!(bench.block(&cx));
        assert_eq!((work.served.get(), work.left.get()), (times, 0));
        settle(bench, &cx);
        assert_eq!(work.served.get(), times);
    }
}

fn n1_a_wake_before_the_source_is_registered_is_kept(bench: Bench) {
    let cx = bench.context();
    let work = Rc::new(Work::default());
    let source = cx.source("work");
    let waker = source.waker();
    waker.wake();
    settle(bench, &cx);
    assert_eq!(work.served.get(), 0);
    let _registration = source.register(Shared(work.clone()));
    assert!(bench.block(&cx));
    assert_eq!(work.served.get(), 1);
}

fn n1_a_wake_outlives_its_waker(bench: Bench) {
    let cx = bench.context();
    let work = Rc::new(Work::default());
    let (waker, _registration) = work.add(&cx);
    work.give(&waker);
    drop(waker);
    assert!(bench.block(&cx));
    assert_eq!(work.served.get(), 1);
}

fn a1_without_polling_the_source_is_not_polled(bench: Bench) {
    let cx = bench.context();
    let work = Rc::new(Work::default());
    let (waker, _registration) = work.add(&cx);
    for _ in 0..10 {
        work.give(&waker);
        assert!(bench.block(&cx));
    }
    assert_eq!((work.polls.get(), work.served.get()), (0, 10));
    assert!(work.log.borrow().is_empty());
}

/// While it is served it wakes itself and polls the context.
fn wakes_itself(bench: Bench, nests: bool) -> u32 {
    let cx = bench.context();
    let work = Work::that_nests(nests);
    let (waker, _registration) = work.add(&cx);
    let own = waker.clone();
    work.when_ready(move |work, cx| {
        work.left.set(work.left.get() - 1);
        if work.left.get() > 0 {
            own.wake();
            cx.poll(Wait::AtMost(Duration::ZERO)).unwrap();
        }
    });
    work.left.set(2);
    work.give(&waker);
    settle(bench, &cx);
    assert_eq!((work.left.get(), work.served.get()), (0, 3));
    work.deepest.get()
}

fn a9_a_source_is_not_entered_again_while_it_is_served(bench: Bench) {
    assert_eq!(wakes_itself(bench, false), 1);
}

fn a9_a_source_that_nests_is_entered_again(bench: Bench) {
    assert_eq!(wakes_itself(bench, true), 3);
}

fn b5_a_wake_during_a_pause_is_served_after_it(bench: Bench) {
    let cx = bench.context();
    let group = cx.new_group();
    let work = Rc::new(Work::default());
    let paused = cx.pause(group);
    let (waker, _registration) = work.add_in(&cx, group);
    work.give(&waker);
    settle(bench, &cx);
    assert_eq!(work.served.get(), 0, "it is added to a paused group");
    drop(paused);
    settle(bench, &cx);
    assert_eq!(work.served.get(), 1);
    let paused = [cx.pause(group), cx.pause(group)];
    work.give(&waker);
    settle(bench, &cx);
    work.give(&waker);
    settle(bench, &cx);
    for guard in paused {
        assert_eq!(work.served.get(), 1);
        drop(guard);
        settle(bench, &cx);
    }
    assert_eq!((work.served.get(), work.left.get()), (2, 0));
    work.give(&waker);
    assert!(bench.block(&cx));
    assert_eq!(work.served.get(), 3);
}

fn d9_a_panic_leaves_the_work_to_be_found(bench: Bench) {
    let cx = bench.context();
    let work = Rc::new(Work::default());
    let (waker, _registration) = work.add(&cx);
    work.when_ready(|work, _| {
        assert!(work.served.get() > 1, "on purpose");
        work.left.set(0);
    });
    work.give(&waker);
    let ended = catch_unwind(AssertUnwindSafe(|| settle(bench, &cx)));
    assert!(ended.is_err());
    assert!(bench.block(&cx), "no other wake is needed");
    assert_eq!((work.served.get(), work.left.get()), (2, 0));
}

fn r8_a_removed_source_is_not_served(bench: Bench) {
    let cx = bench.context();
    let work = Rc::new(Work::default());
    let (waker, registration) = work.add(&cx);
    work.give(&waker);
    assert!(registration.is_live());
    drop(registration);
    work.give(&waker);
    settle(bench, &cx);
    assert_eq!(work.served.get(), 0);
    assert_eq!(Rc::strong_count(&work), 1, "the context has dropped it");
    let (_waker, registration) = work.add(&cx);
    assert!(cx.unwatch(registration.detach()));
}

fn r8_a_waker_outlives_its_context(bench: Bench) {
    let cx = bench.context();
    let work = Rc::new(Work::default());
    let (waker, registration) = work.add(&cx);
    drop(cx);
    work.give(&waker);
    assert!(!registration.is_live());
    assert_eq!(Rc::strong_count(&work), 1);
}

#[test]
fn a5_poll_begin_and_poll_end_are_balanced() {
    let (cx, _clock) = always(Duration::from_micros(10));
    let work = Rc::new(Work::default());
    let (waker, registration) = work.add(&cx);
    assert!(!cx.poll(Wait::AtMost(Duration::from_millis(1))).unwrap());
    assert_eq!(*work.log.borrow(), ["begin", "end"]);
    // While it is polled, work needs no wake.
    work.left.set(1);
    assert!(cx.poll(Wait::Block).unwrap());
    assert_eq!((work.served.get(), work.left.get()), (1, 0));
    assert_eq!(*work.log.borrow(), ["begin", "end", "begin"]);
    drop(registration);
    assert_eq!(*work.log.borrow(), ["begin", "end", "begin", "end"]);
    drop(waker);
}

#[test]
fn a8_an_idle_source_is_demoted_and_comes_back_by_a_wake() {
    let (cx, _clock) = always(Duration::from_micros(1));
    let sources: Vec<_> = (0..50)
        .map(|_| {
            let work = Rc::new(Work::default());
            let added = work.add(&cx);
            (work, added)
        })
        .collect();
    let busy = Kick::new();
    busy.has_work.set(Some(true));
    let _busy = common::watch_polled(&cx, &busy);
    let polled_in_ten_rounds = || {
        sources.iter().for_each(|(work, _)| work.polls.set(0));
        for _ in 0..10 {
            cx.poll(Wait::Block).unwrap();
        }
        sources.iter().filter(|(work, _)| work.polls.get() > 0).count()
    };
    for _ in 0..2000 {
        cx.poll(Wait::Block).unwrap();
    }
    assert!(polled_in_ten_rounds() < 20, "most are demoted");
    for (work, (waker, _)) in &sources {
        work.give(waker);
    }
    cx.poll(Wait::Block).unwrap();
    assert!(sources.iter().all(|(work, _)| work.served.get() == 1));
    assert_eq!(polled_in_ten_rounds(), 50, "all are promoted");
}

#[test]
fn a_source_has_no_interest_and_cannot_be_replaced() {
    let cx = Context::builder()
        .poll_params(PollParams::up_to(Duration::from_micros(1)))
        .build()
        .unwrap();
    let work = Rc::new(Work::default());
    let (waker, registration) = work.add(&cx);
    let why = registration.set_interest(Interest::READ).unwrap_err();
    assert_eq!(why.kind(), ErrorKind::InvalidInput);
    assert!(why.to_string().contains("no descriptor"), "{why}");
    registration.set_interest(Interest::NONE).unwrap();
    let why = registration.replace(Kick::new()).unwrap_err();
    assert_eq!(why.kind(), ErrorKind::InvalidInput);
    let why = registration
        .replace_with(Polled(Kick::new()), Interest::READ)
        .unwrap_err();
    assert_eq!(why.kind(), ErrorKind::InvalidInput);
    work.give(&waker);
    assert!(cx.poll(Wait::Block).unwrap());
    assert_eq!(work.served.get(), 1);
    assert!(registration.poll_time().is_ok());
}

#[test]
#[should_panic(expected = "was not made by this registry")]
fn a_group_of_another_context_is_a_panic() {
    let (cx, other) = (Context::new().unwrap(), Context::new().unwrap());
    let group = other.new_group();
    let _ = Rc::new(Work::default()).add_in(&cx, group);
}

/// A source that records the pauses of its group, and runs `code` in each.
struct Pausing<F> {
    name: &'static str,
    log: Rc<RefCell<Vec<(&'static str, bool)>>>,
    code: F,
}

impl<F: Fn(bool) + 'static> Source for Pausing<F> {
    fn poll(&self) -> bool {
        false
    }
    fn poll_ready(&self, _cx: &Context) {}
    fn paused(&self) {
        self.log.borrow_mut().push((self.name, true));
        (self.code)(true);
    }
    fn resumed(&self) {
        self.log.borrow_mut().push((self.name, false));
        (self.code)(false);
    }
}

fn b5_a_source_learns_of_the_first_pause_and_of_the_last_resume(bench: Bench) {
    let cx = bench.context();
    let (group, log) = (cx.new_group(), Rc::default());
    let add = |name, group| {
        let log = Rc::clone(&log);
        cx.source(name).group(group).register(Pausing {
            name,
            log,
            code: |_| {},
        })
    };
    let first = add("first", group);
    let _other = add("other", GroupId::DEFAULT);
    let pauses = [cx.pause(group), cx.pause(group)];
    let _second = add("second", group);
    assert_eq!(log.take(), [("first", true), ("second", true)]);
    assert!(cx.is_paused(group) && !cx.is_paused(GroupId::DEFAULT));
    pauses.into_iter().for_each(drop);
    assert!(!cx.is_paused(group));
    assert_eq!(log.take(), [("first", false), ("second", false)]);
    // A source that is removed during a pause is not called any more.
    let paused = cx.pause(group);
    drop(first);
    drop(paused);
    let expected = [("first", true), ("second", true), ("second", false)];
    assert_eq!(log.take(), expected);
}

fn b5_a_panic_in_one_source_does_not_keep_the_pause_from_the_next(bench: Bench) {
    let cx = bench.context();
    let (group, log, panics) = (cx.new_group(), Rc::default(), Rc::new(Cell::new(false)));
    let sources = ["first", "second"].map(|name| {
        let (log, panics) = (Rc::clone(&log), panics.clone());
        cx.source(name).group(group).register(Pausing {
            name,
            log,
            code: move |_| assert!(!panics.take(), "on purpose"),
        })
    });
    panics.set(true);
    // The guard of a pause that panics is dropped, which ends the pause.
    assert!(catch_unwind(AssertUnwindSafe(|| drop(cx.pause(group)))).is_err());
    assert!(!cx.is_paused(group));
    let both = |is_paused| [("first", is_paused), ("second", is_paused)];
    assert_eq!(log.take(), [both(true), both(false)].concat());
    let paused = cx.pause(group);
    panics.set(true);
    assert!(catch_unwind(AssertUnwindSafe(|| drop(paused))).is_err());
    assert_eq!(log.take(), [both(true), both(false)].concat());
    drop(sources);
}
