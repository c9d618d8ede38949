//! Invariant 3: an iteration that dispatches up to 64 events allocates nothing.
//!
//! The tests measure polling and the calls of callbacks on the context; only making descriptors
//! ready is not measured. The first rounds of each case may allocate: buffers grow to the size that the case needs.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "counting/bell.rs"]
mod bell;
mod counting;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aio_backend_epoll::Epoll;
use aio_backend_ladder::Ladder;
use aio_backend_ppoll::Ppoll;
use aio_backend_uring::Uring;
use aio_context::{
    Backend, BottomHalf, Builder, ClockId, Context, Interest, ManualClock, PollParams, Polled, Registration,
    Timer, Wait,
};

use bell::Bell;

const EVENTS: usize = 64;
const WARM_UP: usize = 20;
const ROUNDS: usize = 200;

/// The backends, the ladder at every height: below, above, and where it has just climbed.
fn backends() -> Vec<Box<dyn Backend>> {
    let ladder = |climb_at| Box::new(Ladder::new(Ppoll::new(), Epoll::new, climb_at));
    let mut backends: Vec<Box<dyn Backend>> = vec![
        Box::new(Ppoll::new()),
        Box::new(Epoll::new().unwrap()),
        ladder(0),
        ladder(EVENTS),
        ladder(1_000),
    ];
    match Uring::new() {
        Ok(uring) => backends.push(Box::new(uring)),
        Err(error) => eprintln!("skipped: no io_uring: {error}"),
    }
    backends
}

/// Runs `case` with a context on each backend, on a clock that a wait advances instead of sleeping.
fn on_each_backend(case: impl Fn(Context)) {
    with_each_builder(|builder| case(builder.build().unwrap()));
}

fn with_each_builder(case: impl Fn(Builder)) {
    for backend in backends() {
        println!("{}", backend.name());
        let clock = Arc::new(ManualClock::new());
        clock.advance(Duration::from_secs(1));
        case(Context::builder().backend(backend).monotonic(clock));
    }
}

/// Returns the number of allocations in `ROUNDS` calls of `round`, each after a call of `prepare`.
fn calls_in(mut prepare: impl FnMut(), mut round: impl FnMut()) -> u64 {
    let mut calls = 0;
    for number in 0..WARM_UP + ROUNDS {
        prepare();
        let before = counting::calls();
        round();
        if number >= WARM_UP {
            calls += counting::calls() - before;
        }
    }
    calls
}

/// Some watched bells, and the number of times that they were served.
struct Bells {
    bells: Vec<Rc<Bell>>,
    served: Rc<Cell<usize>>,
    _registrations: Vec<Registration>,
}

impl Bells {
    fn watch(cx: &Context, count: usize) -> Self {
        Self::each(count, |bell| cx.watch(bell, Interest::READ).unwrap())
    }

    fn watch_polled(cx: &Context, count: usize) -> Self {
        Self::each(count, |bell| cx.watch(Polled(bell), Interest::READ).unwrap())
    }

    fn each(count: usize, watch: impl Fn(Rc<Bell>) -> Registration) -> Self {
        let served = Rc::default();
        let bells: Vec<_> = (0..count).map(|_| Bell::new(&served)).collect();
        Self {
            _registrations: bells.iter().cloned().map(watch).collect(),
            bells,
            served,
        }
    }

    fn ring(&self) {
        self.bells.iter().for_each(|bell| bell.ring());
    }
}

#[test]
fn d1_sixty_four_descriptors_cost_no_allocation() {
    for wait in [Wait::NoBlock, Wait::Block, Wait::AtMost(Duration::from_secs(1))] {
        on_each_backend(|cx| {
            let bells = Bells::watch(&cx, EVENTS);
            let calls = calls_in(|| bells.ring(), || assert!(cx.poll(wait).unwrap()));
            assert_eq!(bells.served.get(), EVENTS * (WARM_UP + ROUNDS));
            assert_eq!(calls, 0, "{wait:?} on {}", cx.backend_name());
        });
    }
}

/// Sixty-four bottom halves that count their runs.
fn bottom_halves(cx: &Context) -> (Vec<BottomHalf>, Rc<Cell<usize>>) {
    let runs = Rc::new(Cell::new(0));
    let one = |_| {
        let runs = runs.clone();
        cx.bottom_half("counts", move |_| runs.set(runs.get() + 1))
    };
    ((0..EVENTS).map(one).collect(), runs)
}

#[test]
fn h1_sixty_four_bottom_halves_cost_no_allocation() {
    on_each_backend(|cx| {
        let (all, runs) = bottom_halves(&cx);
        let round = || {
            all.iter().for_each(BottomHalf::schedule);
            assert!(cx.poll(Wait::Block).unwrap());
        };
        assert_eq!(calls_in(|| {}, round), 0);
        assert_eq!(runs.get(), EVENTS * (WARM_UP + ROUNDS));
    });
}

#[test]
fn h1_scheduling_from_another_thread_costs_no_allocation() {
    let cx = Context::new().unwrap();
    let (all, runs) = bottom_halves(&cx);
    let mut measured = 0;
    for round in 1..=3 {
        let remote = all.clone();
        let scheduler = std::thread::spawn(move || {
            let before = counting::calls();
            remote.iter().for_each(BottomHalf::schedule);
            counting::calls() - before
        });
        measured += scheduler.join().unwrap();
        while runs.get() != round * EVENTS {
            cx.poll(Wait::Block).unwrap();
        }
    }
    assert_eq!(measured, 0);
}

#[test]
fn h7_a_one_shot_costs_one_allocation_wherever_it_comes_from() {
    on_each_backend(|cx| {
        let (remote, runs) = (cx.remote(), Arc::new(AtomicUsize::new(0)));
        let send = || {
            for _ in 0..EVENTS {
                let (runs, large) = (runs.clone(), [1; 100]);
                let job = move |_: &Context| {
                    runs.fetch_add(large[99], Ordering::Relaxed);
                };
                remote.run(job).unwrap();
            }
        };
        let round = || {
            send();
            assert!(cx.poll(Wait::Block).unwrap());
        };
        assert_eq!(calls_in(|| {}, round), (EVENTS * ROUNDS) as u64);
        let elsewhere = std::thread::scope(|scope| {
            let counted = || {
                let before = counting::calls();
                send();
                counting::calls() - before
            };
            scope.spawn(counted).join().unwrap()
        });
        assert_eq!(elsewhere, EVENTS as u64);
        while cx.poll(Wait::NoBlock).unwrap() {}
        assert_eq!(runs.load(Ordering::Relaxed), EVENTS * (WARM_UP + ROUNDS + 1));
    });
}

/// Returns the bytes of a bottom half without the captures of its closure: the handle and its allocation.
#[test]
fn h1_a_bottom_half_takes_at_most_ninety_six_bytes() {
    const MANY: usize = 1 << 12; // a power of two: tables that double are full
    let cx = Context::new().unwrap();
    counting::observe_this_thread(true);
    let mut all = Vec::with_capacity(MANY);
    let before = counting::live();
    all.extend((0..MANY).map(|_| cx.bottom_half("a name", |_| {})));
    let after = counting::live();
    counting::observe_this_thread(false);
    let each = (after.bytes - before.bytes) as usize / MANY + size_of::<BottomHalf>();
    assert!((16..=96).contains(&each), "{each} bytes");
}

/// Sixty-four timers that arm themselves again.
fn timers(cx: &Context, shots: &Rc<Cell<usize>>, delay: Duration) -> Vec<Timer> {
    let one = |_| {
        let shots = shots.clone();
        let fire = move |_: &Context, timer: &Timer| {
            shots.set(shots.get() + 1);
            timer.arm_after(delay);
        };
        let timer = cx.timer(ClockId::Monotonic, fire).disarmed();
        timer.arm_after(delay);
        timer
    };
    (0..EVENTS).map(one).collect()
}

#[test]
fn t3_sixty_four_timers_cost_no_allocation() {
    on_each_backend(|cx| {
        let shots = Rc::default();
        let _all = timers(&cx, &shots, Duration::from_micros(1));
        let late = cx.timer(ClockId::Monotonic, |_, _| {}).disarmed();
        let round = || {
            late.arm_after(Duration::from_secs(3_600));
            late.anticipate(cx.now(ClockId::Monotonic).saturating_add(Duration::from_secs(60)));
            assert!(cx.poll(Wait::Block).unwrap());
            late.cancel();
        };
        assert_eq!(calls_in(|| {}, round), 0);
        assert_eq!(shots.get(), EVENTS * (WARM_UP + ROUNDS));
    });
}

/// Timers that fire inside each other's callbacks: each polls until the next one has fired.
#[test]
fn d6_nested_timers_cost_no_allocation() {
    on_each_backend(|cx| {
        let shots = Rc::new(Cell::new(0));
        let one = |_| {
            let shots = shots.clone();
            cx.timer(ClockId::Monotonic, move |cx, _| {
                shots.set(shots.get() + 1);
                cx.poll(Wait::NoBlock).unwrap();
            })
            .disarmed()
        };
        let all: Vec<Timer> = (0..EVENTS).map(one).collect();
        let round = || {
            all.iter().for_each(|timer| timer.arm_after(Duration::ZERO));
            assert!(cx.poll(Wait::Block).unwrap());
        };
        assert_eq!(calls_in(|| {}, round), 0, "{}", cx.backend_name());
        assert_eq!(shots.get(), EVENTS * (WARM_UP + ROUNDS));
    });
}

/// A timer takes memory for its handle and its share of four arrays, besides the state of its callback. The arrays grow by doubling;
/// here they are almost full.
#[test]
fn p12_an_armed_timer_takes_at_most_sixty_four_bytes() {
    const MANY: usize = 4_000;
    let cx = Context::new().unwrap();
    let make_and_arm = |number: usize| {
        let timer = cx.timer(ClockId::Monotonic, |_, _| {}).disarmed();
        timer.arm_after(Duration::from_secs(3_600 + number as u64 % 7));
        timer
    };
    let mut all = Vec::with_capacity(MANY);
    counting::observe_this_thread(true);
    let before = counting::live();
    all.extend((0..MANY).map(make_and_arm));
    let full = counting::live();
    // The next timers reuse the memory of dropped ones.
    all.drain(MANY / 4..MANY / 2);
    all.extend((0..MANY / 4).map(make_and_arm));
    let again = counting::live();
    counting::observe_this_thread(false);
    let bytes = usize::try_from(full.bytes - before.bytes).unwrap() + MANY * size_of::<Timer>();
    assert!(bytes <= MANY * 64, "{} bytes each", bytes / MANY);
    assert!(full.blocks - before.blocks <= 4, "a block is not one timer's");
    assert_eq!(again, full);
}

#[test]
fn a3_sixty_four_poll_hits_cost_no_allocation() {
    with_each_builder(|builder| {
        let params = PollParams::up_to(Duration::from_millis(1));
        let cx = builder.poll_params(params).build().unwrap();
        let bells = Bells::watch_polled(&cx, EVENTS);
        let ready = || bells.bells.iter().for_each(|bell| bell.work.set(true));
        // The policy allows polling only after it has observed a wait.
        cx.poll(Wait::AtMost(Duration::from_micros(10))).unwrap();
        let calls = calls_in(ready, || assert!(cx.poll(Wait::Block).unwrap()));
        assert_eq!(bells.served.get(), EVENTS * (WARM_UP + ROUNDS));
        assert_eq!(calls, 0, "{}", cx.backend_name());
    });
}

#[test]
fn a5_entering_and_leaving_poll_mode_costs_no_allocation() {
    with_each_builder(|builder| {
        let params = PollParams::up_to(Duration::from_millis(1));
        let cx = builder.poll_params(params).build().unwrap();
        let bells = Bells::watch_polled(&cx, EVENTS);
        let nap = Wait::AtMost(Duration::from_micros(500));
        assert_eq!(calls_in(|| {}, || assert!(!cx.poll(nap).unwrap())), 0);
        assert_eq!(bells.served.get(), 0);
    });
}

/// Descriptors, bottom halves and timers in one iteration, one of the handlers polling again.
#[test]
fn d6_a_nested_iteration_of_everything_costs_no_allocation() {
    on_each_backend(|cx| {
        let third = EVENTS / 3;
        let (served, shots) = (Rc::default(), Rc::default());
        let nesting = Bell::with(&served, |cx| drop(cx.poll(Wait::NoBlock)));
        let _nesting = cx.watch(nesting.clone(), Interest::READ).unwrap();
        let bells = Bells::watch(&cx, third);
        let (all, runs) = bottom_halves(&cx);
        let _timers = timers(&cx, &shots, Duration::ZERO);
        let prepare = || {
            bells.ring();
            nesting.ring();
        };
        let round = || {
            all[..third].iter().for_each(BottomHalf::schedule);
            assert!(cx.poll(Wait::Block).unwrap());
        };
        let calls = calls_in(prepare, round);
        let rounds = WARM_UP + ROUNDS;
        assert_eq!((served.get(), bells.served.get()), (rounds, third * rounds));
        assert!(runs.get() == third * rounds && shots.get() > 0);
        assert_eq!(calls, 0, "{}", cx.backend_name());
    });
}

#[test]
fn g1_a_foreign_loop_costs_no_allocation() {
    for backend in backends() {
        let cx = Context::builder().backend(backend).build().unwrap();
        let bells = Bells::watch(&cx, EVENTS);
        let Ok(embedded) = cx.embed() else {
            assert_eq!(cx.backend_name(), "ppoll", "all others can be embedded");
            continue;
        };
        let round = || {
            embedded.prepare();
            assert!(embedded.check().unwrap() && embedded.dispatch());
        };
        assert_eq!(calls_in(|| bells.ring(), round), 0);
        assert_eq!(bells.served.get(), EVENTS * (WARM_UP + ROUNDS));
    }
}

/// A batch may be larger than usual.
#[test]
fn a_batch_of_more_than_sixty_four_allocates_nothing() {
    with_each_builder(|builder| {
        let cx = builder.batch(2 * EVENTS).build().unwrap();
        let bells = Bells::watch(&cx, 2 * EVENTS);
        let calls = calls_in(|| bells.ring(), || assert!(cx.poll(Wait::Block).unwrap()));
        assert_eq!(bells.served.get(), 2 * EVENTS * (WARM_UP + ROUNDS));
        assert_eq!(calls, 0);
    });
}

/// The counter counts the allocations of the loop.
#[test]
fn an_allocation_in_a_callback_is_seen_by_the_counter() {
    with_each_builder(|builder| {
        let cx = builder.build().unwrap();
        let wasteful = cx.bottom_half("wasteful", |_| drop(std::hint::black_box(Box::new(1))));
        let calls = calls_in(|| wasteful.schedule(), || assert!(cx.poll(Wait::Block).unwrap()));
        assert!(calls >= ROUNDS as u64, "{calls}");
    });
}
