//! [`WorkerQueue`]: the work of a pool, and the threads that run it.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use aio_notify::HomeProcess;

use crate::worker_demand::{Demand, Role, WATCH};

/// The time after which a thread without work ends.
const IDLE: Duration = Duration::from_secs(10);

/// An item of work, which keeps its result for the home thread.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

pub(crate) struct WorkerQueue {
    process: HomeProcess,
    name: String,
    most: usize,
    state: Mutex<State>,
    /// Notified when a parked thread was called, or the queue is closed.
    called: Condvar,
    /// Notified when the queue is closed.
    closed: Condvar,
    /// Notifies the home thread that there are results.
    announce: Box<dyn Fn() + Send + Sync>,
}

struct State {
    jobs: VecDeque<Job>,
    demand: Demand,
    threads: usize,
    /// The number of threads that are parked and were not called.
    parked: usize,
    /// The number of calls that no parked thread has taken.
    calls: usize,
    is_closed: bool,
}

type Locked<'a> = MutexGuard<'a, State>;

impl WorkerQueue {
    pub(crate) fn new(name: &str, most: usize, announce: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            process: HomeProcess::here(),
            name: name.to_owned(),
            most,
            state: Mutex::new(State {
                jobs: VecDeque::new(),
                demand: Demand::new(),
                threads: 0,
                parked: 0,
                calls: 0,
                is_closed: false,
            }),
            called: Condvar::new(),
            closed: Condvar::new(),
            announce: Box::new(announce),
        }
    }

    /// Appends a job. Returns whether to call [`call_all`](Self::call_all) for it. If the queue is closed,
    /// the job is dropped.
    ///
    /// # Errors
    /// If there is no thread, and the system cannot start one. The job is then dropped.
    pub(crate) fn push(self: &Arc<Self>, job: Job) -> io::Result<bool> {
        let mut state = self.lock();
        if state.is_closed {
            return Ok(false);
        }
        state.jobs.push_back(job);
        // A started thread takes over no core, unlike a woken one.
        if state.parked == 0
            && self.needs_call(&state)
            && let Err(error) = self.call(&mut state)
            && state.threads == 0
        {
            let unserved = state.jobs.pop_back();
            drop(state);
            drop(unserved);
            return Err(error);
        }
        Ok(self.needs_call(&state))
    }

    /// Wakes or starts the threads that the jobs need.
    ///
    /// A woken thread may take over the core at once. Therefore a loop calls this after it has passed on all
    /// its work.
    pub(crate) fn call_all(self: &Arc<Self>) {
        let mut state = self.lock();
        let mut woken = 0;
        while self.needs_call(&state) {
            match self.call(&mut state) {
                Ok(wakes) => woken += usize::from(wakes),
                // There is at least one thread, which runs all jobs.
                Err(_) => break,
            }
        }
        drop(state);
        (0..woken).for_each(|_| self.called.notify_one());
    }

    /// Returns whether the jobs need one more thread, and one can be woken or started.
    fn needs_call(&self, state: &State) -> bool {
        let can_call = state.parked > 0 || state.threads < self.most;
        can_call && state.demand.needs_more(state.jobs.len())
    }

    /// Calls one more thread, which [is needed](Self::needs_call). Returns whether the caller must notify a
    /// parked thread. It does that without the lock, which that thread takes next.
    fn call(self: &Arc<Self>, state: &mut State) -> io::Result<bool> {
        let is_parked = state.parked > 0;
        if is_parked {
            state.parked -= 1;
            state.calls += 1;
        } else {
            self.start()?;
            state.threads += 1;
        }
        state.demand.call();
        Ok(is_parked)
    }

    fn start(self: &Arc<Self>) -> io::Result<()> {
        let queue = self.clone();
        thread::Builder::new()
            .name(self.name.clone())
            .spawn(move || queue.work())
            .map(drop)
    }

    /// Runs a thread of the pool.
    fn work(self: &Arc<Self>) {
        let _ending = Ending(self);
        let mut state = self.lock();
        state.demand.arrive();
        loop {
            match state.demand.role(state.jobs.len()) {
                _ if state.is_closed => break,
                Role::Run => state = self.run_next(state),
                Role::Watch => state = self.watch(state),
                Role::Park => {
                    let is_called;
                    (state, is_called) = self.park(state);
                    if !is_called && state.jobs.is_empty() {
                        break;
                    }
                }
            }
        }
    }

    fn run_next<'a>(self: &'a Arc<Self>, mut state: Locked<'a>) -> Locked<'a> {
        let Some(job) = state.jobs.pop_front() else {
            return state;
        };
        state.demand.begin();
        // This thread exists. If no other can be started, it runs all jobs.
        let wakes = self.needs_call(&state) && self.call(&mut state).unwrap_or(false);
        drop(state);
        if wakes {
            self.called.notify_one();
        }
        let began = Instant::now();
        job();
        let now = Instant::now();
        let mut state = self.lock();
        let jobs = state.jobs.len();
        if state.demand.end(now.duration_since(began), now, jobs) {
            self.announce(state)
        } else {
            state
        }
    }

    /// Notifies the home thread that there are results. Without the lock, which that thread takes next.
    fn announce<'a>(&'a self, state: Locked<'a>) -> Locked<'a> {
        drop(state);
        (self.announce)();
        self.lock()
    }

    fn watch<'a>(&'a self, mut state: Locked<'a>) -> Locked<'a> {
        let begun = state.demand.watch();
        let waited = self.closed.wait_timeout(state, WATCH);
        (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let jobs = state.jobs.len();
        state.demand.end_watch(begun, jobs);
        if state.demand.is_quiet() {
            state.demand.announced();
            state = self.announce(state);
        }
        state
    }

    /// Waits until the thread is called, or the queue is closed. Returns `false` if neither happens for a long time.
    fn park<'a>(&'a self, mut state: Locked<'a>) -> (Locked<'a>, bool) {
        state.parked += 1;
        let waits = |state: &mut State| state.calls == 0 && !state.is_closed;
        let waited = self.called.wait_timeout_while(state, IDLE, waits);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let is_called = state.calls > 0;
        if is_called {
            state.calls -= 1;
            state.demand.arrive();
        } else {
            state.parked -= 1;
        }
        (state, is_called)
    }

    /// Drops the jobs that were not begun. The threads end after the jobs that they run. No effect in a forked
    /// child: it has no threads, and a thread of the parent may have held the lock.
    pub(crate) fn close(&self) {
        if !self.process.is_here() {
            return;
        }
        let mut state = self.lock();
        state.is_closed = true;
        let jobs = mem::take(&mut state.jobs);
        drop(state);
        self.called.notify_all();
        self.closed.notify_all();
        drop(jobs);
    }

    pub(crate) fn threads(&self) -> usize {
        self.lock().threads
    }

    fn lock(&self) -> Locked<'_> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records the end of a thread when it is dropped, also after a panic in the drop of a result.
struct Ending<'a>(&'a WorkerQueue);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.lock().threads -= 1;
    }
}
