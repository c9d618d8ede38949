//! Rule M1: the contents of `stats`, and polling times of handlers.

use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use aio_context::{ClockId, Context, Interest, PollParams, Wait};

use crate::common::{Bench, Kick, everywhere, watch, watch_polled};

everywhere! {
    m1_ten_blocked_timer_waits_are_ten_sleeps
    m1_sleeps_of_nested_polls_count
    m1_an_iteration_that_does_not_wait_is_no_sleep
}

/// A foreign loop sleeps by itself, which no context sees.
fn sleeps_itself(bench: Bench) -> bool {
    !bench.foreign
}

const SECOND: Duration = Duration::from_secs(1);

fn m1_ten_blocked_timer_waits_are_ten_sleeps(bench: Bench) {
    for max in [Duration::ZERO, Duration::from_micros(10)] {
        let (cx, _) = bench.simulated();
        cx.set_poll_params(PollParams::up_to(max));
        bench.check(&cx);
        let timer = cx.timer(ClockId::Monotonic, |_, _| {}).disarmed();
        for _ in 0..10 {
            timer.arm_after(SECOND);
            assert!(bench.block(&cx));
        }
        if sleeps_itself(bench) {
            let stats = cx.remote().stats();
            assert_eq!(stats.blocked, 10, "up to {max:?}: {stats:?}");
            assert_eq!(stats.slept + stats.spun, 10 * SECOND, "up to {max:?}: {stats:?}");
        }
    }
}

/// The same in real time, in which a wait ends some time after its deadline.
#[test]
fn m1_ten_waits_in_real_time_are_ten_sleeps() {
    let cx = Context::new().unwrap();
    let timer = cx.timer(ClockId::Monotonic, |_, _| {}).disarmed();
    for _ in 0..10 {
        timer.arm_after(Duration::from_millis(1));
        assert!(cx.poll(Wait::Block).unwrap());
    }
    let stats = cx.remote().stats();
    assert_eq!(stats.blocked, 10, "{stats:?}");
    // Up to 2 us of each are spent with looks at the descriptors.
    assert!(stats.slept >= Duration::from_micros(9_900), "{stats:?}");
}

/// Without a deadline, and ended by another thread.
#[test]
fn m1_a_wait_that_another_thread_ends_is_a_sleep() {
    let cx = Context::new().unwrap();
    let bh = cx.bottom_half("m1", |_| {});
    for round in 1..=3 {
        aio_backend::conformance::disturb::once_asleep(
            || bh.schedule(),
            || assert!(cx.poll(Wait::Block).unwrap()),
        );
        let stats = cx.remote().stats();
        assert_eq!(stats.blocked, round, "{stats:?}");
        assert!(!stats.slept.is_zero());
    }
}

fn m1_sleeps_of_nested_polls_count(bench: Bench) {
    for max in [Duration::ZERO, Duration::from_micros(10)] {
        let (cx, _) = bench.simulated();
        cx.set_poll_params(PollParams::up_to(max));
        bench.check(&cx);
        let bh = cx.bottom_half("nests", |cx| {
            assert!(!cx.poll(Wait::AtMost(SECOND)).unwrap());
        });
        bh.schedule();
        assert!(bench.block(&cx));
        let stats = cx.remote().stats();
        assert_eq!(stats.blocked, 1, "up to {max:?}: {stats:?}");
        let slept = if max.is_zero() { SECOND } else { SECOND - max };
        assert!(
            stats.slept >= slept && stats.slept <= SECOND,
            "up to {max:?}: {stats:?}"
        );
    }
}

fn m1_an_iteration_that_does_not_wait_is_no_sleep(bench: Bench) {
    let (cx, kick) = (bench.context(), Kick::new());
    let _registration = watch(&cx, &kick);
    let bh = cx.bottom_half("m1", |_| {});
    for _ in 0..10 {
        bh.schedule();
        assert!(bench.block(&cx));
        kick.kick();
        assert!(bench.check(&cx));
        assert!(!bench.check(&cx));
    }
    let stats = cx.remote().stats();
    assert_eq!((stats.blocked, stats.slept), (0, Duration::ZERO), "{stats:?}");
    let turns = if bench.foreign { 20 } else { 30 };
    assert_eq!(stats.iterations, turns, "a foreign loop dispatches only due work");
}

#[test]
fn l3_a_polling_time_is_that_of_a_polled_handler_that_is_there() {
    let cx = Context::new().unwrap();
    let (plain, polled) = (Kick::new(), Kick::new());
    let kind = |registration: &aio_context::Registration| registration.poll_time().map_err(|why| why.kind());
    let registration = watch(&cx, &plain);
    assert_eq!(kind(&registration).err(), Some(ErrorKind::Unsupported));
    assert!(cx.unwatch(registration.token()));
    assert_eq!(kind(&registration).err(), Some(ErrorKind::NotFound));

    let registration = watch_polled(&cx, &polled);
    assert_eq!(registration.poll_time().unwrap().get(), Duration::ZERO);
    registration.replace(polled.clone()).unwrap();
    assert_eq!(kind(&registration).err(), Some(ErrorKind::Unsupported));
    registration.replace_polled(polled.clone()).unwrap();
    assert!(registration.poll_time().is_ok());
    assert!(cx.unwatch(registration.token()));
    assert_eq!(kind(&registration).err(), Some(ErrorKind::NotFound));

    let registration = cx.watch_polled(Rc::clone(&polled), Interest::NONE).unwrap();
    assert!(registration.poll_time().is_ok());
    drop(cx);
    assert_eq!(kind(&registration).err(), Some(ErrorKind::NotFound));
}
