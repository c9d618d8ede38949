//! The vocabulary of the tests: operations of a [`Bench`] of contexts on tasks, and shared records.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Polling, Poll, Waker};

use aio_context::Context;
use aio_executor::{ContextExt, JoinError, JoinHandle};

pub(crate) use aio_testing::thoroughly as everywhere;
pub(crate) use aio_testing::{Bench, Count};

/// Tasks on a [`Bench`].
pub(crate) trait Tasks {
    /// Polls until the task is done, and returns its result.
    fn join<T>(&self, cx: &Context, task: JoinHandle<T>) -> Result<T, JoinError>;
    /// Polls until the future, as a task of the context, is done.
    fn run<T: 'static>(&self, cx: &Context, future: impl Future<Output = T> + 'static) -> T;
}

impl Tasks for Bench {
    fn join<T>(&self, cx: &Context, task: JoinHandle<T>) -> Result<T, JoinError> {
        while !task.is_finished() {
            self.block(cx);
        }
        result(task)
    }

    fn run<T: 'static>(&self, cx: &Context, future: impl Future<Output = T> + 'static) -> T {
        self.join(cx, cx.spawn(future)).expect("it comes to an end")
    }
}

/// Returns the result of a task that is done.
pub(crate) fn result<T>(mut task: JoinHandle<T>) -> Result<T, JoinError> {
    match Pin::new(&mut task).poll(&mut Polling::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("the task is not done"),
    }
}

/// Counts its drops.
#[derive(Debug)]
pub(crate) struct Dropped(pub(crate) Count);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.up();
    }
}
