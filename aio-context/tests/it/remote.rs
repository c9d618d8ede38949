//! Rules R11, N and W: calls from other threads, and waiting for another context.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;

use aio_context::{Context, Gone, Remote, Wait};

use crate::common::{Bench, everywhere};

everywhere! {
    n1_a_remote_job_wakes_a_sleeping_loop
    w1_wait_while_returns_whether_it_waited
    w1_a_kick_from_any_thread_is_not_lost
    w2_run_and_wait_on_the_home_thread_runs_in_place
    w2_a_context_that_goes_away_is_an_error
    w2_a_job_that_panics_is_an_error
}

fn n1_a_remote_job_wakes_a_sleeping_loop(bench: Bench) {
    let cx = bench.context();
    let remote = cx.remote();
    let done = Arc::new(AtomicBool::new(false));
    let flag = done.clone();
    let thread = thread::spawn(move || remote.run(move |_| flag.store(true, Ordering::Relaxed)));
    while !done.load(Ordering::Relaxed) {
        bench.block(&cx);
    }
    thread.join().unwrap().unwrap();
}

fn w1_wait_while_returns_whether_it_waited(bench: Bench) {
    let cx = bench.context();
    assert!(!cx.wait_while(|| false).unwrap());
    let left = Cell::new(3);
    let bh = cx.bottom_half("w1", |_| {});
    bh.schedule();
    let waited = cx.wait_while(|| {
        bh.schedule();
        left.set(left.get() - 1);
        left.get() != 0
    });
    assert!(waited.unwrap());
}

fn w1_a_kick_from_any_thread_is_not_lost(bench: Bench) {
    let cx = bench.context();
    for _ in 0..500 {
        let flag = Arc::new(AtomicBool::new(true));
        let (remote, cleared) = (cx.remote(), flag.clone());
        let thread = thread::spawn(move || {
            cleared.store(false, Ordering::Relaxed);
            remote.kick();
        });
        cx.wait_while(|| flag.load(Ordering::Relaxed)).unwrap();
        thread.join().unwrap();
    }
}

#[test]
fn w1_a_kick_sends_no_wake_up_without_a_waiting_loop() {
    let cx = Context::new().unwrap();
    let remote = cx.remote();
    for waits in 0..3 {
        let before = remote.wakeups();
        remote.kick();
        assert_eq!(remote.wakeups(), before, "after {waits} waits");
        let (ready, kicks) = (Cell::new(false), cx.remote());
        let half = cx.bottom_half("kicks", move |_| kicks.kick());
        half.schedule();
        let condition = || !ready.replace(true);
        assert!(cx.wait_while(condition).unwrap());
        let (writes, elided) = before;
        let (writes_now, elided_now) = remote.wakeups();
        assert!(
            writes_now + elided_now > writes + elided,
            "a kick while it waits is one"
        );
    }
}

#[test]
fn w2_run_on_the_very_context_does_not_poll() {
    let cx = Context::new().unwrap();
    let ran_on = cx.run_on(&cx.remote(), |there| there.remote().stats().iterations);
    assert_eq!(ran_on, Ok(0));
    assert_eq!(cx.remote().stats().iterations, 0);
}

fn w2_run_and_wait_on_the_home_thread_runs_in_place(bench: Bench) {
    let cx = bench.context();
    assert_eq!(cx.remote().run_and_wait(|_| 7), Ok(7));
    let own = cx.remote();
    assert_eq!(cx.run_on(&own, |_| 8), Ok(8));
    let gone = bench.context().remote();
    assert_eq!(
        gone.run_and_wait(|_| ()),
        Err(Gone::Dropped),
        "even on the thread that was its home"
    );
}

#[test]
fn w2_a_thread_stays_the_home_of_those_that_are_left() {
    let [first, second, third] = [(); 3].map(|()| Context::new().unwrap());
    let (left, gone) = (second.remote(), first.remote());
    drop(first);
    assert_eq!(left.run_and_wait(|_| 7), Ok(7), "in place: no poll is running");
    assert_eq!(gone.run_and_wait(|_| 7), Err(Gone::Dropped));
    drop(third);
    assert_eq!(left.run_and_wait(|_| 8), Ok(8));
    drop(second);
}

fn w2_a_context_that_goes_away_is_an_error(bench: Bench) {
    let (tell, hear) = mpsc::channel::<Remote>();
    let go = Arc::new(Barrier::new(2));
    let gate = go.clone();
    let home = thread::spawn(move || {
        let cx = bench.context();
        tell.send(cx.remote()).unwrap();
        gate.wait();
    });
    let other = hear.recv().unwrap();
    let waiter = {
        let other = other.clone();
        thread::spawn(move || other.run_and_wait(|_| ()))
    };
    let cx = bench.context();
    let opener = thread::spawn(move || go.wait());
    assert_eq!(cx.run_on(&other, |_| ()), Err(Gone::Dropped));
    assert_eq!(waiter.join().unwrap(), Err(Gone::Dropped));
    home.join().unwrap();
    opener.join().unwrap();
    assert_eq!(other.run(|_| ()), Err(Gone::Dropped));
}

fn w2_a_job_that_panics_is_an_error(bench: Bench) {
    let (tell, hear) = mpsc::channel::<Remote>();
    let home = thread::spawn(move || {
        let cx = bench.context();
        tell.send(cx.remote()).unwrap();
        let mut panics = 0;
        while panics == 0 {
            let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| cx.poll(Wait::Block)));
            panics += u32::from(polled.is_err());
        }
    });
    let other = hear.recv().unwrap();
    assert_eq!(
        other.run_and_wait(|_| panic!("on purpose")),
        Err::<(), _>(Gone::Panicked)
    );
    home.join().unwrap();
}

/// Case 14: jobs move between contexts on five threads. No job is lost or runs twice.
#[test]
fn w2_jobs_hop_between_contexts() {
    const HOPS: u32 = 20_000;
    let seed = aio_testing::seed();
    let (tell, hear) = mpsc::channel::<Remote>();
    let stop = Arc::new(AtomicBool::new(false));
    let homes: Vec<_> = (0..5)
        .map(|_| {
            let (tell, stop) = (tell.clone(), stop.clone());
            thread::spawn(move || {
                let cx = Context::new().unwrap();
                tell.send(cx.remote()).unwrap();
                cx.wait_while(|| !stop.load(Ordering::Acquire)).unwrap();
            })
        })
        .collect();
    let remotes: Arc<Vec<Remote>> = Arc::new((0..5).map(|_| hear.recv().unwrap()).collect());
    let landed = Arc::new(AtomicU32::new(0));
    let (finished, all) = mpsc::channel();
    for task in 0..10 {
        let rng = fastrand::Rng::with_seed(seed.wrapping_add(task));
        hop(remotes.clone(), rng, HOPS / 10, landed.clone(), finished.clone());
    }
    for _ in 0..10 {
        all.recv().unwrap();
    }
    assert_eq!(landed.load(Ordering::Relaxed), HOPS);
    stop.store(true, Ordering::Release);
    remotes.iter().for_each(Remote::kick);
    for home in homes {
        home.join().unwrap();
    }
}

fn hop(
    remotes: Arc<Vec<Remote>>,
    mut rng: fastrand::Rng,
    left: u32,
    landed: Arc<AtomicU32>,
    finished: mpsc::Sender<()>,
) {
    if left == 0 {
        finished.send(()).unwrap();
        return;
    }
    let next = rng.usize(0..remotes.len());
    let all = remotes.clone();
    let job = move |_: &Context| {
        landed.fetch_add(1, Ordering::Relaxed);
        hop(all, rng, left - 1, landed, finished);
    };
    remotes[next].run(job).unwrap();
}

#[test]
fn w2_two_contexts_can_wait_for_each_other() {
    let (tell, hear) = mpsc::channel::<Remote>();
    let cx = Context::new().unwrap();
    let here = cx.remote();
    let other = thread::spawn(move || {
        let cx = Context::new().unwrap();
        tell.send(cx.remote()).unwrap();
        for number in 0..200 {
            assert_eq!(cx.run_on(&here, move |_| number + 1), Ok(number + 1));
        }
        cx.poll(Wait::NoBlock).unwrap();
    });
    let there = hear.recv().unwrap();
    let mut answers = 0;
    while cx.run_on(&there, |_| ()).is_ok() {
        answers += 1;
    }
    assert!(answers < u32::MAX);
    while !other.is_finished() {
        cx.poll(Wait::AtMost(std::time::Duration::from_millis(1)))
            .unwrap();
    }
    other.join().unwrap();
}
