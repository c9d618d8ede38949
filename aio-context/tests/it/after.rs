//! Rule H10: deferred calls run once, and their handles need not be kept.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use aio_context::{ClockId, Context, Delayed, Wait};

use crate::common::{Bench, Count, everywhere};

const MS: Duration = Duration::from_millis(1);

everywhere! {
    h10_a_call_runs_once_at_its_time_and_nothing_is_kept
    h10_calls_of_one_time_run_in_their_order
    h10_a_call_without_delay_runs_in_the_next_iteration
    h10_a_call_that_is_taken_back_does_not_run
    h10_a_call_goes_unrun_with_its_context
    h10_a_call_may_do_anything
    h10_a_call_that_panics_is_gone_and_the_others_run
}

fn h10_a_call_runs_once_at_its_time_and_nothing_is_kept(bench: Bench) {
    let (cx, clock) = bench.simulated();
    let (count, start) = (Count::default(), cx.now(ClockId::Monotonic));
    // The value is not `Send`, and is moved out of the closure, which is an `FnOnce`.
    let moved = Rc::new(count.clone());
    let seen = Rc::downgrade(&moved);
    cx.after(5 * MS, move |cx| {
        assert_eq!(cx.now(ClockId::Monotonic).since(start), 5 * MS);
        moved.up();
        drop(moved);
    });
    clock.advance(4 * MS);
    assert!(!bench.check(&cx) && count.get() == 0 && seen.strong_count() == 1);
    assert!(bench.block(&cx) && count.get() == 1 && seen.strong_count() == 0);
    clock.advance(100 * MS);
    assert!(!bench.check(&cx) && count.get() == 1);
}

fn h10_calls_of_one_time_run_in_their_order(bench: Bench) {
    let (cx, clock) = bench.simulated();
    let log = Rc::new(RefCell::new(Vec::new()));
    for (number, delay) in [(1, 7), (2, 3), (3, 7), (4, 3)] {
        let log = log.clone();
        cx.after(delay * MS, move |_| log.borrow_mut().push(number));
    }
    clock.advance(10 * MS);
    assert!(bench.check(&cx) && !bench.check(&cx));
    assert_eq!(log.take(), [2, 4, 1, 3]);
}

fn h10_a_call_without_delay_runs_in_the_next_iteration(bench: Bench) {
    let (cx, _) = bench.simulated();
    let count = Count::default();
    fn again(cx: &Context, count: Count, left: u32) {
        cx.after(Duration::ZERO, move |cx| {
            count.up();
            if left > 1 {
                again(cx, count, left - 1);
            }
        });
    }
    again(&cx, count.clone(), 3);
    for expected in 1..=3 {
        assert!(
            bench.block(&cx) && count.get() == expected,
            "one in each iteration"
        );
    }
    assert!(!bench.check(&cx));
}

fn h10_a_call_that_is_taken_back_does_not_run(bench: Bench) {
    let (cx, clock) = bench.simulated();
    let (there, count) = (Rc::new(()), Count::default());
    let call = |delay| {
        let (held, count) = (there.clone(), count.clone());
        cx.after(delay, move |_| {
            let _held = held;
            count.up();
        })
    };
    let (first, second) = (call(MS), call(MS));
    assert_eq!(first.deadline(), Some(clock_in(&cx, MS)));
    assert!(first.cancel() && !first.cancel() && first.deadline().is_none());
    assert_eq!(Rc::strong_count(&there), 2, "its captures are dropped at once");
    drop(second.clone());
    clock.advance(MS);
    assert!(
        bench.check(&cx) && count.get() == 1,
        "a dropped handle changes nothing"
    );
    assert!(!second.cancel() && second.deadline().is_none());
    // The handle of a former call does not affect the call that has reused its slot.
    let third = call(MS);
    assert!(!first.cancel() && !second.cancel() && third.deadline().is_some());
    drop(cx);
    assert!(!third.cancel() && Rc::strong_count(&there) == 1);
}

fn clock_in(cx: &Context, delay: Duration) -> aio_context::Moment {
    cx.now(ClockId::Monotonic).saturating_add(delay)
}

fn h10_a_call_goes_unrun_with_its_context(bench: Bench) {
    struct Witness(Rc<RefCell<Vec<&'static str>>>);
    impl Drop for Witness {
        fn drop(&mut self) {
            self.0.borrow_mut().push("dropped");
        }
    }
    let log = Rc::new(RefCell::new(Vec::new()));
    let cx = bench.context();
    let witness = Witness(log.clone());
    cx.after(Duration::ZERO, move |_| witness.0.borrow_mut().push("run"));
    drop(cx);
    assert_eq!(log.take(), ["dropped"]);
}

fn h10_a_call_may_do_anything(bench: Bench) {
    let (cx, _) = bench.simulated();
    let (count, own) = (Count::default(), Rc::new(RefCell::new(None::<Delayed>)));
    let (counted, itself) = (count.clone(), own.clone());
    let call = cx.after(MS, move |cx| {
        let handle = itself.take().unwrap();
        assert!(!handle.cancel() && handle.deadline().is_none(), "it is running");
        let inner = counted.clone();
        cx.after(Duration::ZERO, move |_| {
            inner.up();
        });
        assert!(bench.check(cx) && counted.get() == 1, "in a nested poll");
        assert!(!bench.check(cx), "it is not run again");
        counted.up();
    });
    own.replace(Some(call));
    assert!(bench.block(&cx) && !bench.check(&cx));
    assert_eq!(count.get(), 2);
}

fn h10_a_call_that_panics_is_gone_and_the_others_run(bench: Bench) {
    let (cx, clock) = bench.simulated();
    let (count, there) = (Count::default(), Rc::new(()));
    let (counted, held) = (count.clone(), there.clone());
    cx.after(MS, move |_| {
        let _held = held;
        panic!("on purpose");
    });
    cx.after(MS, move |_| {
        counted.up();
    });
    clock.advance(MS);
    assert!(catch_unwind(AssertUnwindSafe(|| bench.check(&cx))).is_err());
    assert_eq!((count.get(), Rc::strong_count(&there)), (0, 1));
    assert!(bench.check(&cx) && count.get() == 1);
    assert!(!bench.check(&cx));
}

/// A call deferred to an earlier time wakes a foreign loop that waits for a later one.
#[test]
fn h10_t3_a_call_put_off_after_prepare_wakes_a_foreign_loop() {
    let bench = Bench::FOREIGN;
    let cx = bench.context();
    let embedded = cx.embed().unwrap();
    assert_eq!(embedded.prepare(), None);
    cx.after(Duration::ZERO, |_| {});
    assert!(crate::common::is_readable(&embedded), "it is woken");
    assert!(embedded.check().unwrap() && embedded.dispatch());
    drop(embedded);
    assert!(!cx.poll(Wait::NoBlock).unwrap());
}
