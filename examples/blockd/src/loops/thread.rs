//! [`LoopThread`]: the thread of a loop.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use aio_context::{BackendKind, Context, Remote};
use aio_sources::IoThread;
use anyhow::anyhow;

use super::local::Local;
use crate::calls::{Done, Reply, call};
use crate::engine::Engine;
use crate::nbd::Nbd;
use crate::polling::{Polling, Settings};
use crate::remote_hosts::Peer;
use crate::stopper::Stopper;

/// The most queries that may wait for the answer of a loop.
pub(super) const MOST_QUERIES: usize = 64;

/// The parameters of every loop.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) backend: BackendKind,
    pub(crate) engine: Engine,
    pub(crate) polling: Settings,
    /// The file for the waits of the first loop. The files of the other loops are beside it.
    pub(crate) record_waits: Option<PathBuf>,
    /// Whether exports are served over NBD as well.
    pub(crate) nbd: bool,
}

impl Setup {
    /// Makes the context of a loop, and its polling.
    ///
    /// # Errors
    /// If the system refuses it, or waits cannot be recorded.
    pub(crate) fn context(&self, name: &str, is_first: bool) -> anyhow::Result<(Context, Polling)> {
        let record = self.record_waits.as_ref().map(|path| match is_first {
            true => path.clone(),
            false => {
                let mut path = path.clone().into_os_string();
                path.push(format!(".{name}"));
                path.into()
            }
        });
        let (polling, policy) = Polling::new(self.polling.clone(), record.as_deref())?;
        let context = Context::builder()
            .poll_params(self.polling.params())
            .policy(policy)
            .backend_kind(self.backend)
            .build()
            .map_err(|error| {
                let what = format!("cannot make an event loop with --backend {}", self.backend);
                anyhow::Error::new(error).context(what)
            })?;
        polling.refine(&context)?;
        Ok((context, polling))
    }
}

/// The state that loops ending by themselves pass to the first one.
#[derive(Debug)]
pub(crate) struct Ending {
    /// Ends the daemon.
    stopper: Stopper,
    /// Set while the threads are being stopped.
    is_expected: AtomicBool,
    /// The index of the first loop that ended by itself, or 0.
    failed: AtomicUsize,
}

impl Ending {
    pub(crate) fn new(stopper: Stopper) -> Arc<Self> {
        Arc::new(Self {
            stopper,
            is_expected: AtomicBool::new(false),
            failed: AtomicUsize::new(0),
        })
    }

    /// Marks the ends of threads from now on as expected.
    pub(super) fn expect(&self) {
        self.is_expected.store(true, Ordering::Release);
    }

    /// Returns the index of the first loop that ended by itself.
    pub(super) fn failed(&self) -> Option<usize> {
        let failed = self.failed.load(Ordering::Acquire);
        (failed > 0).then_some(failed)
    }

    fn has_ended(&self, index: usize) {
        if self.is_expected.load(Ordering::Acquire) {
            return;
        }
        // Later failures do not replace the first.
        let _ = self
            .failed
            .compare_exchange(0, index, Ordering::AcqRel, Ordering::Acquire);
        self.stopper.stop();
    }
}

/// The value that is dropped at the end of the thread, even after a panic.
struct Kept {
    local: Rc<Local>,
    index: usize,
    ending: Arc<Ending>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.ending.has_ended(self.index);
        if !thread::panicking() {
            self.local.close();
        }
    }
}

/// A loop on a thread of its own.
pub(super) struct LoopThread {
    name: Arc<str>,
    remote: Remote,
    /// `None` once the thread was stopped.
    thread: RefCell<Option<IoThread>>,
    /// The number of queries that the loop has not answered yet.
    unanswered: Rc<Cell<usize>>,
}

/// Passes the polling of a loop from the function that makes the context to the one that uses it.
#[derive(Default)]
struct Handed(RefCell<Option<Polling>>);

impl LoopThread {
    /// Starts the thread. Returns once its loop can serve.
    ///
    /// # Errors
    /// If the system refuses the thread or its loop.
    pub(super) fn start(index: usize, setup: &Setup, ending: &Arc<Ending>) -> io::Result<Self> {
        let name: Arc<str> = format!("io{index}").into();
        let (of_context, setup) = (setup.clone(), setup.clone());
        let (of_context_name, of_local, ending) = (name.clone(), name.clone(), ending.clone());
        let make = move || {
            let made = of_context.context(&of_context_name, false);
            let (cx, polling) = made.map_err(|error| io::Error::other(format!("{error:#}")))?;
            cx.extension(|_| Handed::default()).0.replace(Some(polling));
            Ok(cx)
        };
        let set_up = move |cx: &Context| {
            let polling = cx.extension(|_| Handed::default()).0.take();
            let polling = polling.ok_or_else(|| io::Error::other("the loop has no polling"))?;
            let nbd = setup.nbd.then(|| Nbd::new(cx));
            let local = Local::new(cx, of_local, setup.engine, polling, nbd);
            Ok(Kept { local, index, ending })
        };
        let thread = IoThread::builder()
            .name(format!("blockd-{name}"))
            .context(make)
            .spawn(set_up)?;
        Ok(Self {
            name,
            remote: thread.remote(),
            thread: RefCell::new(Some(thread)),
            unanswered: Rc::default(),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn remote(&self) -> Remote {
        self.remote.clone()
    }

    /// Returns a handle to the loop, for other loops.
    pub(super) fn peer(&self) -> Peer {
        Peer {
            name: self.name.clone(),
            remote: self.remote.clone(),
        }
    }

    /// Executes `work` on the loop, and `done` with its result on the loop of `cx`.
    pub(super) fn call<T: Send + 'static>(
        &self,
        cx: &Context,
        work: impl FnOnce(&Context, &Rc<Local>, Reply<T>) + Send + 'static,
        done: Done<T>,
    ) {
        let work = move |cx: &Context, reply| {
            if let Some(local) = Local::of(cx) {
                work(cx, &local, reply);
            }
        };
        call((&self.name, &self.remote), cx, work, done);
    }

    /// Passes the result of `work` on the loop to `done`, or `None` if the loop has ended. Returns `false` if
    /// too many queries of the loop have no answer yet: queries of a loop that does not respond would take
    /// more and more memory.
    pub(super) fn query<T: Send + 'static>(
        &self,
        cx: &Context,
        work: impl FnOnce(&Context, &Local) -> T + Send + 'static,
        done: impl FnOnce(&Context, Option<T>) + 'static,
    ) -> bool {
        if self.unanswered.get() >= MOST_QUERIES {
            return false;
        }
        self.unanswered.set(self.unanswered.get() + 1);
        let unanswered = self.unanswered.clone();
        self.call(
            cx,
            move |cx, local, reply| {
                let result = work(cx, local);
                reply.send(cx, Ok(result));
            },
            Box::new(move |cx, result| {
                unanswered.set(unanswered.get() - 1);
                done(cx, result.ok());
            }),
        );
        true
    }

    /// Returns the number of queries that the loop has not answered yet.
    #[cfg(test)]
    pub(super) fn unanswered(&self) -> usize {
        self.unanswered.get()
    }

    /// Executes `work` on the loop, and returns its result.
    ///
    /// # Errors
    /// The error of `work`, or an error if the loop has ended.
    pub(super) fn run_and_wait<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Context, &Local) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let job = move |cx: &Context| match Local::of(cx) {
            Some(local) => work(cx, &local),
            None => Err(anyhow!("the loop has ended")),
        };
        self.remote.run_and_wait(job)?
    }

    /// Returns `true` if the thread has ended by itself.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.borrow().as_ref().is_none_or(IoThread::has_ended)
    }

    /// Stops the thread, and waits for its end.
    ///
    /// # Errors
    /// The panic or the error that has ended it.
    pub(super) fn stop(&self) -> io::Result<()> {
        let thread = self.thread.take();
        thread.map_or(Ok(()), IoThread::stop)
    }

    /// Leaves the thread running until the end of the process.
    pub(super) fn abandon(&self) {
        std::mem::forget(self.thread.take());
    }
}

impl fmt::Debug for LoopThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoopThread")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
