//! Rules T: timers and clocks.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aio_context::{Clock, ClockId, Context, Moment, Timer, VirtualClock, Wait, set_timer_slack, timer_slack};

use crate::common::{Bench, Count, everywhere};

const MS: Duration = Duration::from_millis(1);

everywhere! {
    t1_the_wait_ends_at_the_earliest_deadline
    t2_a_stopped_clock_has_no_deadline
    t2_starting_and_warping_the_virtual_clock_wakes_the_loop
    t3_cancel_and_rearm
    d4_timers_of_two_clocks_are_progress
    t4_a_timer_without_delay_does_not_hang_the_loop
    t4_a_callback_may_drop_and_cancel_timers
    t4_a_nested_poll_in_a_timer
    d6_a_timer_may_fire_inside_its_own_callback
    r8_a_dropped_timer_keeps_its_callback_until_the_outermost_call_is_over
    r8_the_id_of_a_dropped_timer_reaches_no_other_timer
    r8_a_value_dropped_with_a_callback_may_use_the_context
    d9_a_panic_in_a_timer_leaves_the_rest
    d9_a_panic_gives_the_callback_back_or_drops_it
}

fn counting(cx: &Context, clock: ClockId) -> (Timer, Count) {
    let count = Count::default();
    let counted = count.clone();
    (
        cx.timer(clock, move |_, _| {
            counted.up();
        })
        .disarmed(),
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
    while bench.check(&cx) {}
    clock.advance(Duration::from_secs(1));
    assert!(!bench.check(&cx) && count.get() == 0, "it stands still");
    let before = clock.now();
    assert!(!bench.poll(&cx, Wait::AtMost(50 * MS)));
    assert!(
        clock.now().since(before) >= 50 * MS,
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
    bench.check(&cx);
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
    assert!(!bench.check(&cx) && timer.deadline().is_none());
    timer.arm_after(10 * MS);
    timer.anticipate(cx.now(ClockId::Monotonic).saturating_add(20 * MS));
    timer.anticipate(cx.now(ClockId::Monotonic).saturating_add(MS));
    clock.advance(MS);
    assert!(bench.check(&cx) && count.get() == 1);
    timer.arm_at(Moment::NEVER);
    assert!(!bench.check(&cx));
    timer.arm_at(Moment::ZERO);
    assert!(
        bench.check(&cx) && count.get() == 2,
        "a deadline in the past is due at once"
    );
}

fn d4_timers_of_two_clocks_are_progress(bench: Bench) {
    let (cx, _) = bench.simulated();
    let all = [ClockId::Monotonic, ClockId::Wall, ClockId::Virtual].map(|clock| counting(&cx, clock));
    for fired in 1..=all.len() {
        all[..fired]
            .iter()
            .for_each(|(timer, _)| timer.arm_at(Moment::ZERO));
        assert!(bench.check(&cx) && !bench.check(&cx), "{fired}");
    }
    assert_eq!(all.map(|(_, count)| count.get()), [3, 2, 1]);
}

fn t4_a_timer_without_delay_does_not_hang_the_loop(bench: Bench) {
    let (cx, _) = bench.simulated();
    let count = Count::default();
    let counted = count.clone();
    let timer = cx
        .timer(ClockId::Monotonic, move |_, timer| {
            counted.up();
            timer.arm_after(Duration::ZERO);
        })
        .disarmed();
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
    let killer = cx
        .timer(ClockId::Monotonic, move |_, _| {
            victim.cancel();
            drop(doomed.borrow_mut().take());
            drop(slot.borrow_mut().take());
        })
        .disarmed();
    killer.arm_after(MS);
    victims.arm_after(MS);
    *own.borrow_mut() = Some(killer);
    clock.advance(MS);
    assert!(bench.check(&cx));
    assert!(!bench.check(&cx));
    assert_eq!((cancelled_count.get(), dropped_count.get()), (0, 0));
    assert!(own.borrow().is_none());
}

fn t4_a_nested_poll_in_a_timer(bench: Bench) {
    let (cx, clock) = bench.simulated();
    let order = Rc::new(RefCell::new(Vec::new()));
    let timers: Vec<_> = (0..3)
        .map(|number| {
            let order = order.clone();
            let timer = cx
                .timer(ClockId::Monotonic, move |cx, _| {
                    order.borrow_mut().push(number);
                    if number == 0 {
                        assert!(bench.check(cx), "the rest is taken over");
                        order.borrow_mut().push(9);
                    }
                })
                .disarmed();
            timer.arm_after(MS);
            timer
        })
        .collect();
    clock.advance(MS);
    assert!(bench.check(&cx));
    assert_eq!(*order.borrow(), [0, 1, 2, 9]);
    drop(timers);
}

fn d6_a_timer_may_fire_inside_its_own_callback(bench: Bench) {
    let (cx, _) = bench.simulated();
    let depths = Rc::new(RefCell::new((0, Vec::new())));
    let log = depths.clone();
    let timer = cx
        .timer(ClockId::Monotonic, move |cx, timer| {
            let depth = log.borrow().0 + 1;
            log.borrow_mut().0 = depth;
            if depth < 4 {
                timer.arm_after(Duration::ZERO);
                assert!(bench.check(cx), "it fires in here");
            }
            log.borrow_mut().1.push(depth);
        })
        .disarmed();
    for _ in 0..3 {
        timer.arm_after(Duration::ZERO);
        assert!(bench.check(&cx));
        assert!(!bench.check(&cx), "each arming has fired once");
        assert_eq!(depths.take(), (4, vec![4, 3, 2, 1]));
    }
}

/// Returns a value, and a function that returns `true` until the value is dropped.
fn witness() -> (Rc<()>, impl Fn() -> bool) {
    let there = Rc::new(());
    let seen = Rc::downgrade(&there);
    (there, move || seen.strong_count() > 0)
}

fn r8_a_dropped_timer_keeps_its_callback_until_the_outermost_call_is_over(bench: Bench) {
    let (cx, _) = bench.simulated();
    let own = Rc::new(RefCell::new(None::<Timer>));
    let (there, is_there) = witness();
    let (slot, depth) = (own.clone(), Rc::new(RefCell::new(0)));
    let seen = depth.clone();
    let doomed = cx
        .timer(ClockId::Monotonic, move |cx, face| {
            *seen.borrow_mut() += 1;
            if *seen.borrow() < 3 {
                face.arm_after(Duration::ZERO);
                assert!(bench.check(cx));
            } else {
                drop(slot.borrow_mut().take());
                face.arm_after(Duration::ZERO);
                assert_eq!(face.deadline(), None, "a dropped timer is not armed any more");
                assert!(!bench.check(cx));
            }
            assert!(Rc::strong_count(&there) > 0);
        })
        .disarmed();
    doomed.arm_after(Duration::ZERO);
    *own.borrow_mut() = Some(doomed);
    assert!(bench.check(&cx));
    assert_eq!(*depth.borrow(), 3);
    assert!(own.borrow().is_none() && !is_there());
    assert!(!bench.check(&cx));
}

fn r8_the_id_of_a_dropped_timer_reaches_no_other_timer(bench: Bench) {
    let (cx, _) = bench.simulated();
    let own = Rc::new(RefCell::new(None::<Timer>));
    let slot = own.clone();
    let timer = cx
        .timer(ClockId::Monotonic, move |cx, face| {
            slot.replace(None);
            // The new timer reuses the slot of the dropped one.
            let heir = cx
                .timer(ClockId::Monotonic, |_, _| unreachable!("it was not armed"))
                .disarmed();
            face.arm_after(Duration::ZERO);
            face.anticipate(Moment::ZERO);
            assert_eq!((heir.deadline(), face.deadline()), (None, None));
            let late = Moment::from_nanos(u64::MAX / 2);
            heir.arm_at(late);
            face.cancel();
            assert_eq!(heir.deadline(), Some(late));
            slot.replace(Some(heir));
        })
        .disarmed();
    timer.arm_after(Duration::ZERO);
    own.replace(Some(timer));
    assert!(bench.check(&cx) && !bench.check(&cx));
    assert!(
        own.borrow()
            .as_ref()
            .is_some_and(|heir| heir.deadline().is_some()),
        "the face that was dropped has not taken it along"
    );
}

fn r8_a_value_dropped_with_a_callback_may_use_the_context(bench: Bench) {
    struct Last(aio_context::WeakContext, Rc<RefCell<Option<Timer>>>, Count);
    impl Drop for Last {
        fn drop(&mut self) {
            let Some(cx) = self.0.upgrade() else { return };
            let count = self.2.clone();
            let successor = cx
                .timer(ClockId::Monotonic, move |_, _| {
                    count.up();
                })
                .disarmed();
            successor.arm_after(Duration::ZERO);
            drop(self.1.replace(Some(successor)));
        }
    }
    let (cx, _) = bench.simulated();
    let (own, count) = (Rc::new(RefCell::new(None)), Count::default());
    let make = || {
        let last = Last(cx.downgrade(), own.clone(), count.clone());
        let slot = own.clone();
        cx.timer(ClockId::Monotonic, move |_, _| {
            assert!(Rc::ptr_eq(&slot, &last.1));
            slot.replace(None);
        })
        .disarmed()
    };
    // Dropped from outside, and by its own callback.
    drop(make());
    assert!(bench.check(&cx) && count.get() == 1);
    let timer = make();
    timer.arm_after(Duration::ZERO);
    own.replace(Some(timer));
    assert!(bench.check(&cx) && count.get() == 1);
    assert!(bench.check(&cx) && count.get() == 2);
}

fn d9_a_panic_in_a_timer_leaves_the_rest(bench: Bench) {
    let (cx, clock) = bench.simulated();
    let bad = cx
        .timer(ClockId::Monotonic, |_, _| panic!("on purpose"))
        .disarmed();
    let (good, count) = counting(&cx, ClockId::Monotonic);
    bad.arm_after(MS);
    good.arm_after(MS);
    clock.advance(MS);
    let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| bench.check(&cx)));
    assert!(polled.is_err() && count.get() == 0);
    assert!(bench.check(&cx) && count.get() == 1);
}

fn d9_a_panic_gives_the_callback_back_or_drops_it(bench: Bench) {
    let (cx, _) = bench.simulated();
    let (calls, own) = (Count::default(), Rc::new(RefCell::new(None::<Timer>)));
    let (there, is_there) = witness();
    let (called, slot) = (calls.clone(), own.clone());
    let timer = cx
        .timer(ClockId::Monotonic, move |cx, timer| {
            assert!(Rc::strong_count(&there) > 0);
            match called.up() {
                // The next call runs inside of this one.
                1 => {
                    timer.arm_after(Duration::ZERO);
                    bench.check(cx);
                }
                4 => drop(slot.borrow_mut().take()),
                _ => {}
            }
            panic!("on purpose");
        })
        .disarmed();
    own.replace(Some(timer));
    for expected in [2, 3, 4] {
        own.borrow()
            .iter()
            .for_each(|timer| timer.arm_after(Duration::ZERO));
        let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| bench.check(&cx)));
        assert!(polled.is_err());
        assert_eq!((calls.get(), is_there()), (expected, expected < 4));
    }
    assert!(!bench.check(&cx));
}

/// Rule T2: no clock is read without need. `Source` counts its readings.
#[test]
fn t2_a_clock_without_an_armed_timer_is_not_read() {
    #[derive(Debug, Default)]
    struct Source(std::sync::atomic::AtomicU32);
    impl Clock for Source {
        fn now(&self) -> Moment {
            let reads = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Moment::from_nanos(u64::from(reads))
        }
    }
    let source = Arc::new(Source::default());
    let cx = Context::builder()
        .virtual_clock(Arc::new(VirtualClock::new(source.clone())))
        .build()
        .unwrap();
    let reads_of = |iterations: usize| {
        let before = source.0.load(std::sync::atomic::Ordering::Relaxed);
        for _ in 0..iterations {
            cx.poll(Wait::AtMost(Duration::from_nanos(1))).unwrap();
        }
        source.0.load(std::sync::atomic::Ordering::Relaxed) - before
    };
    assert_eq!(reads_of(3), 0);
    let (timer, count) = counting(&cx, ClockId::Virtual);
    timer.arm_at(Moment::from_nanos(1000));
    assert!(reads_of(3) >= 3 && count.get() == 0);
    timer.arm_at(Moment::ZERO);
    assert_eq!(
        (reads_of(1), count.get()),
        (1, 1),
        "a deadline that is always due needs no reading"
    );
    reads_of(1);
    assert_eq!(reads_of(3), 0, "its queue was seen empty");
    timer.arm_at(Moment::NEVER);
    timer.cancel();
    reads_of(1);
    assert_eq!(reads_of(3), 0);
}

#[test]
fn t3_a_timer_outlives_its_context_without_effect() {
    let cx = Context::new().unwrap();
    let (there, is_there) = witness();
    let own = Rc::new(RefCell::new(None::<Timer>));
    let slot = own.clone();
    let timer = cx
        .timer(ClockId::Wall, move |_, _| {
            assert!(Rc::strong_count(&there) > 0 && slot.borrow().is_some());
        })
        .disarmed();
    timer.arm_at(Moment::NEVER);
    let (second, seen) = (own.clone(), own.clone());
    // The callback owns its own handle, so only the context can break the cycle.
    let keeper = cx
        .timer(ClockId::Monotonic, move |_, _| drop(second.borrow_mut().take()))
        .disarmed();
    own.replace(Some(keeper));
    drop((cx, own));
    assert!(!is_there(), "the callback went with the context");
    timer.arm_after(Duration::ZERO);
    timer.arm_at(Moment::ZERO);
    timer.anticipate(Moment::ZERO);
    timer.cancel();
    assert_eq!((timer.deadline(), timer.clock()), (None, ClockId::Wall));
    assert_eq!(Rc::strong_count(&seen), 1);
}

/// Case 11 in real time, and rule T5: a timer does not fire before its time.
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
    // The test has a thread of its own, because the setting belongs to the thread.
    let thread = std::thread::spawn(move || {
        let before = timer_slack().unwrap();
        assert!(before > ns(1), "the system gives more than the least: {before:?}");
        for (requested, given) in [(1, 1), (0, 1), (50_000, 50_000), (u64::MAX, i32::MAX as u64)] {
            set_timer_slack(ns(requested)).unwrap();
            assert_eq!(timer_slack().unwrap(), ns(given));
        }
        set_timer_slack(ns(1)).unwrap();
        let heir = std::thread::spawn(timer_slack);
        assert_eq!(heir.join().unwrap().unwrap(), ns(1), "a new thread inherits it");
    });
    thread.join().unwrap();
    assert!(timer_slack().unwrap() > ns(1), "and no other thread has it");
}
