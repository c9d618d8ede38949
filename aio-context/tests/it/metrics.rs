//! Rule M2: figures of single handlers, and the report of slow callbacks. Time is simulated: a callback takes as long as it advances
//! the clock.

use std::cell::Cell;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aio_backend::conformance::disturb::once_asleep;
use aio_context::{
    Clock, ClockId, Context, Event, Exclusive, HandlerMut, HandlerStats, Interest, ManualClock, Moment,
    PollParams, Polled, Source, Wait,
};
use aio_testing::warnings;

use crate::common::{Bench, Kick, everywhere, watch, watch_polled};

everywhere! {
    m2_a_measured_handler_has_its_events_and_its_time
    m2_what_a_nested_poll_calls_or_sleeps_is_not_the_time_of_its_caller
    m2_a_callback_that_panics_is_counted
    m2_a_replaced_handler_stays_measured
    m2_a_slow_callback_is_counted_each_time_and_reported_once
    m2_a_timed_handler_behaves_as_ever
}

const MS: Duration = Duration::from_millis(1);

/// Returns a handler whose callbacks take this long.
fn slow(clock: &Arc<ManualClock>, takes: Duration) -> Rc<Kick> {
    let clock = clock.clone();
    Kick::with(move |_, _| clock.advance(takes))
}

fn figures(stats: HandlerStats) -> (u64, u64, Duration) {
    (stats.events, stats.poll_hits, stats.busy)
}

fn m2_a_measured_handler_has_its_events_and_its_time(bench: Bench) {
    let (cx, clock) = bench.simulated();
    let (kick, other) = (slow(&clock, 3 * MS), slow(&clock, 40 * MS));
    let (registration, _other) = (watch(&cx, &kick), watch(&cx, &other));
    kick.kick();
    bench.check(&cx);
    let metrics = registration.measure("disk").unwrap();
    for _ in 0..5 {
        kick.kick();
        other.kick();
        bench.check(&cx);
    }
    let read = std::thread::spawn(move || (metrics.name().to_owned(), metrics.stats()));
    let (name, stats) = read.join().unwrap();
    assert_eq!((name.as_str(), figures(stats)), ("disk", (5, 0, 15 * MS)));
    assert_eq!(stats.slow_callbacks, 0, "there is no limit");
    assert_eq!((kick.count.get(), other.count.get()), (6, 5));
}

#[test]
fn m2_hits_of_polling_are_told_from_events() {
    for bench in Bench::DIRECT {
        let (cx, clock) = bench.simulated();
        let kick = slow(&clock, 2 * MS);
        let metrics = watch_polled(&cx, &kick).detach();
        let metrics = cx.measure(metrics, "queue").unwrap();
        kick.kick();
        assert!(bench.check(&cx));
        assert_eq!(figures(metrics.stats()), (1, 0, 2 * MS), "{}", bench.name);
        cx.set_poll_params(PollParams::up_to(MS));
        for hits in 1..=3 {
            kick.kick();
            assert!(bench.block(&cx));
            assert_eq!(figures(metrics.stats()), (1, hits, (2 + 2 * hits as u32) * MS));
            assert_eq!(metrics.stats().kicks, 1, "the first event, without polling");
        }
    }
}

/// A source that has work while its flag is set.
struct Work(Arc<ManualClock>, Rc<Cell<bool>>);

impl Source for Work {
    fn poll(&self) -> bool {
        self.1.get()
    }
    fn poll_ready(&self, _: &Context) {
        self.1.set(false);
        self.0.advance(MS);
    }
}

#[test]
fn m2_a_source_has_wakes_for_events() {
    for bench in Bench::ALL {
        let (cx, clock) = bench.simulated();
        let source = cx.source("ring");
        let (waker, has_work) = (source.waker(), Rc::new(Cell::new(false)));
        let registration = source.register(Work(clock, has_work.clone()));
        let metrics = registration.measure("ring").unwrap();
        waker.wake();
        assert!(bench.check(&cx));
        assert_eq!(figures(metrics.stats()), (1, 0, MS), "{}", bench.name);
        if bench.foreign {
            continue;
        }
        cx.set_poll_params(PollParams::up_to(MS));
        has_work.set(true);
        assert!(bench.block(&cx));
        assert_eq!(figures(metrics.stats()), (1, 1, 2 * MS), "{}", bench.name);
    }
}

fn m2_what_a_nested_poll_calls_or_sleeps_is_not_the_time_of_its_caller(bench: Bench) {
    let (cx, clock) = bench.simulated();
    let inner = slow(&clock, 7 * MS);
    let (own, kick) = (clock.clone(), inner.clone());
    let outer = Kick::with(move |_, cx| {
        own.advance(MS);
        kick.kick();
        cx.poll(Wait::Block).unwrap();
        cx.poll(Wait::AtMost(500 * MS)).unwrap();
        own.advance(MS);
    });
    let registrations = [watch(&cx, &outer), watch(&cx, &inner)];
    let [of_outer, of_inner] = ["outer", "inner"].map(|name| {
        let index = usize::from(name == "inner");
        registrations[index].measure(name).unwrap()
    });
    for round in 1..=2 {
        outer.kick();
        assert!(bench.check(&cx));
        let times = u32::try_from(round).unwrap();
        assert_eq!(figures(of_inner.stats()), (round, 0, times * 7 * MS));
        assert_eq!(figures(of_outer.stats()), (round, 0, times * 2 * MS));
    }
    assert_eq!(cx.remote().stats().slept, 1000 * MS);
}

fn m2_a_callback_that_panics_is_counted(bench: Bench) {
    let (cx, clock) = bench.simulated();
    let takes = clock.clone();
    let bad = Kick::with(move |_, _| {
        takes.advance(4 * MS);
        panic!("on purpose");
    });
    let good = slow(&clock, MS);
    let [first, second] = [watch(&cx, &bad), watch(&cx, &good)];
    let [of_bad, of_good] = [first.measure("bad").unwrap(), second.measure("good").unwrap()];
    bad.kick();
    let panicked = catch_unwind(AssertUnwindSafe(|| bench.check(&cx)));
    assert!(panicked.is_err());
    good.kick();
    bench.settle(&cx);
    assert_eq!(figures(of_bad.stats()), (1, 0, 4 * MS));
    assert_eq!(figures(of_good.stats()), (1, 0, MS));
    assert_eq!(cx.remote().stats().events, 1, "one has returned");
}

fn m2_a_replaced_handler_stays_measured(bench: Bench) {
    let (cx, clock) = bench.simulated();
    let first = slow(&clock, MS);
    let registration = watch(&cx, &first);
    let metrics = registration.measure("socket").unwrap();
    first.kick();
    bench.check(&cx);
    let takes = clock.clone();
    let second = Rc::new(crate::common::Twin(first.clone(), slow(&takes, 2 * MS)));
    registration.replace(Polled(second.clone())).unwrap();
    assert_eq!(Rc::strong_count(&first), 2, "the timer of the former one let go");
    second.1.has_work.set(Some(true));
    cx.set_poll_params(PollParams::up_to(MS));
    if !bench.foreign {
        bench.block(&cx);
        assert_eq!(figures(metrics.stats()), (1, 1, 3 * MS));
    }
    cx.set_poll_params(PollParams::OFF);
    second.1.has_work.set(Some(false));
    registration.replace(slow(&clock, MS)).unwrap_err();
    registration.replace(first.clone()).unwrap();
    first.kick();
    bench.check(&cx);
    assert_eq!(metrics.stats().events, 2);
    let again = registration.measure("anew").unwrap();
    first.kick();
    bench.check(&cx);
    assert_eq!((again.stats().events, metrics.stats().events), (1, 2));
    drop(registration);
    assert_eq!(Rc::strong_count(&first), 2, "it is dropped as ever");
}

#[test]
fn m2_the_measured_handlers_are_listed_for_any_thread() {
    let cx = Context::new().unwrap();
    let kicks = [Kick::new(), Kick::new(), Kick::new()];
    let mut registrations: Vec<_> = kicks.iter().map(|kick| watch(&cx, kick)).collect();
    for (registration, name) in registrations.iter().zip(["a", "b", "a"]) {
        drop(registration.measure(name).unwrap());
    }
    let remote = cx.remote();
    let names = || {
        let remote = remote.clone();
        let listed = std::thread::spawn(move || remote.measured_handlers());
        let names = listed.join().unwrap().into_iter();
        names.map(|handler| handler.name().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(), ["a", "b", "a"]);
    drop(registrations.remove(1));
    assert_eq!(names(), ["a", "a"]);
    drop(registrations.pop());
    // Many handlers are added and removed, and the list does not grow.
    for _ in 0..1000 {
        let registration = watch(&cx, &kicks[1]);
        drop(registration.measure("short"));
    }
    assert_eq!(names(), ["a"]);
    drop(cx);
    assert!(names().is_empty());
}

#[test]
fn m2_only_a_registered_handler_can_be_measured() {
    let cx = Context::new().unwrap();
    let registration = watch(&cx, &Kick::new());
    let token = registration.token();
    let kind = |measured: std::io::Result<_>| {
        measured
            .map(|_: aio_context::HandlerMetrics| ())
            .map_err(|why| why.kind())
    };
    // The first tokens are the loop's own.
    let own = aio_context::Token::new(0, 0);
    assert_eq!(kind(cx.measure(own, "own")), Err(ErrorKind::NotFound));
    assert!(cx.unwatch(token));
    assert_eq!(kind(registration.measure("gone")), Err(ErrorKind::NotFound));
    assert_eq!(kind(cx.measure(token, "gone")), Err(ErrorKind::NotFound));
    drop(cx);
    assert_eq!(kind(registration.measure("gone")), Err(ErrorKind::NotFound));
}

fn m2_a_slow_callback_is_counted_each_time_and_reported_once(bench: Bench) {
    let (builder, clock) = bench.on_simulated_time();
    let cx = builder.slow_callback_limit(5 * MS).build().unwrap();
    let named = slow(&clock, 6 * MS);
    let unnamed = slow(&clock, 7 * MS);
    let registrations = [watch(&cx, &named), watch(&cx, &unnamed)];
    let metrics = registrations[0].measure("disk").unwrap();
    let takes = |time: Duration| {
        let clock = clock.clone();
        move || clock.advance(time)
    };
    let (late, quick) = (takes(8 * MS), takes(5 * MS));
    let bh = cx.bottom_half("flush", move |_| late());
    let in_time = cx.bottom_half("quick", move |_| quick());
    let late = takes(9 * MS);
    let timer = cx
        .timer(ClockId::Monotonic, move |_, _| late())
        .named("tick")
        .disarmed();
    let source = cx.source("ring");
    let waker = source.waker();
    let _source = source.register(Work(clock.clone(), Rc::default()));
    let round = || {
        named.kick();
        unnamed.kick();
        bh.schedule();
        in_time.schedule();
        waker.wake();
        timer.arm_at(Moment::ZERO);
        bench.settle(&cx);
    };
    let report = |kind, name: &str, took| {
        format!(
            "a callback is slow; it is counted from now on kind={kind:?} name={name} took={took}ms limit=5ms"
        )
    };
    let number = format!("descriptor {}", unnamed.number());
    let expected = [
        report("bottom half", "flush", 8),
        report("handler", "disk", 6),
        report("handler", &number, 7),
        report("timer", "tick", 9),
    ];
    let mut logged = warnings(round);
    logged.sort();
    let mut sorted = expected.to_vec();
    sorted.sort();
    assert_eq!(logged, sorted);
    assert_eq!(warnings(round), [""; 0], "each is reported once");
    assert_eq!(cx.remote().stats().slow_callbacks, 8);
    assert_eq!(metrics.stats().slow_callbacks, 2);

    cx.set_slow_callback_limit(Some(8 * MS));
    let logged = warnings(round);
    assert_eq!(logged.len(), 1, "anew for a new limit: {logged:?}");
    assert!(logged[0].contains("name=tick took=9ms limit=8ms"), "{logged:?}");
    assert_eq!(cx.remote().stats().slow_callbacks, 9);

    cx.set_slow_callback_limit(None);
    assert_eq!(warnings(round), [""; 0]);
    assert_eq!(cx.remote().stats().slow_callbacks, 9);
    assert_eq!(figures(metrics.stats()), (4, 0, 24 * MS), "it is measured still");
}

/// Callbacks that have no name of their own.
#[test]
fn m2_every_kind_of_callback_can_be_slow() {
    let (builder, clock) = Bench::EPOLL.on_simulated_time();
    let cx = builder.slow_callback_limit(MS).build().unwrap();
    let late = || {
        let clock = clock.clone();
        move || clock.advance(2 * MS)
    };
    let names = |work: &dyn Fn()| -> Vec<String> {
        let lines = warnings(work);
        let name = |line: &String| {
            line.split_once(" name=")
                .unwrap()
                .1
                .split_once(" took=")
                .unwrap()
                .0
                .to_owned()
        };
        lines.iter().map(name).collect()
    };
    let poll = || while cx.poll(Wait::NoBlock).unwrap() {};
    let code = late();
    cx.defer(move |_| code());
    assert_eq!(names(&poll), ["a closure of `defer`"]);

    let at = clock.clone();
    let remote = cx.remote();
    std::thread::spawn(move || remote.run(move |_| at.advance(2 * MS)))
        .join()
        .unwrap()
        .unwrap();
    assert_eq!(names(&poll), ["a closure of `Remote::run`"]);

    // Timers have the names of functions.
    fn armed_here(cx: &Context, code: impl Fn() + 'static) -> aio_context::Timer {
        let timer = cx.timer(ClockId::Monotonic, move |_, _| code());
        timer.armed_at(Moment::ZERO)
    }
    let code = late();
    cx.after(Duration::ZERO, move |_| code());
    let logged = names(&poll);
    assert!(
        logged.len() == 1 && logged[0].contains("m2_every_kind"),
        "{logged:?}"
    );
    let _timer = armed_here(&cx, late());
    let logged = names(&poll);
    assert!(
        logged.len() == 1 && logged[0].contains("armed_here"),
        "{logged:?}"
    );

    // A polled handler is reported for its hits, and a source for its wakes.
    let polled = slow(&clock, 2 * MS);
    let _polled = watch_polled(&cx, &polled);
    cx.set_poll_params(PollParams::up_to(MS));
    polled.kick();
    let block = || assert!(cx.poll(Wait::Block).unwrap());
    assert_eq!(names(&block), [format!("descriptor {}", polled.number())]);
    cx.set_poll_params(PollParams::OFF);
    struct Late(Arc<ManualClock>);
    impl Source for Late {
        fn poll(&self) -> bool {
            false
        }
        fn poll_ready(&self, _: &Context) {
            self.0.advance(2 * MS);
        }
    }
    let source = cx.source("ring");
    let waker = source.waker();
    let _source = source.register(Late(clock.clone()));
    waker.wake();
    assert_eq!(names(&poll), ["ring"]);
    assert_eq!(cx.remote().stats().slow_callbacks, 6);
}

/// Timed, but not measured handlers: a callback uses its own registration, others, and a state by `&mut`.
fn m2_a_timed_handler_behaves_as_ever(bench: Bench) {
    struct Once;
    impl HandlerMut<Rc<Kick>> for Once {
        fn ready(&mut self, kick: &Rc<Kick>, cx: &Context, event: Event) {
            kick.count.set(kick.count.get() + 1);
            // It is not entered again, though it is still ready.
            cx.poll(Wait::NoBlock).unwrap();
            assert!(event.is_current(cx));
            event.remove(cx);
        }
    }
    let (cx, clock) = bench.simulated();
    let before = (Kick::new(), slow(&clock, MS));
    let exclusive = Rc::new(Exclusive::new(before.0.clone(), Once));
    let registration = cx.watch(exclusive, Interest::READ).unwrap();
    cx.set_slow_callback_limit(Some(Duration::from_secs(1)));
    let _second = watch(&cx, &before.1);
    before.0.kick();
    before.1.kick();
    bench.settle(&cx);
    assert_eq!((before.0.count.get(), before.1.count.get()), (1, 1));
    assert!(!registration.is_live());

    // The closures of a polled descriptor find their own registration.
    let (fd, hits) = (Kick::new(), Rc::new(Cell::new(0)));
    let (wanted, counted) = (Rc::new(Cell::new(true)), hits.clone());
    let has_work = wanted.clone();
    let registration = cx
        .on(fd)
        .polled(move |_| has_work.get())
        .ready(move |_, _, event| {
            counted.set(counted.get() + 1);
            wanted.set(false);
            assert!(event.readiness().is_empty());
            aio_context::Action::Remove
        })
        .watch()
        .unwrap();
    if !bench.foreign {
        cx.set_poll_params(PollParams::up_to(MS));
        assert!(bench.block(&cx));
        assert_eq!(hits.get(), 1);
        assert!(!registration.is_live());
    }
}

/// A clock that counts its readings.
#[derive(Debug, Default)]
struct Counting(AtomicU64);

impl Clock for Counting {
    fn now(&self) -> Moment {
        Moment::from_nanos(1000 * self.0.fetch_add(1, Ordering::Relaxed))
    }
}

#[test]
fn m2_no_clock_is_read_for_what_is_not_measured() {
    let clock = Arc::new(Counting::default());
    let builder = Bench::EPOLL.builder().monotonic(clock.clone());
    let cx = builder.build().unwrap();
    let (plain, polled, measured) = (Kick::new(), Kick::new(), Kick::new());
    let [_plain, _polled, third] = [
        watch(&cx, &plain),
        watch_polled(&cx, &polled),
        watch(&cx, &measured),
    ];
    let bh = cx.bottom_half("m2", |_| {});
    let readings = |work: &dyn Fn()| {
        work();
        let before = clock.0.load(Ordering::Relaxed);
        work();
        clock.0.load(Ordering::Relaxed) - before
    };
    let others = || {
        plain.kick();
        polled.kick();
        bh.schedule();
        assert!(cx.poll(Wait::NoBlock).unwrap());
    };
    let of_measured = || {
        measured.kick();
        assert!(cx.poll(Wait::NoBlock).unwrap());
    };
    let metrics = third.measure("one").unwrap();
    assert_eq!((readings(&others), readings(&of_measured)), (0, 2));
    cx.set_slow_callback_limit(Some(Duration::from_secs(1)));
    assert_eq!((readings(&others), readings(&of_measured)), (6, 2));
    cx.set_slow_callback_limit(None);
    assert_eq!((readings(&others), readings(&of_measured)), (0, 2));
    assert_eq!(metrics.stats().events, 6);
}

/// A measurement in real time.
#[test]
fn m2_a_measured_handler_is_read_while_its_loop_sleeps() {
    let cx = Context::new().unwrap();
    let kick = Kick::new();
    let registration = watch(&cx, &kick);
    let metrics = registration.measure("real").unwrap();
    let (writer, read) = (kick.writer(), metrics.clone());
    once_asleep(
        move || {
            assert_eq!(read.stats().events, 0);
            rustix::io::write(&writer, &1u64.to_ne_bytes()).unwrap();
        },
        || assert!(cx.poll(Wait::Block).unwrap()),
    );
    assert_eq!(metrics.stats().events, 1);
    assert!(!metrics.stats().busy.is_zero());
}
