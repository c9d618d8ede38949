//! Doorbell boards: no ring is lost, whether the context polls, sleeps, nests, panics or is paused.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aio_context::{Context, Policy, PollParams, Source, Wait};
use aio_sources::{Bell, DoorbellBoard, IoThread};
use aio_testing::{Bench, Count, everywhere};

everywhere! {
    n1_a_ring_is_served_once
    n1_rings_of_a_source_before_its_turn_are_one
    d1_a_poll_inside_a_callback_serves_the_others
    d9_a_panic_leaves_the_others_to_be_served
    d5_every_source_has_its_turn
    b5_rings_during_a_pause_are_served_after_it
    r8_a_board_that_is_gone_is_silent
    b5_a_pause_by_a_callback_is_before_the_next_source
}

type Log = Rc<RefCell<Vec<usize>>>;

fn board(cx: &Context, sources: usize) -> (DoorbellBoard, Log) {
    let log = Log::default();
    let served = log.clone();
    let board = DoorbellBoard::new(cx, sources, move |_, source| served.borrow_mut().push(source));
    (board, log)
}

fn bells(board: &DoorbellBoard, sources: impl IntoIterator<Item = usize>) -> Vec<Bell> {
    sources.into_iter().map(|source| board.bell(source)).collect()
}

fn n1_a_ring_is_served_once(bench: Bench) {
    let cx = bench.context();
    let (board, log) = board(&cx, 1000);
    for source in [0, 999, 64, 63, 500] {
        board.bell(source).ring();
        assert!(bench.block(&cx));
        bench.settle(&cx);
        assert_eq!(log.take(), [source]);
    }
}

fn n1_rings_of_a_source_before_its_turn_are_one(bench: Bench) {
    let cx = bench.context();
    let (board, log) = board(&cx, 3);
    for _ in 0..5 {
        bells(&board, [2, 0]).iter().for_each(Bell::ring);
    }
    bench.settle(&cx);
    assert_eq!(log.take(), [0, 2]);
}

fn d1_a_poll_inside_a_callback_serves_the_others(bench: Bench) {
    let cx = bench.context();
    let log = Log::default();
    let (served, later) = (log.clone(), Rc::new(RefCell::new(None::<Bell>)));
    let rings = later.clone();
    let board = DoorbellBoard::new(&cx, 300, move |cx, source| {
        served.borrow_mut().push(source);
        if source == 0 {
            // One was rung together with this one, the other is rung now.
            rings.borrow().as_ref().unwrap().ring();
            while served.borrow().len() < 3 {
                assert!(cx.poll(Wait::AtMost(Duration::from_secs(60))).unwrap());
            }
        }
    });
    *later.borrow_mut() = Some(board.bell(1));
    bells(&board, [0, 200]).iter().for_each(Bell::ring);
    assert!(bench.block(&cx));
    bench.settle(&cx);
    let mut log = log.take();
    log.sort_unstable();
    assert_eq!(log, [0, 1, 200]);
}

fn d9_a_panic_leaves_the_others_to_be_served(bench: Bench) {
    let cx = bench.context();
    let log = Log::default();
    let served = log.clone();
    let board = DoorbellBoard::new(&cx, 300, move |_, source| {
        served.borrow_mut().push(source);
        assert!(source != 70, "on purpose");
    });
    bells(&board, [69, 70, 71, 299]).iter().for_each(Bell::ring);
    let ended = catch_unwind(AssertUnwindSafe(|| bench.settle(&cx)));
    assert!(ended.is_err());
    assert_eq!(*log.borrow(), [69, 70]);
    assert!(bench.block(&cx));
    bench.settle(&cx);
    assert_eq!(log.take(), [69, 70, 71, 299]);
    board.bell(5).ring();
    assert!(bench.block(&cx));
    assert_eq!(log.take(), [5]);
}

fn d5_every_source_has_its_turn(bench: Bench) {
    let cx = bench.context();
    let counts = Rc::new(RefCell::new(BTreeMap::<usize, u32>::new()));
    let (served, again) = (counts.clone(), Rc::new(RefCell::new(Vec::<Bell>::new())));
    let ringers = again.clone();
    let board = DoorbellBoard::new(&cx, 1000, move |_, source| {
        *served.borrow_mut().entry(source).or_default() += 1;
        // Every source always has work.
        ringers.borrow()[source].ring();
    });
    *again.borrow_mut() = bells(&board, 0..1000);
    again.borrow().iter().for_each(Bell::ring);
    let others = Count::default();
    let count = others.clone();
    let bh = cx.bottom_half("other", move |_| {
        count.up();
    });
    for round in 1..=40 {
        bh.schedule();
        bench.check(&cx);
        assert_eq!(others.get(), round, "a board does not starve others");
    }
    let counts = counts.borrow();
    assert_eq!(counts.len(), 1000);
    assert!(counts.values().all(|times| (1..=4).contains(times)));
    again.borrow_mut().clear();
}

fn b5_rings_during_a_pause_are_served_after_it(bench: Bench) {
    let cx = bench.context();
    let group = cx.new_group();
    let log = Log::default();
    let served = log.clone();
    let serve = move |_: &Context, source| served.borrow_mut().push(source);
    let board = DoorbellBoard::new_in(&cx, group, 200, serve);
    for _ in 0..2 {
        let paused = cx.pause(group);
        let all = bells(&board, 0..200);
        all.iter().for_each(Bell::ring);
        bench.settle(&cx);
        all.iter().for_each(Bell::ring);
        bench.settle(&cx);
        assert!(log.borrow().is_empty());
        drop(paused);
        bench.settle(&cx);
        let mut served = log.take();
        served.sort_unstable();
        assert_eq!(served, (0..200).collect::<Vec<_>>());
        board.bell(7).ring();
        assert!(bench.block(&cx));
        assert_eq!(log.take(), [7]);
    }
}

fn r8_a_board_that_is_gone_is_silent(bench: Bench) {
    let cx = bench.context();
    let (first, log) = board(&cx, 10);
    let bell = first.bell(3);
    bell.ring();
    assert!(first.is_live());
    drop(first);
    bell.ring();
    bench.settle(&cx);
    assert!(log.take().is_empty());
    assert_eq!(Rc::strong_count(&log), 1, "what it called is gone");
    let (second, log) = board(&cx, 10);
    let bell = second.bell(3);
    drop(cx);
    bell.ring();
    assert!(!second.is_live() && log.take().is_empty());
}

#[test]
#[should_panic(expected = "there are 10 sources")]
fn there_is_no_bell_for_other_sources() {
    let cx = Context::new().unwrap();
    let (board, _) = board(&cx, 10);
    assert_eq!((board.sources(), board.bell(9).source()), (10, 9));
    let _bell = board.bell(board.sources());
}

/// A source that always has work, so that the others grow idle.
struct Busy;

impl Source for Busy {
    fn poll(&self) -> bool {
        true
    }
    fn poll_ready(&self, _: &Context) {}
}

/// Makes a context that polls for at most `max`.
fn polling(max: Duration) -> Context {
    let params = PollParams::up_to(max);
    let builder = Context::builder()
        .backend((Bench::LADDER_AT_0.backend)())
        .policy(Box::new(Policy::by_name("always", params).unwrap()));
    builder.poll_params(params).build().unwrap()
}

#[test]
fn a5_while_the_context_polls_a_ring_sends_no_wake_up() {
    let cx = polling(Duration::from_secs(60));
    let (board, log) = board(&cx, 10_000);
    let bell = board.bell(9_999);
    assert!(!cx.poll(Wait::AtMost(Duration::from_micros(1))).unwrap());
    let before = cx.remote().wakeups();
    for _ in 0..100 {
        bell.ring();
        assert!(cx.poll(Wait::Block).unwrap());
    }
    assert_eq!(cx.remote().wakeups(), before, "not even in vain");
    assert_eq!(log.take(), [9_999; 100]);
}

#[test]
fn a8_an_idle_board_is_demoted_and_promoted_again() {
    let cx = polling(Duration::from_micros(1));
    let boards: Vec<_> = (0..50).map(|_| board(&cx, 64)).collect();
    let _busy = cx.source("busy").register(Busy);
    let sent = |cx: &Context| {
        let (writes, elided) = cx.remote().wakeups();
        writes + elided
    };
    for _ in 0..2000 {
        cx.poll(Wait::Block).unwrap();
    }
    let ring = |source: usize| {
        // From another thread, because at home no wake-up is needed.
        let bells: Vec<_> = boards.iter().map(|(board, _)| board.bell(source)).collect();
        std::thread::spawn(move || bells.iter().for_each(Bell::ring))
            .join()
            .unwrap();
    };
    let before = sent(&cx);
    ring(1);
    let woken = sent(&cx) - before;
    assert!(woken > 30, "{woken} of 50 had to be woken");
    for _ in 0..10 {
        cx.poll(Wait::Block).unwrap();
    }
    let before = sent(&cx);
    ring(2);
    assert_eq!(sent(&cx), before, "all are polled again");
    cx.poll(Wait::Block).unwrap();
    assert!(boards.iter().all(|(_, log)| log.take() == [1, 2]));
}

/// Threads ring bells and wait for each to be served before they ring again. A lost ring makes the test hang,
/// which the test runner's limit turns into a failure.
#[test]
fn n2_no_ring_is_lost_between_polling_and_sleeping() {
    const THREADS: usize = 3;
    const RINGS: u32 = 3000;
    let served: Arc<Vec<AtomicU32>> = Arc::new((0..THREADS).map(|_| AtomicU32::new(0)).collect());
    let counts = served.clone();
    let (send, bells_of_board) = std::sync::mpsc::channel();
    let io = IoThread::spawn(move |cx| {
        cx.set_poll_params(PollParams::up_to(Duration::from_micros(20)));
        let board = DoorbellBoard::new(cx, THREADS * 100, move |_, source| {
            counts[source / 100].fetch_add(1, Ordering::Release);
        });
        send.send(bells(&board, (0..THREADS).map(|thread| thread * 100)))
            .unwrap();
        Ok(board)
    })
    .unwrap();
    let ringers: Vec<_> = bells_of_board
        .recv()
        .unwrap()
        .into_iter()
        .enumerate()
        .map(|(thread, bell)| {
            let served = served.clone();
            std::thread::spawn(move || {
                for ring in 1..=RINGS {
                    bell.ring();
                    while served[thread].load(Ordering::Acquire) < ring {
                        std::thread::yield_now();
                    }
                }
            })
        })
        .collect();
    ringers.into_iter().for_each(|ringer| ringer.join().unwrap());
    io.stop().unwrap();
    assert!(served.iter().all(|count| count.load(Ordering::Relaxed) == RINGS));
}

/// The loop does not run during the burst.
#[test]
fn n6_a_burst_of_rings_is_one_wake_up() {
    let cx = Context::new().unwrap();
    let (board, log) = board(&cx, 100);
    let bells = bells(&board, 0..100);
    let before = cx.remote().wakeups();
    let burst = move || (0..10_000).for_each(|ring| bells[ring % 100].ring());
    std::thread::spawn(burst).join().unwrap();
    let after = cx.remote().wakeups();
    assert_eq!(after.0 + after.1, before.0 + before.1 + 1);
    while cx.poll(Wait::NoBlock).unwrap() {}
    assert_eq!(log.take(), (0..100).collect::<Vec<_>>());
}

fn b5_a_pause_by_a_callback_is_before_the_next_source(bench: Bench) {
    let cx = bench.context();
    let (group, log) = (cx.new_group(), Log::default());
    let (served, paused) = (log.clone(), Rc::new(RefCell::new(None)));
    let pause = paused.clone();
    let serve = move |cx: &Context, source| {
        served.borrow_mut().push(source);
        pause.replace(Some(cx.pause(group)));
    };
    let board = DoorbellBoard::new_in(&cx, group, 200, serve);
    bells(&board, [3, 70, 199]).iter().for_each(Bell::ring);
    for source in [3, 70, 199] {
        bench.settle(&cx);
        assert_eq!(log.take(), [source]);
        drop(paused.take());
    }
    bench.settle(&cx);
    assert!(log.take().is_empty());
}
