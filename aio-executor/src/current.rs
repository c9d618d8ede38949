//! The context that polls the running task, and the task's wish to move to another one.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use aio_context::{Context, Remote};

use crate::sync::thread_local;

thread_local! {
    /// The innermost poll of a task on this thread.
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

/// The poll of a task.
struct Current {
    cx: Context,
    can_move: bool,
    request: Option<Request>,
}

/// A task asks to be moved when its poll has returned.
pub(crate) struct Request {
    pub(crate) to: Remote,
    /// Is set if the move was refused, because the other context is gone.
    pub(crate) refused: Arc<AtomicBool>,
}

/// Returns the context that polls the running task.
///
/// A task that keeps the returned context in a variable over an `.await` keeps its context alive, which is a cycle that lasts as long
/// as the task. Call this anew instead.
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
    let of = |current: &RefCell<Option<Current>>| current.borrow().as_ref().map(|current| current.cx.clone());
    CURRENT.try_with(of).ok().flatten()
}

/// Runs the poll of a task on `cx`. Returns its result and where the task asks to be moved.
#[inline]
pub(crate) fn enter<R>(cx: &Context, can_move: bool, poll: impl FnOnce() -> R) -> (R, Option<Request>) {
    let current = Current {
        cx: cx.clone(),
        can_move,
        request: None,
    };
    let outer = CURRENT.try_with(|cell| cell.replace(Some(current)));
    let Ok(outer) = outer else {
        return (poll(), None); // the thread ends
    };
    let mut restore = Restore(Some(outer));
    let result = poll();
    (result, restore.end().and_then(|current| current.request))
}

/// Restores the outer poll, also after a panic.
struct Restore(Option<Option<Current>>);

impl Restore {
    #[inline]
    fn end(&mut self) -> Option<Current> {
        let outer = self.0.take()?;
        CURRENT.try_with(|cell| cell.replace(outer)).ok().flatten()
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        self.end();
    }
}

/// Why a task is not moved.
pub(crate) enum Immovable {
    NoTask,
    NotSend,
    Already,
}

/// Asks for a move of the running task.
pub(crate) fn request(request: Request) -> Result<(), Immovable> {
    let ask = |cell: &RefCell<Option<Current>>| {
        let mut current = cell.borrow_mut();
        let Some(current) = current.as_mut() else {
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
    CURRENT.try_with(ask).unwrap_or(Err(Immovable::NoTask))
}

/// Withdraws a request, if it is still the latest one of the running poll.
pub(crate) fn withdraw(refused: &Arc<AtomicBool>) {
    let _ = CURRENT.try_with(|cell| {
        if let Some(current) = cell.borrow_mut().as_mut() {
            current
                .request
                .take_if(|request| Arc::ptr_eq(&request.refused, refused));
        }
    });
}
