//! [`WorkerQueue`]: the work of a pool and the threads that take it.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// A thread without work ends after this time.
const IDLE: Duration = Duration::from_secs(10);

pub(crate) type Job = Box<dyn FnOnce() + Send>;

pub(crate) struct WorkerQueue {
    name: String,
    most: usize,
    state: Mutex<State>,
    /// There is a job for an idle thread, or the queue is closed.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    /// Threads that wait for a job, those included that were woken and have not taken one yet.
    idle: usize,
    is_closed: bool,
}

impl WorkerQueue {
    pub(crate) fn new(name: &str, most: usize) -> Self {
        Self {
            name: name.to_owned(),
            most,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Appends a job, and starts a thread for it unless one will be idle.
    ///
    /// # Errors
    /// If there is no thread, and the system cannot start one. The job is then dropped.
    pub(crate) fn push(self: &Arc<Self>, job: Job) -> io::Result<()> {
        let mut state = self.lock();
        if state.jobs.len() >= state.idle && state.threads < self.most {
            match self.start() {
                Ok(()) => state.threads += 1,
                // The others will take it.
                Err(_) if state.threads > 0 => {}
                Err(error) => return Err(error),
            }
        }
        state.jobs.push_back(job);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    fn start(self: &Arc<Self>) -> io::Result<()> {
        let queue = self.clone();
        let work = move || {
            while let Some(job) = queue.next() {
                job();
            }
        };
        thread::Builder::new()
            .name(self.name.clone())
            .spawn(work)
            .map(drop)
    }

    /// Waits for a job. `None` if the thread shall end.
    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        let mut is_over = false;
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if is_over || state.is_closed {
                state.threads -= 1;
                return None;
            }
            state.idle += 1;
            let (after, waited) = self
                .changed
                .wait_timeout(state, IDLE)
                .unwrap_or_else(PoisonError::into_inner);
            state = after;
            state.idle -= 1;
            is_over = waited.timed_out();
        }
    }

    /// Drops the jobs that were not begun. The threads end after the jobs that they run.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        let jobs = std::mem::take(&mut state.jobs);
        drop(state);
        self.changed.notify_all();
        drop(jobs);
    }

    pub(crate) fn threads(&self) -> usize {
        self.lock().threads
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
