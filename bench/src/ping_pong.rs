//! P13: a round trip between two threads, asleep or polling.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use aio_context::{Context, PollParams, Wait};
use aio_sources::{DoorbellBoard, IoThread};

use crate::case::{Case, Run, timed};
use crate::floor::Epoll;
use crate::load::{doorbell, ring};
use crate::ours::{Always, Loop};

/// Long enough for an answer to arrive, short enough not to disturb the other contestants between two turns.
const POLL_MAX: Duration = Duration::from_millis(1);

/// P13: a round trip between two threads.
pub(crate) fn ping_pong() -> Vec<Case> {
    vec![
        Case::new("P13", "ping-pong blocking", 1)
            .by("floor", blocking_floor)
            .by("aio", || echoed_by_ours().and_then(Echo::run_blocking_ours)),
        Case::new("P13", "ping-pong polling", 1)
            .by("floor", || Ok(cache_line()))
            .by("aio", polling_ours),
    ]
}

/// Two bare epoll loops that wake each other.
pub(crate) fn blocking_floor() -> anyhow::Result<Run> {
    echoed_by_floor().map(Echo::run_blocking_floor)
}

/// A thread that answers each ping.
struct Echo {
    ping: Arc<OwnedFd>,
    pong: Arc<OwnedFd>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        ring(&self.ping);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn shared_bell() -> anyhow::Result<Arc<OwnedFd>> {
    Ok(Arc::new(doorbell()?.try_clone()?))
}

fn echo(
    body: impl FnOnce(Arc<OwnedFd>, Arc<OwnedFd>, Arc<AtomicBool>) + Send + 'static,
) -> anyhow::Result<Echo> {
    let (ping, pong) = (shared_bell()?, shared_bell()?);
    let stop: Arc<AtomicBool> = Arc::default();
    let thread = std::thread::spawn({
        let (ping, pong, stop) = (ping.clone(), pong.clone(), stop.clone());
        move || body(ping, pong, stop)
    });
    Ok(Echo {
        ping,
        pong,
        stop,
        thread: Some(thread),
    })
}

fn own(fd: &Arc<OwnedFd>) -> anyhow::Result<Vec<Rc<OwnedFd>>> {
    Ok(vec![Rc::new(fd.try_clone()?)])
}

fn echoed_by_floor() -> anyhow::Result<Echo> {
    echo(|ping, pong, stop| {
        let Ok(mut floor) = own(&ping).and_then(|fds| Epoll::new(fds, 64)) else {
            return;
        };
        while !stop.load(Ordering::Acquire) {
            floor.iterate(true);
            ring(&pong);
        }
    })
}

fn echoed_by_ours() -> anyhow::Result<Echo> {
    echo(|ping, pong, stop| {
        let Ok(ours) = own(&ping).and_then(Loop::new) else {
            return;
        };
        while !stop.load(Ordering::Acquire) {
            ours.poll(Wait::Block);
            ring(&pong);
        }
    })
}

impl Echo {
    fn run_blocking_floor(self) -> Run {
        let fds = own(&self.pong).unwrap_or_default();
        let mut floor = Epoll::new(fds, 64).ok();
        Box::new(move |times| {
            timed(times, || {
                ring(&self.ping);
                if let Some(floor) = &mut floor {
                    floor.iterate(true);
                }
            })
        })
    }

    fn run_blocking_ours(self) -> anyhow::Result<Run> {
        let ours = Loop::new(own(&self.pong)?)?;
        Ok(Box::new(move |times| {
            timed(times, || {
                ring(&self.ping);
                ours.poll(Wait::Block);
            })
        }))
    }
}

/// Two contexts that poll, and ring each other's boards.
fn polling_ours() -> anyhow::Result<Run> {
    let make = || {
        Context::builder()
            .policy(Box::new(Always))
            .poll_params(PollParams::up_to(POLL_MAX))
            .build()
    };
    let cx = make()?;
    let pongs = Rc::new(Cell::new(0u64));
    let count = pongs.clone();
    let board = DoorbellBoard::new(&cx, 1, move |_, _| count.set(count.get() + 1));
    let pong = board.bell(0);
    let (send, receive) = mpsc::channel();
    let echo = IoThread::builder().context(make).spawn(move |cx| {
        let board = DoorbellBoard::new(cx, 1, move |_, _| pong.ring());
        let _ = send.send(board.bell(0));
        Ok(board)
    })?;
    let ping = receive.recv()?;
    Ok(Box::new(move |times| {
        let _whole = (&board, &echo);
        timed(times, || {
            let goal = pongs.get() + 1;
            ping.ring();
            while pongs.get() < goal {
                let _ = cx.poll(Wait::Block);
            }
        })
    }))
}

/// A round trip of a bare cache line.
fn cache_line() -> Run {
    struct Line {
        ping: Arc<AtomicU64>,
        pong: Arc<AtomicU64>,
        thread: Option<std::thread::JoinHandle<()>>,
    }
    impl Drop for Line {
        fn drop(&mut self) {
            self.ping.store(u64::MAX, Ordering::Release);
            if let Some(thread) = self.thread.take() {
                let _ = thread.join();
            }
        }
    }
    let (ping, pong) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (theirs, answer) = (ping.clone(), pong.clone());
    // If the thread always spun, it would disturb the other contestants. So it naps while nothing arrives.
    let thread = std::thread::spawn(move || {
        let mut rounds = 0u32;
        loop {
            let seen = theirs.load(Ordering::Acquire);
            if seen == u64::MAX {
                return;
            }
            if answer.load(Ordering::Relaxed) != seen {
                answer.store(seen, Ordering::Release);
                rounds = 0;
            }
            std::hint::spin_loop();
            rounds += 1;
            if rounds > 100_000 {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    });
    let line = Line {
        ping,
        pong,
        thread: Some(thread),
    };
    let mut sent = 0;
    Box::new(move |times| {
        timed(times, || {
            sent += 1;
            line.ping.store(sent, Ordering::Release);
            while line.pong.load(Ordering::Acquire) != sent {
                std::hint::spin_loop();
            }
        })
    })
}
