//! E1: neither a wake nor the poll that it causes allocates. A spawn allocates twice: the future, and the
//! state that it shares with its handle.
//!
//! The first rounds of each case may allocate: buffers grow to the size that the case needs.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../../aio-context/tests/counting/mod.rs"]
mod counting;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::mpsc;
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use aio_backend_epoll::Epoll;
use aio_backend_ppoll::Ppoll;
use aio_context::{Backend, ClockId, Context, Moment, PollParams, Wait};
use aio_executor::{AsyncFd, ContextExt, Sleep, current, yield_now};

const WARM_UP: u32 = 20;
const ROUNDS: u32 = 200;

/// Runs a case with contexts on each backend, without and with polling. (A ladder allocates when it climbs.)
fn on_each(case: impl Fn(&Context)) {
    for params in [PollParams::OFF, PollParams::up_to(Duration::from_micros(32))] {
        let backends: [Box<dyn Backend>; 2] = [Box::new(Ppoll::new()), Box::new(Epoll::new().unwrap())];
        for backend in backends {
            println!("{} {params:?}", backend.name());
            let builder = Context::builder().backend(backend).poll_params(params);
            case(&builder.build().unwrap());
        }
    }
}

/// Returns the allocations of this thread in `ROUNDS` calls of `round`.
fn calls_in(mut round: impl FnMut()) -> u64 {
    (0..WARM_UP).for_each(|_| round());
    let before = counting::calls();
    (0..ROUNDS).for_each(|_| round());
    counting::calls() - before
}

/// Spawns tasks that count their polls. Returns their wakers and the count.
fn standing(cx: &Context, count: u64) -> (Vec<Waker>, Rc<Cell<u64>>) {
    let (wakers, polls) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(0)));
    for _ in 0..count {
        let (wakers, polls, mut is_new) = (wakers.clone(), polls.clone(), true);
        cx.spawn(poll_fn(move |polling| {
            if std::mem::take(&mut is_new) {
                wakers.borrow_mut().push(polling.waker().clone());
            }
            polls.set(polls.get() + 1);
            Poll::<()>::Pending
        }))
        .detach();
    }
    while polls.get() < count {
        cx.poll(Wait::Block).unwrap();
    }
    (wakers.take(), polls)
}

#[test]
fn e1_a_wake_and_its_poll_allocate_nothing() {
    on_each(|cx| {
        let (wakers, polls) = standing(cx, 100);
        let mut rounds = 1;
        let calls = calls_in(|| {
            rounds += 1;
            for waker in &wakers {
                waker.wake_by_ref();
                let clone = waker.clone();
                drop(clone);
            }
            while polls.get() < rounds * 100 {
                cx.poll(Wait::Block).unwrap();
            }
        });
        assert_eq!(calls, 0);
    });
}

#[test]
fn e1_a_wake_by_another_thread_allocates_nothing() {
    on_each(|cx| {
        let (wakers, polls) = standing(cx, 100);
        let (go, goes) = mpsc::sync_channel::<()>(0);
        let other = thread::spawn(move || {
            let mut calls = 0;
            while goes.recv().is_ok() {
                let before = counting::calls();
                wakers.iter().for_each(Waker::wake_by_ref);
                calls += counting::calls() - before;
            }
            calls
        });
        let mut rounds = 1;
        for _ in 0..ROUNDS {
            rounds += 1;
            go.send(()).unwrap();
            while polls.get() < rounds * 100 {
                cx.poll(Wait::Block).unwrap();
            }
        }
        drop(go);
        assert_eq!(other.join().unwrap(), 0);
    });
}

#[test]
fn e1_yields_sleeps_and_readiness_allocate_nothing() {
    on_each(|cx| {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let ours = AsyncFd::new(cx, ours).unwrap();
        let rounds = Rc::new(Cell::new(0_u32));
        let counted = rounds.clone();
        let task = cx.spawn(async move {
            let mut nap = Sleep::new(&current(), ClockId::Monotonic, Moment::NEVER);
            loop {
                let mut byte = [0];
                ours.readable().await.unwrap();
                ours.read_with(|mut socket| socket.read(&mut byte)).await.unwrap();
                yield_now().await;
                nap.reset(Moment::ZERO);
                (&mut nap).await;
                counted.set(counted.get() + 1);
            }
        });
        let calls = calls_in(|| {
            let goal = rounds.get() + 1;
            theirs.write_all(b"x").unwrap();
            while rounds.get() < goal {
                cx.poll(Wait::Block).unwrap();
            }
        });
        assert_eq!(calls, 0);
        drop(task);
        cx.poll(Wait::Block).unwrap();
    });
}

#[test]
fn e1_a_spawn_allocates_the_future_and_what_the_handle_shares() {
    on_each(|cx| {
        let done = Rc::new(Cell::new(0));
        let calls = calls_in(|| {
            let goal = done.get() + 10;
            for _ in 0..10 {
                let done = done.clone();
                cx.spawn(async move { done.set(done.get() + 1) }).detach();
            }
            while done.get() < goal {
                cx.poll(Wait::Block).unwrap();
            }
        });
        assert_eq!(calls, u64::from(ROUNDS) * 10 * 2);
    });
}
