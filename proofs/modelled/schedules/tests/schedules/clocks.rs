//! The virtual clock and its timers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aio_context::{ClockId, Context, Moment, Timer, Wait};
use aio_schedules::Fake;
use shuttle::thread_local;

use crate::{Crowd, Recorded, recorded};

thread_local! {
    /// Timers that a job has made. They belong to the home thread.
    static MADE: std::cell::RefCell<Vec<Timer>> = const { std::cell::RefCell::new(Vec::new()) };
}

fn at(nanos: u64) -> Moment {
    Moment::from_nanos(nanos)
}

/// Returns a timer that records its firing. It fires once, not early, and not while the clock stands still.
fn timer(cx: &Context, deadline: u64, fired: &Arc<Mutex<Vec<u64>>>) -> Timer {
    let fired = fired.clone();
    let timer = cx
        .timer(ClockId::Virtual, move |cx, _| {
            assert!(cx.now(ClockId::Virtual) >= at(deadline), "early");
            assert!(cx.virtual_clock().is_running_now(), "the clock stands still");
            fired.lock().unwrap().push(deadline);
        })
        .disarmed();
    timer.arm_at(at(deadline));
    timer
}

trait IsRunning {
    fn is_running_now(&self) -> bool;
}

impl IsRunning for aio_context::VirtualClock {
    fn is_running_now(&self) -> bool {
        aio_context::Clock::is_running(self)
    }
}

/// Two threads warp a clock that stands still, a third starts it, and a fourth arms a timer on it.
fn changes_with_armed_timers() {
    let cx = Fake::context();
    let clock = cx.virtual_clock();
    clock.stop();
    let fired = Arc::new(Mutex::new(Vec::new()));
    let timers = [10, 20, 20].map(|deadline| timer(&cx, deadline, &fired));
    let mut crowd = Crowd::of(&cx);
    for _ in 0..2 {
        let clock = clock.clone();
        crowd.add(move |_| clock.warp(Duration::from_nanos(15)));
    }
    let starts = clock.clone();
    crowd.add(move |_| starts.start());
    let later = fired.clone();
    crowd.add(move |remote| {
        let arm = move |cx: &Context| {
            let made = timer(cx, 15, &later);
            MADE.with(|timers| timers.borrow_mut().push(made));
        };
        remote.run(arm).unwrap();
    });
    while fired.lock().unwrap().len() < 4 {
        cx.poll(Wait::Block).unwrap();
    }
    crowd.end(&cx);
    let mut fired = fired.lock().unwrap();
    assert!(
        fired.iter().filter(|deadline| **deadline != 15).eq(&[10, 20, 20]),
        "{fired:?}"
    );
    fired.sort_unstable();
    assert_eq!(*fired, [10, 15, 20, 20]);
    drop(timers);
    MADE.with(|timers| timers.borrow_mut().clear());
}

/// While the clock is stopped no timer fires, even if another thread warps the clock.
fn stops_against_jumps() {
    let cx = Fake::context();
    let clock = cx.virtual_clock();
    let [fired] = recorded();
    let mut crowd = Crowd::of(&cx);
    for _ in 0..2 {
        let clock = clock.clone();
        crowd.add(move |_| clock.warp(Duration::from_nanos(50)));
    }
    let count = fired.clone();
    crowd.add(move |remote| {
        clock.stop();
        arm_here(remote, &count);
        clock.warp(Duration::from_nanos(1000));
        for _ in 0..2 {
            remote.run_and_wait(|_| ()).unwrap();
        }
        assert_eq!(count.get(), 0, "the clock was stopped");
        clock.start();
    });
    while fired.get() == 0 {
        cx.poll(Wait::Block).unwrap();
    }
    crowd.end(&cx);
    assert_eq!(fired.get(), 1);
    MADE.with(|timers| timers.borrow_mut().clear());
}

/// Arms a timer 500 ns from now, from another thread.
fn arm_here(remote: &aio_context::Remote, fired: &Recorded) {
    let fired = fired.clone();
    let arm = move |cx: &Context| {
        let timer = cx.timer(ClockId::Virtual, move |_, _| fired.add(1)).disarmed();
        timer.arm_after(Duration::from_nanos(500));
        MADE.with(|timers| timers.borrow_mut().push(timer));
    };
    remote.run_and_wait(arm).unwrap();
}

crate::scenarios! {
    t2_a_clock_that_others_change_fires_due_timers => changes_with_armed_timers;
    t2_a_stopped_clock_stands_still_when_others_warp_it => stops_against_jumps;
}

crate::faults! {
    t2_planted_notified_before_change: NotifiedBeforeChange in changes_with_armed_timers;
    t2_planted_replaced_in_two_steps: ReplacedInTwoSteps in stops_against_jumps;
}
