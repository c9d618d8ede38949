//! Threads against a whole context, through `Remote`s and bottom halves.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aio_context::{BottomHalf, ClockId, Context, PollParams, Wait};
use anyhow::ensure;

use crate::crowd::{CROWD, against};

const EACH: u64 = 200;

/// Polls until `done`. Idle bottom halves and deletions are no progress, so a blocking poll continues after
/// them (D4). So each poll has a limit.
fn poll_until(cx: &Context, done: impl Fn() -> bool) -> anyhow::Result<()> {
    while !done() {
        cx.poll(Wait::AtMost(Duration::from_millis(1)))?;
    }
    Ok(())
}

/// Returns a context. In every second round it may poll before it waits.
fn context(round: u32) -> anyhow::Result<Context> {
    let cx = Context::new()?;
    if round % 2 == 1 {
        cx.set_poll_params(PollParams::up_to(Duration::from_micros(20)));
    }
    Ok(cx)
}

/// Sends jobs with data that the sender has written and the loop changes. Each job runs once.
pub(crate) fn jobs(round: u32) -> anyhow::Result<()> {
    let cx = context(round)?;
    let remote = cx.remote();
    let sum = Arc::new(AtomicU64::new(0));
    let send = |thread: usize| {
        for number in 0..EACH {
            let (mut cargo, sum) = (vec![thread as u64, number], sum.clone());
            let sent = remote.run(move |_| {
                cargo.push(1);
                sum.fetch_add(cargo[2], Ordering::Relaxed);
            });
            assert!(sent.is_ok(), "the context is there");
        }
    };
    against(send, || {
        poll_until(&cx, || sum.load(Ordering::Relaxed) == EACH * CROWD as u64)
    })
}

/// Bottom halves that other threads schedule, cancel and drop. Each runs after its last schedule.
pub(crate) fn bottom_halves(round: u32) -> anyhow::Result<()> {
    let cx = context(round)?;
    let goal: Vec<_> = (0..CROWD).map(|_| Arc::new(AtomicU64::new(0))).collect();
    let seen: Vec<_> = (0..CROWD).map(|_| Rc::new(Cell::new(0))).collect();
    let halves: Vec<BottomHalf> = goal
        .iter()
        .zip(&seen)
        .map(|(goal, seen)| {
            let (goal, seen) = (goal.clone(), seen.clone());
            cx.bottom_half("stress", move |_| seen.set(goal.load(Ordering::Relaxed)))
        })
        .collect();
    let work = |thread: usize| {
        let half = halves[thread].clone();
        let neighbour = halves[(thread + 1) % CROWD].clone();
        for number in 1..=EACH {
            goal[thread].store(number, Ordering::Relaxed);
            half.schedule();
            neighbour.schedule_idle();
        }
    };
    against(work, || {
        poll_until(&cx, || seen.iter().all(|seen| seen.get() == EACH))
    })?;
    // The last handles are dropped on other threads; their closures are freed at home.
    against(|thread| drop(halves[thread].clone()), || ());
    drop(halves);
    poll_until(&cx, || seen.iter().all(|seen| Rc::strong_count(seen) == 1))
}

/// A condition that other threads make true, followed by a kick.
pub(crate) fn kicks(round: u32) -> anyhow::Result<()> {
    let cx = context(round)?;
    let (remote, count) = (cx.remote(), AtomicU64::new(0));
    let work = |_| {
        for _ in 0..EACH {
            count.fetch_add(1, Ordering::Relaxed);
            remote.kick();
        }
    };
    against(work, || {
        for goal in (0..=EACH * CROWD as u64).step_by(50) {
            cx.wait_while(|| count.load(Ordering::Relaxed) < goal)?;
        }
        Ok(())
    })
}

/// Parameters, figures and the virtual clock. All threads use them while the loop runs.
pub(crate) fn knobs(round: u32) -> anyhow::Result<()> {
    let cx = context(round)?;
    let (remote, clock) = (cx.remote(), cx.virtual_clock());
    let fired = Rc::new(Cell::new(0u32));
    let count = fired.clone();
    let timer = cx
        .timer(ClockId::Virtual, move |_, timer| {
            count.set(count.get() + 1);
            timer.arm_after(Duration::from_micros(50));
        })
        .disarmed();
    timer.arm_after(Duration::from_micros(1));
    let done = AtomicU64::new(0);
    let work = |thread: usize| {
        for number in 0..EACH / 4 {
            match thread {
                0 => remote.set_poll_params(PollParams::up_to(Duration::from_micros(number % 8))),
                1 => {
                    clock.stop();
                    clock.start();
                }
                _ => drop((remote.stats(), remote.wakeups(), remote.notify())),
            }
        }
        done.fetch_add(1, Ordering::Relaxed);
        remote.kick();
    };
    against(work, || {
        cx.wait_while(|| done.load(Ordering::Relaxed) < CROWD as u64)
    })?;
    poll_until(&cx, || fired.get() > 2)?;
    ensure!(remote.stats().iterations > 0, "nothing was counted");
    Ok(())
}

/// A context that is dropped while others still send. Each job runs or is dropped, and later calls return an
/// error.
pub(crate) fn goes_first(round: u32) -> anyhow::Result<()> {
    let cx = context(round)?;
    let (remote, half) = (cx.remote(), cx.bottom_half("outlives it", |_| {}));
    let probe = Arc::new(AtomicU64::new(0));
    let work = |_| {
        for number in 0..EACH {
            let mine = probe.clone();
            let cargo = Box::new([1, number]);
            let sent = remote.run(move |_| {
                mine.fetch_add(cargo[0], Ordering::Relaxed);
            });
            half.schedule();
            if sent.is_err() {
                remote.notify();
            }
        }
    };
    against(work, || {
        poll_until(&cx, || probe.load(Ordering::Relaxed) >= u64::from(round % 64))?;
        drop(cx);
        anyhow::Ok(())
    })?;
    ensure!(Arc::strong_count(&probe) == 1, "a job outlived its context");
    ensure!(remote.run(|_| {}).is_err(), "it is gone");
    Ok(())
}
