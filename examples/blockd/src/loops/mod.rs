//! [`Loops`]: the event loops of a daemon. The first one belongs to the thread that starts the daemon. The
//! others belong to the threads of `--iothreads`.
//!
//! | module | contains |
//! |---|---|
//! | `local` | the exports and clients of one loop |
//! | `thread` | the thread of a loop, from its start to its end |
//!
//! Each loop serves the exports that are assigned to it, with everything that belongs to them: sockets,
//! queues, NBD clients, threads of the engine, completions. An export with several I/O threads belongs to the
//! first of them; the others serve some of its queues ([`RemoteHosts`](crate::remote_hosts::RemoteHosts)).
//! Two loops share no state but disks, the memory of clients, counters of the process, and the log. The
//! control socket, the metrics and the listening sockets of NBD belong to the first loop. If a command
//! concerns exports of another loop, the first loop [calls](Loops::call) that loop.
//!
//! # The end of a loop
//! A panic ends the thread of a loop, and thereby all connections of its exports. Their clients reconnect
//! only to a new daemon, so the first loop then ends the daemon: it completes the requests of the other loops
//! and returns the error.

mod local;
mod thread;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use aio_context::{ClockId, Context, Remote, Timer};
use anyhow::{Context as _, anyhow};

pub(crate) use local::{Activity, Finished, Local};
use thread::LoopThread;
pub(crate) use thread::{Ending, Setup};

use crate::calls::{Done, Reply};
use crate::nbd::{MoveClient, Moved};
use crate::remote_hosts::Peer;

/// The name of the first loop.
pub(crate) const MAIN: &str = "main";
/// The time after which a loop without an answer to a query is reported as not responding.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The loops of a daemon.
pub(crate) struct Loops {
    own: Rc<Local>,
    others: Vec<LoopThread>,
    ending: Arc<Ending>,
}

/// The results of all loops that have arrived so far.
struct Gathering<T> {
    results: RefCell<Vec<Option<T>>>,
    missing: Cell<usize>,
    done: Cell<Option<Gathered<T>>>,
    timeout: RefCell<Option<Timer>>,
}

type Gathered<T> = Box<dyn FnOnce(&Context, Vec<Option<T>>)>;

impl Loops {
    /// Starts the threads of the loops other than `own`. If one of them ends by itself, `ending` records it.
    ///
    /// # Errors
    /// If a thread or its loop cannot be made.
    pub(crate) fn start(
        own: Rc<Local>,
        count: usize,
        setup: &Setup,
        ending: Arc<Ending>,
    ) -> anyhow::Result<Self> {
        let mut loops = Self {
            own,
            others: Vec::new(),
            ending,
        };
        for index in 1..count {
            let started = LoopThread::start(index, setup, &loops.ending);
            let started = started.with_context(|| {
                format!("cannot start the I/O thread {index}; --iothreads sets their number")
            })?;
            loops.others.push(started);
        }
        Ok(loops)
    }

    /// Returns the number of loops.
    pub(crate) fn count(&self) -> usize {
        1 + self.others.len()
    }

    /// Returns the loop of this thread.
    pub(crate) fn own(&self) -> &Rc<Local> {
        &self.own
    }

    /// Returns the name of a loop.
    pub(crate) fn name(&self, index: usize) -> &str {
        match index.checked_sub(1).and_then(|at| self.others.get(at)) {
            None => MAIN,
            Some(other) => other.name(),
        }
    }

    /// Returns the index of the loop `name`.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        (0..self.count()).find(|index| self.name(*index) == name)
    }

    /// Returns the names of all loops.
    pub(crate) fn names(&self) -> String {
        let names: Vec<&str> = (0..self.count()).map(|index| self.name(index)).collect();
        names.join(", ")
    }

    /// Returns handles to the loops other than this thread's, by name.
    pub(crate) fn remotes(&self) -> impl Iterator<Item = (&str, Remote)> {
        self.others.iter().map(|other| (other.name(), other.remote()))
    }

    /// Returns a handle to a loop, for the others.
    pub(crate) fn peer(&self, index: usize) -> Peer {
        match index.checked_sub(1).and_then(|at| self.others.get(at)) {
            None => self.own.peer(),
            Some(other) => other.peer(),
        }
    }

    /// Returns a function that moves NBD clients to a loop other than this thread's.
    pub(crate) fn move_clients_to(&self, index: usize) -> Option<MoveClient> {
        let other = self.others.get(index.checked_sub(1)?)?;
        let remote = other.remote();
        Some(Arc::new(move |moved: Moved| {
            let adopt = move |cx: &Context| {
                if let Some(nbd) = Local::of(cx).and_then(|local| local.nbd().cloned()) {
                    nbd.adopt(cx, moved);
                }
            };
            // If the loop has ended, the client's socket is closed.
            remote.run(adopt).unwrap_or_default();
        }))
    }

    /// Executes `work` on a loop, and `done` with its result on this one. Both run at once if the loop is this thread's. `done` gets an
    /// error if the loop has ended.
    pub(crate) fn call<T: Send + 'static>(
        &self,
        cx: &Context,
        index: usize,
        work: impl FnOnce(&Context, &Rc<Local>, Reply<T>) + Send + 'static,
        done: Done<T>,
    ) {
        match index.checked_sub(1).and_then(|at| self.others.get(at)) {
            None => work(cx, &self.own, Reply::Here(done)),
            Some(other) => other.call(cx, work, done),
        }
    }

    /// Executes `work` on several loops, and `done` with all results on this one, or with the last error.
    pub(crate) fn call_all<T: Send + 'static>(
        &self,
        cx: &Context,
        indexes: &[usize],
        work: impl Fn(&Context, &Rc<Local>, Reply<T>) + Clone + Send + 'static,
        done: Done<Vec<T>>,
    ) {
        if indexes.is_empty() {
            return done(cx, Ok(Vec::new()));
        }
        let gathered = Rc::new(RefCell::new(Ok(Vec::new())));
        let done = Rc::new(Cell::new(Some(done)));
        let missing = Rc::new(Cell::new(indexes.len()));
        for index in indexes {
            let (gathered, done, missing) = (gathered.clone(), done.clone(), missing.clone());
            let add = move |cx: &Context, result: anyhow::Result<T>| {
                match result {
                    Ok(result) => drop(gathered.borrow_mut().as_mut().map(|all| all.push(result))),
                    Err(error) => drop(gathered.replace(Err(error))),
                }
                missing.set(missing.get() - 1);
                if missing.get() == 0
                    && let Some(done) = done.take()
                {
                    let all = gathered.replace(Ok(Vec::new()));
                    done(cx, all);
                }
            };
            self.call(cx, *index, work.clone(), Box::new(add));
        }
    }

    /// Executes `work` on a loop while this one waits, and returns its result.
    ///
    /// # Errors
    /// The error of `work`, or an error if the loop has ended.
    pub(crate) fn run_and_wait<T: Send + 'static>(
        &self,
        cx: &Context,
        index: usize,
        work: impl FnOnce(&Context, &Local) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        match index.checked_sub(1).and_then(|at| self.others.get(at)) {
            None => work(cx, &self.own),
            Some(other) => other.run_and_wait(work),
        }
    }

    /// Executes `work` on all loops, and `done` with the results on this one. A loop that does not respond
    /// within two seconds has no result.
    pub(crate) fn gather<T: Send + 'static>(
        &self,
        cx: &Context,
        work: impl Fn(&Context, &Local) -> T + Clone + Send + 'static,
        done: impl FnOnce(&Context, Vec<Option<T>>) + 'static,
    ) {
        let own = work(cx, &self.own);
        if self.others.is_empty() {
            return done(cx, vec![Some(own)]);
        }
        let mut results: Vec<Option<T>> = std::iter::repeat_with(|| None).take(self.count()).collect();
        results[0] = Some(own);
        let gathering = Rc::new(Gathering {
            results: RefCell::new(results),
            missing: Cell::new(self.others.len()),
            done: Cell::new(Some(Box::new(done))),
            timeout: RefCell::default(),
        });
        let late = Rc::downgrade(&gathering);
        let timeout = cx
            .timer(ClockId::Monotonic, move |cx, _| {
                if let Some(gathering) = late.upgrade() {
                    gathering.end(cx);
                }
            })
            .armed_after(RESPONSE_TIMEOUT);
        gathering.timeout.replace(Some(timeout));
        for (index, other) in (1..).zip(&self.others) {
            let answered = gathering.clone();
            let done = move |cx: &Context, result| answered.add(cx, index, result);
            if !other.query(cx, work.clone(), done) {
                gathering.add(cx, index, None);
            }
        }
    }

    /// Returns the error of a loop that has ended by itself.
    pub(crate) fn failure(&self) -> Option<io::Error> {
        let index = self.ending.failed()?;
        let other = self.others.get(index.checked_sub(1)?)?;
        let why = other
            .stop()
            .err()
            .map_or_else(String::new, |why| format!(": {why}"));
        Some(io::Error::other(format!(
            "the I/O thread {} has ended, so the daemon ends{why}",
            other.name()
        )))
    }

    /// Stops the other loops. If a thread does not respond within two seconds, only the end of the process
    /// ends it.
    pub(crate) fn stop(&self) {
        self.ending.expect();
        let (answer, answers) = mpsc::channel();
        for (at, other) in self.others.iter().enumerate() {
            let answer = answer.clone();
            // A loop that has ended drops its sender.
            let respond = move |_: &Context| answer.send(at).unwrap_or_default();
            other.remote().run(respond).unwrap_or_default();
        }
        drop(answer);
        let deadline = Instant::now() + RESPONSE_TIMEOUT;
        let mut responds = vec![false; self.others.len()];
        let left = || deadline.saturating_duration_since(Instant::now());
        while let Ok(at) = answers.recv_timeout(left()) {
            responds[at] = true;
        }
        for (other, responds) in self.others.iter().zip(responds) {
            if responds || other.has_ended() {
                if let Err(error) = other.stop() {
                    tracing::error!("the I/O thread {} has ended: {error}", other.name());
                }
            } else {
                tracing::error!(
                    "the I/O thread {} does not respond within {RESPONSE_TIMEOUT:?}, so it is not waited for",
                    other.name()
                );
                other.abandon();
            }
        }
    }
}

impl Drop for Loops {
    fn drop(&mut self) {
        self.stop();
    }
}

impl<T> Gathering<T> {
    fn add(&self, cx: &Context, index: usize, result: Option<T>) {
        if let Some(place) = self.results.borrow_mut().get_mut(index) {
            *place = result;
        }
        self.missing.set(self.missing.get() - 1);
        if self.missing.get() == 0 {
            self.end(cx);
        }
    }

    /// Passes on the results that have arrived, once.
    fn end(&self, cx: &Context) {
        let timeout = self.timeout.take();
        drop(timeout);
        if let Some(done) = self.done.take() {
            let results = self.results.take();
            done(cx, results);
        }
    }
}

impl fmt::Debug for Loops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loops")
            .field("own", &self.own)
            .field("others", &self.others)
            .finish_non_exhaustive()
    }
}

/// Returns the error of a command that names a loop or an export that does not exist.
pub(crate) fn unknown(loops: &Loops, name: &str) -> anyhow::Error {
    let which = match loops.count() {
        1 => format!("{MAIN} is the loop"),
        _ => format!("the loops are {}", loops.names()),
    };
    anyhow!("there is no loop and no export {name:?}; the command `list` shows their names, and {which}")
}

#[cfg(test)]
mod tests;
