//! P2, P3, P4, P8, P13: iterations of a loop, idle, kicked by itself, busy, and between two threads.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use aio_context::{Context, Interest, PollParams, Registration, Wait};

use crate::case::{Case, Run, timed};
use crate::floor::{Epoll, doorbell, doorbells, drain, ring};
use crate::ours::{Always, Flag, Loop};
use crate::peers;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for n in [0, 100, 1000, 3200, 10_000] {
        cases.push(cooled(n));
    }
    for n in [100, 1000, 3200, 10_000] {
        cases.push(all_hot(n));
    }
    for n in [0, 1000] {
        cases.push(self_kick(n));
    }
    for (k, m) in [
        (1, 1000),
        (100, 1000),
        (1000, 1000),
        (1, 10_000),
        (100, 10_000),
        (1000, 10_000),
    ] {
        cases.push(dispatch(k, m));
    }
    for n in [1, 1000] {
        cases.push(empty(n));
    }
    cases
}

/// A context that polls one busy flag and `n` idle ones, which wait for descriptors too or not.
struct Polled {
    cx: Context,
    busy: Rc<Flag>,
    count: Rc<Cell<u64>>,
    _registrations: Vec<Registration>,
}

impl Polled {
    fn new(n: u64, interest: Interest) -> anyhow::Result<Self> {
        let cx = Context::builder()
            .policy(Box::new(Always))
            .poll_params(PollParams::up_to(Duration::from_millis(1)))
            .build()?;
        let count = Rc::new(Cell::new(0));
        let mut registrations = Vec::new();
        for _ in 0..n {
            let idle = Flag::new(doorbell()?, count.clone());
            registrations.push(cx.watch_polled(idle, interest)?);
        }
        let busy = Flag::new(doorbell()?, count.clone());
        registrations.push(cx.watch_polled(busy.clone(), interest)?);
        Ok(Self {
            cx,
            busy,
            count,
            _registrations: registrations,
        })
    }

    fn run(self) -> Run {
        Box::new(move |times| {
            let _whole = &self;
            let before = self.count.get();
            let took = timed(times, || {
                self.busy.raised.set(true);
                let _ = self.cx.poll(Wait::Block);
            });
            assert_eq!(self.count.get() - before, times);
            took
        })
    }
}

/// The floor is ours without idle sources: what is measured is that they cost nothing once they have cooled down.
fn cooled(n: u64) -> Case {
    let make = move |n| {
        let polled = Polled::new(n, Interest::READ)?;
        // Long enough for the idle ones to leave.
        let mut run = polled.run();
        run(4000);
        Ok(run)
    };
    Case::new("P2", "cooled", n)
        .by("floor", move || make(0))
        .by("aio", move || make(n))
}

fn all_hot(n: u64) -> Case {
    Case::new("P2", "all hot", n)
        .by("floor", move || {
            type Ask = fn(&Cell<bool>) -> bool;
            let ask: Ask = Cell::get;
            let mut sources: Vec<(Ask, Rc<Cell<bool>>)> = (0..n).map(|_| (ask, Rc::default())).collect();
            let busy = Rc::new(Cell::new(false));
            sources.push((ask, busy.clone()));
            let sources = std::hint::black_box(sources);
            let mut count = 0u64;
            Ok(Box::new(move |times| {
                timed(times, || {
                    busy.set(true);
                    for (ask, flag) in &sources {
                        if ask(flag) {
                            flag.set(false);
                            count += 1;
                        }
                    }
                })
            }))
        })
        .by("aio", move || Ok(Polled::new(n, Interest::NONE)?.run()))
}

fn self_kick(n: u64) -> Case {
    let bells = move || doorbells(n + 1);
    let case = Case::new("P3", "self-kick blocking", n)
        .by("floor", move || {
            let mut floor = Epoll::new(bells()?, 64)?;
            let bell = floor.fds[n as usize].clone();
            Ok(Box::new(move |times| {
                timed(times, || {
                    ring(&bell);
                    floor.iterate(true);
                })
            }))
        })
        .by("aio", move || {
            let ours = Loop::new(bells()?)?;
            let bell = ours.bells[n as usize].clone();
            Ok(Box::new(move |times| {
                timed(times, || {
                    ring(&bell);
                    ours.poll(Wait::Block);
                })
            }))
        });
    peers::self_kick(case, n)
}

fn dispatch(k: u64, m: u64) -> Case {
    let case = Case::new("P4", format!("K={k}"), m)
        .operations(k)
        .by("floor", move || {
            let mut floor = Epoll::new(doorbells(m)?, 1024)?;
            let kicked: Vec<Rc<OwnedFd>> = spread(&floor.fds, k);
            Ok(Box::new(move |times| {
                timed(times, || {
                    kicked.iter().for_each(|bell| ring(bell));
                    let goal = floor.count + k;
                    while floor.count < goal {
                        floor.iterate(true);
                    }
                })
            }))
        })
        .by("aio", move || {
            let ours = Loop::new(doorbells(m)?)?;
            let kicked: Vec<Rc<OwnedFd>> = spread(&ours.bells, k);
            Ok(Box::new(move |times| {
                timed(times, || {
                    kicked.iter().for_each(|bell| ring(bell));
                    let goal = ours.count.get() + k;
                    while ours.count.get() < goal {
                        ours.poll(Wait::Block);
                    }
                })
            }))
        });
    peers::dispatch(case, k, m)
}

/// `k` of them, evenly spread.
pub(crate) fn spread(bells: &[Rc<OwnedFd>], k: u64) -> Vec<Rc<OwnedFd>> {
    let step = (bells.len() as u64 / k).max(1) as usize;
    bells.iter().step_by(step).take(k as usize).cloned().collect()
}

fn empty(n: u64) -> Case {
    let case = Case::new("P8", "empty", n)
        .by("floor", move || {
            let mut floor = Epoll::new(doorbells(n)?, 64)?;
            Ok(Box::new(move |times| {
                timed(times, || {
                    floor.iterate(false);
                })
            }))
        })
        .by("aio", move || {
            let ours = Loop::new(doorbells(n)?)?;
            Ok(Box::new(move |times| {
                timed(times, || {
                    ours.poll(Wait::NoBlock);
                })
            }))
        });
    peers::empty(case, n)
}

/// P13: there and back between two threads.
pub(crate) fn ping_pong() -> Vec<Case> {
    vec![
        Case::new("P13", "ping-pong blocking", 1)
            .by("floor", blocking_floor)
            .by("aio", || {
                echoed_by_ours(None).and_then(|echo| echo.run_blocking_ours())
            }),
        Case::new("P13", "ping-pong polling", 1)
            .by("floor", || Ok(cache_line()))
            .by("aio", || {
                echoed_by_ours(Some(Duration::from_secs(1))).and_then(Echo::run_polling_ours)
            }),
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
    /// For the polling ones: counters instead of descriptors.
    pings: Arc<AtomicU64>,
    pongs: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        ring(&self.ping);
        self.pings.fetch_add(1, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn shared_bell() -> anyhow::Result<Arc<OwnedFd>> {
    Ok(Arc::new(doorbell()?.try_clone()?))
}

fn echo(
    body: impl FnOnce(Arc<OwnedFd>, Arc<OwnedFd>, Arc<AtomicU64>, Arc<AtomicU64>, Arc<AtomicBool>)
    + Send
    + 'static,
) -> anyhow::Result<Echo> {
    let (ping, pong) = (shared_bell()?, shared_bell()?);
    let (pings, pongs, stop) = (Arc::default(), Arc::default(), Arc::default());
    let thread = std::thread::spawn({
        let (ping, pong) = (ping.clone(), pong.clone());
        let (pings, pongs, stop) = (Arc::clone(&pings), Arc::clone(&pongs), Arc::clone(&stop));
        move || body(ping, pong, pings, pongs, stop)
    });
    Ok(Echo {
        ping,
        pong,
        pings,
        pongs,
        stop,
        thread: Some(thread),
    })
}

fn own(fd: &Arc<OwnedFd>) -> anyhow::Result<Vec<Rc<OwnedFd>>> {
    Ok(vec![Rc::new(fd.try_clone()?)])
}

fn echoed_by_floor() -> anyhow::Result<Echo> {
    echo(|ping, pong, _, _, stop| {
        let Ok(mut floor) = own(&ping).and_then(|fds| Epoll::new(fds, 64)) else {
            return;
        };
        while !stop.load(Ordering::Acquire) {
            floor.iterate(true);
            ring(&pong);
        }
    })
}

fn echoed_by_ours(poll_max: Option<Duration>) -> anyhow::Result<Echo> {
    echo(move |ping, pong, pings, pongs, stop| {
        let served = match poll_max {
            None => own(&ping).and_then(Loop::new).map(|ours| {
                while !stop.load(Ordering::Acquire) {
                    ours.poll(Wait::Block);
                    ring(&pong);
                }
            }),
            Some(max) => counter_loop(&ping, pings, max, move |seen| {
                pongs.store(seen, Ordering::Release)
            })
            .map(|(cx, _registration)| {
                while !stop.load(Ordering::Acquire) {
                    let _ = cx.poll(Wait::Block);
                }
            }),
        };
        if let Err(why) = served {
            eprintln!("{why:#}");
        }
    })
}

/// A context that polls a counter and tells of every change.
fn counter_loop(
    fd: &Arc<OwnedFd>,
    counter: Arc<AtomicU64>,
    poll_max: Duration,
    tell: impl Fn(u64) + 'static,
) -> anyhow::Result<(Context, Registration)> {
    let cx = Context::builder()
        .policy(Box::new(Always))
        .poll_params(PollParams::up_to(poll_max))
        .build()?;
    let watched = Counter {
        fd: Rc::new(fd.try_clone()?),
        counter,
        seen: Cell::new(0),
        tell: Box::new(tell),
    };
    let registration = cx.watch_polled(Rc::new(watched), Interest::READ)?;
    Ok((cx, registration))
}

struct Counter {
    fd: Rc<OwnedFd>,
    counter: Arc<AtomicU64>,
    seen: Cell<u64>,
    tell: Box<dyn Fn(u64)>,
}

impl std::os::fd::AsFd for Counter {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl aio_context::Handler for Counter {
    fn readable(&self, _: &Context) {
        drain(&self.fd);
    }
}

impl aio_context::Pollable for Counter {
    #[inline]
    fn poll(&self) -> bool {
        self.counter.load(Ordering::Acquire) != self.seen.get()
    }

    fn poll_ready(&self, _: &Context) {
        let seen = self.counter.load(Ordering::Acquire);
        self.seen.set(seen);
        (self.tell)(seen);
    }
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

    fn run_polling_ours(self) -> anyhow::Result<Run> {
        let told = Rc::new(Cell::new(0));
        let (cx, registration) = {
            let told = told.clone();
            counter_loop(
                &self.pong,
                self.pongs.clone(),
                Duration::from_secs(1),
                move |seen| told.set(seen),
            )?
        };
        let mut sent = 0;
        Ok(Box::new(move |times| {
            let _whole = &registration;
            timed(times, || {
                sent += 1;
                self.pings.store(sent, Ordering::Release);
                while told.get() != sent {
                    let _ = cx.poll(Wait::Block);
                }
            })
        }))
    }
}

/// A bare cache line that goes there and back.
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
    // It would disturb the other contestants if it spun all the time: it naps while nothing comes.
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
