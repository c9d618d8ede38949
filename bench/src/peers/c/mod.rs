//! Event loops written in C, through their shared libraries, where the system has them: libev, libevent,
//! libuv, GLib.
//!
//! They are loaded when they are measured, so the build needs none of them. Their callbacks do the same work
//! as ours.

mod glib;
mod libev;
mod libevent;
mod library;
mod libuv;

use std::cell::Cell;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use self::library::{Bell, EXPIRED, Loop, Timers, Watch};
use crate::case::{Case, Run, timed};
use crate::load::{doorbell, doorbells, ring, spread};

type Make = fn() -> anyhow::Result<Box<dyn Loop>>;

/// The measured libraries, each with `true` if registering alone can be compared. libev and libuv register
/// with the kernel only in the next iteration, the others at once.
const PEERS: [(&str, Make, bool); 4] = [
    ("libev", libev::make, false),
    ("libevent", libevent::make, true),
    ("libuv", libuv::make, false),
    ("glib", glib::make, true),
];

/// A loop, its doorbells, and the state of its callbacks.
struct Belfry {
    // The first field, because it must be dropped before the others.
    it: Box<dyn Loop>,
    bells: Vec<Rc<OwnedFd>>,
    _state: Box<[Bell]>,
    count: Rc<Cell<u64>>,
}

impl Belfry {
    fn new(make: Make, n: u64) -> anyhow::Result<Self> {
        let (mut it, bells, count) = (make()?, doorbells(n)?, Rc::new(Cell::new(0)));
        let bell = |fd: &Rc<OwnedFd>| Bell {
            fd: fd.clone(),
            count: count.clone(),
        };
        let mut state: Box<[Bell]> = bells.iter().map(bell).collect();
        for (fd, bell) in bells.iter().zip(&mut state) {
            it.watch(fd.as_raw_fd(), std::ptr::from_mut(bell).cast());
        }
        Ok(Self {
            it,
            bells,
            _state: state,
            count,
        })
    }

    fn run_to(&mut self, goal: u64) {
        while self.count.get() < goal {
            self.it.iterate(true);
        }
    }
}

pub(super) fn self_kick(case: Case, n: u64) -> Case {
    PEERS.iter().fold(case, |case, (name, make, _)| {
        case.by(name, move || {
            let mut belfry = Belfry::new(*make, n + 1)?;
            let bell = belfry.bells[n as usize].clone();
            Ok(Box::new(move |times| {
                timed(times, || {
                    ring(&bell);
                    let goal = belfry.count.get() + 1;
                    belfry.run_to(goal);
                })
            }))
        })
    })
}

pub(super) fn dispatch(case: Case, k: u64, m: u64) -> Case {
    PEERS.iter().fold(case, |case, (name, make, _)| {
        case.by(name, move || {
            let mut belfry = Belfry::new(*make, m)?;
            let kicked = spread(&belfry.bells, k);
            Ok(Box::new(move |times| {
                timed(times, || {
                    kicked.iter().for_each(|bell| ring(bell));
                    let goal = belfry.count.get() + k;
                    belfry.run_to(goal);
                })
            }))
        })
    })
}

pub(super) fn empty(case: Case, n: u64) -> Case {
    PEERS.iter().fold(case, |case, (name, make, _)| {
        case.by(name, move || {
            let mut belfry = Belfry::new(*make, n)?;
            Ok(Box::new(move |times| {
                let it = &mut belfry;
                timed(times, || it.it.iterate(false))
            }))
        })
    })
}

pub(super) fn register(case: Case, n: u64) -> Case {
    let at_once = PEERS.iter().filter(|(_, _, at_once)| *at_once);
    at_once.fold(case, |case, (name, make, _)| {
        case.by(name, move || {
            let mut belfry = Belfry::new(*make, n)?;
            let fd = doorbell()?;
            let mut bell = Box::new(Bell {
                fd: fd.clone(),
                count: belfry.count.clone(),
            });
            Ok(Box::new(move |times| {
                let it = &mut belfry;
                let state = std::ptr::from_mut(&mut *bell).cast();
                timed(times, || {
                    let watch = it.it.watch(fd.as_raw_fd(), state);
                    it.it.unwatch(watch);
                })
            }))
        })
    })
}

/// Callbacks that any thread can request.
pub(super) fn deferred(case: Case, batch: u64) -> Case {
    case.by("libev", move || libev::deferred(batch))
}

pub(super) fn timers(case: Case, workload: &'static str, n: u64) -> Case {
    case.by("libev", move || Ok(timer_cycle(workload, n, libev::open()?)))
        .by("libevent", move || {
            Ok(timer_cycle(workload, n, libevent::open()?))
        })
}

/// A loop and its timers. Dropping it frees the timers: there can be a million.
struct Stock<T: Timers> {
    it: T,
    standing: Vec<Watch>,
    moving: Vec<Watch>,
}

impl<T: Timers> Drop for Stock<T> {
    fn drop(&mut self) {
        for timer in self.standing.drain(..).chain(self.moving.drain(..)) {
            self.it.cancel(timer);
            self.it.free(timer);
        }
    }
}

/// Measures only the named part of a cycle, as for ours.
fn timer_cycle(workload: &'static str, n: u64, mut it: impl Timers + 'static) -> Run {
    const STEP: usize = 64;
    let mut random = crate::load::random();
    let mut deadline = move || 1_000_000_000 + random.u64(..1_000_000);
    let standing: Vec<Watch> = (0..n).map(|_| it.make()).collect();
    let moving = (0..STEP).map(|_| it.make()).collect();
    for timer in &standing {
        it.arm(*timer, deadline());
    }
    let mut stock = Stock { it, standing, moving };
    let mut pick = fastrand::Rng::with_seed(11);
    Box::new(move |times| {
        let mut total = std::time::Duration::ZERO;
        for _ in 0..times {
            let Stock { it, standing, moving } = &mut stock;
            let deadlines: Vec<u64> = (0..STEP).map(|_| deadline()).collect();
            let some: Vec<Watch> = (0..STEP)
                .map(|_| standing[pick.usize(..standing.len())])
                .collect();
            if workload == "expire" {
                moving.iter().for_each(|timer| it.arm(*timer, 0));
                let before = EXPIRED.get();
                total += timed(1, || it.iterate(false));
                assert_eq!(EXPIRED.get() - before, STEP as u64);
                continue;
            }
            let mut arm_all = |timers: &[Watch]| {
                timed(1, || {
                    for (timer, at) in timers.iter().zip(&deadlines) {
                        it.arm(*timer, *at);
                    }
                })
            };
            if workload == "modify" {
                total += arm_all(&some);
                continue;
            }
            let armed = arm_all(moving);
            let cancelled = timed(1, || moving.iter().for_each(|timer| it.cancel(*timer)));
            total += if workload == "arm" { armed } else { cancelled };
        }
        total
    })
}
