//! Intervals keep their rate, independent of their callbacks. All on simulated time.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aio_context::{ClockId, Context, GroupId, ManualClock, Wait};
use aio_sources::Interval;

const PERIOD: Duration = Duration::from_millis(100);

/// Makes a context whose time passes when it waits.
fn simulated() -> (Context, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new());
    clock.advance(Duration::from_secs(1));
    let cx = Context::builder().monotonic(clock.clone()).build().unwrap();
    (cx, clock)
}

type Log = Rc<RefCell<Vec<(Duration, u64)>>>;

/// Makes an interval that logs its ticks, counted from the start, and then runs `code`.
fn logged(cx: &Context, code: impl Fn(&Context) + 'static) -> (Interval, Log) {
    let (log, start) = (Log::default(), cx.now(ClockId::Monotonic));
    let ticked = log.clone();
    let tick = move |cx: &Context, ticks| {
        let at = cx.now(ClockId::Monotonic).since(start);
        ticked.borrow_mut().push((at, ticks));
        code(cx);
    };
    (Interval::new(cx, PERIOD, tick), log)
}

#[test]
fn t2_ticks_do_not_drift_though_callbacks_take_time() {
    let (cx, clock) = simulated();
    let (interval, log) = logged(&cx, move |_| clock.advance(Duration::from_millis(30)));
    for _ in 0..5 {
        assert!(cx.poll(Wait::Block).unwrap());
    }
    let expected: Vec<_> = (1..=5).map(|number| (PERIOD * number, 1)).collect();
    assert_eq!(log.take(), expected);
    assert_eq!(interval.period(), PERIOD);
    drop(interval);
    let later = cx.poll(Wait::AtMost(PERIOD * 10)).unwrap();
    assert!(!later && log.take().is_empty(), "it has ended");
}

#[test]
fn t3_a_late_interval_is_called_once_for_all_deadlines() {
    let (cx, clock) = simulated();
    let (interval, log) = logged(&cx, |_| {});
    clock.advance(PERIOD * 10 + Duration::from_millis(50));
    assert!(cx.poll(Wait::Block).unwrap());
    assert!(cx.poll(Wait::Block).unwrap());
    let late = PERIOD * 10 + Duration::from_millis(50);
    assert_eq!(log.take(), [(late, 10), (PERIOD * 11, 1)], "and is on time again");
    drop(interval);
}

#[test]
fn d9_a_panic_does_not_end_an_interval() {
    let (cx, _clock) = simulated();
    let calls = Rc::new(Cell::new(0));
    let counted = calls.clone();
    let (_interval, log) = logged(&cx, move |_| {
        counted.set(counted.get() + 1);
        assert!(counted.get() != 2, "on purpose");
    });
    assert!(cx.poll(Wait::Block).unwrap());
    assert!(catch_unwind(AssertUnwindSafe(|| cx.poll(Wait::Block))).is_err());
    assert!(cx.poll(Wait::Block).unwrap());
    let expected: Vec<_> = (1..=3).map(|number| (PERIOD * number, 1)).collect();
    assert_eq!(log.take(), expected);
}

#[test]
fn d6_a_callback_that_polls_for_long_is_called_inside_itself() {
    let (cx, _clock) = simulated();
    let depth = Rc::new(Cell::new(0));
    let entered = depth.clone();
    let (_interval, log) = logged(&cx, move |cx| {
        entered.set(entered.get() + 1);
        if entered.get() < 3 {
            assert!(cx.poll(Wait::Block).unwrap());
        }
    });
    assert!(cx.poll(Wait::Block).unwrap());
    assert_eq!(depth.get(), 3);
    let expected: Vec<_> = (1..=3).map(|number| (PERIOD * number, 1)).collect();
    assert_eq!(log.take(), expected);
}

#[test]
fn r8_an_interval_that_its_callback_drops_has_ended() {
    let (cx, _clock) = simulated();
    let own = Rc::new(RefCell::new(None));
    let dropped = own.clone();
    let (interval, log) = logged(&cx, move |_| drop(dropped.take()));
    own.replace(Some(interval));
    assert!(cx.poll(Wait::Block).unwrap());
    assert!(!cx.poll(Wait::AtMost(PERIOD * 10)).unwrap());
    assert_eq!(log.take(), [(PERIOD, 1)]);
    assert_eq!(Rc::strong_count(&log), 1, "the callback was dropped");
}

#[test]
fn t2_an_interval_on_a_stopped_clock_does_not_tick() {
    let (cx, _clock) = simulated();
    let virtual_clock = cx.virtual_clock();
    virtual_clock.stop();
    let ticks = Rc::new(Cell::new(0));
    let counted = ticks.clone();
    let tick = move |_: &Context, ticks| counted.set(counted.get() + ticks);
    let interval = Interval::on_clock(&cx, ClockId::Virtual, PERIOD, tick);
    assert!(!cx.poll(Wait::AtMost(PERIOD * 10)).unwrap());
    assert_eq!(ticks.get(), 0);
    virtual_clock.warp(PERIOD * 4);
    virtual_clock.start();
    while ticks.get() == 0 {
        cx.poll(Wait::AtMost(PERIOD)).unwrap();
    }
    assert!(ticks.get() >= 4);
    assert!(interval.deadline().is_some());
    drop(cx);
    assert_eq!(interval.deadline(), None);
}

#[test]
#[should_panic(expected = "cannot be zero")]
fn a_period_of_zero_is_a_panic() {
    let (cx, _clock) = simulated();
    let _interval = Interval::new(&cx, Duration::ZERO, |_, _| {});
}

/// Makes an interval in a group of its own, which logs the time and the number of deadlines of each tick.
fn in_group(cx: &Context) -> (Interval, GroupId, Log) {
    let (log, start, group) = (Log::default(), cx.now(ClockId::Monotonic), cx.new_group());
    let ticked = log.clone();
    let tick = move |cx: &Context, ticks| {
        let at = cx.now(ClockId::Monotonic).since(start);
        ticked.borrow_mut().push((at, ticks));
    };
    (Interval::new_in(cx, group, PERIOD, tick), group, log)
}

#[test]
fn b5_a_paused_interval_is_not_waited_for_and_ticks_once_after_the_pause() {
    let (cx, _clock) = simulated();
    let (interval, group, log) = in_group(&cx);
    assert!(cx.poll(Wait::Block).unwrap());
    assert_eq!(log.take(), [(PERIOD, 1)]);
    let paused = [cx.pause(group), cx.pause(group)];
    for pause in paused {
        assert!(!cx.poll(Wait::AtMost(PERIOD * 5)).unwrap(), "it ends no wait");
        assert_eq!(interval.deadline(), None);
        drop(pause);
    }
    assert!(cx.poll(Wait::Block).unwrap());
    assert!(cx.poll(Wait::Block).unwrap());
    assert_eq!(log.take(), [(PERIOD * 11, 10), (PERIOD * 12, 1)]);
    // A pause between two deadlines changes nothing.
    drop(cx.pause(group));
    assert!(cx.poll(Wait::Block).unwrap());
    assert_eq!(log.take(), [(PERIOD * 13, 1)]);
}

#[test]
fn b5_an_interval_that_joins_a_paused_group_or_pauses_itself_waits_for_the_end() {
    let (cx, _clock) = simulated();
    let group = cx.new_group();
    let paused = Rc::new(RefCell::new(Some(cx.pause(group))));
    let (ticked, pause) = (aio_testing::Count::default(), paused.clone());
    let count = ticked.clone();
    let _interval = Interval::new_in(&cx, group, PERIOD, move |cx, _| {
        ticked.up();
        pause.replace(Some(cx.pause(group)));
    });
    for ticks in 0..3 {
        assert!(!cx.poll(Wait::AtMost(PERIOD * 5)).unwrap());
        assert_eq!(count.get(), ticks);
        drop(paused.take());
        assert!(cx.poll(Wait::Block).unwrap());
    }
}

#[test]
fn b5_a_pause_does_not_stop_an_interval_without_a_group() {
    let (cx, _clock) = simulated();
    let (_interval, log) = logged(&cx, |_| {});
    let _paused = cx.pause(GroupId::DEFAULT);
    assert!(cx.poll(Wait::Block).unwrap());
    assert_eq!(log.take(), [(PERIOD, 1)]);
}
