//! The context that polls the running task, and the task's request to move to another one.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use aio_context::{Context, Remote};

use crate::sync::thread_local;

thread_local! {
    /// The innermost polls of tasks on this thread.
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

/// A context that polls tasks.
struct Current {
    cx: Context,
    /// Set if the running task can be moved.
    can_move: bool,
    request: Option<Request>,
}

/// A task's request to be moved when its poll has returned.
pub(crate) struct Request {
    pub(crate) to: Remote,
    /// Set if the move was refused, because the other context is gone.
    pub(crate) refused: Arc<AtomicBool>,
}

/// Returns the context that polls the running task.
///
/// A task that keeps the returned context in a variable across an `.await` keeps its context alive: a cycle
/// that lasts as long as the task. Call this function again instead.
///
/// ```
/// use aio_context::Context;
/// use aio_executor::{ContextExt, current};
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// let name = cx.block_on(async { current().backend_name() })?;
/// assert_eq!(name, cx.backend_name());
/// # Ok(()) }
/// ```
///
/// # Panics
/// Outside a task and [`block_on`](crate::ContextExt::block_on). [`try_current`] returns `None` there.
#[must_use]
pub fn current() -> Context {
    let Some(cx) = try_current() else {
        panic!("no task is running: call this inside a future that a context polls");
    };
    cx
}

/// As [`current`]; `None` if no task is running.
#[must_use]
pub fn try_current() -> Option<Context> {
    with(|current| current.as_ref().map(|current| current.cx.clone())).flatten()
}

/// Passes the present state to `use_it`. Returns `None` while the thread ends.
fn with<R>(use_it: impl FnOnce(&mut Option<Current>) -> R) -> Option<R> {
    CURRENT.try_with(|cell| use_it(&mut cell.borrow_mut())).ok()
}

/// Sets `cx` as the context that polls tasks, until this is dropped.
#[must_use]
pub(crate) struct Polls {
    outer: Option<Current>,
}

impl Polls {
    pub(crate) fn of(cx: &Context) -> Self {
        let current = Current {
            cx: cx.clone(),
            can_move: false,
            request: None,
        };
        let outer = with(|cell| cell.replace(current)).flatten();
        Self { outer }
    }

    /// Sets whether the task that runs from now on can be moved. Returns the move that the one before has
    /// requested.
    pub(crate) fn can_move(&self, can_move: bool) -> Option<Request> {
        let set = |current: &mut Option<Current>| {
            let current = current.as_mut()?;
            current.can_move = can_move;
            current.request.take()
        };
        with(set).flatten()
    }
}

impl Drop for Polls {
    fn drop(&mut self) {
        let outer = self.outer.take();
        let ended = with(|cell| std::mem::replace(cell, outer));
        drop(ended); // outside the borrow
    }
}

/// The reason why a task is not moved.
pub(crate) enum Immovable {
    NoTask,
    NotSend,
    Already,
}

/// Requests a move of the running task.
pub(crate) fn request(request: Request) -> Result<(), Immovable> {
    let ask = |current: &mut Option<Current>| {
        let Some(current) = current else {
            return Err(Immovable::NoTask);
        };
        if current.cx.remote().is_same(&request.to) {
            return Err(Immovable::Already);
        }
        if !current.can_move {
            return Err(Immovable::NotSend);
        }
        current.request = Some(request);
        Ok(())
    };
    with(ask).unwrap_or(Err(Immovable::NoTask))
}

/// Withdraws a request, if it is still the latest one of the running poll.
pub(crate) fn withdraw(refused: &Arc<AtomicBool>) {
    with(|current| {
        if let Some(current) = current {
            current
                .request
                .take_if(|request| Arc::ptr_eq(&request.refused, refused));
        }
    });
}
