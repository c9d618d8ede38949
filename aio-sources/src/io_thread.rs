//! [`IoThread`]: a thread that makes a context and polls it until it is stopped.

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError};

use aio_context::{Context, Remote, Wait};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::sync::thread::{self, JoinHandle};
use crate::sync::{AtomicBool, Condvar, Mutex, Ordering, faulty, has_ended};

/// A thread that is the home of a context.
///
/// Dropping it stops the thread and waits for its end; [`stop`](Self::stop) also returns the result of the
/// thread. A callback that panics ends the thread.
///
/// ```
/// use aio_context::Context;
/// use aio_sources::IoThread;
///
/// # fn main() -> std::io::Result<()> {
/// let (reader, writer) = std::io::pipe()?;
/// let io = IoThread::spawn(move |cx| {
///     // What is returned here lives on the thread until it ends.
///     let on = cx.on(reader).readable(|_reader, _cx| { /* read */ });
///     Ok(on.watch()?)
/// })?;
/// let answer = io.remote().run_and_wait(|_cx| 6 * 7);
/// assert_eq!(answer, Ok(42));
/// io.stop()?;
/// # drop(writer); Ok(()) }
/// ```
#[doc(alias = "iothread")]
#[must_use = "dropped at once, the thread is stopped at once"]
pub struct IoThread {
    remote: Remote,
    stop: Arc<AtomicBool>,
    /// `None` when its end is awaited or was.
    thread: Option<JoinHandle<io::Result<()>>>,
}

/// Makes the context of an I/O thread, on that thread.
type Make = Box<dyn FnOnce() -> io::Result<Context> + Send>;

/// An I/O thread that is not started yet. Made by [`IoThread::builder`].
///
/// ```
/// use aio_context::{Context, PollParams};
/// use aio_sources::IoThread;
/// use std::time::Duration;
///
/// # fn main() -> std::io::Result<()> {
/// let polling = || {
///     let params = PollParams::up_to(Duration::from_micros(32));
///     Context::builder().poll_params(params).build()
/// };
/// let io = IoThread::builder()
///     .name("io-0")
///     .pinned_to(0)
///     .context(polling)
///     .spawn(|_cx| Ok(()))?;
/// io.stop()
/// # }
/// ```
#[must_use = "no thread is started before `spawn()`"]
pub struct IoThreadBuilder {
    name: String,
    core: Option<usize>,
    make: Make,
}

impl IoThread {
    /// Begins to start a thread with a chosen name, core or context.
    pub fn builder() -> IoThreadBuilder {
        IoThreadBuilder {
            name: "io".to_owned(),
            core: None,
            make: Box::new(Context::new),
        }
    }

    /// Starts a thread that is named "io", runs on any core, and has a context made by [`Context::new`]; see
    /// [`IoThreadBuilder::spawn`].
    ///
    /// # Errors
    /// As [`IoThreadBuilder::spawn`].
    pub fn spawn<K: 'static>(
        set_up: impl FnOnce(&Context) -> io::Result<K> + Send + 'static,
    ) -> io::Result<Self> {
        Self::builder().spawn(set_up)
    }

    /// Returns a handle to the context.
    #[must_use]
    pub fn remote(&self) -> Remote {
        self.remote.clone()
    }

    /// Returns whether the thread has ended by itself, because a callback panicked or the context could not be polled.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(has_ended)
    }

    /// Stops the thread, waits for its end, and returns its result. The running iteration is finished;
    /// callbacks that were scheduled and have not begun by then never run.
    ///
    /// On the thread itself, in a callback, it does not wait: the thread ends after this iteration.
    ///
    /// # Errors
    /// The error of [`Context::poll`] that ended the thread, or the message of a callback's panic.
    pub fn stop(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        faulty!(WokenBeforeStopped, self.stop.store(true, Ordering::Release); self.remote.notify());
        if thread.thread().id() == thread::current().id() {
            return Ok(());
        }
        end_of(thread)
    }
}

impl Drop for IoThread {
    fn drop(&mut self) {
        if self.remote.is_inherited() {
            // A forked child has no such thread, so there is nothing to wait for or to detach.
            std::mem::forget(self.thread.take());
            return;
        }
        if let Err(error) = self.end() {
            tracing::error!(%error, "an I/O thread ended with an error");
        }
    }
}

impl IoThreadBuilder {
    /// Sets the thread's name, which the system truncates to 15 bytes. The default is "io".
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Pins the thread to one core, numbered from 0 as in `/proc/cpuinfo`. By default it runs on the cores
    /// that the starting thread may use.
    pub fn pinned_to(mut self, core: usize) -> Self {
        self.core = Some(core);
        self
    }

    /// Sets the function that makes the context. It runs on the new thread, after it has been pinned.
    pub fn context(mut self, make: impl FnOnce() -> io::Result<Context> + Send + 'static) -> Self {
        self.make = Box::new(make);
        self
    }

    /// Starts the thread, runs `set_up` there, and polls until the thread is stopped. The value that `set_up` returns, such as
    /// registrations and timers, is dropped on the thread when it ends, before the context.
    ///
    /// Returns after `set_up` has returned.
    ///
    /// # Errors
    /// `InvalidInput` if the name contains a zero byte, or the core does not exist or is not allowed; the system's errors for
    /// one more thread or eventfd; the errors of `set_up` and of the function that makes the context, and their panics.
    pub fn spawn<K: 'static>(
        self,
        set_up: impl FnOnce(&Context) -> io::Result<K> + Send + 'static,
    ) -> io::Result<IoThread> {
        let Self { name, core, make } = self;
        if name.contains('\0') {
            return Err(invalid("the name of a thread cannot contain a zero byte"));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let start = Arc::new(Start::default());
        let (stopped, started) = (stop.clone(), Starting(start.clone()));
        let body = move || {
            if let Some(core) = core {
                pin(core)?;
            }
            let cx = make()?;
            let _kept = set_up(&cx)?;
            started.0.set(Progress::Ready(cx.remote()));
            drop(started);
            while !stopped.load(Ordering::Acquire) {
                cx.poll(Wait::Block)?;
            }
            Ok(())
        };
        let thread = thread::Builder::new().name(name).spawn(body)?;
        match start.wait() {
            Some(remote) => Ok(IoThread {
                remote,
                stop,
                thread: Some(thread),
            }),
            None => Err(end_of(thread)
                .err()
                .unwrap_or_else(|| io::Error::other("the thread ended before it was ready"))),
        }
    }
}

/// The progress of a thread, for the thread that starts it.
#[derive(Default)]
struct Start {
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Default)]
enum Progress {
    #[default]
    Starting,
    Ready(Remote),
    Ended,
}

impl Start {
    fn set(&self, progress: Progress) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = progress;
        self.changed.notify_one();
    }

    /// Waits until the thread is ready. Returns `None` if it has ended before that.
    fn wait(&self) -> Option<Remote> {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match std::mem::take(&mut *progress) {
                Progress::Ready(remote) => return Some(remote),
                Progress::Ended => return None,
                Progress::Starting => {}
            }
            progress = self
                .changed
                .wait(progress)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A thread that is not ready yet. If this is dropped before, also by a panic, the thread has ended.
struct Starting(Arc<Start>);

impl Drop for Starting {
    fn drop(&mut self) {
        let progress = self.0.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let is_starting = matches!(*progress, Progress::Starting);
        drop(progress);
        if is_starting {
            self.0.set(Progress::Ended);
        }
    }
}

/// Pins the calling thread to a core.
fn pin(core: usize) -> io::Result<()> {
    if core >= CpuSet::MAX_CPU {
        let largest = CpuSet::MAX_CPU - 1;
        return Err(invalid(format!(
            "cannot pin a thread to core {core}: the largest number is {largest}"
        )));
    }
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).map_err(|why| {
        let why = io::Error::from(why);
        io::Error::new(
            why.kind(),
            format!(
                "cannot pin a thread to core {core}: {why}; `taskset -p $$` shows the cores that are allowed"
            ),
        )
    })
}

fn invalid(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

/// Waits for a thread, and converts a panic into an error.
fn end_of(thread: JoinHandle<io::Result<()>>) -> io::Result<()> {
    thread.join().unwrap_or_else(|panic| {
        let message = message(&*panic);
        Err(io::Error::other(format!("the I/O thread panicked: {message}")))
    })
}

fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)")
}

impl fmt::Debug for IoThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IoThread")
            .field("remote", &self.remote)
            .field("has_ended", &self.has_ended())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for IoThreadBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IoThreadBuilder")
            .field("name", &self.name)
            .field("core", &self.core)
            .finish_non_exhaustive()
    }
}
