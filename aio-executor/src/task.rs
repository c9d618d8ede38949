//! A task is a bottom half whose closure owns a future: running the bottom half polls the future.
//!
//! The context owns the closure, so that it drops its tasks when it is dropped, on its thread (rule E3). A future is dropped as soon
//! as it is done or cancelled. A waker that is left over then keeps no more than an empty closure, and no longer than the context
//! exists.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context as Polling, Poll, Waker};

use aio_context::{Context, Gone};

use crate::current::{self, Request};
use crate::join::{Join, JoinError};
use crate::parcel::Depart;
use crate::waker::TaskWaker;

/// The name of the bottom halves, in messages.
const NAME: &str = "task";

/// Has `cx` poll `future`, from the next iteration on. `depart` moves it to another context, if it can be moved.
pub(crate) fn install<F>(
    cx: &Context,
    future: Pin<Box<F>>,
    join: Arc<Join<F::Output>>,
    depart: Option<Depart<F>>,
) where
    F: Future + 'static,
{
    let task = Task {
        future: RefCell::new(Some(future)),
        waker: RefCell::new(None),
        join: join.clone(),
        is_due_again: Cell::new(false),
        depart,
    };
    let polls = cx.bottom_half(NAME, move |cx| task.run(cx));
    polls.schedule();
    join.arrive(TaskWaker::new(polls));
}

/// What the bottom half of a task owns.
struct Task<F: Future> {
    /// `None` once the future is done, cancelled or moved.
    future: RefCell<Option<Pin<Box<F>>>>,
    /// Wakes this task. There from the first poll to the last: the closure of a bottom half lives as long as a handle to it.
    waker: RefCell<Option<Waker>>,
    join: Arc<Join<F::Output>>,
    /// A nested poll of the context came to this task while it was polled.
    is_due_again: Cell<bool>,
    depart: Option<Depart<F>>,
}

/// What a poll has led to.
enum Next<F: Future> {
    Wait,
    Finish(Result<F::Output, JoinError>),
    Move(Request),
}

impl<F: Future> Task<F> {
    /// Polls the future once.
    fn run(&self, cx: &Context) {
        match self.poll(cx) {
            Next::Wait => {}
            Next::Finish(result) => self.finish(result),
            Next::Move(request) => self.move_on(request),
        }
    }

    fn poll(&self, cx: &Context) -> Next<F> {
        let Ok(mut slot) = self.future.try_borrow_mut() else {
            self.is_due_again.set(true);
            return Next::Wait;
        };
        let Some(future) = slot.as_mut() else {
            return Next::Wait;
        };
        if self.join.is_cancelled() {
            return Next::Finish(Err(JoinError::Cancelled));
        }
        let mut waker = self.waker.borrow_mut();
        if waker.is_none() {
            *waker = self.join.task().map(Waker::from);
        }
        let Some(waker) = waker.as_ref() else {
            return Next::Wait; // it never arrived
        };
        let mut polling = Polling::from_waker(waker);
        let polled = catch_unwind(AssertUnwindSafe(|| {
            current::enter(cx, self.depart.is_some(), || future.as_mut().poll(&mut polling))
        }));
        let is_due_again = self.is_due_again.take();
        match polled {
            Ok((Poll::Ready(output), _)) => Next::Finish(Ok(output)),
            Err(value) => Next::Finish(Err(JoinError::Panicked(value))),
            Ok((Poll::Pending, Some(request))) => Next::Move(request),
            Ok((Poll::Pending, None)) => {
                if is_due_again {
                    waker.wake_by_ref();
                }
                Next::Wait
            }
        }
    }

    /// Drops the future, then publishes the result: the joiner finds released what the task owned.
    fn finish(&self, result: Result<F::Output, JoinError>) {
        let future = self.future.take();
        let result = match catch_unwind(AssertUnwindSafe(|| drop(future))) {
            Ok(()) => result,
            Err(value) => Err(JoinError::Panicked(value)),
        };
        let unwanted = self.join.finish(result);
        drop(self.waker.take());
        if let Some(Err(JoinError::Panicked(value))) = unwanted {
            // No handle is left that could tell: it ends as the panic of any callback.
            resume_unwind(value);
        }
    }

    fn move_on(&self, request: Request) {
        let (Some(depart), Some(future)) = (self.depart, self.future.take()) else {
            return;
        };
        let Err(refused) = depart(future, self.join.clone(), &request.to) else {
            drop(self.waker.take());
            return;
        };
        // It stays, and learns at its next poll that it does.
        self.future.replace(Some(refused));
        request.refused.store(true, Ordering::Relaxed);
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

impl<F: Future> Drop for Task<F> {
    /// The context is dropped before the task is done. A task that was done, or moved, has no future here.
    fn drop(&mut self) {
        if let Some(future) = self.future.take() {
            drop(future);
            let gone = if std::thread::panicking() {
                Gone::Panicked
            } else {
                Gone::Dropped
            };
            drop(self.join.finish(Err(JoinError::Gone(gone))));
        }
    }
}
