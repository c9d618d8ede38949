//! Running until stopped, waiting until a moment, and registrations that are known by their token (rule D10).

use std::cell::Cell;
use std::io;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use aio_context::{ClockId, Context, Interest, Moment, Token, Wait};

use crate::common::{Bench, everywhere};

everywhere! {
    d10_a_callback_stops_run_and_the_rest_of_the_iteration_is_done
    d10_another_thread_stops_run
    d10_a_stop_before_run_is_not_lost_and_ends_one_run
    d10_nested_runs_end_from_the_inside
    d10_until_a_moment
    d10_an_instant_becomes_a_moment
    d10_a_detached_registration_is_handled_by_its_token
    d10_the_loops_own_tokens_are_nobodys
}

fn d10_a_callback_stops_run_and_the_rest_of_the_iteration_is_done(bench: Bench) {
    let cx = bench.context();
    let ran = Rc::new(Cell::new(0));
    for _ in 0..3 {
        let counts = ran.clone();
        cx.defer(move |cx| {
            counts.set(counts.get() + 1);
            cx.stop();
        });
    }
    cx.run().unwrap();
    assert_eq!(ran.get(), 3);
    let counts = ran.clone();
    cx.after(Duration::from_millis(1), move |cx| {
        counts.set(counts.get() + 1);
        cx.stop();
    });
    cx.run().unwrap();
    assert_eq!(ran.get(), 4, "the stops of one iteration were one");
}

fn d10_another_thread_stops_run(bench: Bench) {
    let cx = bench.context();
    for _ in 0..20 {
        let remote = cx.remote();
        let stops = thread::spawn(move || remote.stop());
        cx.run().unwrap();
        stops.join().unwrap();
    }
    let remote = cx.remote();
    drop(cx);
    remote.stop();
}

fn d10_a_stop_before_run_is_not_lost_and_ends_one_run(bench: Bench) {
    let cx = bench.context();
    let ran = Rc::new(Cell::new(false));
    let runs = ran.clone();
    cx.stop();
    cx.stop();
    cx.defer(move |cx| {
        runs.set(true);
        cx.stop();
    });
    cx.run().unwrap();
    assert!(!ran.get(), "it returned before it polled");
    cx.run().unwrap();
    assert!(ran.get());
}

fn d10_nested_runs_end_from_the_inside(bench: Bench) {
    let cx = bench.context();
    let ended = Rc::new(Cell::new(0));
    let ends = ended.clone();
    cx.defer(move |cx| {
        cx.defer(|cx| cx.stop());
        cx.run().unwrap();
        ends.set(ends.get() + 1);
        let ends = ends.clone();
        cx.defer(move |cx| {
            assert_eq!(ends.get(), 1, "the outer one runs on");
            cx.stop();
        });
    });
    cx.run().unwrap();
    assert_eq!(ended.get(), 1);
}

fn d10_until_a_moment(bench: Bench) {
    let (cx, _) = bench.simulated();
    let start = cx.now(ClockId::Monotonic);
    let end = start.saturating_add(Duration::from_millis(20));
    assert!(!bench.poll(&cx, Wait::Until(end)));
    assert_eq!(cx.now(ClockId::Monotonic), end);
    for past in [end, start, Moment::ZERO] {
        assert!(!bench.poll(&cx, Wait::Until(past)));
        assert_eq!(cx.now(ClockId::Monotonic), end, "a past moment only checks");
    }
    let fired = Rc::new(Cell::new(false));
    let fires = fired.clone();
    cx.after(Duration::from_millis(5), move |_| fires.set(true));
    assert!(bench.poll(&cx, Wait::Until(Moment::NEVER)));
    assert!(fired.get());
    assert_eq!(cx.now(ClockId::Monotonic).since(end), Duration::from_millis(5));
}

fn d10_an_instant_becomes_a_moment(bench: Bench) {
    let (cx, clock) = bench.simulated();
    clock.advance(Duration::from_secs(3_600));
    let (now, instant) = (cx.now(ClockId::Monotonic), Instant::now());
    let minute = Duration::from_secs(60);
    let ahead = cx.moment(instant + minute).since(now);
    assert!(ahead <= minute, "time has passed since the instant");
    assert!(cx.moment(instant + 2 * minute) > cx.moment(instant + minute));
    assert!(cx.moment(instant) <= now);
    assert_eq!(cx.moment(instant + Duration::from_secs(1 << 40)), Moment::NEVER);
    // On a clock that runs, a moment is never before its instant.
    let real = bench.context();
    for _ in 0..100 {
        let instant = Instant::now() + Duration::from_micros(50);
        let moment = real.moment(instant);
        while real.now(ClockId::Monotonic) < moment {}
        assert!(Instant::now() >= instant);
    }
}

/// Registers a handler in a job of another thread. Returns its token, and the other end of its stream.
fn from_elsewhere(cx: &Context, bench: Bench) -> (Token, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    let (answer, token) = std::sync::mpsc::channel();
    let remote = cx.remote();
    thread::spawn(move || {
        let watch = move |cx: &Context| {
            let registration = cx.on(near).readable(|_, _| {}).watch().unwrap();
            answer.send(registration.detach()).unwrap();
        };
        remote.run(watch).unwrap();
    })
    .join()
    .unwrap();
    assert!(bench.block(cx));
    (token.recv().unwrap(), far)
}

fn d10_a_detached_registration_is_handled_by_its_token(bench: Bench) {
    let cx = bench.context();
    let (token, far) = from_elsewhere(&cx, bench);
    rustix::io::write(&far, b"x").unwrap();
    assert!(bench.check(&cx));
    cx.set_interest(token, Interest::NONE).unwrap();
    assert!(!bench.check(&cx));
    cx.set_interest(token, Interest::READ | Interest::ONESHOT)
        .unwrap();
    assert!(bench.check(&cx) && !bench.check(&cx));
    cx.rearm(token).unwrap();
    assert!(bench.check(&cx) && !bench.check(&cx));
    // Another handler needs the same descriptor.
    let other = cx.on(far).readable(|_, _| {}).into_handler();
    let registration = cx.attach(token).unwrap();
    let refused = registration.replace_with(other, Interest::READ).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    assert!(registration.is_live() && registration.token() == token);
    registration.set_interest(Interest::WRITE).unwrap();
    assert!(!bench.check(&cx) || bench.check(&cx));
    drop(registration);
    assert!(cx.attach(token).is_none());
    for result in [cx.set_interest(token, Interest::READ), cx.rearm(token)] {
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
    assert!(!cx.unwatch(token));
}

fn d10_the_loops_own_tokens_are_nobodys(bench: Bench) {
    let cx = bench.context();
    for index in 0..2 {
        let own = Token::new(index, 0);
        assert!(cx.attach(own).is_none() && !cx.unwatch(own));
        assert!(cx.set_interest(own, Interest::NONE).is_err() && cx.rearm(own).is_err());
    }
    let remote = cx.remote();
    let wakes = thread::spawn(move || remote.run(|_| {}).unwrap());
    assert!(bench.block(&cx), "it can still be woken");
    wakes.join().unwrap();
}
