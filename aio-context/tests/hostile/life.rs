//! Cases 85, 86, 91 to 93, 96, 99 and 100: the life of a context. (87 and 88 are `leaks.rs`, 89 and 90 of `aio-pollctl`, 94 of
//! `aio-faults`, 97 is `it/traces.rs`, 98 of `aio-handlers`.)

use std::cell::{Cell, RefCell};
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use aio_backend::conformance::disturb::{Number, once_asleep};
use aio_backend_epoll::Epoll;
use aio_backend_ladder::Ladder;
use aio_backend_ppoll::Ppoll;
use aio_context::{ClockId, Context, Interest, PollParams, WeakContext};
use tracing_subscriber::fmt::format::FmtSpan;

use crate::check::check;
use crate::common::{Bench, Count, Kick, everywhere, is_readable, watch, watch_polled};
use crate::fixtures::{MOMENT, Tap, always, counted, feed, is_balanced, keeps, pipe, scaled};
use crate::process::each_in_a_process;

everywhere! {
    case_85_dropped_with_everything_alive
    case_86_the_last_handle_is_dropped_by_a_callback
    case_91_parameters_from_another_thread_in_mid_search
    case_93_paused_while_others_kick
    case_99_nothing_but_a_notification_wakes_it
    case_100_printing_and_logging_from_inside
}

/// Counts its drops.
struct Token(Count);

impl Drop for Token {
    fn drop(&mut self) {
        self.0.up();
    }
}

/// Rule R8 and invariant 7: each value is dropped once. Shared descriptors stay open, and owned descriptors are closed.
fn case_85_dropped_with_everything_alive(bench: Bench) {
    let (cx, drops) = (bench.context(), Count::default());
    let token = || Token(drops.clone());
    let (shared, (given, mut far)) = (Kick::new(), UnixStream::pair().unwrap());
    let mut kept: Vec<Box<dyn std::any::Any>> = Vec::new();
    for is_kept in [true, false] {
        let held = token();
        let on = cx.on(shared.writer()).readable(move |_, _| keeps(&held));
        let registration = on.watch().unwrap();
        let held = token();
        let bh = cx.bottom_half("alive", move |_| keeps(&held));
        bh.schedule();
        let held = token();
        let timer = cx.timer(ClockId::Monotonic, move |_, _| keeps(&held)).disarmed();
        timer.arm_after(Duration::from_secs(3_600));
        if is_kept {
            kept.push(Box::new((registration, bh, timer, cx.pause(cx.new_group()))));
        } else {
            registration.detach();
            kept.push(Box::new((bh, timer)));
        }
    }
    cx.on(given).readable(|_, _| {}).watch().unwrap().detach();
    watch(&cx, &shared).detach();
    shared.kick();
    let (remote, weak) = (cx.remote(), cx.downgrade());
    let held = SendToken(Arc::new(AtomicU64::new(0)));
    let sent = held.0.clone();
    remote.run(move |_| drop(held)).unwrap();
    drop(cx);
    assert!(weak.upgrade().is_none());
    assert_eq!((drops.get(), sent.load(Ordering::Relaxed)), (6, 1));
    drop(kept);
    assert_eq!(drops.get(), 6, "each once");
    assert!(shared.is_set() && shared.clear(), "it is still open");
    assert_eq!(Rc::strong_count(&shared), 1);
    assert_eq!(far.read(&mut [0; 8]).unwrap(), 0, "it is closed");
    assert!(remote.run(|_| ()).is_err());
}

struct SendToken(Arc<AtomicU64>);

impl Drop for SendToken {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Rule R8: the context is dropped when the running poll returns.
fn case_86_the_last_handle_is_dropped_by_a_callback(bench: Bench) {
    let slot = Rc::new(RefCell::new(None));
    let (drops, runs) = (Count::default(), Count::default());
    let (cx, token) = (bench.context(), Token(drops.clone()));
    let (own, weak, counted) = (slot.clone(), cx.downgrade(), runs.clone());
    let seen = drops.clone();
    let bh = cx.bottom_half("drops it", move |cx| {
        let last: Option<Context> = own.borrow_mut().take();
        drop(last);
        counted.up();
        // The context still works, also in nested polls.
        cx.remote().run(|_| ()).unwrap();
        assert!(bench.check(cx) && weak.upgrade().is_some() && seen.get() == 0);
        keeps(&token);
    });
    bh.schedule();
    let weak = cx.downgrade();
    *slot.borrow_mut() = Some(cx.clone());
    assert!(bench.block(&cx) && runs.get() == 1);
    assert_eq!(Rc::strong_count(&slot), 2);
    drop(cx);
    assert!(weak.upgrade().is_none() && drops.get() == 1);
    bh.schedule();
    assert_eq!(Rc::strong_count(&slot), 1);
}

/// Rule A6: each set of parameters is adopted as a whole, and no event is lost.
fn case_91_parameters_from_another_thread_in_mid_search(bench: Bench) {
    const MOST: Duration = Duration::from_micros(40);
    if bench.foreign {
        return; // a foreign loop does not poll
    }
    let cx = always(bench.builder(), MOST).build().unwrap();
    let (polled, plain) = (Kick::new(), Kick::new());
    let registration = watch_polled(&cx, &polled);
    let _plain = watch(&cx, &plain);
    let (remote, over) = (cx.remote(), Arc::new(AtomicBool::new(false)));
    let (writers, rounds) = ([polled.writer(), plain.writer()], scaled(300, 100_000));
    let flag = over.clone();
    let seed = aio_testing::seed();
    let other = thread::spawn(move || {
        let mut dice = fastrand::Rng::with_seed(seed);
        for _ in 0..rounds {
            let max = [Duration::ZERO, Duration::from_nanos(1), MOST][dice.usize(..3)];
            let params = PollParams::up_to(max)
                .with_grow(dice.u32(..))
                .with_shrink(dice.u32(..3));
            remote.set_poll_params(params);
            let writer = &writers[dice.usize(..2)];
            rustix::io::write(writer, &1u64.to_ne_bytes()).unwrap();
            while dice.bool() && is_readable(writer) {
                thread::yield_now();
            }
        }
        flag.store(true, Ordering::Release);
        remote.set_poll_params(PollParams::OFF);
    });
    while !over.load(Ordering::Acquire) {
        bench.poll(&cx, MOMENT);
        assert!(cx.remote().stats().budget <= MOST);
    }
    other.join().unwrap();
    while bench.poll(&cx, MOMENT) {}
    assert!(!polled.is_set() && !plain.is_set(), "all is served");
    let calls = polled.polls.get();
    assert!(
        !bench.poll(&cx, MOMENT) && polled.polls.get() == calls,
        "off is off"
    );
    drop(registration);
    assert!(is_balanced(&polled.log.borrow()));
    let log = polled.log.borrow();
    assert!(log.contains(&"begin") && log.iter().any(|entry| *entry != "begin" && *entry != "end"));
}

/// Rule B3: bytes arrive while the backend changes again and again.
#[test]
fn case_92_up_and_down_the_ladder_in_mid_traffic() {
    let moves = scaled(300, 100_000);
    for (climb_at, size) in [(8, 8), (64, 70)] {
        let ladder = Ladder::new(Ppoll::new(), Epoll::new, climb_at);
        let cx = Context::builder().backend(Box::new(ladder)).build().unwrap();
        let (reader, writer) = pipe();
        let tap = Tap::sipping(reader, 3);
        let _registration = cx.watch(tap.clone(), Interest::READ).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let (stop, written) = (over.clone(), Arc::new(AtomicU64::new(0)));
        let count = written.clone();
        let other = thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if rustix::io::write(&writer, b"x") == Ok(1) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
            writer
        });
        let mut moved = 0;
        let crowd: Vec<_> = (0..size).map(|_| Kick::new()).collect();
        for round in 1..=moves / 2 {
            let before = cx.backend_name();
            let registrations: Vec<_> = crowd.iter().map(|kick| watch(&cx, kick)).collect();
            crowd.iter().for_each(|kick| kick.kick());
            while crowd.iter().any(|kick| u64::from(kick.count.get()) < round) {
                cx.poll(MOMENT).unwrap();
            }
            assert_eq!((before, cx.backend_name()), ("ppoll", "epoll"));
            drop(registrations);
            cx.poll(MOMENT).unwrap();
            moved += 2;
            assert_eq!(cx.backend_name(), "ppoll");
        }
        over.store(true, Ordering::Relaxed);
        let _writer = other.join().unwrap();
        while cx.poll(MOMENT).unwrap() {}
        assert!(moved >= moves - 1);
        assert_eq!(
            tap.bytes.get() as u64,
            written.load(Ordering::Relaxed),
            "none lost, none doubled"
        );
        assert!(crowd.iter().all(|kick| u64::from(kick.count.get()) == moves / 2));
    }
}

/// Rule B5, with more descriptors than the original can pause, and with pauses inside pauses.
fn case_93_paused_while_others_kick(bench: Bench) {
    for trace in [
        "watch a r in g; pause g; pause g; kick a; poll ->; resume g; wait 3 ->; resume g; poll -> a.readable",
        "watch a r in g; watch b r in h; pause g; pause h; kick a; kick b; poll ->; resume h; poll -> b.readable; resume g; poll -> a.readable",
        "on a.readable { drain a, pause g, kick a, resume g }; watch a r in g; kick a; poll -> a.readable; poll -> a.readable",
        "watch a r in g; kick a; pause g; resume g; pause g; poll ->; resume g; poll -> a.readable",
    ] {
        check(bench, trace);
    }
    const MANY: usize = 100;
    let cx = bench.context();
    let group = cx.new_group();
    let kicks: Vec<_> = (0..MANY).map(|_| Kick::new()).collect();
    let _registrations: Vec<_> = kicks
        .iter()
        .map(|kick| cx.watch_in(group, kick.clone(), Interest::READ).unwrap())
        .collect();
    let beside = Kick::new();
    let _beside = watch(&cx, &beside);
    bench.poll(&cx, MOMENT);
    for round in 1..=scaled(20, 2_000) as u32 {
        let pauses = [cx.pause(group), cx.pause(group)];
        let writers: Vec<_> = kicks.iter().map(|kick| kick.writer()).collect();
        let other = thread::spawn(move || {
            for writer in &writers {
                rustix::io::write(writer, &1u64.to_ne_bytes()).unwrap();
            }
        });
        beside.kick();
        for _ in 0..4 {
            bench.poll(&cx, MOMENT);
        }
        other.join().unwrap();
        while bench.poll(&cx, MOMENT) {}
        assert!(kicks.iter().all(|kick| kick.count.get() == round - 1));
        assert_eq!(beside.count.get(), round);
        for pause in pauses {
            assert!(!bench.check(&cx));
            drop(pause);
        }
        while bench.poll(&cx, MOMENT) {}
        assert!(
            kicks.iter().all(|kick| kick.count.get() == round),
            "none lost, none doubled"
        );
    }
}

/// Fault F4: in a process without standard descriptors, the context's descriptors get their numbers.
#[test]
fn case_96_without_standard_descriptors() {
    let name = concat!(module_path!(), "::case_96_without_standard_descriptors");
    each_in_a_process(name, |bench| {
        let kept = [
            rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 10).unwrap(),
            rustix::io::fcntl_dupfd_cloexec(std::io::stdout(), 10).unwrap(),
            rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), 10).unwrap(),
        ];
        (0..3).for_each(|number| nix::unistd::close(number).unwrap());
        // Nothing may be printed from here on.
        let cx = bench.context();
        let kicks = [(); 4].map(|()| Kick::new());
        let registrations = kicks.each_ref().map(|kick| watch(&cx, kick));
        let lowest = kicks.each_ref().map(|kick| kick.number()).into_iter().min();
        let mut calls = 0;
        for _ in 0..3 {
            kicks.iter().for_each(|kick| kick.kick());
            while bench.poll(&cx, MOMENT) {}
            let remote = cx.remote();
            let other = thread::spawn(move || remote.run(|_| ()).is_ok());
            while !bench.block(&cx) {}
            calls += u32::from(other.join().unwrap());
        }
        let served = kicks.each_ref().map(|kick| kick.count.get());
        drop((registrations, kicks, cx));
        rustix::stdio::dup2_stdin(&kept[0]).unwrap();
        rustix::stdio::dup2_stdout(&kept[1]).unwrap();
        rustix::stdio::dup2_stderr(&kept[2]).unwrap();
        assert_eq!((served, calls), ([3; 4], 3));
        assert!(lowest < Some(3), "{lowest:?}");
    });
}

/// Rule N2.
fn case_99_nothing_but_a_notification_wakes_it(bench: Bench) {
    let (builder, calls) = counted(bench);
    let cx = builder.build().unwrap();
    bench.check(&cx);
    for round in 1..=3 {
        let (remote, before) = (cx.remote(), calls.waits());
        assert!(!once_asleep(move || remote.notify(), || bench.block(&cx)));
        assert!(cx.remote().wakeups().0 <= round, "one write, if it slept");
        assert_eq!(calls.waits() - before, 1, "one wait");
    }
    // A notification before the sleep has the same effect.
    let before = cx.remote().wakeups().0;
    cx.remote().notify();
    assert!(!bench.block(&cx));
    assert_eq!(cx.remote().wakeups().0, before, "and costs nothing");
}

/// Prints the context, and uses it.
#[derive(Clone)]
struct Nosy {
    cx: WeakContext,
    printed: Rc<Cell<usize>>,
}

impl Nosy {
    fn pries(&self) {
        let Some(cx) = self.cx.upgrade() else { return };
        let remote = cx.remote();
        let text = format!("{cx:?} {:?} {remote:?} {:?}", self.cx, remote.stats());
        assert!(text.contains("Context"));
        remote.notify();
        remote.kick();
        remote.run(|_| ()).unwrap();
        self.printed.set(self.printed.get() + 1);
    }
}

thread_local! {
    static NOSY: RefCell<Option<Nosy>> = const { RefCell::new(None) };
    static PRIES: Cell<u32> = const { Cell::new(0) };
}

/// Uses the context whose event or span is logged.
fn pry() {
    let nosy = NOSY.with_borrow(Clone::clone);
    if let Some(nosy) = nosy {
        nosy.pries();
        PRIES.set(PRIES.get() + 1);
    }
}

/// Invariant 5: nothing is locked or borrowed while a value is printed. A log subscriber may make all calls that other threads may make.
fn case_100_printing_and_logging_from_inside(bench: Bench) {
    let cx = bench.context();
    let nosy = Nosy {
        cx: cx.downgrade(),
        printed: Rc::default(),
    };
    NOSY.set(Some(nosy.clone()));
    let writer = || {
        pry();
        std::io::sink()
    };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(FmtSpan::NEW)
        .with_writer(writer)
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        let [of_bh, of_timer, of_kick] = [(); 3].map(|()| nosy.clone());
        let bh = cx.bottom_half("prints", move |_| of_bh.pries());
        let timer = cx
            .timer(ClockId::Monotonic, move |_, timer| {
                of_timer.pries();
                assert!(format!("{timer:?}").contains("Monotonic"));
            })
            .disarmed();
        let kick = Kick::with(move |_, _| of_kick.pries());
        let registration = watch(&cx, &kick);
        bh.schedule();
        timer.arm_after(Duration::ZERO);
        kick.kick();
        assert!(bench.block(&cx));
        assert_eq!(nosy.printed.get() as u32 - PRIES.get(), 3);
        // New parameters, a move to another backend and a number that is closed without removal are each logged.
        cx.set_poll_params(PollParams::up_to(Duration::from_micros(1)));
        let crowd: Vec<_> = (0..100).map(|_| Kick::new()).collect();
        let registrations: Vec<_> = crowd.iter().map(|kick| watch(&cx, kick)).collect();
        bench.poll(&cx, MOMENT);
        let (reader, writer) = pipe();
        let closed = Number::of(reader);
        let _closed = cx.watch(Tap::new(closed.clone()), Interest::READ).unwrap();
        feed(&writer);
        closed.close();
        for _ in 0..3 {
            bench.poll(&cx, MOMENT);
        }
        drop(_closed);
        drop((registrations, registration));
        for _ in 0..3 {
            bench.poll(&cx, MOMENT);
        }
        assert!(PRIES.get() > 0, "there were log events");
        assert!(cx.remote().run(|_| ()).is_ok() && bench.block(&cx));
        bh.schedule();
        drop(cx);
    });
    NOSY.take();
}
