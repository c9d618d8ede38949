//! [`IoThread`]: a thread that makes a context, polls it until it is told to stop, and says how it ended.

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::Arc;

use crate::context::Wait;
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{AtomicBool, Ordering, faulty, has_ended, mpsc};
use crate::{Context, Remote};

/// A thread that is the home of a context.
///
/// Dropping it stops the thread and waits for its end; [`stop`](Self::stop) also says how it ended. A callback that
/// panics ends the thread.
///
/// ```
/// use aio_context::IoThread;
///
/// # fn main() -> std::io::Result<()> {
/// let (reader, writer) = std::io::pipe()?;
/// let io = IoThread::spawn(move |cx| {
///     // What is returned here lives on the thread until it ends.
///     let on = cx.on(reader).readable(|_reader, _cx| { /* read what is there */ });
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
    /// Absent once somebody waits for its end.
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl IoThread {
    /// Starts a thread with a context on it, has `set_up` run there, and polls until it is stopped. What `set_up` returns,
    /// such as registrations and timers, is dropped on the thread when it ends, before the context.
    ///
    /// Returns when `set_up` has run.
    ///
    /// # Errors
    /// What the system says to one more thread or eventfd, or what `set_up` says; also if it panics.
    pub fn spawn<K: 'static>(
        set_up: impl FnOnce(&Context) -> io::Result<K> + Send + 'static,
    ) -> io::Result<Self> {
        Self::spawn_with(Context::new, set_up)
    }

    /// As [`spawn`](Self::spawn), with a context that `make` makes, on the new thread.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn), and what `make` says.
    pub fn spawn_with<K: 'static>(
        make: impl FnOnce() -> io::Result<Context> + Send + 'static,
        set_up: impl FnOnce(&Context) -> io::Result<K> + Send + 'static,
    ) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (tell, hear) = mpsc::sync_channel(1);
        let stopped = stop.clone();
        let body = move || {
            let cx = make()?;
            let _kept = set_up(&cx)?;
            // Who hears of it may be gone only if it panics, and then it will not stop us either.
            let _ = tell.send(cx.remote());
            drop(tell);
            while !stopped.load(Ordering::Acquire) {
                cx.poll(Wait::Block)?;
            }
            Ok(())
        };
        let thread = thread::Builder::new().name("io".to_owned()).spawn(body)?;
        match hear.recv() {
            Ok(remote) => Ok(Self {
                remote,
                stop,
                thread: Some(thread),
            }),
            // It ended before it was ready, so it has something to say.
            Err(mpsc::RecvError) => Err(end_of(thread)
                .err()
                .unwrap_or_else(|| io::Error::other("the thread ended before it was ready"))),
        }
    }

    /// A handle to the context.
    #[must_use]
    pub fn remote(&self) -> Remote {
        self.remote.clone()
    }

    /// Whether the thread has ended by itself, because a callback panicked or the context could not be polled.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(has_ended)
    }

    /// Stops the thread, waits for its end, and says how it ended. The iteration that is running is finished; what was
    /// scheduled and has not begun by then never runs.
    ///
    /// On the thread itself, in a callback, it does not wait: the thread ends after this iteration.
    ///
    /// # Errors
    /// What polling said, or that a callback panicked, with its message.
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
        if let Err(error) = self.end() {
            tracing::error!(%error, "an I/O thread did not end well");
        }
    }
}

/// Waits for a thread; a panic becomes an error.
fn end_of(thread: JoinHandle<io::Result<()>>) -> io::Result<()> {
    thread.join().unwrap_or_else(|panic| {
        let message = message(&*panic);
        Err(io::Error::other(format!(
            "a callback panicked on the I/O thread: {message}"
        )))
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
