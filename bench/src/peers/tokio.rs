//! tokio on the current thread: tasks instead of callbacks.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

use crate::case::{Run, timed};
use crate::load::{doorbells, drain, ring, spread};

struct Loop {
    runtime: Runtime,
    tasks: LocalSet,
    bells: Vec<Rc<OwnedFd>>,
    count: Rc<Cell<u64>>,
    changed: Rc<tokio::sync::Notify>,
}

impl Loop {
    fn new(n: u64) -> anyhow::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let it = Self {
            runtime,
            tasks: LocalSet::new(),
            bells: doorbells(n)?,
            count: Rc::default(),
            changed: Rc::default(),
        };
        let _inside = it.runtime.enter();
        for bell in &it.bells {
            let (count, changed) = (it.count.clone(), it.changed.clone());
            let registered =
                // SAFETY: the task owns a descriptor of its own, which no other code closes.
                unsafe { AsyncFd::register(bell.try_clone()?) };
            let watched = registered?;
            it.tasks.spawn_local(async move {
                while let Ok(mut ready) = watched.readable().await {
                    drain(watched.get_ref());
                    ready.clear_ready();
                    count.set(count.get() + 1);
                    changed.notify_one();
                }
            });
        }
        drop(_inside);
        // Every task must have run once, so that it waits for its descriptor.
        it.tasks.block_on(&it.runtime, async {
            tokio::time::sleep(Duration::from_millis(1)).await;
        });
        Ok(it)
    }

    fn run_until(&self, goal: u64) {
        self.tasks.block_on(&self.runtime, async {
            while self.count.get() < goal {
                self.changed.notified().await;
            }
        });
    }
}

pub(super) fn self_kick(n: u64) -> anyhow::Result<Run> {
    let it = Loop::new(n + 1)?;
    let bell = it.bells[n as usize].clone();
    Ok(Box::new(move |times| {
        timed(times, || {
            ring(&bell);
            it.run_until(it.count.get() + 1);
        })
    }))
}

pub(super) fn dispatch(k: u64, m: u64) -> anyhow::Result<Run> {
    let it = Loop::new(m)?;
    let kicked = spread(&it.bells, k);
    Ok(Box::new(move |times| {
        timed(times, || {
            kicked.iter().for_each(|bell| ring(bell));
            it.run_until(it.count.get() + k);
        })
    }))
}

pub(super) fn spawned(batch: u64) -> anyhow::Result<Run> {
    let it = Loop::new(1)?;
    Ok(Box::new(move |times| {
        timed(times, || {
            let goal = it.count.get() + batch;
            for _ in 0..batch {
                let (count, changed) = (it.count.clone(), it.changed.clone());
                it.tasks.spawn_local(async move {
                    count.set(count.get() + 1);
                    changed.notify_one();
                });
            }
            it.run_until(goal);
        })
    }))
}

/// A timer is a future. To arm it is to poll it once, to cancel it is to drop it.
pub(super) fn timers(workload: &'static str, n: u64) -> anyhow::Result<Run> {
    const STEP: usize = 64;
    let it = Loop::new(1)?;
    let mut random = crate::load::random();
    let mut deadline = move || {
        tokio::time::Instant::now()
            + Duration::from_secs(1000)
            + Duration::from_nanos(random.u64(..1_000_000_000))
    };
    let mut standing = Vec::new();
    it.runtime.block_on(async {
        for _ in 0..n {
            let mut sleep = Box::pin(tokio::time::sleep_until(deadline()));
            poll_once(sleep.as_mut()).await;
            standing.push(sleep);
        }
    });
    let mut pick = fastrand::Rng::with_seed(11);
    Ok(Box::new(move |times| {
        let mut total = Duration::ZERO;
        it.runtime.block_on(async {
            for _ in 0..times {
                let deadlines: Vec<_> = (0..STEP).map(|_| deadline()).collect();
                if workload == "modify" {
                    let some: Vec<usize> = (0..STEP).map(|_| pick.usize(..standing.len())).collect();
                    let began = std::time::Instant::now();
                    for (at, deadline) in some.iter().zip(deadlines) {
                        standing[*at].as_mut().reset(deadline);
                    }
                    total += began.elapsed();
                    continue;
                }
                let mut moving = Vec::with_capacity(STEP);
                let began = std::time::Instant::now();
                for deadline in deadlines {
                    let mut sleep = Box::pin(tokio::time::sleep_until(deadline));
                    poll_once(sleep.as_mut()).await;
                    moving.push(sleep);
                }
                let armed = began.elapsed();
                let began = std::time::Instant::now();
                moving.clear();
                total += if workload == "arm" { armed } else { began.elapsed() };
            }
        });
        total
    }))
}

/// Registers the sleeper with the runtime's timers.
async fn poll_once(mut sleep: std::pin::Pin<&mut tokio::time::Sleep>) {
    std::future::poll_fn(|task| {
        let _ = std::future::Future::poll(sleep.as_mut(), task);
        std::task::Poll::Ready(())
    })
    .await;
}
