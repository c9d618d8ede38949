//! P18: tasks. All executors run the same futures; the floor is smol's `async-executor`.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use aio_context::Context;
use aio_executor::{ContextExt, yield_now};

use crate::case::{Case, Run, timed};
use crate::deferred::Producer;

const BATCH: u64 = 1000;
/// Turns of two tasks in a unit of work.
const TURNS: u64 = 1000;
/// Wakes by another thread in a unit of work.
const MESSAGES: u64 = 10_000;

/// An executor of one thread, through its usual interface.
trait Executor: Sized + 'static {
    fn new() -> anyhow::Result<Self>;
    /// Spawns a task without a handle.
    fn spawn(&self, task: impl Future<Output = ()> + 'static);
    /// Runs tasks until `until` is done.
    fn block_on(&self, until: impl Future<Output = ()> + 'static);
}

struct Aio(Context);

impl Executor for Aio {
    fn new() -> anyhow::Result<Self> {
        Ok(Self(Context::new()?))
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.0.spawn(task).detach();
    }

    fn block_on(&self, until: impl Future<Output = ()> + 'static) {
        let _ = self.0.block_on(until);
    }
}

struct Smol(async_executor::LocalExecutor<'static>);

impl Executor for Smol {
    fn new() -> anyhow::Result<Self> {
        Ok(Self(async_executor::LocalExecutor::new()))
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.0.spawn(task).detach();
    }

    fn block_on(&self, until: impl Future<Output = ()> + 'static) {
        async_io::block_on(self.0.run(until));
    }
}

struct Tokio {
    runtime: tokio::runtime::Runtime,
    tasks: tokio::task::LocalSet,
}

impl Executor for Tokio {
    fn new() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let tasks = tokio::task::LocalSet::new();
        Ok(Self { runtime, tasks })
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        drop(self.tasks.spawn_local(task));
    }

    fn block_on(&self, until: impl Future<Output = ()> + 'static) {
        self.tasks.block_on(&self.runtime, until);
    }
}

struct Calloop {
    events: RefCell<calloop::EventLoop<'static, ()>>,
    scheduler: calloop::futures::Scheduler<()>,
}

impl Executor for Calloop {
    fn new() -> anyhow::Result<Self> {
        let events = calloop::EventLoop::try_new()?;
        let (executor, scheduler) = calloop::futures::executor()?;
        let inserted = events.handle().insert_source(executor, |(), _, _| {});
        inserted.map_err(|error| anyhow::anyhow!("{error}"))?;
        let events = RefCell::new(events);
        Ok(Self { events, scheduler })
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let _ = self.scheduler.schedule(task);
    }

    fn block_on(&self, until: impl Future<Output = ()> + 'static) {
        let is_done = Rc::new(Cell::new(false));
        let done = is_done.clone();
        self.spawn(async move {
            until.await;
            done.set(true);
        });
        while !is_done.get() {
            let _ = self.events.borrow_mut().dispatch(None, &mut ());
        }
    }
}

/// Wakes the main future after a number of tasks have passed.
#[derive(Default)]
struct Gate {
    left: Cell<u64>,
    waiting: Cell<Option<Waker>>,
}

impl Gate {
    fn close(self: &Rc<Self>, tasks: u64) -> impl Future<Output = ()> + 'static {
        self.left.set(tasks);
        let gate = self.clone();
        poll_fn(move |polling| {
            if gate.left.get() == 0 {
                return Poll::Ready(());
            }
            gate.waiting.set(Some(polling.waker().clone()));
            Poll::Pending
        })
    }

    fn pass(&self) {
        let left = self.left.get().saturating_sub(1);
        self.left.set(left);
        if left == 0
            && let Some(waker) = self.waiting.take()
        {
            waker.wake();
        }
    }
}

fn spawns<E: Executor>() -> anyhow::Result<Run> {
    let (executor, gate) = (E::new()?, Rc::new(Gate::default()));
    Ok(Box::new(move |times| {
        timed(times, || {
            let passed = gate.close(BATCH);
            for _ in 0..BATCH {
                let gate = gate.clone();
                executor.spawn(async move { gate.pass() });
            }
            executor.block_on(passed);
        })
    }))
}

/// Returns the wakers of tasks that pass the gate each time they are woken.
fn standing<E: Executor>(executor: &E, gate: &Rc<Gate>) -> Vec<Waker> {
    let wakers = Rc::new(RefCell::new(Vec::new()));
    let passed = gate.close(BATCH);
    for _ in 0..BATCH {
        let (gate, wakers, mut is_new) = (gate.clone(), wakers.clone(), true);
        executor.spawn(poll_fn(move |polling| {
            if std::mem::take(&mut is_new) {
                wakers.borrow_mut().push(polling.waker().clone());
            }
            gate.pass();
            Poll::Pending
        }));
    }
    executor.block_on(passed);
    wakers.take()
}

fn wakes_at_home<E: Executor>() -> anyhow::Result<Run> {
    let (executor, gate) = (E::new()?, Rc::new(Gate::default()));
    let wakers = standing(&executor, &gate);
    Ok(Box::new(move |times| {
        timed(times, || {
            let passed = gate.close(BATCH);
            wakers.iter().for_each(Waker::wake_by_ref);
            executor.block_on(passed);
        })
    }))
}

/// The loop does not sleep during the measurement. A sleep costs all executors the same, a hundred times the
/// rest.
fn wakes_from_elsewhere<E: Executor>() -> anyhow::Result<Run> {
    let (executor, gate) = (E::new()?, Rc::new(Gate::default()));
    let wakers = standing(&executor, &gate);
    let producer = Producer::new(move |number| wakers[(number % BATCH) as usize].wake_by_ref());
    Ok(Box::new(move |times| {
        timed(times, || {
            // A task that is woken again before it was polled is polled once.
            for _ in 0..MESSAGES / BATCH {
                drop(gate.close(BATCH));
                producer.ask_for(BATCH);
                let gate = gate.clone();
                executor.block_on(async move {
                    while gate.left.get() > 0 {
                        yield_now().await;
                    }
                });
            }
        })
    }))
}

/// Two tasks that wake each other.
#[derive(Default)]
struct Court {
    turn: Cell<usize>,
    waiting: [Cell<Option<Waker>>; 2],
}

async fn play(court: Rc<Court>, side: usize, gate: Rc<Gate>) {
    for _ in 0..TURNS {
        poll_fn(|polling| {
            if court.turn.get() == side {
                return Poll::Ready(());
            }
            court.waiting[side].set(Some(polling.waker().clone()));
            Poll::Pending
        })
        .await;
        court.turn.set(1 - side);
        if let Some(other) = court.waiting[1 - side].take() {
            other.wake();
        }
    }
    gate.pass();
}

fn ping_pong<E: Executor>() -> anyhow::Result<Run> {
    let (executor, gate) = (E::new()?, Rc::new(Gate::default()));
    let court = Rc::new(Court::default());
    Ok(Box::new(move |times| {
        timed(times, || {
            let passed = gate.close(2);
            for side in 0..2 {
                executor.spawn(play(court.clone(), side, gate.clone()));
            }
            executor.block_on(passed);
        })
    }))
}

/// Measures arming and cancelling a thousand timers.
fn timers<E: Executor, S: Future + 'static>(sleep: fn(Duration) -> S) -> anyhow::Result<Run> {
    let executor = E::new()?;
    Ok(Box::new(move |times| {
        timed(times, || {
            executor.block_on(async move {
                let mut sleeps: Vec<Pin<Box<S>>> = Vec::with_capacity(BATCH as usize);
                for number in 0..BATCH {
                    let delay = Duration::from_secs(1000) + Duration::from_micros(number * 617 % BATCH);
                    sleeps.push(Box::pin(sleep(delay)));
                }
                poll_fn(|polling| {
                    for sleep in &mut sleeps {
                        assert!(sleep.as_mut().poll(polling).is_pending());
                    }
                    Poll::Ready(())
                })
                .await;
            });
        })
    }))
}

/// calloop has no timer that is a future, so this stores the timers themselves.
fn calloop_timers() -> anyhow::Result<Run> {
    use calloop::timer::{TimeoutAction, Timer};
    let executor = Calloop::new()?;
    let handle = executor.events.borrow().handle();
    Ok(Box::new(move |times| {
        let _loop = &executor;
        timed(times, || {
            let mut tokens = Vec::with_capacity(BATCH as usize);
            for number in 0..BATCH {
                let delay = Duration::from_secs(1000) + Duration::from_micros(number * 617 % BATCH);
                let timer = Timer::from_duration(delay);
                tokens.extend(handle.insert_source(timer, |_, (), ()| TimeoutAction::Drop));
            }
            tokens.into_iter().for_each(|token| handle.remove(token));
        })
    }))
}

pub(crate) fn cases() -> Vec<Case> {
    let case = |workload, operations| Case::new("P18", workload, BATCH).operations(operations);
    vec![
        case("spawn", BATCH)
            .by("floor", spawns::<Smol>)
            .by("aio", spawns::<Aio>)
            .by("tokio", spawns::<Tokio>)
            .by("calloop", spawns::<Calloop>),
        case("wake at home", BATCH)
            .by("floor", wakes_at_home::<Smol>)
            .by("aio", wakes_at_home::<Aio>)
            .by("tokio", wakes_at_home::<Tokio>)
            .by("calloop", wakes_at_home::<Calloop>),
        case("cross wake", MESSAGES)
            .by("floor", wakes_from_elsewhere::<Smol>)
            .by("aio", wakes_from_elsewhere::<Aio>)
            .by("tokio", wakes_from_elsewhere::<Tokio>)
            .by("calloop", wakes_from_elsewhere::<Calloop>),
        case("ping-pong", 2 * TURNS)
            .by("floor", ping_pong::<Smol>)
            .by("aio", ping_pong::<Aio>)
            .by("tokio", ping_pong::<Tokio>)
            .by("calloop", ping_pong::<Calloop>),
        case("timers", BATCH)
            .by("floor", || timers::<Smol, _>(async_io::Timer::after))
            .by("aio", || timers::<Aio, _>(aio_executor::sleep))
            .by("tokio", || timers::<Tokio, _>(tokio::time::sleep))
            .by("calloop", calloop_timers),
    ]
}
