//! Calls from one loop to another, and their replies.
//!
//! A call is a closure that [`Remote::run`] passes to the other thread, and so is its reply. The callback of
//! the caller stays on the caller's thread. If a loop ends before it replies, the callback gets an error.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use aio_context::{Context, Remote};
use anyhow::anyhow;

/// Receives the result of an operation, now or later.
pub(crate) type Done<T> = Box<dyn FnOnce(&Context, anyhow::Result<T>)>;

/// A result of any type.
type Outcome = anyhow::Result<Box<dyn Any + Send>>;
type Callback = Box<dyn FnOnce(&Context, Outcome)>;

/// The callbacks of calls that have no reply yet, with the context of the caller.
#[derive(Default)]
struct Pending {
    callbacks: RefCell<HashMap<u64, Callback>>,
    next_id: Cell<u64>,
}

impl Pending {
    fn of(cx: &Context) -> Rc<Self> {
        cx.extension(|_| Self::default())
    }

    fn add(&self, callback: Callback) -> u64 {
        let id = self.next_id.replace(self.next_id.get() + 1);
        self.callbacks.borrow_mut().insert(id, callback);
        id
    }

    fn take(&self, id: u64) -> Option<Callback> {
        self.callbacks.borrow_mut().remove(&id)
    }
}

/// The destination of the result of a call.
pub(crate) enum Reply<T: Send + 'static> {
    /// To a callback on this thread.
    Here(Done<T>),
    /// To another thread.
    There(Answer<T>),
}

impl<T: Send + 'static> Reply<T> {
    /// Passes on the result, at once if the caller is on this thread.
    pub(crate) fn send(self, cx: &Context, result: anyhow::Result<T>) {
        match self {
            Self::Here(done) => done(cx, result),
            Self::There(answer) => answer.send(result),
        }
    }
}

/// Executes `work` on another loop, and then `done` with its result on the loop of `cx`. `done` gets an error
/// if the other loop has ended.
pub(crate) fn call<T: Send + 'static>(
    (name, remote): (&Arc<str>, &Remote),
    cx: &Context,
    work: impl FnOnce(&Context, Reply<T>) + Send + 'static,
    done: Done<T>,
) {
    let answer = Answer::new(cx, name.clone(), done);
    let job = move |cx: &Context| work(cx, Reply::There(answer));
    // If the loop has ended, the job is dropped, and the answer with it, which replies with an error.
    remote.run(job).unwrap_or_default();
}

/// The result for which another thread waits. Dropping it without a result sends an error.
pub(crate) struct Answer<T: Send + 'static> {
    caller: Remote,
    id: u64,
    /// The name of the loop that executes the call.
    executor: Arc<str>,
    is_sent: bool,
    result: PhantomData<fn(T)>,
}

impl<T: Send + 'static> Answer<T> {
    /// Creates the answer of the loop `executor`, whose result `done` gets.
    fn new(cx: &Context, executor: Arc<str>, done: Done<T>) -> Self {
        let callback = move |cx: &Context, outcome: Outcome| {
            let result = outcome.and_then(|value| {
                let value = value.downcast::<T>();
                value
                    .map(|value| *value)
                    .map_err(|_| anyhow!("the reply has another type"))
            });
            done(cx, result);
        };
        Self {
            caller: cx.remote(),
            id: Pending::of(cx).add(Box::new(callback)),
            executor,
            is_sent: false,
            result: PhantomData,
        }
    }

    fn send(mut self, result: anyhow::Result<T>) {
        self.pass_on(result.map(|value| Box::new(value) as Box<dyn Any + Send>));
    }

    fn pass_on(&mut self, outcome: Outcome) {
        self.is_sent = true;
        let id = self.id;
        let finish = move |cx: &Context| {
            if let Some(callback) = Pending::of(cx).take(id) {
                callback(cx, outcome);
            }
        };
        // The caller needs no reply once its context is gone.
        self.caller.run(finish).unwrap_or_default();
    }
}

impl<T: Send + 'static> Drop for Answer<T> {
    fn drop(&mut self) {
        if !self.is_sent {
            let error = anyhow!(
                "the loop {} has ended; the daemon ends, and can be started again",
                self.executor
            );
            self.pass_on(Err(error));
        }
    }
}
