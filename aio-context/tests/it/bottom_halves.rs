//! Rules H: bottom halves.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use aio_context::{BottomHalf, ClockId, Wait};

use crate::common::{Bench, Count, everywhere};

everywhere! {
    h1_scheduled_from_many_threads
    h2_a_schedule_during_the_run_is_for_the_next_iteration
    h3_first_in_first_out
    h4_a_nested_poll_runs_the_rest_first
    h5_cancelled_by_an_earlier_one
    h6_deleting_another_and_itself
    h6_dropped_by_another_thread
    h7_oneshots_run_once_and_are_dropped
    h7_a_dropped_context_drops_jobs_that_never_ran
    h8_idle_is_no_progress_and_caps_the_wait
    h8_normal_wins_over_idle
    h8_an_idle_one_that_arms_itself_again_lets_the_loop_sleep
    h8_from_another_thread_it_wakes_a_sleeping_loop
    h10_dropped_at_once_it_runs_once_all_the_same
    h10_h6_only_a_half_that_is_dropped_at_once_is_kept
    h10_a_deferred_closure_runs_once_in_its_turn
    h10_a_deferred_closure_may_do_anything
    h10_deferred_calls_are_dropped_with_their_context
    d9_h2_a_panic_leaves_the_rest_in_line
}

fn counting(cx: &aio_context::Context, name: &'static str) -> (BottomHalf, Count) {
    let count = Count::default();
    let counted = count.clone();
    (
        cx.bottom_half(name, move |_| {
            counted.up();
        }),
        count,
    )
}

fn h1_scheduled_from_many_threads(bench: Bench) {
    const EACH: u32 = 2_000;
    let cx = bench.context();
    let sum = Arc::new(AtomicU32::new(0));
    let seen = Rc::new(RefCell::new(0));
    let (reader, latest) = (sum.clone(), seen.clone());
    let bh = cx.bottom_half("h1", move |_| {
        *latest.borrow_mut() = reader.load(Ordering::Relaxed)
    });
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (bh, sum) = (bh.clone(), sum.clone());
            thread::spawn(move || {
                for _ in 0..EACH {
                    sum.fetch_add(1, Ordering::Relaxed);
                    bh.schedule();
                }
            })
        })
        .collect();
    while *seen.borrow() != 4 * EACH {
        bench.block(&cx);
    }
    for thread in threads {
        thread.join().unwrap();
    }
}

fn h2_a_schedule_during_the_run_is_for_the_next_iteration(bench: Bench) {
    let cx = bench.context();
    let (other, others) = counting(&cx, "scheduled by the first");
    let target = other.clone();
    let first = cx.bottom_half("first", move |_| target.schedule());
    first.schedule();
    assert!(bench.block(&cx) && others.get() == 0);
    assert!(bench.block(&cx) && others.get() == 1);
}

fn h3_first_in_first_out(bench: Bench) {
    let (cx, order) = (bench.context(), Rc::new(RefCell::new(Vec::new())));
    let all: Vec<_> = (0..20)
        .map(|number| {
            let order = order.clone();
            cx.bottom_half("h3", move |_| order.borrow_mut().push(number))
        })
        .collect();
    for bh in all.iter().rev() {
        bh.schedule();
    }
    assert!(bench.block(&cx));
    assert_eq!(*order.borrow(), (0..20).rev().collect::<Vec<_>>());
}

fn h4_a_nested_poll_runs_the_rest_first(bench: Bench) {
    let (cx, order) = (bench.context(), Rc::new(RefCell::new(Vec::new())));
    let log = |entry: &'static str| {
        let order = order.clone();
        move |_: &aio_context::Context| order.borrow_mut().push(entry)
    };
    let (rest, new) = (
        cx.bottom_half("rest", log("rest")),
        cx.bottom_half("new", log("new")),
    );
    let entries = order.clone();
    let nested = cx.bottom_half("nested", move |cx| {
        entries.borrow_mut().push("before");
        new.schedule();
        assert!(bench.block(cx));
        entries.borrow_mut().push("after");
    });
    nested.schedule();
    rest.schedule();
    assert!(bench.block(&cx));
    assert_eq!(*order.borrow(), ["before", "rest", "new", "after"]);
    assert!(!bench.check(&cx));
}

fn h5_cancelled_by_an_earlier_one(bench: Bench) {
    let cx = bench.context();
    let (victim, runs) = counting(&cx, "victim");
    let target = victim.clone();
    let first = cx.bottom_half("first", move |_| target.cancel());
    first.schedule();
    victim.schedule();
    assert!(bench.block(&cx));
    assert!(!bench.check(&cx) && runs.get() == 0);
}

fn h6_deleting_another_and_itself(bench: Bench) {
    let cx = bench.context();
    let (victim, runs) = counting(&cx, "victim");
    let own = Rc::new(RefCell::new(None));
    let handles = RefCell::new(Some((victim.clone(), own.clone())));
    drop(victim.clone());
    victim.schedule();
    let bh = cx.bottom_half("killer", move |_| drop(handles.borrow_mut().take()));
    bh.schedule();
    *own.borrow_mut() = Some(bh);
    drop(victim);
    own.borrow().as_ref().unwrap().schedule();
    while bench.check(&cx) {}
    assert!(
        runs.get() <= 1,
        "scheduled before the killer, it may run; after that, never"
    );
}

fn h6_dropped_by_another_thread(bench: Bench) {
    struct Tells(Rc<RefCell<bool>>);
    impl Drop for Tells {
        fn drop(&mut self) {
            *self.0.borrow_mut() = true;
        }
    }
    let cx = bench.context();
    let freed = Rc::new(RefCell::new(false));
    let tells = Tells(freed.clone());
    let bh = cx.bottom_half("h6", move |_| {
        let _ = &tells;
        unreachable!("it is deleted");
    });
    bh.schedule();
    thread::spawn(move || drop(bh)).join().unwrap();
    bench.check(&cx);
    assert!(*freed.borrow(), "the closure is freed on the home thread");
}

fn h7_oneshots_run_once_and_are_dropped(bench: Bench) {
    let (cx, proof) = (bench.context(), Arc::new(AtomicU32::new(0)));
    for _ in 0..3 {
        let proof = proof.clone();
        let job = move |_: &aio_context::Context| {
            proof.fetch_add(1, Ordering::Relaxed);
        };
        cx.remote().run(job).unwrap();
    }
    assert_eq!(Arc::strong_count(&proof), 4);
    assert!(bench.block(&cx));
    assert_eq!((proof.load(Ordering::Relaxed), Arc::strong_count(&proof)), (3, 1));
    assert!(!bench.check(&cx));
}

fn h7_a_dropped_context_drops_jobs_that_never_ran(bench: Bench) {
    let (cx, proof) = (bench.context(), Arc::new(()));
    let (remote, held) = (cx.remote(), proof.clone());
    remote.run(move |_| drop(held)).unwrap();
    drop(cx);
    assert_eq!(Arc::strong_count(&proof), 1);
    let held = proof.clone();
    assert!(remote.run(move |_| drop(held)).is_err());
    assert_eq!(Arc::strong_count(&proof), 1);
}

fn h8_idle_is_no_progress_and_caps_the_wait(bench: Bench) {
    let (cx, clock) = bench.simulated();
    let (idle, runs) = counting(&cx, "idle");
    let (again, timer_runs) = (idle.clone(), Count::default());
    let counted = timer_runs.clone();
    let timer = cx
        .timer(ClockId::Monotonic, move |_, _| {
            counted.up();
        })
        .disarmed();
    timer.arm_after(Duration::from_secs(1));
    again.schedule_idle();
    let before = aio_context::Clock::now(&*clock);
    assert!(!bench.check(&cx), "an idle one is no progress");
    assert_eq!(runs.get(), 1);
    again.schedule_idle();
    assert!(!cx.poll(Wait::AtMost(Duration::from_millis(10))).unwrap());
    let passed = aio_context::Clock::now(&*clock).since(before);
    assert!(passed <= Duration::from_millis(10), "{passed:?}");
    assert_eq!((runs.get(), timer_runs.get()), (2, 0));
}

fn h8_normal_wins_over_idle(bench: Bench) {
    let cx = bench.context();
    let (bh, runs) = counting(&cx, "h8");
    bh.schedule();
    bh.schedule_idle();
    assert!(bench.block(&cx) && runs.get() == 1);
    bh.schedule_idle();
    bh.schedule();
    assert!(bench.block(&cx) && runs.get() == 2);
}

fn h8_an_idle_one_that_arms_itself_again_lets_the_loop_sleep(bench: Bench) {
    let (cx, clock) = bench.simulated();
    let (own, runs) = (Rc::new(RefCell::new(None::<BottomHalf>)), Count::default());
    let (handle, counted) = (own.clone(), runs.clone());
    let bh = cx.bottom_half("restless", move |_| {
        counted.up();
        if let Some(bh) = &*handle.borrow() {
            bh.schedule_idle();
        }
    });
    bh.schedule_idle();
    *own.borrow_mut() = Some(bh);
    let start = aio_context::Clock::now(&*clock);
    for expected in 1..=10 {
        let wait = Wait::AtMost(Duration::from_millis(10));
        assert!(!bench.poll(&cx, wait), "it is no progress");
        let passed = aio_context::Clock::now(&*clock).since(start);
        assert_eq!(passed, 10 * Duration::from_millis(expected.into()));
        assert_eq!(runs.get(), expected, "and runs once each 10 ms");
    }
    own.borrow_mut().take();
}

fn h8_from_another_thread_it_wakes_a_sleeping_loop(bench: Bench) {
    let cx = bench.context();
    let (idle, runs) = counting(&cx, "idle");
    let (remote, counted) = (cx.remote(), runs.clone());
    let notifier = cx.bottom_half("notifies", move |_| {
        counted.up();
        remote.notify();
    });
    let thread = thread::spawn(move || {
        idle.schedule_idle();
        notifier.schedule_idle();
        (idle, notifier)
    });
    while runs.get() < 2 {
        bench.block(&cx);
    }
    drop(thread.join().unwrap());
}

fn d9_h2_a_panic_leaves_the_rest_in_line(bench: Bench) {
    let cx = bench.context();
    let (after, runs) = counting(&cx, "after");
    let bad = cx.bottom_half("bad", |_| panic!("on purpose"));
    bad.schedule();
    after.schedule();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| bench.block(&cx)));
    assert!(result.is_err() && runs.get() == 0);
    assert!(bench.block(&cx) && runs.get() == 1, "the queued one runs next");
    assert!(!bench.check(&cx));
}

fn h10_dropped_at_once_it_runs_once_all_the_same(bench: Bench) {
    let (cx, runs) = (bench.context(), Count::default());
    let alive = Rc::new(());
    for round in 1..=3 {
        let (counted, held) = (runs.clone(), alive.clone());
        cx.bottom_half("at once", move |_| {
            counted.up();
            let _ = &held;
        })
        .schedule();
        assert_eq!(Rc::strong_count(&alive), 2);
        assert!(bench.block(&cx) && runs.get() == round);
        while bench.check(&cx) {}
        bench.check(&cx);
        assert_eq!((runs.get(), Rc::strong_count(&alive)), (round, 1), "and is freed");
    }
    // The same from a callback, and idle.
    let counted = runs.clone();
    let outer = cx.bottom_half("outer", move |cx| {
        let counted = counted.clone();
        cx.bottom_half("inner", move |_| {
            counted.up();
        })
        .schedule_idle();
    });
    outer.schedule();
    assert!(bench.block(&cx) && runs.get() == 3);
    assert!(!bench.poll(&cx, Wait::AtMost(Duration::from_millis(20))));
    assert_eq!(runs.get(), 4);
    // A bottom half that panics is freed, too.
    let held = alive.clone();
    cx.bottom_half("panics", move |_| {
        let _ = &held;
        panic!("on purpose");
    })
    .schedule();
    let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| bench.block(&cx)));
    assert!(polled.is_err());
    bench.check(&cx);
    assert_eq!(Rc::strong_count(&alive), 1);
}

fn h10_h6_only_a_half_that_is_dropped_at_once_is_kept(bench: Bench) {
    let cx = bench.context();
    let never = |name| counting(&cx, name);
    // Deleted by `delete`.
    let (deleted, runs) = never("deleted");
    deleted.schedule();
    deleted.delete();
    // Made in an earlier iteration.
    let (earlier, more) = never("earlier");
    bench.check(&cx);
    earlier.schedule();
    drop(earlier);
    // Dropped on another thread.
    let (elsewhere, most) = never("elsewhere");
    elsewhere.schedule();
    thread::spawn(move || drop(elsewhere)).join().unwrap();
    // Cancelled, or never scheduled.
    let (cancelled, none) = never("cancelled");
    cancelled.schedule();
    cancelled.cancel();
    drop(cancelled);
    while bench.check(&cx) {}
    assert_eq!((runs.get(), more.get(), most.get(), none.get()), (0, 0, 0, 0));
    // As long as there is a clone, the clone owns the schedule.
    let (bh, runs) = counting(&cx, "shared");
    let clone = bh.clone();
    bh.schedule();
    drop(bh);
    assert!(bench.block(&cx) && runs.get() == 1);
    clone.schedule();
    assert!(bench.block(&cx) && runs.get() == 2);
}

fn h10_a_deferred_closure_runs_once_in_its_turn(bench: Bench) {
    let (cx, order) = (bench.context(), Rc::new(RefCell::new(Vec::new())));
    let log = |entry: &'static str| {
        let order = order.clone();
        move |_: &aio_context::Context| order.borrow_mut().push(entry)
    };
    let bh = cx.bottom_half("bh", log("bh"));
    cx.defer(log("first"));
    bh.schedule();
    cx.defer(log("second"));
    assert!(bench.block(&cx), "it is progress");
    assert_eq!(order.take(), ["first", "bh", "second"]);
    assert!(!bench.check(&cx) && order.take().is_empty());
}

fn h10_a_deferred_closure_may_do_anything(bench: Bench) {
    let (cx, order) = (bench.context(), Rc::new(RefCell::new(Vec::new())));
    let (log, value) = (order.clone(), Box::new(7));
    cx.defer(move |cx| {
        let again = log.clone();
        cx.defer(move |_| again.borrow_mut().push(8));
        assert!(bench.block(cx), "nested");
        log.borrow_mut().push(*value);
        let again = log.clone();
        cx.defer(move |_| again.borrow_mut().push(9));
    });
    assert!(bench.block(&cx));
    assert_eq!(order.take(), [8, 7]);
    assert!(bench.block(&cx));
    assert_eq!(order.take(), [9], "deferred while it runs: the next iteration");
    let dropped = Rc::new(());
    let held = dropped.clone();
    cx.defer(move |_| {
        let _ = &held;
        panic!("on purpose");
    });
    let log = order.clone();
    cx.defer(move |_| log.borrow_mut().push(10));
    let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| bench.block(&cx)));
    assert!(polled.is_err() && Rc::strong_count(&dropped) == 1);
    assert!(bench.block(&cx));
    assert_eq!(order.take(), [10]);
}

fn h10_deferred_calls_are_dropped_with_their_context(bench: Bench) {
    struct Defers(aio_context::WeakContext, Count);
    impl Drop for Defers {
        fn drop(&mut self) {
            self.1.up();
            assert!(self.0.upgrade().is_none());
        }
    }
    let (cx, drops) = (bench.context(), Count::default());
    let defers = Defers(cx.downgrade(), drops.clone());
    cx.defer(move |_| drop(defers));
    let (runs, held) = (Count::default(), Rc::new(()));
    let (counted, kept) = (runs.clone(), held.clone());
    cx.bottom_half("kept", move |_| {
        let _ = &kept;
        counted.up();
    })
    .schedule();
    drop(cx);
    assert_eq!((drops.get(), runs.get(), Rc::strong_count(&held)), (1, 0, 1));
}
