//! Rule M1: the contents of `stats`, and polling times of handlers.

use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use aio_context::{ClockId, Context, Interest, PollParams, Polled, Wait};

use crate::common::{Bench, Kick, everywhere, watch, watch_polled};

everywhere! {
    m1_events_are_the_calls_of_handlers
    m1_kicks_are_the_events_of_polled_descriptors
    m1_events_of_nested_polls_and_panics_count
    m1_wakeups_are_sent_accepted_or_elided
    m1_the_polling_of_nested_polls_counts
    m1_ten_blocked_timer_waits_are_ten_sleeps
    m1_sleeps_of_nested_polls_count
    m1_an_iteration_that_does_not_wait_is_no_sleep
}

/// Returns `true` if the context itself sleeps. A context does not count the sleeps of a foreign loop.
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
    // Checks of the descriptors take up to 2 us of each wait.
    assert!(stats.slept >= Duration::from_micros(9_900), "{stats:?}");
}

/// The wait has no deadline, and another thread ends it.
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

fn m1_events_are_the_calls_of_handlers(bench: Bench) {
    let cx = bench.context();
    let kicks = [Kick::new(), Kick::new(), Kick::new()];
    let _registrations = kicks.each_ref().map(|kick| watch(&cx, kick));
    let bh = cx.bottom_half("m1", |_| {});
    let timer = cx.timer(ClockId::Monotonic, |_, _| {}).disarmed();
    let other = Context::new().unwrap();
    for rounds in 1..=10 {
        kicks.iter().for_each(|kick| kick.kick());
        // None of these is an event.
        bh.schedule();
        timer.arm_after(Duration::ZERO);
        cx.remote().notify();
        bench.settle(&cx);
        assert_eq!(cx.remote().stats().events, 3 * rounds);
    }
    // An event that is not delivered does not count either.
    kicks[0].kick();
    kicks[1].kick();
    let cleared = kicks[1].clone();
    *kicks[0].on_ready.borrow_mut() = Some(Rc::new(move |_, _| _ = cleared.clear()));
    let paused = cx.new_group();
    let kick = Kick::new();
    let registration = cx.watch_in(paused, kick.clone(), Interest::READ).unwrap();
    kick.kick();
    let pause = cx.pause(paused);
    bench.settle(&cx);
    let calls = |kicks: &[Rc<Kick>]| kicks.iter().map(|kick| u64::from(kick.count.get())).sum::<u64>();
    assert_eq!(cx.remote().stats().events, calls(&kicks));
    drop((pause, registration));
    bench.settle(&cx);
    assert_eq!(cx.remote().stats().events, calls(&kicks));
    assert_eq!(other.remote().stats().events, 0);
}

fn m1_kicks_are_the_events_of_polled_descriptors(bench: Bench) {
    let cx = bench.context();
    let (plain, polled) = (Kick::new(), Kick::new());
    let _registrations = (watch(&cx, &plain), watch_polled(&cx, &polled));
    let figures = || {
        let stats = cx.remote().stats();
        (stats.events, stats.kicks)
    };
    plain.kick();
    polled.kick();
    bench.settle(&cx);
    assert_eq!(figures(), (2, 1));
    if bench.foreign {
        return;
    }
    cx.set_poll_params(PollParams::up_to(Duration::from_micros(50)));
    polled.kick();
    bench.block(&cx);
    assert_eq!(figures(), (3, 1), "found by polling");
}

fn m1_events_of_nested_polls_and_panics_count(bench: Bench) {
    let cx = bench.context();
    let inner = Kick::new();
    let kick = inner.clone();
    let outer = Kick::with(move |_, cx| {
        kick.kick();
        assert!(cx.poll(Wait::NoBlock).unwrap());
    });
    let _registrations = [watch(&cx, &outer), watch(&cx, &inner)];
    outer.kick();
    bench.settle(&cx);
    assert_eq!(cx.remote().stats().events, 2);
    *inner.on_ready.borrow_mut() = Some(Rc::new(|_, _| panic!("on purpose")));
    outer.kick();
    let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| bench.settle(&cx)));
    assert!(polled.is_err());
    assert_eq!(cx.remote().stats().events, 2, "neither has returned");
    *inner.on_ready.borrow_mut() = None;
    bench.settle(&cx);
    assert_eq!(
        cx.remote().stats().events,
        u64::from(inner.count.get() + outer.count.get()) - 2
    );
}

/// Each notification is either sent or elided, and each sent one is accepted.
fn m1_wakeups_are_sent_accepted_or_elided(bench: Bench) {
    let cx = bench.context();
    let remote = cx.remote();
    let figures = || {
        let stats = remote.stats();
        (stats.wakeups_sent, stats.wakeups_accepted, stats.wakeups_elided)
    };
    std::thread::scope(|scope| scope.spawn(|| remote.notify()).join().unwrap());
    bench.settle(&cx);
    assert_eq!(figures(), (0, 0, 1), "it was awake");
    let waiting = cx.embed();
    let Ok(embedded) = waiting else { return };
    embedded.prepare();
    std::thread::scope(|scope| scope.spawn(|| remote.notify()).join().unwrap());
    assert_eq!(figures(), (1, 0, 1), "a foreign loop waits");
    embedded.check().unwrap();
    embedded.dispatch();
    assert_eq!(figures(), (1, 1, 1));
}

#[test]
fn m1_a_wakeup_of_a_sleeper_is_accepted() {
    let cx = Context::new().unwrap();
    let remote = cx.remote();
    for round in 1..=3 {
        let other = remote.clone();
        aio_backend::conformance::disturb::once_asleep(
            move || other.run(|_| ()).unwrap(),
            || assert!(cx.poll(Wait::Block).unwrap()),
        );
        let stats = remote.stats();
        assert_eq!(
            (stats.wakeups_sent, stats.wakeups_accepted),
            (round, round),
            "{stats:?}"
        );
    }
}

fn m1_the_polling_of_nested_polls_counts(bench: Bench) {
    let max = Duration::from_micros(10);
    let (cx, _) = bench.simulated();
    cx.set_poll_params(PollParams::up_to(max));
    let polled = Kick::new();
    let _registration = watch_polled(&cx, &polled);
    let kick = polled.clone();
    let bh = cx.bottom_half("nests", move |cx| {
        // A miss, then a hit.
        assert!(!cx.poll(Wait::AtMost(SECOND)).unwrap());
        kick.kick();
        assert!(cx.poll(Wait::AtMost(SECOND)).unwrap());
    });
    for rounds in 1..=3 {
        bh.schedule();
        assert!(bench.check(&cx));
        let stats = cx.remote().stats();
        assert_eq!(
            (stats.poll_misses, stats.poll_hits),
            (rounds, rounds),
            "{stats:?}"
        );
        let times = u32::try_from(rounds).unwrap();
        assert_eq!(stats.spun, times * max, "{stats:?}");
        assert_eq!(stats.slept + stats.spun, times * SECOND, "{stats:?}");
    }
}

#[test]
fn m1_without_polling_there_is_no_budget() {
    let cx = Context::new().unwrap();
    let timer = cx.timer(ClockId::Monotonic, |_, _| {}).disarmed();
    let budget = || {
        timer.arm_after(Duration::from_micros(10));
        while !cx.poll(Wait::Block).unwrap() {}
        cx.remote().stats().budget
    };
    assert_eq!(budget(), Duration::ZERO);
    cx.set_poll_params(PollParams::up_to(Duration::from_millis(1)));
    assert!(!budget().is_zero());
    cx.set_poll_params(PollParams::OFF);
    assert_eq!(budget(), Duration::ZERO);
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
    registration.replace(Polled(polled.clone())).unwrap();
    assert!(registration.poll_time().is_ok());
    assert!(cx.unwatch(registration.token()));
    assert_eq!(kind(&registration).err(), Some(ErrorKind::NotFound));

    let registration = cx.watch(Polled(Rc::clone(&polled)), Interest::NONE).unwrap();
    assert!(registration.poll_time().is_ok());
    drop(cx);
    assert_eq!(kind(&registration).err(), Some(ErrorKind::NotFound));
}
