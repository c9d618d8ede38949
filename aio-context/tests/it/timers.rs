//! Rules T: timers and clocks.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use aio_context::{Clock, ClockId, Context, Moment, Timer, Wait, set_timer_slack, timer_slack};

use crate::common::{Bench, Count, everywhere};

const MS: Duration = Duration::from_millis(1);

everywhere! {
    t1_the_wait_ends_at_the_earliest_deadline
    t2_a_stopped_clock_has_no_deadline
    t2_starting_and_warping_the_virtual_clock_wakes_the_loop
    t3_cancel_and_rearm
    t4_a_timer_without_delay_does_not_hang_the_loop
    t4_a_callback_may_drop_and_cancel_timers
    t4_a_nested_poll_in_a_timer
    d9_a_panic_in_a_timer_leaves_the_rest
}

fn counting(cx: &Context, clock: ClockId) -> (Timer, Count) {
    let count = Count::default();
    let counted = count.clone();
    (
        cx.timer(clock, move |_, _| {
            counted.up();
        }),
        count,
    )
}

fn t1_the_wait_ends_at_the_earliest_deadline(bench: Bench) {
    let (cx, _) = bench.simulated();
    let (late, late_count) = counting(&cx, ClockId::Monotonic);
    let (early, early_count) = counting(&cx, ClockId::Monotonic);
    let start = cx.now(ClockId::Monotonic);
    late.arm_after(2 * MS);
    early.arm_after(MS);
    assert!(bench.block(&cx));
    assert_eq!((early_count.get(), late_count.get()), (1, 0));
    assert_eq!(cx.now(ClockId::Monotonic).since(start), MS);
    assert!(bench.block(&cx));
    assert_eq!(cx.now(ClockId::Monotonic).since(start), 2 * MS);
}

fn t2_a_stopped_clock_has_no_deadline(bench: Bench) {
    let (cx, clock) = bench.simulated();
    let (timer, count) = counting(&cx, ClockId::Virtual);
    timer.arm_after(MS);
    cx.virtual_clock().stop();
    while bench.look(&cx) {}
    clock.advance(Duration::from_secs(1));
    assert!(!bench.look(&cx) && count.get() == 0, "it stands still");
    let before = clock.now();
    assert!(!bench.poll(&cx, Wait::AtMost(50 * MS)));
    assert!(
        clock.now().since(before) >= MS,
        "its deadline does not end a wait"
    );
    cx.virtual_clock().start();
    while count.get() == 0 {
        bench.block(&cx);
    }
}

fn t2_starting_and_warping_the_virtual_clock_wakes_the_loop(bench: Bench) {
    let cx = bench.context();
    let (timer, count) = counting(&cx, ClockId::Virtual);
    cx.virtual_clock().stop();
    bench.look(&cx);
    timer.arm_after(Duration::from_secs(3600));
    let clock = cx.virtual_clock();
    let thread = std::thread::spawn(move || {
        clock.start();
        clock.warp(Duration::from_secs(3600));
    });
    while count.get() == 0 {
        bench.block(&cx);
    }
    thread.join().unwrap();
}

fn t3_cancel_and_rearm(bench: Bench) {
    let (cx, clock) = bench.simulated();
    let (timer, count) = counting(&cx, ClockId::Monotonic);
    timer.arm_after(MS);
    timer.cancel();
    timer.cancel();
    clock.advance(5 * MS);
    assert!(!bench.look(&cx) && timer.deadline().is_none());
    timer.arm_after(10 * MS);
    timer.anticipate(cx.now(ClockId::Monotonic).saturating_add(20 * MS));
    timer.anticipate(cx.now(ClockId::Monotonic).saturating_add(MS));
    clock.advance(MS);
    assert!(bench.look(&cx) && count.get() == 1);
    timer.arm_at(Moment::NEVER);
    assert!(!bench.look(&cx));
    timer.arm_at(Moment::ZERO);
    assert!(
        bench.look(&cx) && count.get() == 2,
        "a deadline in the past is due at once"
    );
}

fn t4_a_timer_without_delay_does_not_hang_the_loop(bench: Bench) {
    let (cx, _) = bench.simulated();
    let count = Count::default();
    let counted = count.clone();
    let timer = cx.timer(ClockId::Monotonic, move |_, timer| {
        counted.up();
        timer.arm_after(Duration::ZERO);
    });
    timer.arm_after(Duration::ZERO);
    for expected in 1..=5 {
        assert!(bench.block(&cx));
        assert_eq!(count.get(), expected, "once per iteration");
    }
}

fn t4_a_callback_may_drop_and_cancel_timers(bench: Bench) {
    let (cx, clock) = bench.simulated();
    let (cancelled, cancelled_count) = counting(&cx, ClockId::Monotonic);
    let (dropped, dropped_count) = counting(&cx, ClockId::Monotonic);
    let own = Rc::new(RefCell::new(None::<Timer>));
    let doomed = RefCell::new(Some(dropped));
    let victims = Rc::new(cancelled);
    let (slot, victim) = (own.clone(), victims.clone());
    let killer = cx.timer(ClockId::Monotonic, move |_, _| {
        victim.cancel();
        drop(doomed.borrow_mut().take());
        drop(slot.borrow_mut().take());
    });
    killer.arm_after(MS);
    victims.arm_after(MS);
    *own.borrow_mut() = Some(killer);
    clock.advance(MS);
    assert!(bench.look(&cx));
    assert!(!bench.look(&cx));
    assert_eq!((cancelled_count.get(), dropped_count.get()), (0, 0));
    assert!(own.borrow().is_none());
}

fn t4_a_nested_poll_in_a_timer(bench: Bench) {
    let (cx, clock) = bench.simulated();
    let order = Rc::new(RefCell::new(Vec::new()));
    let timers: Vec<_> = (0..3)
        .map(|number| {
            let order = order.clone();
            let timer = cx.timer(ClockId::Monotonic, move |cx, _| {
                order.borrow_mut().push(number);
                if number == 0 {
                    assert!(bench.look(cx), "the rest is taken over");
                    order.borrow_mut().push(9);
                }
            });
            timer.arm_after(MS);
            timer
        })
        .collect();
    clock.advance(MS);
    assert!(bench.look(&cx));
    assert_eq!(*order.borrow(), [0, 1, 2, 9]);
    drop(timers);
}

fn d9_a_panic_in_a_timer_leaves_the_rest(bench: Bench) {
    let (cx, clock) = bench.simulated();
    let bad = cx.timer(ClockId::Monotonic, |_, _| panic!("on purpose"));
    let (good, count) = counting(&cx, ClockId::Monotonic);
    bad.arm_after(MS);
    good.arm_after(MS);
    clock.advance(MS);
    let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| bench.look(&cx)));
    assert!(polled.is_err() && count.get() == 0);
    assert!(bench.look(&cx) && count.get() == 1);
}

/// Case 11 in real time, and rule T5: not before its time.
#[test]
fn t5_a_real_wait_is_not_early() {
    let cx = Context::new().unwrap();
    let (timer, count) = counting(&cx, ClockId::Monotonic);
    let start = Instant::now();
    timer.arm_after(20 * MS);
    while count.get() == 0 {
        cx.poll(Wait::Block).unwrap();
    }
    assert!(start.elapsed() >= 20 * MS);
    let (wall, walls) = counting(&cx, ClockId::Wall);
    wall.arm_after(MS);
    while walls.get() == 0 {
        cx.poll(Wait::Block).unwrap();
    }
}

#[test]
fn t5_the_timer_slack_of_a_thread_can_be_set() {
    let ns = Duration::from_nanos;
    // On a thread of its own: the setting stays with it.
    let thread = std::thread::spawn(move || {
        let before = timer_slack().unwrap();
        assert!(before > ns(1), "the system gives more than the least: {before:?}");
        for (asked, given) in [(1, 1), (0, 1), (50_000, 50_000), (u64::MAX, i32::MAX as u64)] {
            set_timer_slack(ns(asked)).unwrap();
            assert_eq!(timer_slack().unwrap(), ns(given));
        }
        set_timer_slack(ns(1)).unwrap();
        let heir = std::thread::spawn(timer_slack);
        assert_eq!(heir.join().unwrap().unwrap(), ns(1), "a new thread inherits it");
    });
    thread.join().unwrap();
    assert!(timer_slack().unwrap() > ns(1), "and nobody else has it");
}
