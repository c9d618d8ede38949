//! The cases of the original's own tests, written anew from their descriptions.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use aio_context::{BottomHalf, ClockId, Interest, PollParams};

use crate::common::{Bench, Count, Kick, watch, watch_polled};
use crate::kinds::thoroughly;

thoroughly! {
    case_1_h1_a_scheduled_bottom_half_runs_once
    case_2_h2_one_that_reschedules_itself_runs_once_per_iteration
    case_3_h5_cancelled_before_it_runs
    case_4_h6_deleted_before_it_runs
    case_5_h6_deleted_from_its_own_callback
    case_6_r3_adding_and_removing_is_no_progress
    case_7_r12_a_set_notifier_is_called_once
    case_8_d3_only_the_one_that_is_set_is_called
    case_9_d1_one_that_sets_itself_again
    case_10_b5_paused_one_and_two_levels_deep
    case_11_t1_a_timer_of_two_shots_beside_a_descriptor
    case_16_a9_a_nested_poll_does_not_enter_the_same_handler
    case_17_b3_b5_a_hundred_notifiers
}

fn case_1_h1_a_scheduled_bottom_half_runs_once(bench: Bench) {
    let (cx, runs) = (bench.context(), Count::default());
    let counted = runs.clone();
    let bh = cx.bottom_half("case 1", move |_| {
        counted.up();
    });
    bh.schedule();
    assert_eq!(runs.get(), 0);
    assert!(bench.block(&cx));
    assert_eq!(runs.get(), 1);
    assert!(!bench.check(&cx));
    assert_eq!(runs.get(), 1);
}

/// A bottom half that schedules itself until it has run `times` times.
fn repeating(cx: &aio_context::Context, runs: &Count, times: u32) -> Rc<RefCell<Option<BottomHalf>>> {
    let own = Rc::new(RefCell::new(None::<BottomHalf>));
    let (handle, runs) = (Rc::downgrade(&own), runs.clone());
    let bh = cx.bottom_half("repeating", move |_| {
        if runs.up() < times
            && let Some(handle) = handle.upgrade()
        {
            handle.borrow().as_ref().expect("it is there").schedule();
        }
    });
    bh.schedule();
    *own.borrow_mut() = Some(bh);
    own
}

fn case_2_h2_one_that_reschedules_itself_runs_once_per_iteration(bench: Bench) {
    let (cx, runs) = (bench.context(), Count::default());
    let _bh = repeating(&cx, &runs, 10);
    for expected in 1..=10 {
        assert!(bench.block(&cx));
        assert_eq!(runs.get(), expected);
    }
    assert!(!bench.check(&cx));
    assert_eq!(runs.get(), 10);
}

fn case_3_h5_cancelled_before_it_runs(bench: Bench) {
    let (cx, runs) = (bench.context(), Count::default());
    let counted = runs.clone();
    let bh = cx.bottom_half("case 3", move |_| {
        counted.up();
    });
    bh.schedule();
    bh.cancel();
    assert!(!bench.check(&cx));
    assert_eq!(runs.get(), 0);
    bh.schedule();
    assert!(bench.block(&cx));
    assert_eq!(runs.get(), 1);
}

fn case_4_h6_deleted_before_it_runs(bench: Bench) {
    let (cx, runs) = (bench.context(), Count::default());
    let counted = runs.clone();
    let bh = cx.bottom_half("case 4", move |_| {
        counted.up();
    });
    bh.schedule();
    bh.delete();
    assert!(!bench.check(&cx));
    assert_eq!(runs.get(), 0);
}

fn case_5_h6_deleted_from_its_own_callback(bench: Bench) {
    let cx = bench.context();
    let all: Vec<_> = [1, 3, 2, 4]
        .into_iter()
        .map(|times| (times, Count::default()))
        .collect();
    let mut slots = Vec::new();
    for (times, runs) in &all {
        let own = Rc::new(RefCell::new(None::<BottomHalf>));
        let (handle, runs, times) = (own.clone(), runs.clone(), *times);
        let bh = cx.bottom_half("case 5", move |_| {
            if runs.up() < times {
                handle.borrow().as_ref().expect("it is there").schedule();
            } else {
                handle.borrow_mut().take();
            }
        });
        bh.schedule();
        *own.borrow_mut() = Some(bh);
        slots.push(own);
    }
    assert!(bench.block(&cx));
    assert!(
        all.iter().all(|(_, runs)| runs.get() == 1),
        "the first poll runs each once"
    );
    while bench.check(&cx) {}
    assert!(all.iter().all(|(times, runs)| runs.get() == *times));
    assert!(slots.iter().all(|slot| slot.borrow().is_none()));
}

fn case_6_r3_adding_and_removing_is_no_progress(bench: Bench) {
    let (cx, kick) = (bench.context(), Kick::new());
    let registration = watch(&cx, &kick);
    assert!(!bench.check(&cx));
    registration.remove();
    assert!(!bench.check(&cx));
    assert_eq!(kick.count.get(), 0);
}

fn case_7_r12_a_set_notifier_is_called_once(bench: Bench) {
    let (cx, kick) = (bench.context(), Kick::new());
    let registration = watch(&cx, &kick);
    kick.kick();
    assert!(bench.block(&cx));
    assert_eq!(kick.count.get(), 1);
    assert!(!bench.check(&cx));
    kick.kick();
    registration.remove();
    assert!(!bench.check(&cx));
    assert_eq!(kick.count.get(), 1);
}

fn case_8_d3_only_the_one_that_is_set_is_called(bench: Bench) {
    let (cx, a, b) = (bench.context(), Kick::new(), Kick::new());
    let _a = watch(&cx, &a);
    a.kick();
    let _b = watch(&cx, &b);
    assert!(bench.block(&cx));
    assert_eq!((a.count.get(), b.count.get()), (1, 0));
    b.kick();
    assert!(bench.block(&cx));
    assert_eq!((a.count.get(), b.count.get()), (1, 1));
    assert!(!bench.check(&cx));
}

fn case_9_d1_one_that_sets_itself_again(bench: Bench) {
    let cx = bench.context();
    let kick = Kick::with(|kick, _| {
        if kick.count.get() < 10 {
            kick.kick();
        }
    });
    let _registration = watch(&cx, &kick);
    kick.kick();
    for expected in 1..=10 {
        assert!(bench.block(&cx));
        assert_eq!(kick.count.get(), expected);
    }
    assert!(!bench.check(&cx));
}

fn case_10_b5_paused_one_and_two_levels_deep(bench: Bench) {
    let (cx, kick) = (bench.context(), Kick::new());
    let group = cx.new_group();
    let _registration = cx.watch_in(group, kick.clone(), Interest::READ).unwrap();
    for depth in 1..=2 {
        kick.kick();
        let mut pauses: Vec<_> = (0..depth).map(|_| cx.pause(group)).collect();
        while let Some(pause) = pauses.pop() {
            assert!(!bench.check(&cx));
            assert!(kick.is_set(), "it stays set");
            drop(pause);
        }
        assert!(bench.block(&cx), "after the last resume it is seen");
        assert_eq!(kick.count.get(), depth);
    }
}

fn case_11_t1_a_timer_of_two_shots_beside_a_descriptor(bench: Bench) {
    const PERIOD: Duration = Duration::from_millis(750);
    let ((cx, clock), kick, shots) = (bench.simulated(), Kick::new(), Count::default());
    let _registration = watch(&cx, &kick);
    let counted = shots.clone();
    let timer = cx
        .timer(ClockId::Monotonic, move |_, timer| {
            if counted.up() < 2 {
                timer.arm_after(PERIOD);
            }
        })
        .disarmed();
    timer.arm_after(PERIOD);
    clock.advance(PERIOD - Duration::from_millis(1));
    assert!(!bench.check(&cx) && shots.get() == 0, "not before its time");
    clock.advance(Duration::from_millis(1));
    assert!(bench.check(&cx) && shots.get() == 1);
    assert!(!bench.check(&cx), "the second one is not due");
    assert!(bench.block(&cx), "a blocked poll returns at the second shot");
    assert_eq!((shots.get(), kick.count.get()), (2, 0));
}

fn case_16_a9_a_nested_poll_does_not_enter_the_same_handler(bench: Bench) {
    let (cx, b) = (bench.context(), Kick::new());
    cx.set_poll_params(PollParams::up_to(Duration::from_secs(10)));
    let (inner, entered) = (b.clone(), Count::default());
    let depth = entered.clone();
    let a = Kick::with(move |_, cx| {
        if depth.up() == 1 {
            inner.kick();
            assert!(bench.block(cx), "the nested poll serves the other one");
            assert_eq!(
                (depth.get(), inner.count.get()),
                (1, 1),
                "and does not come back here"
            );
        }
    });
    a.has_work.set(Some(true));
    let _a = watch_polled(&cx, &a);
    let _b = watch_polled(&cx, &b);
    a.kick();
    for served in 1..=3 {
        assert!(bench.block(&cx));
        a.kick();
        assert!(entered.get() >= served, "it is served again after");
    }
}

fn case_17_b3_b5_a_hundred_notifiers(bench: Bench) {
    let cx = bench.context();
    let group = cx.new_group();
    let kicks: Vec<_> = (0..100).map(|_| Kick::new()).collect();
    let _registrations: Vec<_> = kicks
        .iter()
        .map(|kick| cx.watch_in(group, kick.clone(), Interest::READ).unwrap())
        .collect();
    kicks[42].kick();
    assert!(bench.block(&cx));
    kicks[7].kick();
    let pause = cx.pause(group);
    assert!(!bench.check(&cx) && kicks[7].is_set());
    drop(pause);
    assert!(bench.block(&cx));
    let counts: u32 = kicks.iter().map(|kick| kick.count.get()).sum();
    assert_eq!((counts, kicks[42].count.get(), kicks[7].count.get()), (2, 1, 1));
}
