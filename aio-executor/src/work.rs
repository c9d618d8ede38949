//! [`Work`]: the future of a task of any type, with the place for its result.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Polling, Poll};

use aio_context::{Gone, Remote};
use pin_project_lite::pin_project;

use crate::join::{Join, JoinError};
use crate::waker::TaskWaker;

/// A task that a context owns. If it is dropped before it is done, the joiner gets an error.
pub(crate) trait Work {
    /// Polls the future. Once it is done, it is dropped, and then the result is published.
    fn poll(self: Pin<&mut Self>, polling: &mut Polling<'_>) -> Poll<()>;

    /// Drops the future, and sets this as the result. Returns an error that no handle will return.
    fn fail(self: Pin<&mut Self>, why: JoinError) -> Option<JoinError>;

    /// Returns `true` if the task must not be polled again.
    fn is_cancelled(&self) -> bool;

    /// Records that the context that `waker` wakes polls the task.
    fn arrive(&self, waker: Arc<TaskWaker>);

    /// Records that the task leaves its context.
    fn leave(&self, to: &Remote);
}

pin_project! {
    /// A future, and the state that it shares with its handle.
    pub(crate) struct Body<F: Future> {
        #[pin]
        future: Option<F>,
        join: Arc<Join<F::Output>>,
    }

    impl<F: Future> PinnedDrop for Body<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if this.future.is_some() {
                give_up(this.join, || this.future.set(None));
            }
        }
    }
}

/// Ends a task without a result: calls `drop_it`, which drops its future or the closure that makes it, then
/// passes an error to the joiner, also if the drop panics.
pub(crate) fn give_up<T>(join: &Join<T>, drop_it: impl FnOnce()) {
    struct Report<'a, T>(&'a Join<T>);
    impl<T> Drop for Report<'_, T> {
        fn drop(&mut self) {
            drop(self.0.finish(Err(JoinError::Gone(gone()))));
        }
    }
    let _report = Report(join);
    drop_it();
}

/// Returns the reason why a context is being dropped.
pub(crate) fn gone() -> Gone {
    if std::thread::panicking() {
        Gone::Panicked
    } else {
        Gone::Dropped
    }
}

impl<F: Future> Body<F> {
    pub(crate) fn new(future: F, join: Arc<Join<F::Output>>) -> Self {
        let future = Some(future);
        Self { future, join }
    }
}

impl<F: Future> Work for Body<F> {
    fn poll(self: Pin<&mut Self>, polling: &mut Polling<'_>) -> Poll<()> {
        let mut this = self.project();
        let Some(future) = this.future.as_mut().as_pin_mut() else {
            return Poll::Ready(());
        };
        let Poll::Ready(output) = future.poll(polling) else {
            return Poll::Pending;
        };
        // Before the result is published, so that the joiner finds everything released that the task owned.
        this.future.set(None);
        drop(this.join.finish(Ok(output)));
        Poll::Ready(())
    }

    fn fail(self: Pin<&mut Self>, why: JoinError) -> Option<JoinError> {
        let mut this = self.project();
        this.future.set(None);
        if this.join.is_finished() {
            // The joiner's waker has panicked.
            return Some(why);
        }
        this.join.finish(Err(why))?.err()
    }

    fn is_cancelled(&self) -> bool {
        self.join.is_cancelled()
    }

    fn arrive(&self, waker: Arc<TaskWaker>) {
        self.join.arrive(waker);
    }

    fn leave(&self, to: &Remote) {
        self.join.leave(to);
    }
}
