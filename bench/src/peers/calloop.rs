//! calloop: an event loop with sources, callbacks, timers and idle callbacks.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use calloop::generic::Generic;
use calloop::timer::{TimeoutAction, Timer};
use calloop::{EventLoop, Interest, LoopHandle, Mode, PostAction, RegistrationToken};

use crate::case::{Run, timed};
use crate::load::{Watches, doorbell, doorbells, drain};

/// A shared descriptor.
struct Bell(Rc<OwnedFd>);

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

pub(super) struct Loop {
    events: EventLoop<'static, u64>,
    bells: Vec<Rc<OwnedFd>>,
    count: u64,
}

fn watch(handle: &LoopHandle<'static, u64>, bell: &Rc<OwnedFd>) -> anyhow::Result<RegistrationToken> {
    let source = Generic::new(Bell(bell.clone()), Interest::READ, Mode::Level);
    let inserted = handle.insert_source(source, |_, bell, count| {
        drain(&bell.0);
        *count += 1;
        Ok(PostAction::Continue)
    });
    inserted.map_err(|error| anyhow::anyhow!("{error}"))
}

impl Loop {
    pub(super) fn new(n: u64) -> anyhow::Result<Self> {
        let (events, bells) = (EventLoop::try_new()?, doorbells(n)?);
        for bell in &bells {
            watch(&events.handle(), bell)?;
        }
        Ok(Self {
            events,
            bells,
            count: 0,
        })
    }
}

impl Watches for Loop {
    fn bells(&self) -> &[Rc<OwnedFd>] {
        &self.bells
    }

    fn count(&self) -> u64 {
        self.count
    }

    #[inline]
    fn iterate<const BLOCKS: bool>(&mut self) {
        let timeout = (!BLOCKS).then_some(Duration::ZERO);
        let _ = self.events.dispatch(timeout, &mut self.count);
    }
}

pub(super) fn register(n: u64) -> anyhow::Result<Run> {
    let it = Loop::new(n)?;
    let (handle, bell) = (it.events.handle(), doorbell()?);
    Ok(Box::new(move |times| {
        let _whole = &it;
        timed(times, || {
            if let Ok(token) = watch(&handle, &bell) {
                handle.remove(token);
            }
        })
    }))
}

pub(super) fn idle(batch: u64) -> anyhow::Result<Run> {
    let mut it = Loop::new(1)?;
    let handle = it.events.handle();
    Ok(Box::new(move |times| {
        timed(times, || {
            for _ in 0..batch {
                let _ = handle.insert_idle(|count| *count += 1);
            }
            it.iterate::<false>();
        })
    }))
}

/// To modify a timer is to remove it and to insert a new one.
pub(super) fn timers(workload: &'static str, n: u64) -> anyhow::Result<Run> {
    const STEP: usize = 64;
    let mut it = Loop::new(1)?;
    let handle = it.events.handle();
    let mut random = crate::load::random();
    let began = Instant::now();
    let mut arm = move || {
        let timer = Timer::from_deadline(
            began + Duration::from_secs(1000) + Duration::from_nanos(random.u64(..1_000_000_000)),
        );
        handle.insert_source(timer, |_, (), _| TimeoutAction::Drop).ok()
    };
    let mut standing: Vec<_> = (0..n).map(|_| arm()).collect();
    let mut pick = fastrand::Rng::with_seed(11);
    Ok(Box::new(move |times| {
        let handle = it.events.handle();
        let mut total = Duration::ZERO;
        for _ in 0..times {
            if workload == "modify" {
                let some: Vec<usize> = (0..STEP).map(|_| pick.usize(..standing.len())).collect();
                total += timed(1, || {
                    for at in &some {
                        if let Some(token) = standing[*at].take() {
                            handle.remove(token);
                        }
                        standing[*at] = arm();
                    }
                });
                continue;
            }
            if workload == "expire" {
                let before = it.count;
                for _ in 0..STEP {
                    let count = |_, (): &mut (), count: &mut u64| {
                        *count += 1;
                        TimeoutAction::Drop
                    };
                    let _ = handle.insert_source(Timer::from_deadline(began), count);
                }
                total += timed(1, || it.iterate::<false>());
                assert_eq!(it.count - before, STEP as u64);
                continue;
            }
            let mut moving = Vec::with_capacity(STEP);
            let armed = timed(1, || moving.extend((0..STEP).map(|_| arm())));
            let cancelled = timed(1, || {
                for token in moving.drain(..).flatten() {
                    handle.remove(token);
                }
            });
            total += if workload == "arm" { armed } else { cancelled };
        }
        total
    }))
}
