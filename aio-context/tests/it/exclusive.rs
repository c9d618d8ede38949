//! Exclusive handlers, in each mode of registration: none is entered again while it runs, and none loses an event through this.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::{Rc, Weak};
use std::time::Duration;

use aio_context::{Context, Exclusive, Handler, HandlerMut, Interest, PollParams, Pollable, Polled, Wait};

use crate::common::{Bench, Kick, Number, everywhere};

everywhere! {
    r3_d1_an_exclusive_handler_that_returns_to_its_place_loses_no_edge
    r3_an_exclusive_handler_that_returns_to_its_place_is_not_entered
    r3_a9_a_polled_exclusive_handler_that_returns_to_its_place_is_not_polled
    r8_an_exclusive_handler_that_is_watched_again_while_it_runs_is_not_entered
    r8_a9_a_polled_exclusive_handler_that_is_watched_again_is_not_polled
    r3_r14_a_successor_that_runs_gives_way_to_the_handler_that_still_runs
    d1_a_handler_of_two_contexts_is_not_entered_by_the_other_one
    a9_a_polled_handler_of_two_contexts_is_not_entered_by_the_other_one
    d1_an_edge_that_comes_while_the_state_is_in_use_is_seen_afterwards
    d9_a_handler_that_panics_in_another_place_gets_its_event_afterwards
    r4_an_exclusive_handler_that_is_invalidated_while_it_runs_learns_of_it_afterwards
}

/// Each way in which an event can be reported.
const MODES: [Interest; 3] = [
    Interest::READ,
    Interest::READ.union(Interest::EDGE),
    Interest::READ.union(Interest::ONESHOT),
];

type First = Box<dyn FnOnce(&Context, &Rc<Alone>)>;

/// An exclusive handler that panics if it is entered twice, or polled while it runs. Its first call runs `first`.
struct Alone {
    kick: Rc<Kick>,
    own: Weak<Self>,
    is_running: Cell<bool>,
    calls: Cell<u32>,
    first: RefCell<Option<First>>,
}

impl Alone {
    fn new(kick: &Rc<Kick>, first: impl FnOnce(&Context, &Rc<Self>) + 'static) -> Rc<Self> {
        let first: First = Box::new(first);
        Rc::new_cyclic(|own| Self {
            kick: kick.clone(),
            own: own.clone(),
            is_running: Cell::new(false),
            calls: Cell::new(0),
            first: RefCell::new(Some(first)),
        })
    }

    /// Triggers another event, and asserts that a nested poll does not deliver it to this handler.
    fn is_left_alone(&self, cx: &Context) {
        let calls = self.calls.get();
        self.kick.kick();
        for _ in 0..2 {
            let progress = cx.poll(Wait::AtMost(Duration::from_nanos(1))).unwrap();
            assert!(!progress, "its event waits");
        }
        assert_eq!(self.calls.get(), calls);
    }
}

impl AsFd for Alone {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.kick.as_fd()
    }
}

/// Clears the flag when it is dropped, also by a panic.
struct Left<'a>(&'a Cell<bool>);

impl Drop for Left<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Handler for Alone {
    fn readable(&self, cx: &Context) {
        assert!(!self.is_running.replace(true), "it is entered twice");
        let _left = Left(&self.is_running);
        // A hit and an event of the descriptor may have one cause.
        self.calls.set(self.calls.get() + u32::from(self.kick.clear()));
        if let Some(first) = self.first.take() {
            first(cx, &self.own.upgrade().unwrap());
        }
    }
    fn exclusive(&self) -> bool {
        true
    }
}

impl Pollable for Alone {
    fn poll(&self) -> bool {
        assert!(!self.is_running.get(), "it is polled while it runs");
        self.kick.is_set()
    }
}

/// Asserts that two events cause two calls, when the second event comes during the first call.
fn has_two_calls(bench: Bench, cx: &Context, alone: &Alone, mode: Interest) {
    alone.kick.kick();
    for calls in 1..=2 {
        assert!(bench.check(cx), "{mode:?}: event {calls} is lost");
        assert_eq!(alone.calls.get(), calls, "{mode:?}");
    }
    assert!(!bench.check(cx), "{mode:?}");
}

/// Replaces the handler by another one, which is called, and then replaces that by the former handler.
fn return_to_its_place(cx: &Context, alone: &Rc<Alone>, mode: Interest) {
    cx.replace(alone.kick.clone(), mode).unwrap();
    alone.kick.kick();
    assert!(
        cx.poll(Wait::NoBlock).unwrap(),
        "{mode:?}: the successor is called"
    );
    cx.replace(alone.clone(), mode).unwrap();
}

fn r3_d1_an_exclusive_handler_that_returns_to_its_place_loses_no_edge(bench: Bench) {
    struct Edges(u32, Weak<Exclusive<Rc<Kick>, Edges>>);
    impl HandlerMut<Rc<Kick>> for Edges {
        fn readable(&mut self, kick: &Rc<Kick>, cx: &Context) {
            kick.clear();
            self.0 += 1;
            if self.0 == 1 {
                let edge = Interest::READ | Interest::EDGE;
                cx.replace(kick.clone(), edge).unwrap();
                cx.replace(self.1.upgrade().unwrap(), edge).unwrap();
                kick.kick();
                cx.poll(Wait::NoBlock).unwrap();
            }
        }
    }
    let (cx, kick) = (bench.context(), Kick::new());
    let handler = Rc::new_cyclic(|own: &Weak<_>| Exclusive::new(kick.clone(), Edges(0, own.clone())));
    let _registration = cx
        .watch(handler.clone(), Interest::READ | Interest::EDGE)
        .unwrap();
    kick.kick();
    for calls in 1..=2 {
        assert!(bench.check(&cx));
        assert_eq!(handler.with(|state| state.0), Some(calls));
    }
    assert!(!bench.check(&cx));
}

fn r3_an_exclusive_handler_that_returns_to_its_place_is_not_entered(bench: Bench) {
    for mode in MODES {
        let (cx, kick) = (bench.context(), Kick::new());
        let alone = Alone::new(&kick, move |cx, own| {
            return_to_its_place(cx, own, mode);
            own.is_left_alone(cx);
        });
        let _registration = cx.watch(alone.clone(), mode).unwrap();
        has_two_calls(bench, &cx, &alone, mode);
    }
}

fn r3_a9_a_polled_exclusive_handler_that_returns_to_its_place_is_not_polled(bench: Bench) {
    for (mode, polling) in MODES.map(|mode| [(mode, 0), (mode, 20)]).concat() {
        let (cx, kick) = (bench.context(), Kick::new());
        cx.set_poll_params(PollParams::up_to(Duration::from_micros(polling)));
        let alone = Alone::new(&kick, move |cx, own| {
            cx.replace(Polled(own.kick.clone()), mode).unwrap();
            own.kick.kick();
            assert!(cx.poll(Wait::NoBlock).unwrap(), "the successor is called");
            cx.replace(Polled(own.clone()), mode).unwrap();
            own.is_left_alone(cx);
        });
        let _registration = cx.watch(Polled(alone.clone()), mode).unwrap();
        has_two_calls(bench, &cx, &alone, mode);
        if mode == Interest::READ {
            kick.kick();
            assert!(
                bench.check(&cx) && alone.calls.get() == 3,
                "it is polled or watched again"
            );
        }
    }
}

fn r8_an_exclusive_handler_that_is_watched_again_while_it_runs_is_not_entered(bench: Bench) {
    for mode in MODES {
        let (cx, kick) = (bench.context(), Kick::new());
        let alone = Alone::new(&kick, move |cx, own| {
            assert!(cx.unwatch(cx.token_of(own).unwrap()));
            cx.watch(own.clone(), mode).unwrap().detach();
            own.is_left_alone(cx);
        });
        cx.watch(alone.clone(), mode).unwrap().detach();
        has_two_calls(bench, &cx, &alone, mode);
    }
}

fn r8_a9_a_polled_exclusive_handler_that_is_watched_again_is_not_polled(bench: Bench) {
    for (mode, polling) in MODES.map(|mode| [(mode, 0), (mode, 20)]).concat() {
        let (cx, kick) = (bench.context(), Kick::new());
        cx.set_poll_params(PollParams::up_to(Duration::from_micros(polling)));
        let alone = Alone::new(&kick, move |cx, own| {
            assert!(cx.unwatch(cx.token_of(own).unwrap()));
            cx.watch(Polled(own.clone()), mode).unwrap().detach();
            own.is_left_alone(cx);
        });
        cx.watch(Polled(alone.clone()), mode).unwrap().detach();
        has_two_calls(bench, &cx, &alone, mode);
    }
}

fn r3_r14_a_successor_that_runs_gives_way_to_the_handler_that_still_runs(bench: Bench) {
    for mode in MODES {
        let (cx, kick) = (bench.context(), Kick::new());
        let alone = Alone::new(&kick, move |cx, own| {
            let first = own.clone();
            let second = Alone::new(&own.kick, move |cx, second| {
                second.is_left_alone(cx);
                cx.replace(first.clone(), mode).unwrap();
                first.is_left_alone(cx);
            });
            cx.replace(second.clone(), mode).unwrap();
            own.kick.kick();
            assert!(cx.poll(Wait::NoBlock).unwrap(), "the successor is called");
            assert_eq!(second.calls.get(), 1);
            own.is_left_alone(cx);
        });
        let _registration = cx.watch(alone.clone(), mode).unwrap();
        has_two_calls(bench, &cx, &alone, mode);
    }
}

fn d1_a_handler_of_two_contexts_is_not_entered_by_the_other_one(bench: Bench) {
    for mode in MODES {
        let (cx, kick) = (bench.context(), Kick::new());
        let other = bench.context();
        let nested = other.clone();
        let alone = Alone::new(&kick, move |_, own| own.is_left_alone(&nested));
        let _registration = cx.watch(alone.clone(), mode).unwrap();
        let _other = other.watch(alone.clone(), mode).unwrap();
        kick.kick();
        assert!(bench.check(&cx) && alone.calls.get() == 1);
        assert!(
            bench.check(&other),
            "{mode:?}: the event of the other one is lost"
        );
        assert_eq!(alone.calls.get(), 2, "{mode:?}");
    }
}

fn a9_a_polled_handler_of_two_contexts_is_not_entered_by_the_other_one(bench: Bench) {
    let (cx, kick) = (bench.context(), Kick::new());
    let other = bench.context();
    other.set_poll_params(PollParams::up_to(Duration::from_micros(20)));
    let nested = other.clone();
    let alone = Alone::new(&kick, move |_, own| {
        // Each context has its own poll set, so the other context may call its `poll` once.
        own.is_running.set(false);
        own.is_left_alone(&nested);
    });
    let _registration = cx.watch(alone.clone(), Interest::READ).unwrap();
    let _other = other.watch(Polled(alone.clone()), Interest::NONE).unwrap();
    kick.kick();
    assert!(bench.check(&cx) && alone.calls.get() == 1);
    assert!(
        other.poll(Wait::AtMost(Duration::from_secs(1))).unwrap(),
        "it is polled again"
    );
    assert_eq!(alone.calls.get(), 2);
}

fn d1_an_edge_that_comes_while_the_state_is_in_use_is_seen_afterwards(bench: Bench) {
    struct Calls(u32);
    impl HandlerMut<Rc<Kick>> for Calls {
        fn readable(&mut self, kick: &Rc<Kick>, _: &Context) {
            kick.clear();
            self.0 += 1;
        }
    }
    for mode in MODES {
        let (cx, kick) = (bench.context(), Kick::new());
        let handler = Rc::new(Exclusive::new(kick.clone(), Calls(0)));
        let _registration = cx.watch(handler.clone(), mode).unwrap();
        kick.kick();
        let nested = handler.with(|calls| (bench.check(&cx), calls.0));
        assert_eq!(nested, Some((false, 0)), "{mode:?}");
        assert!(bench.check(&cx), "{mode:?}: the event is lost");
        assert_eq!(handler.with(|calls| calls.0), Some(1), "{mode:?}");
        assert!(!bench.check(&cx), "{mode:?}");
    }
}

fn d9_a_handler_that_panics_in_another_place_gets_its_event_afterwards(bench: Bench) {
    for mode in MODES {
        let (cx, kick) = (bench.context(), Kick::new());
        let alone = Alone::new(&kick, move |cx, own| {
            return_to_its_place(cx, own, mode);
            own.is_left_alone(cx);
            panic!("on purpose");
        });
        let _registration = cx.watch(alone.clone(), mode).unwrap();
        kick.kick();
        let poll = std::panic::AssertUnwindSafe(|| bench.check(&cx));
        assert!(std::panic::catch_unwind(poll).is_err());
        assert!(bench.check(&cx), "{mode:?}: the event is lost");
        assert_eq!(alone.calls.get(), 2, "{mode:?}");
    }
}

fn r4_an_exclusive_handler_that_is_invalidated_while_it_runs_learns_of_it_afterwards(bench: Bench) {
    #[derive(Default)]
    struct Ended(Vec<&'static str>);
    impl HandlerMut<Rc<Number>> for Ended {
        fn readable(&mut self, number: &Rc<Number>, cx: &Context) {
            self.0.push("called");
            let token = cx.token_of(number).unwrap();
            number.close();
            // Backends detect the closed number either when the interest changes or in a wait.
            for interest in [Interest::BOTH, Interest::READ] {
                _ = cx.set_interest(token, interest);
                cx.poll(Wait::NoBlock).unwrap();
            }
            self.0.push("returns");
        }
        fn invalidated(&mut self, _: &Context, _: io::Error) {
            self.0.push("invalidated");
        }
    }
    let (cx, number) = (bench.context(), Number::new());
    let handler = Rc::new(Exclusive::new(number.clone(), Ended::default()));
    let registration = cx.watch(handler.clone(), Interest::READ).unwrap();
    number.kick();
    assert!(bench.check(&cx));
    let seen = handler.with(|ended| std::mem::take(&mut ended.0)).unwrap();
    if registration.is_live() {
        assert_eq!(seen, ["called", "returns"], "this backend does not notice it");
    } else {
        assert_eq!(seen, ["called", "returns", "invalidated"]);
    }
}
