//! P2 and P4 for sources that need no descriptor, or no read: doorbell boards and doorbells.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aio_context::{Context, Interest, PollParams, Wait};
use aio_sources::{Doorbell, DoorbellBoard};
use rustix::fd::OwnedFd;

use crate::case::{Case, timed};
use crate::floor::Epoll;
use crate::load::{doorbells, ring, spread};
use crate::ours::Always;
use crate::waiting::PolledLoop;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = [100, 1000, 3200, 10_000].into_iter().map(board).collect();
    for (k, m) in [(100, 1000), (1000, 1000), (100, 10_000), (1000, 10_000)] {
        cases.push(without_reads(k, m));
    }
    cases
}

/// Rings one of `n` sources of a board, which a loop that polls finds. The floor is an iteration that finds a raised flag of a handler,
/// and a bare scan of an equally large bitmap.
fn board(n: u64) -> Case {
    Case::new("P2", "board", n)
        .by("floor", move || {
            let words: Vec<AtomicU64> = (0..n.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
            let (mut count, mut source) = (0u64, 0u64);
            let iteration = PolledLoop::new(0, Interest::NONE)?;
            Ok(Box::new(move |times| {
                let took = timed(times, || {
                    iteration.raise_and_poll();
                    source = (source + 617) % n;
                    words[(source / 64) as usize].fetch_or(1 << (source % 64), Ordering::Release);
                    for word in &words {
                        if word.load(Ordering::Relaxed) != 0 {
                            count += u64::from(word.swap(0, Ordering::Acquire).count_ones());
                        }
                    }
                });
                assert!(count > 0);
                took
            }))
        })
        .by("aio", move || {
            let cx = Context::builder()
                .policy(Box::new(Always))
                .poll_params(PollParams::up_to(Duration::from_millis(1)))
                .build()?;
            let count = Rc::new(Cell::new(0u64));
            let served = count.clone();
            let board = DoorbellBoard::new(&cx, n as usize, move |_, _| served.set(served.get() + 1));
            let bells: Vec<_> = (0..n as usize).map(|source| board.bell(source)).collect();
            // The loop is in poll mode from now on.
            let _ = cx.poll(Wait::AtMost(Duration::from_micros(1)));
            let mut source = 0u64;
            Ok(Box::new(move |times| {
                let (_board, before) = (&board, count.get());
                let took = timed(times, || {
                    source = (source + 617) % n;
                    bells[source as usize].ring();
                    let _ = cx.poll(Wait::Block);
                });
                assert_eq!(count.get() - before, times);
                took
            }))
        })
}

/// The dispatch of `k` rings of `m` descriptors, without the rings themselves. The floor reads each eventfd;
/// a doorbell is not read.
fn without_reads(k: u64, m: u64) -> Case {
    Case::new("P4", format!("K={k} doorbells"), m)
        .operations(k)
        .by("floor", move || {
            let mut floor = Epoll::new(doorbells(m)?, 1024)?;
            let kicked: Vec<Rc<OwnedFd>> = spread(&floor.fds, k);
            Ok(Box::new(move |times| {
                let mut total = Duration::ZERO;
                for _ in 0..times {
                    kicked.iter().for_each(|bell| ring(bell));
                    let goal = floor.count + k;
                    total += timed(1, || {
                        while floor.count < goal {
                            floor.iterate(true);
                        }
                    });
                }
                total
            }))
        })
        .by("aio", move || {
            let cx = Context::new()?;
            let count = Rc::new(Cell::new(0u64));
            let (mut bells, mut registrations) = (Vec::new(), Vec::new());
            for _ in 0..m {
                let (bell, served) = (Doorbell::new()?, count.clone());
                registrations.push(bell.watch(&cx, move |_| served.set(served.get() + 1))?);
                bells.push(bell);
            }
            let step = (m / k).max(1) as usize;
            let kicked: Vec<Doorbell> = bells.iter().step_by(step).take(k as usize).cloned().collect();
            Ok(Box::new(move |times| {
                let _whole = (&bells, &registrations);
                let mut total = Duration::ZERO;
                for _ in 0..times {
                    for bell in &kicked {
                        let _ = bell.ring();
                    }
                    let goal = count.get() + k;
                    total += timed(1, || {
                        while count.get() < goal {
                            let _ = cx.poll(Wait::Block);
                        }
                    });
                }
                total
            }))
        })
}
