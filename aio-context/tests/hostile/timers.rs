//! Cases 57, 58 and 60 to 66: timers and clocks, on simulated clocks or by counting wake-ups. (59 is of `aio-timers`, too.)

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aio_backend::conformance::disturb::once_asleep;
use aio_context::{Clock, ClockId, Context, Moment, Timer, Wait};

use crate::check::check;
use crate::common::{Bench, Count, everywhere};
use crate::fixtures::{counted, disturbed, scaled};

everywhere! {
    case_57_deadlines_in_the_past
    case_58_deadlines_beyond_the_kernels_range
    case_59_many_equal_deadlines
    case_60_cancelled_by_a_callback
    case_61_armed_for_now_by_its_own_callback
    case_62_a_clock_that_stands_still_and_jumps
    case_63_no_wake_up_before_the_deadline
    case_64_an_earlier_timer_from_another_thread
    case_65_changed_by_a_nested_poll_inside_a_timer
    case_66_several_clocks_and_one_that_is_stopped
}

fn counting(cx: &Context, clock: ClockId) -> (Timer, Count) {
    let count = Count::default();
    let counted = count.clone();
    let timer = cx
        .timer(clock, move |_, _| {
            counted.up();
        })
        .disarmed();
    (timer, count)
}

/// Rule T3: such a timer is due at once, and fires once. (A [`Moment`] cannot be negative.)
fn case_57_deadlines_in_the_past(bench: Bench) {
    let cx = bench.context();
    for clock in [ClockId::Monotonic, ClockId::Wall, ClockId::Virtual] {
        let (timer, fired) = counting(&cx, clock);
        let past = cx.now(clock);
        for (number, deadline) in (1..).zip([Moment::ZERO, Moment::from_nanos(1), past]) {
            timer.arm_at(deadline);
            assert!(
                bench.block(&cx) && fired.get() == number,
                "{clock:?}, {deadline:?}"
            );
            assert!(!bench.check(&cx) && timer.deadline().is_none());
        }
        timer.arm_after(Duration::ZERO);
        assert!(bench.block(&cx) && fired.get() == 4);
        assert!(!bench.check(&cx));
    }
}

/// Rules T3 and B1: such deadlines saturate to never, and the wait is neither refused nor busy.
fn case_58_deadlines_beyond_the_kernels_range(bench: Bench) {
    let (builder, calls) = counted(bench);
    let cx = builder.build().unwrap();
    let (timer, fired) = counting(&cx, ClockId::Monotonic);
    let years = Duration::from_secs(3_000_000_000);
    let arms: [&dyn Fn(&Timer); 5] = [
        &|timer| timer.arm_after(Duration::MAX),
        &|timer| timer.arm_at(Moment::from_nanos(u64::MAX - 1)),
        &|timer| timer.arm_at(Moment::from_nanos(i64::MAX as u64)),
        &|timer| timer.arm_at(Moment::NEVER),
        &|timer| timer.arm_after(years),
    ];
    for arm in arms {
        arm(&timer);
        for wait in [Wait::Block, Wait::AtMost(Duration::MAX), Wait::AtMost(years)] {
            let (remote, before) = (cx.remote(), calls.sleeps());
            assert!(!once_asleep(move || remote.notify(), || bench.poll(&cx, wait)));
            assert!(calls.sleeps() - before <= 1, "it is not asleep all the time");
        }
    }
    assert_eq!(fired.get(), 0);
}

/// Rule T3, through a whole context.
fn case_59_many_equal_deadlines(bench: Bench) {
    let many = scaled(10_000, 1_000_000);
    let (cx, clock) = bench.simulated();
    let fired = Rc::new(RefCell::new(Vec::new()));
    let timers: Vec<_> = (0..many)
        .map(|number| {
            let fired = fired.clone();
            cx.timer(ClockId::Monotonic, move |_, _| fired.borrow_mut().push(number))
                .disarmed()
        })
        .collect();
    let deadline = cx
        .now(ClockId::Monotonic)
        .saturating_add(Duration::from_millis(5));
    // The timers are armed in another order than that in which they were made.
    let order: Vec<u64> = (0..many).map(|number| (number * 7_919) % many).collect();
    order
        .iter()
        .for_each(|number| timers[*number as usize].arm_at(deadline));
    assert!(!bench.check(&cx));
    clock.advance(Duration::from_millis(5));
    assert!(bench.check(&cx));
    assert_eq!(
        *fired.borrow(),
        order,
        "first armed, first fired, all in one iteration"
    );
    assert!(!bench.check(&cx));
}

/// Rule T4.
fn case_60_cancelled_by_a_callback(bench: Bench) {
    for trace in [
        "on t { disarm u, disarm t }; timer t; timer u; arm t 1; arm u 1; advance 1; poll -> t; poll ->",
        "on t { forget u, forget t }; timer t; timer u; arm t 1; arm u 1; advance 1; poll -> t; wait 9 ->",
        "on x { disarm t }; bh x; timer t; arm t 0; schedule x; poll -> x; wait 9 ->",
        "on a.readable { drain a, forget t }; watch a r; kick a; timer t; arm t 0; poll -> a.readable; wait 9 ->",
        "on t { disarm u, arm u 3 }; timer t; timer u; arm t 1; arm u 1; advance 1; poll -> t; wait 2 ->; wait 2 -> u",
        "on t { forget t, timer t, arm t 0 }; timer t; arm t 0; poll -> t; poll -> t; forget t; poll ->",
    ] {
        check(bench, trace);
    }
}

/// Rule T4.
fn case_61_armed_for_now_by_its_own_callback(bench: Bench) {
    for trace in [
        "on t { arm t 0 }; timer t; arm t 0; poll -> t; poll -> t; wait 5 -> t; disarm t; poll ->",
        "on t { arm u 0 }; on u { arm t 0 }; timer t; timer u; arm t 0; poll -> t; poll -> u; poll -> t; poll -> u",
        "on t { anticipate t 0 }; timer t; arm t 0; poll -> t; poll -> t",
        "on t { arm t 0 }; timer t; watch a r; bh x; arm t 0; kick a; schedule x; poll -> x a.readable t; kick a; poll -> a.readable t",
    ] {
        check(bench, trace);
    }
    let cx = bench.context();
    let fired = Count::default();
    let counted = fired.clone();
    let timer = cx
        .timer(ClockId::Monotonic, move |_, timer| {
            counted.up();
            timer.arm_at(Moment::ZERO);
        })
        .disarmed();
    timer.arm_at(Moment::ZERO);
    for polls in 1..=1_000 {
        assert!(bench.block(&cx) && fired.get() == polls);
    }
}

/// A clock that shows a given time and does not advance by itself. The loop uses it as a real clock.
#[derive(Debug)]
struct Stubborn(AtomicU64);

impl Clock for Stubborn {
    fn now(&self) -> Moment {
        Moment::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// Fault F5: no timer is early or lost, and with a clock that stands still the loop waits instead of reading it all the time.
fn case_62_a_clock_that_stands_still_and_jumps(bench: Bench) {
    const YEARS: u64 = 100 * 365 * 24 * 3600 * 1_000_000_000;
    const START: u64 = 1_000_000;
    let clock = Arc::new(Stubborn(AtomicU64::new(START)));
    let jumps = clock.clone();
    // The clock jumps at the begin of the sixth wait; the waits before do not advance it.
    let mut left = 6;
    let (builder, calls) = disturbed(bench, move |_, _| {
        left -= 1;
        if left == 0 {
            jumps.0.store(START + YEARS, Ordering::Relaxed);
        }
        false
    });
    let cx = builder.monotonic(clock.clone()).build().unwrap();
    let fired = Rc::new(RefCell::new(Vec::new()));
    let timers: Vec<_> = [3, 1, 2, 1]
        .into_iter()
        .enumerate()
        .map(|(number, ms)| {
            let fired = fired.clone();
            let timer = cx
                .timer(ClockId::Monotonic, move |_, _| fired.borrow_mut().push(number))
                .disarmed();
            timer.arm_after(Duration::from_millis(ms));
            timer
        })
        .collect();
    let mut polls = 0;
    while fired.borrow().is_empty() {
        bench.block(&cx);
        polls += 1;
    }
    assert_eq!(*fired.borrow(), [1, 3, 2, 0], "all that is due, in its order");
    assert!(
        calls.waits() <= 8 && polls <= 8,
        "{} waits, {polls} polls",
        calls.waits()
    );
    // The clock jumps back: a timer with a later deadline is due when the clock reaches it again, not before.
    let (timer, again) = counting(&cx, ClockId::Monotonic);
    timer.arm_after(Duration::from_millis(1));
    clock.0.store(START, Ordering::Relaxed);
    assert!(!bench.check(&cx) && again.get() == 0);
    assert!(!cx.poll(Wait::AtMost(Duration::ZERO)).unwrap());
    clock.0.store(START + YEARS + 999_999, Ordering::Relaxed);
    assert!(!bench.check(&cx) && again.get() == 0);
    clock.0.store(START + YEARS + 1_000_000, Ordering::Relaxed);
    assert!(bench.check(&cx) && again.get() == 1);
    drop(timers);
}

/// Rules B2, G1 and T5: the loop waits for the rest of a millisecond instead of polling.
fn case_63_no_wake_up_before_the_deadline(bench: Bench) {
    let (builder, calls) = counted(bench);
    let cx = builder.build().unwrap();
    let (timer, fired) = counting(&cx, ClockId::Monotonic);
    bench.check(&cx);
    for (number, micros) in (1..).zip([1, 50, 300, 999, 1_001, 1_500, 2_500]) {
        let (before, start) = (calls.sleeps(), Instant::now());
        timer.arm_after(Duration::from_micros(micros));
        let mut polls = 0;
        while fired.get() < number {
            bench.block(&cx);
            polls += 1;
        }
        assert!(start.elapsed() >= Duration::from_micros(micros), "early");
        let sleeps = calls.sleeps() - before;
        assert!(
            polls <= 2 && sleeps <= 2,
            "{micros} us: {polls} polls, {sleeps} sleeps"
        );
    }
}

thread_local! {
    /// The timer that a job from another thread arms on the home thread.
    static AT_HOME: RefCell<Option<Timer>> = const { RefCell::new(None) };
}

/// Rules T3 and R11.
fn case_64_an_earlier_timer_from_another_thread(bench: Bench) {
    let (builder, calls) = counted(bench);
    let cx = builder.build().unwrap();
    let (late, late_calls) = counting(&cx, ClockId::Monotonic);
    let (timer, fired) = counting(&cx, ClockId::Monotonic);
    late.arm_after(Duration::from_secs(3_600));
    AT_HOME.set(Some(timer));
    bench.check(&cx);
    for (number, micros) in (1..).zip([0, 200, 2_000]) {
        let (remote, before) = (cx.remote(), calls.sleeps());
        let arm = move || {
            let job = move |_: &Context| {
                AT_HOME.with_borrow(|timer| timer.as_ref().unwrap().arm_after(Duration::from_micros(micros)));
            };
            remote.run(job).unwrap();
        };
        assert!(once_asleep(arm, || bench.block(&cx)), "the job");
        let mut polls = 0;
        while fired.get() < number {
            bench.block(&cx);
            polls += 1;
        }
        let sleeps = calls.sleeps() - before;
        assert!(
            polls <= 2 && sleeps <= 3,
            "{micros} us: {polls} polls, {sleeps} sleeps"
        );
    }
    assert_eq!(late_calls.get(), 0);
    // Another thread can set the virtual clock.
    let (timer, fired) = counting(&cx, ClockId::Virtual);
    timer.arm_after(Duration::from_secs(3_600));
    let clock = cx.virtual_clock();
    once_asleep(
        move || clock.warp(Duration::from_secs(3_600)),
        || bench.block(&cx),
    );
    while fired.get() == 0 {
        bench.block(&cx);
    }
    AT_HOME.take();
}

/// Rules D6 and T4.
fn case_65_changed_by_a_nested_poll_inside_a_timer(bench: Bench) {
    for trace in [
        "on t { poll }; timer t; timer u; timer v; arm t 1; arm u 1; arm v 1; advance 1; poll -> t [ u v ]; poll ->",
        "on t { poll }; on u { forget v, arm t 0 }; timer t; timer u; timer v; arm t 1; arm u 1; arm v 1; advance 1; poll -> t [ u ]; poll -> t [ ]",
        "on t { arm u 0, poll }; on u { arm v 0, poll }; timer t; timer u; timer v; arm t 0; poll -> t [ u [ v ] ]; poll ->",
        "on t { forget t, timer t, arm t 2, wait 5 }; timer t; timer u; arm t 0; arm u 3; poll; poll",
        "on t { disarm u, poll, arm u 0, poll }; timer t; timer u; arm t 0; arm u 0; poll -> t [ ] [ u ]; poll ->",
    ] {
        check(bench, trace);
    }
}

/// Rule T2.
fn case_66_several_clocks_and_one_that_is_stopped(bench: Bench) {
    let (cx, clock) = bench.simulated();
    let ms = Duration::from_millis;
    let (monotonic, of_monotonic) = counting(&cx, ClockId::Monotonic);
    let (wall, of_wall) = counting(&cx, ClockId::Wall);
    let (on_virtual, of_virtual) = counting(&cx, ClockId::Virtual);
    let virtual_clock = cx.virtual_clock();
    virtual_clock.stop();
    while bench.check(&cx) {}
    monotonic.arm_after(ms(5));
    on_virtual.arm_after(ms(1));
    wall.arm_after(Duration::from_secs(3_600));
    let start = clock.now();
    while of_monotonic.get() == 0 {
        bench.block(&cx);
    }
    assert_eq!(clock.now().since(start), ms(5), "the stopped one ends no wait");
    assert_eq!((of_virtual.get(), of_wall.get()), (0, 0));
    virtual_clock.warp(ms(10));
    assert!(
        !bench.check(&cx) && of_virtual.get() == 0,
        "it is late, and stopped"
    );
    wall.arm_after(Duration::ZERO);
    assert!(bench.check(&cx) && of_wall.get() == 1);
    let starts = virtual_clock.clone();
    thread::spawn(move || starts.start()).join().unwrap();
    assert!(bench.block(&cx) && of_virtual.get() == 1);
    assert!(!bench.check(&cx));
}
