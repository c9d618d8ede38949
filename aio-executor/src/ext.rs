//! [`ContextExt`] and [`RemoteExt`]: spawning tasks, and running a future to its end.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as Polling, Poll, Wake, Waker};

use aio_context::{BottomHalf, Context, Remote, Wait};

use crate::current::{Polls, current};
use crate::join::{Join, JoinHandle};
use crate::sending;
use crate::tasks::{Task, install};
use crate::work::Body;

/// Futures on a [`Context`], on its home thread.
pub trait ContextExt {
    /// Spawns a task: the context polls `future` on this thread, first in its next iteration. The future need
    /// not be `Send`.
    ///
    /// A task that owns a clone of its context keeps the context alive; inside a task, [`current`] returns it. If the context is
    /// dropped first, it drops the task, and the [`JoinHandle`] returns an error.
    ///
    /// ```
    /// use aio_context::Context;
    /// use aio_executor::ContextExt;
    /// use std::{cell::Cell, rc::Rc};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let (cx, count) = (Context::new()?, Rc::new(Cell::new(0)));
    /// let counted = count.clone();
    /// let task = cx.spawn(async move { counted.set(counted.get() + 1) });
    /// cx.block_on(task)?.unwrap();
    /// assert_eq!(count.get(), 1);
    /// # Ok(()) }
    /// ```
    fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static;

    /// Polls the context until `future` is done, and returns its result. The future need not be `'static`. It
    /// is polled inside this call, between iterations, and the context goes on with all its other work. A
    /// callback or a task may call this.
    ///
    /// # Errors
    /// As [`Context::poll`]; the future is dropped.
    fn block_on<F: Future>(&self, future: F) -> io::Result<F::Output>;
}

impl ContextExt for Context {
    fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
    {
        let join = install(self, |waker| {
            let join = Join::at(waker.clone());
            let body = Body::new(future, join.clone());
            (Task::Here(Box::pin(body)), join)
        });
        join.handle()
    }

    fn block_on<F: Future>(&self, future: F) -> io::Result<F::Output> {
        let mut future = pin!(future);
        let is_woken = Rc::new(Cell::new(true));
        let wakes = is_woken.clone();
        let half = self.bottom_half("block_on", move |_| wakes.set(true));
        let waker = Waker::from(Arc::new(BlockWaker(half)));
        loop {
            if is_woken.replace(false) {
                let _polls = Polls::of(self);
                let mut polling = Polling::from_waker(&waker);
                if let Poll::Ready(output) = future.as_mut().poll(&mut polling) {
                    return Ok(output);
                }
            }
            if !is_woken.get() {
                self.poll(Wait::Block)?;
            }
        }
    }
}

/// Wakes a `block_on`.
struct BlockWaker(BottomHalf);

impl Wake for BlockWaker {
    fn wake(self: Arc<Self>) {
        self.0.schedule();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.schedule();
    }
}

/// Futures on a context of another thread.
pub trait RemoteExt {
    /// Spawns a task on the context, from any thread. The future is sent to the context's home thread, which polls it; with
    /// [`hop`](crate::hop()) it can move on to another context.
    ///
    /// If the context is gone, or is dropped before the task is done, the [`JoinHandle`] returns an error.
    ///
    /// ```
    /// use aio_executor::RemoteExt;
    /// use aio_sources::IoThread;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let io = IoThread::spawn(|_cx| Ok(()))?;
    /// let task = io.remote().spawn(async { 6 * 7 });
    /// assert!(matches!(task.wait(), Ok(42)));
    /// io.stop()
    /// # }
    /// ```
    fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send;

    /// Spawns a task whose future is made on the context's home thread, so that it need not be `Send`: it may wait for descriptors
    /// and timers of the context.
    ///
    /// ```
    /// use aio_executor::{RemoteExt, sleep};
    /// use aio_sources::IoThread;
    /// use std::time::Duration;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let io = IoThread::spawn(|_cx| Ok(()))?;
    /// let task = io.remote().spawn_with(|_cx| sleep(Duration::from_millis(1)));
    /// assert!(task.wait().is_ok());
    /// io.stop()
    /// # }
    /// ```
    fn spawn_with<M, F>(&self, make: M) -> JoinHandle<F::Output>
    where
        M: FnOnce(&Context) -> F + Send + 'static,
        F: Future + 'static,
        F::Output: Send;

    /// Runs `job` once on the home thread, and returns its result as a future, like [`Remote::run_and_wait`]
    /// for threads. Dropping the handle before the job has begun drops the job.
    ///
    /// ```
    /// use aio_context::Context;
    /// use aio_executor::{ContextExt, RemoteExt};
    /// use aio_sources::IoThread;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let (cx, io) = (Context::new()?, IoThread::spawn(|_cx| Ok(()))?);
    /// let backend = cx.block_on(io.remote().call(|cx| cx.backend_name()))?;
    /// assert!(backend.is_ok());
    /// io.stop()
    /// # }
    /// ```
    fn call<R>(&self, job: impl FnOnce(&Context) -> R + Send + 'static) -> JoinHandle<R>
    where
        R: Send + 'static;
}

impl RemoteExt for Remote {
    fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        sending::send(self, future)
    }

    fn spawn_with<M, F>(&self, make: M) -> JoinHandle<F::Output>
    where
        M: FnOnce(&Context) -> F + Send + 'static,
        F: Future + 'static,
        F::Output: Send,
    {
        sending::send_maker(self, make)
    }

    fn call<R>(&self, job: impl FnOnce(&Context) -> R + Send + 'static) -> JoinHandle<R>
    where
        R: Send + 'static,
    {
        sending::send_maker(self, move |cx| std::future::ready(job(cx)))
    }
}

/// Spawns a task on the context that polls the running task: [`current`]`().spawn(future)`.
///
/// # Panics
/// Outside a task.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
{
    current().spawn(future)
}
