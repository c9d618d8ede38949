//! P2, P3, P4, P8: iterations of a loop: idle, kicked by itself, and busy.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use aio_context::{Builder, Context, Interest, PollParams, Polled, Registration, Wait};

use crate::case::{Case, Run, timed};
use crate::floor::Epoll;
use crate::floor_uring::Ring;
use crate::load::{self, doorbell, doorbells};
use crate::ours::{Always, Flag, Loop, on_uring};
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
pub(crate) struct PolledLoop {
    cx: Context,
    busy: Rc<Flag>,
    count: Rc<Cell<u64>>,
    _registrations: Vec<Registration>,
}

impl PolledLoop {
    pub(crate) fn new(n: u64, interest: Interest) -> anyhow::Result<Self> {
        Self::on(Self::builder().build()?, n, interest)
    }

    fn on_uring(n: u64, interest: Interest) -> anyhow::Result<Self> {
        Self::on(on_uring(Self::builder())?, n, interest)
    }

    fn builder() -> Builder {
        Context::builder()
            .policy(Box::new(Always))
            .poll_params(PollParams::up_to(Duration::from_millis(1)))
    }

    fn on(cx: Context, n: u64, interest: Interest) -> anyhow::Result<Self> {
        let count = Rc::new(Cell::new(0));
        let mut registrations = Vec::new();
        for _ in 0..n {
            let idle = Flag::new(doorbell()?, count.clone());
            registrations.push(cx.watch(Polled(idle), interest).map_err(std::io::Error::from)?);
        }
        let busy = Flag::new(doorbell()?, count.clone());
        registrations.push(
            cx.watch(Polled(busy.clone()), interest)
                .map_err(std::io::Error::from)?,
        );
        Ok(Self {
            cx,
            busy,
            count,
            _registrations: registrations,
        })
    }

    /// One iteration, which finds the busy flag raised.
    pub(crate) fn raise_and_poll(&self) {
        self.busy.raised.set(true);
        let _ = self.cx.poll(Wait::Block);
    }

    fn run(self) -> Run {
        Box::new(move |times| {
            let _whole = &self;
            let before = self.count.get();
            let took = timed(times, || self.raise_and_poll());
            assert_eq!(self.count.get() - before, times);
            took
        })
    }
}

/// The floor is ours without idle sources. The case shows that idle sources cost nothing after they are
/// demoted.
fn cooled(n: u64) -> Case {
    // Long enough for the idle ones to leave.
    let warmed = |polled: PolledLoop| {
        let mut run = polled.run();
        run(4000);
        run
    };
    let make = move |n| Ok(warmed(PolledLoop::new(n, Interest::READ)?));
    Case::new("P2", "cooled", n)
        .by("floor", move || make(0))
        .by("aio", move || make(n))
        .by("aio-uring", move || {
            Ok(warmed(PolledLoop::on_uring(n, Interest::READ)?))
        })
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
        .by("aio", move || Ok(PolledLoop::new(n, Interest::NONE)?.run()))
        .by("aio-uring", move || {
            Ok(PolledLoop::on_uring(n, Interest::NONE)?.run())
        })
}

fn self_kick(n: u64) -> Case {
    let bells = move || doorbells(n + 1);
    let case = Case::new("P3", "self-kick blocking", n)
        .by("floor", move || Ok(load::self_kick(Epoll::new(bells()?, 64)?)))
        .by("aio", move || Ok(load::self_kick(Loop::new(bells()?)?)))
        .by("floor-uring", move || Ok(load::self_kick(Ring::new(bells()?)?)))
        .by("aio-uring", move || {
            Ok(load::self_kick(Loop::on_uring(bells()?)?))
        });
    peers::self_kick(case, n)
}

fn dispatch(k: u64, m: u64) -> Case {
    let bells = move || doorbells(m);
    let case = Case::new("P4", format!("K={k}"), m)
        .operations(k)
        .by("floor", move || {
            Ok(load::dispatch(Epoll::new(bells()?, 1024)?, k))
        })
        .by("aio", move || Ok(load::dispatch(Loop::new(bells()?)?, k)))
        .by("floor-uring", move || Ok(load::dispatch(Ring::new(bells()?)?, k)))
        .by("aio-uring", move || {
            Ok(load::dispatch(Loop::on_uring(bells()?)?, k))
        });
    peers::dispatch(case, k, m)
}

fn empty(n: u64) -> Case {
    let bells = move || doorbells(n);
    let case = Case::new("P8", "empty", n)
        .by("floor", move || Ok(load::empty(Epoll::new(bells()?, 64)?)))
        .by("aio", move || Ok(load::empty(Loop::new(bells()?)?)))
        .by("floor-uring", move || Ok(load::empty(Ring::new(bells()?)?)))
        .by("aio-uring", move || Ok(load::empty(Loop::on_uring(bells()?)?)));
    peers::empty(case, n)
}
