//! Threads that wait for a loop, and loops that wait for each other.

use std::sync::Arc;

use aio_context::{Context, Gone, Remote, Wait};
use aio_schedules::Fake;
use aio_sources::IoThread;
use shuttle::sync::atomic::{AtomicU32, Ordering::SeqCst};
use shuttle::sync::mpsc;
use shuttle::thread;

use crate::{Crowd, Outcomes, Recorded};

static ANSWERED: Outcomes = Outcomes::none();
static ANSWERED_CONTEXTS: Outcomes = Outcomes::none();
static ANSWERED_BY_THREAD: Outcomes = Outcomes::none();

/// A wait returns the answer if its job ran, and otherwise the error that the context is gone.
fn waits_for_a_context_that_goes() {
    let cx = Fake::context();
    let kept = Arc::new(());
    let mut crowd = Crowd::of(&cx);
    for _ in 0..3 {
        let kept = kept.clone();
        crowd.add(move |remote| {
            let ran = Recorded::default();
            let job = {
                let (ran, kept) = (ran.clone(), kept.clone());
                move |_: &Context| {
                    ran.add(1);
                    Arc::strong_count(&kept)
                }
            };
            let answer = remote.run_and_wait(job);
            assert_eq!(ran.get(), u32::from(answer.is_ok()), "{answer:?}");
            ANSWERED.record(answer.is_ok());
        });
    }
    for _ in 0..2 {
        cx.poll(Wait::NoBlock).unwrap();
    }
    drop(cx);
    crowd.join();
    assert_eq!(Arc::strong_count(&kept), 1, "a job is left");
}

/// Runs two threads with a context each, which `call` the context of the other thread. Calls `meanwhile` with
/// both.
fn two_homes(call: fn(&Context, &Remote), meanwhile: impl FnOnce([Remote; 2])) {
    let left = Arc::new(AtomicU32::new(2));
    let (tell, heard) = mpsc::channel();
    let homes: Vec<_> = (0..2)
        .map(|_| {
            let (tell, left) = (tell.clone(), left.clone());
            let (meet, other) = mpsc::channel::<Remote>();
            thread::spawn(move || {
                let cx = Fake::context();
                tell.send((cx.remote(), meet)).unwrap();
                let other = other.recv().unwrap();
                call(&cx, &other);
                // Serves its own context until no thread needs it any more.
                left.fetch_sub(1, SeqCst);
                other.kick();
                cx.wait_while(|| left.load(SeqCst) > 0).unwrap();
            })
        })
        .collect();
    let ((first, meet_first), (second, meet_second)) = (heard.recv().unwrap(), heard.recv().unwrap());
    meet_first.send(second.clone()).unwrap();
    meet_second.send(first.clone()).unwrap();
    meanwhile([first, second]);
    homes.into_iter().for_each(|home| home.join().unwrap());
}

/// Two contexts call each other, while a third thread gives both some work.
fn two_contexts_that_wait_for_each_other() {
    let jobs = Recorded::default();
    let call = |cx: &Context, other: &Remote| {
        for number in 0..2 {
            let answer = cx.run_on(other, move |far| {
                assert!(!far.poll(Wait::NoBlock).unwrap() || number < 2);
                number
            });
            assert_eq!(answer, Ok(number));
        }
    };
    two_homes(call, |both| {
        for remote in both {
            let jobs = jobs.clone();
            let _ = remote.run(move |_| jobs.add(1));
            remote.notify();
        }
    });
    assert!(jobs.get() <= 2);
}

/// Two threads with a context each call each other with the function for threads without a context.
fn two_home_threads_that_wait_for_each_other() {
    let call = |_: &Context, other: &Remote| {
        for number in 0..2 {
            assert_eq!(other.run_and_wait(move |_| number), Ok(number));
        }
    };
    two_homes(call, drop);
}

/// A blocking poll continues after idle bottom halves, and misses neither a request to return nor work.
fn a_blocking_poll_beside_idle_bottom_halves() {
    let cx = Fake::context();
    let (idle, ran) = (Recorded::default(), Recorded::default());
    let half = {
        let idle = idle.clone();
        cx.bottom_half("idle", move |_| idle.add(1))
    };
    let done = Arc::new(AtomicU32::new(0));
    let mut crowd = Crowd::of(&cx);
    // The thread's end would wake the loop once more.
    let (set, by_job, _kept) = (done.clone(), ran.clone(), half.clone());
    crowd.add(move |remote| {
        half.schedule_idle();
        remote.run(move |_| by_job.add(1)).unwrap();
        half.schedule_idle();
        set.store(1, SeqCst);
        remote.notify();
    });
    while done.load(SeqCst) == 0 || ran.get() == 0 {
        cx.poll(Wait::Block).unwrap();
    }
    crowd.end(&cx);
    assert!(idle.get() <= 2);
}

/// Two contexts call a third one, which is dropped.
fn contexts_that_wait_for_one_that_goes() {
    let cx = Fake::context();
    let homes: Vec<_> = (0..2)
        .map(|_| {
            let other = cx.remote();
            thread::spawn(move || {
                let cx = Fake::context();
                let ran = Recorded::default();
                let answer = {
                    let ran = ran.clone();
                    cx.run_on(&other, move |_| ran.add(1))
                };
                assert_eq!(ran.get(), u32::from(answer.is_ok()), "{answer:?}");
                ANSWERED_CONTEXTS.record(answer.is_ok());
            })
        })
        .collect();
    for _ in 0..2 {
        cx.poll(Wait::NoBlock).unwrap();
    }
    drop(cx);
    for home in homes {
        home.join().unwrap();
    }
}

/// Other threads change a number and kick. A wait for it detects each change, also inside another wait.
fn kicks() {
    let cx = Fake::context();
    let count = Arc::new(AtomicU32::new(0));
    let mut crowd = Crowd::of(&cx);
    for _ in 0..2 {
        let count = count.clone();
        crowd.add(move |remote| {
            for _ in 0..2 {
                count.fetch_add(1, SeqCst);
                remote.kick();
            }
        });
    }
    let inner = count.clone();
    let waits_inside = cx.bottom_half("waits inside", move |cx| {
        cx.wait_while(|| inner.load(SeqCst) < 2).unwrap();
    });
    waits_inside.schedule();
    for goal in [1, 3, 4] {
        cx.wait_while(|| count.load(SeqCst) < goal).unwrap();
    }
    crowd.end(&cx);
}

/// A thread with a context is stopped while others wait for it. They get an answer or an error.
fn an_io_thread_that_is_stopped() {
    let kept = Arc::new(());
    let set_up = {
        let kept = kept.clone();
        move |cx: &Context| Ok(cx.bottom_half("set up", move |_| drop(kept.clone())))
    };
    let make = || Ok(Fake::context());
    let io = IoThread::builder().context(make).spawn(set_up).unwrap();
    let others: Vec<_> = (0..2)
        .map(|number| {
            let remote = io.remote();
            thread::spawn(move || {
                let answer = remote.run_and_wait(move |_| number);
                assert!(answer == Ok(number) || answer == Err(Gone::Dropped));
                ANSWERED_BY_THREAD.record(answer.is_ok());
            })
        })
        .collect();
    io.stop().unwrap();
    for other in others {
        other.join().unwrap();
    }
    assert_eq!(Arc::strong_count(&kept), 1, "the captured value is left");
}

crate::scenarios! {
    w2_a_wait_for_a_context_that_goes_returns_an_error => waits_for_a_context_that_goes with ANSWERED;
    w2_two_contexts_that_wait_for_each_other_are_answered => two_contexts_that_wait_for_each_other;
    w3_two_home_threads_that_wait_for_each_other_are_answered => two_home_threads_that_wait_for_each_other;
    d4_a_blocking_poll_misses_no_request_to_return => a_blocking_poll_beside_idle_bottom_halves;
    w2_contexts_that_wait_for_one_that_goes_get_an_error => contexts_that_wait_for_one_that_goes with ANSWERED_CONTEXTS;
    w1_no_kick_is_missed => kicks;
    w2_a_wait_for_a_thread_that_is_stopped_returns_an_error => an_io_thread_that_is_stopped with ANSWERED_BY_THREAD;
}

crate::faults! {
    w2_planted_left_open: LeftOpen in waits_for_a_context_that_goes;
    w2_planted_left_open_for_contexts: LeftOpen in contexts_that_wait_for_one_that_goes;
    w2_planted_kicked_before_answer: KickedBeforeAnswer in two_contexts_that_wait_for_each_other;
    w3_planted_kicked_before_answer: KickedBeforeAnswer in two_home_threads_that_wait_for_each_other;
    d4_planted_interrupt_counted_late: InterruptCountedLate in a_blocking_poll_beside_idle_bottom_halves;
    w1_planted_counted_late: CountedLate in kicks;
    w2_planted_woken_before_stopped: WokenBeforeStopped in an_io_thread_that_is_stopped;
}
