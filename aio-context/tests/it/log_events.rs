//! Rule M3: what a context logs, with the names of the fields, and that the path of an event logs nothing.

use std::io;
use std::time::Duration;

use aio_backend_epoll::Epoll;
use aio_backend_ladder::Ladder;
use aio_backend_ppoll::Ppoll;
use aio_context::{Backend, ClockId, Context, PollParams, Wait};
use aio_testing::events;

use crate::common::{Bench, Kick, Number, everywhere, watch, watch_polled};

everywhere! {
    m3_an_invalidation_is_logged
    m3_a_change_of_parameters_is_logged
    m3_a_thousand_events_log_nothing
}

fn m3_an_invalidation_is_logged(bench: Bench) {
    let cx = bench.context();
    let number = Number::new();
    let registration = cx.watch(number.clone(), aio_context::Interest::READ).unwrap();
    number.kick();
    bench.check(&cx);
    number.close();
    let logged = events(|| bench.settle(&cx));
    let is_it = |line: &&String| line.starts_with("WARN a descriptor is not watched any longer");
    let about: Vec<_> = logged.iter().filter(is_it).collect();
    if registration.is_live() {
        // The kernel removes a closed number from an epoll set without a report.
        assert!(about.is_empty(), "{logged:?}");
        return;
    }
    assert_eq!(about.len(), 1, "{logged:?}");
    let token = format!("token={:?}", registration.token());
    assert!(
        about[0].contains(&token) && about[0].contains(" error="),
        "{about:?}"
    );
}

fn m3_a_change_of_parameters_is_logged(bench: Bench) {
    let cx = bench.context();
    let params = PollParams::up_to(Duration::from_micros(50));
    let logged = events(|| bench.settle(&cx));
    assert_eq!(
        logged,
        [format!("DEBUG polling parameters params={:?}", PollParams::OFF)]
    );
    for params in [params, PollParams::OFF] {
        cx.set_poll_params(params);
        let logged = events(|| bench.settle(&cx));
        assert_eq!(logged, [format!("DEBUG polling parameters params={params:?}")]);
    }
    let logged = events(|| cx.set_slow_callback_limit(Some(Duration::from_millis(5))));
    assert_eq!(logged, ["DEBUG the limit of slow callbacks limit=Some(5ms)"]);
    let logged = events(|| cx.set_slow_callback_limit(None));
    assert_eq!(logged, ["DEBUG the limit of slow callbacks limit=None"]);
}

fn on(backend: impl Backend + 'static) -> Context {
    Context::builder().backend(Box::new(backend)).build().unwrap()
}

#[test]
fn m3_moves_between_backends_are_logged() {
    let cx = on(Ladder::new(Ppoll::new(), Epoll::new, 4));
    let poll = || while cx.poll(Wait::NoBlock).unwrap() {};
    poll();
    let kicks: Vec<_> = (0..6).map(|_| Kick::new()).collect();
    let mut registrations = Vec::new();
    let up = events(|| {
        registrations.extend(kicks.iter().map(|kick| watch(&cx, kick)));
        poll();
    });
    assert_eq!(up, ["DEBUG the backend was switched to=\"epoll\" watched=7"]);
    let down = events(|| {
        registrations.clear();
        (0..1000).for_each(|_| poll());
    });
    assert_eq!(down, ["DEBUG the backend was switched to=\"ppoll\" watched=1"]);
}

#[test]
fn m3_a_backend_that_is_replaced_for_a_foreign_loop_is_logged() {
    let cx = on(Ppoll::new());
    let logged = events(|| drop(cx.embed().unwrap()));
    assert_eq!(
        logged,
        ["DEBUG the backend was replaced for a foreign loop from=\"ppoll\" to=\"epoll\""]
    );
}

#[test]
fn m3_a_fallback_is_logged() {
    let refuse = || io::Result::<Epoll>::Err(rustix::io::Errno::MFILE.into());
    let cx = on(Ladder::new(Ppoll::new(), refuse, 1));
    let _registration = watch(&cx, &Kick::new());
    let logged = events(|| _ = cx.poll(Wait::NoBlock).unwrap());
    let about: Vec<_> = logged.iter().filter(|line| line.starts_with("WARN")).collect();
    assert_eq!(about.len(), 1, "{logged:?}");
    for field in [
        "the upper backend failed",
        "ppoll takes over",
        "call=\"create\"",
        "error=",
        "remedy=",
    ] {
        assert!(about[0].contains(field), "{field} in {about:?}");
    }
}

#[test]
fn m3_waits_for_an_unreported_wall_clock_are_logged() {
    let (builder, _clock) = Bench::EPOLL.on_simulated_time();
    let unreported = || Err(io::ErrorKind::Unsupported.into());
    let wall = std::sync::Arc::new(aio_context::ManualClock::new());
    let cx = builder.wall_clock(wall, unreported).build().unwrap();
    let timer = cx
        .timer(ClockId::Wall, |_, _| {})
        .armed_after(Duration::from_secs(3600));
    let logged = events(|| {
        for _ in 0..3 {
            cx.poll(Wait::AtMost(Duration::from_millis(1))).unwrap();
        }
    });
    let about: Vec<_> = logged.iter().filter(|line| line.starts_with("WARN")).collect();
    assert_eq!(about.len(), 1, "{logged:?}");
    assert!(about[0].contains("changes of the wall clock cannot be watched") && about[0].contains("error="));
    drop(timer);
}

/// A thousand events of descriptors, and as many hits of polling, bottom halves and timers, also of handlers that are timed.
fn m3_a_thousand_events_log_nothing(bench: Bench) {
    let cx = bench.context();
    let kicks = [Kick::new(), Kick::new(), Kick::new()];
    let [_plain, _polled, measured] = [
        watch(&cx, &kicks[0]),
        watch_polled(&cx, &kicks[1]),
        watch(&cx, &kicks[2]),
    ];
    measured.measure("m3").unwrap();
    let bh = cx.bottom_half("m3", |_| {});
    let timer = cx.timer(ClockId::Monotonic, |_, _| {}).disarmed();
    for max in [Duration::ZERO, Duration::from_micros(10)] {
        for limit in [None, Some(Duration::from_secs(3600))] {
            cx.set_poll_params(PollParams::up_to(max));
            cx.set_slow_callback_limit(limit);
            bench.settle(&cx);
            let before = cx.remote().stats().events;
            let logged = events(|| {
                for _ in 0..1000 {
                    kicks.iter().for_each(|kick| kick.kick());
                    bh.schedule();
                    timer.arm_after(Duration::ZERO);
                    assert!(bench.block(&cx));
                    bench.settle(&cx);
                }
            });
            assert_eq!(logged, [""; 0]);
            assert_eq!(cx.remote().stats().events - before, 3000);
        }
    }
}
