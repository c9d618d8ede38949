//! Rules D: the order of things, nesting, fairness and panics; and the backend rules that show in a context.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use aio_context::{ClockId, Context, Exclusive, HandlerMut, Interest, Wait};

use crate::common::{Bench, Count, Kick, everywhere, open_descriptors, watch};

/// A wait that may sleep, for a short time.
const MOMENT: Wait = Wait::AtMost(Duration::from_nanos(1));

everywhere! {
    d1_a_nested_poll_takes_the_readiness_over
    d2_more_than_a_batch_comes_round_robin
    d4_notified_without_work_is_no_progress
    d4_a_blocking_poll_with_a_limit_ends
    d5_bottom_halves_before_handlers_before_timers
    d6_nested_a_thousand_deep
    d8_a_bottom_half_that_reschedules_itself_starves_no_handler
    d9_a_panic_in_a_handler_leaves_a_usable_context
    d9_a_panic_in_a_nested_poll
    b3_climbing_and_descending_loses_nothing
    b4_a_regular_file_is_always_ready_and_spoils_nothing
    b7_ten_thousand_contexts_leave_no_descriptor
    an_exclusive_handler_is_not_entered_twice
}

fn d1_a_nested_poll_takes_the_readiness_over(bench: Bench) {
    let (cx, order) = (bench.context(), Rc::new(RefCell::new(Vec::new())));
    let second = Kick::with({
        let order = order.clone();
        move |_, _| order.borrow_mut().push("second")
    });
    let first = Kick::with({
        let order = order.clone();
        move |_, cx| {
            order.borrow_mut().push("first");
            while bench.check(cx) {}
            order.borrow_mut().push("first again");
        }
    });
    let _registrations = (watch(&cx, &first), watch(&cx, &second));
    first.kick();
    second.kick();
    while bench.check(&cx) {}
    assert_eq!(
        (first.count.get(), second.count.get()),
        (1, 1),
        "each event is served once"
    );
    let order = order.borrow();
    assert!(
        *order == ["first", "second", "first again"] || *order == ["second", "first", "first again"],
        "{order:?}"
    );
}

fn d2_more_than_a_batch_comes_round_robin(bench: Bench) {
    let cx = bench.builder().batch(8).build().unwrap();
    // Each stays ready: it is kicked again as soon as it is served.
    let kicks: Vec<_> = (0..100).map(|_| Kick::with(|kick, _| kick.kick())).collect();
    let _registrations: Vec<_> = kicks.iter().map(|kick| watch(&cx, kick)).collect();
    kicks.iter().for_each(|kick| kick.kick());
    for _ in 0..14 {
        assert!(bench.block(&cx));
    }
    let least = kicks.iter().map(|kick| kick.count.get()).min();
    assert!(least >= Some(1), "no handler starves: 14 batches of 8 reach 100");
}

fn d4_notified_without_work_is_no_progress(bench: Bench) {
    let cx = bench.context();
    cx.remote().notify();
    assert!(!bench.block(&cx), "it returns without progress");
    assert!(!bench.check(&cx));
}

fn d4_a_blocking_poll_with_a_limit_ends(bench: Bench) {
    let (cx, clock) = bench.simulated();
    let before = cx.now(ClockId::Monotonic);
    assert!(!cx.poll(Wait::AtMost(Duration::from_secs(3600))).unwrap());
    assert_eq!(
        cx.now(ClockId::Monotonic).since(before),
        Duration::from_secs(3600)
    );
    drop(clock);
}

fn d5_bottom_halves_before_handlers_before_timers(bench: Bench) {
    let ((cx, clock), order) = (bench.simulated(), Rc::new(RefCell::new(Vec::new())));
    let log = |entry: &'static str| {
        let order = order.clone();
        move || order.borrow_mut().push(entry)
    };
    let (of_timer, of_kick, of_bh) = (log("timer"), log("handler"), log("bottom half"));
    let timer = cx.timer(ClockId::Monotonic, move |_, _| of_timer()).disarmed();
    let kick = Kick::with(move |_, _| of_kick());
    let bh = cx.bottom_half("d5", move |_| of_bh());
    let _registration = watch(&cx, &kick);
    timer.arm_after(Duration::from_millis(1));
    clock.advance(Duration::from_millis(1));
    kick.kick();
    bh.schedule();
    assert!(bench.block(&cx));
    assert_eq!(*order.borrow(), ["bottom half", "handler", "timer"]);
}

fn d6_nested_a_thousand_deep(bench: Bench) {
    // The stack is as large as that of a main thread, although frames of a build without optimisation are several times as large as usual.
    let deep = std::thread::Builder::new()
        .stack_size(8 << 20)
        .spawn(move || nest_a_thousand_times(bench));
    deep.unwrap().join().unwrap();
}

fn nest_a_thousand_times(bench: Bench) {
    let cx = bench.context();
    let kick = Kick::with(move |kick, cx| {
        if kick.count.get() < 1000 {
            kick.kick();
            assert!(bench.block(cx));
        }
    });
    let _registration = watch(&cx, &kick);
    kick.kick();
    assert!(bench.block(&cx));
    assert_eq!(kick.count.get(), 1000);
    assert!(!bench.check(&cx));
}

fn d8_a_bottom_half_that_reschedules_itself_starves_no_handler(bench: Bench) {
    let (cx, kick, fired) = (bench.context(), Kick::new(), Count::default());
    let own = Rc::new(RefCell::new(None::<aio_context::BottomHalf>));
    let handle = own.clone();
    let bh = cx.bottom_half("restless", move |_| {
        if let Some(bh) = &*handle.borrow() {
            bh.schedule();
        }
    });
    bh.schedule();
    *own.borrow_mut() = Some(bh);
    let _registration = watch(&cx, &kick);
    let counted = fired.clone();
    let timer = cx
        .timer(ClockId::Monotonic, move |_, _| {
            counted.up();
        })
        .disarmed();
    timer.arm_after(Duration::ZERO);
    kick.kick();
    for _ in 0..64 {
        assert!(bench.block(&cx));
    }
    assert_eq!((kick.count.get(), fired.get()), (1, 1));
    own.borrow_mut().take();
}

fn d9_a_panic_in_a_handler_leaves_a_usable_context(bench: Bench) {
    let cx = bench.context();
    let bad = Kick::with(|_, _| panic!("on purpose"));
    let good: Vec<_> = (0..3).map(|_| Kick::new()).collect();
    let mut registrations: Vec<_> = good.iter().map(|kick| watch(&cx, kick)).collect();
    registrations.push(watch(&cx, &bad));
    bad.kick();
    good.iter().for_each(|kick| kick.kick());
    let mut panics = 0;
    for _ in 0..8 {
        panics += u32::from(catch_unwind(AssertUnwindSafe(|| bench.check(&cx))).is_err());
    }
    assert_eq!(panics, 1);
    assert!(
        good.iter().all(|kick| kick.count.get() == 1),
        "nothing is lost, nothing is called twice"
    );
    good[0].kick();
    assert!(bench.block(&cx), "the next poll works");
}

fn d9_a_panic_in_a_nested_poll(bench: Bench) {
    let cx = bench.context();
    let bad = Kick::with(|_, _| panic!("on purpose"));
    let nesting = Kick::with({
        let bad = bad.clone();
        move |_, cx| {
            bad.kick();
            bench.block(cx);
        }
    });
    let _registrations = (watch(&cx, &bad), watch(&cx, &nesting));
    nesting.kick();
    assert!(catch_unwind(AssertUnwindSafe(|| bench.block(&cx))).is_err());
    assert!(!bench.check(&cx));
    nesting.kick();
    assert!(
        catch_unwind(AssertUnwindSafe(|| bench.block(&cx))).is_err(),
        "and it can be done again"
    );
}

fn b3_climbing_and_descending_loses_nothing(bench: Bench) {
    let cx = bench.context();
    let kicks: Vec<_> = (0..70).map(|_| Kick::new()).collect();
    let mut registrations: Vec<_> = kicks[..10].iter().map(|kick| watch(&cx, kick)).collect();
    for round in 1..=20 {
        kicks[..10].iter().for_each(|kick| kick.kick());
        let many: Vec<_> = kicks[10..].iter().map(|kick| watch(&cx, kick)).collect();
        kicks[10..].iter().for_each(|kick| kick.kick());
        // Only a poll that may wait moves the context to another backend.
        while bench.poll(&cx, MOMENT) {}
        assert!(
            kicks.iter().all(|kick| kick.count.get() == round),
            "round {round}"
        );
        drop(many);
        assert!(!bench.poll(&cx, MOMENT));
    }
    registrations.clear();
}

#[test]
fn b3_a_context_climbs_at_64_and_comes_down_below_32() {
    let cx = Context::new().unwrap();
    let kicks: Vec<_> = (0..63).map(|_| Kick::new()).collect();
    let mut registrations: Vec<_> = kicks[..62].iter().map(|kick| watch(&cx, kick)).collect();
    let is_on = |name| {
        assert!(!cx.poll(MOMENT).unwrap());
        assert_eq!(cx.backend_name(), name);
    };
    is_on("ppoll"); // the context's own descriptor counts, too
    registrations.push(watch(&cx, &kicks[62]));
    assert_eq!(cx.backend_name(), "ppoll", "not before the loop waits");
    is_on("epoll");
    registrations.truncate(31);
    is_on("epoll");
    registrations.truncate(30);
    is_on("ppoll");
}

/// Nested polls do not switch backends, because an outer wait may be on the stack.
#[test]
fn b3_a_nested_poll_does_not_switch() {
    let cx = Context::new().unwrap();
    let many: Vec<_> = (0..100).map(|_| Kick::new()).collect();
    let nesting = Kick::with(move |_, cx| {
        let _registrations: Vec<_> = many.iter().map(|kick| watch(cx, kick)).collect();
        assert!(!cx.poll(MOMENT).unwrap());
        assert_eq!(cx.backend_name(), "ppoll");
    });
    let _nesting = watch(&cx, &nesting);
    nesting.kick();
    assert!(cx.poll(Wait::Block).unwrap() && nesting.count.get() == 1);
}

fn b4_a_regular_file_is_always_ready_and_spoils_nothing(bench: Bench) {
    let cx = bench.context();
    let reads = Count::default();
    let counted = reads.clone();
    let file = tempfile::tempfile().unwrap();
    let registration = cx
        .on(file)
        .readable(move |_, _| {
            counted.up();
        })
        .watch()
        .unwrap();
    let kick = Kick::new();
    let _kick = watch(&cx, &kick);
    kick.kick();
    for _ in 0..10 {
        assert!(bench.block(&cx));
    }
    assert!(
        reads.get() >= 9 && kick.count.get() == 1,
        "{} {}",
        reads.get(),
        kick.count.get()
    );
    registration.remove();
    assert!(!bench.check(&cx));
}

fn b7_ten_thousand_contexts_leave_no_descriptor(bench: Bench) {
    drop(bench.context());
    let before = open_descriptors();
    for _ in 0..2_000 {
        let (cx, kick) = (bench.context(), Kick::new());
        let _registration = watch(&cx, &kick);
        kick.kick();
        assert!(bench.block(&cx));
    }
    // Other tests of this process open and close descriptors meanwhile; a leak would be thousands.
    assert!(open_descriptors() < before + 1_000);
}

fn an_exclusive_handler_is_not_entered_twice(bench: Bench) {
    struct State {
        runs: u32,
        inside: bool,
    }
    impl HandlerMut<Rc<Kick>> for State {
        fn readable(&mut self, kick: &Rc<Kick>, cx: &Context) {
            assert!(!std::mem::replace(&mut self.inside, true));
            kick.clear();
            self.runs += 1;
            if self.runs < 5 {
                kick.kick();
                // The nested poll finds the handler ready and must not call it.
                cx.poll(Wait::NoBlock).unwrap();
                cx.poll(Wait::NoBlock).unwrap();
            }
            self.inside = false;
        }
    }
    let (cx, kick) = (bench.context(), Kick::new());
    let handler = Rc::new(Exclusive::new(
        kick.clone(),
        State {
            runs: 0,
            inside: false,
        },
    ));
    let _registration = cx.watch(handler.clone(), Interest::READ).unwrap();
    kick.kick();
    for runs in 1..=5 {
        assert!(bench.block(&cx));
        assert_eq!(
            handler.with(|state| state.runs),
            Some(runs),
            "events from meanwhile are served afterwards"
        );
    }
    assert!(!bench.check(&cx));
}
