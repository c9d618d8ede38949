//! [`Operating`]: an operation on a file as a future.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as Polling, Poll, Waker};

use aio_context::{Completed, Gone, NotSubmitted, Operation, Submit};

use crate::work::gone;

/// Submits an operation on a file. The future returns the operation, with its buffers, once it has ended.
///
/// `to` is a [`Context`](aio_context::Context) on io_uring, or a `FileIo` of the crate `aio-sources`, which
/// executes operations on any context. This call submits the operation, before the future is polled. Dropping
/// the future cancels it; its buffers are dropped when the system does not use them any more.
///
/// # Errors
/// As [`Submit::submit`]: the operation and the reason.
///
/// ```
/// use std::fs::File;
/// use std::sync::Arc;
/// use aio_context::{Context, Operation};
/// use aio_executor::{ContextExt, submit};
/// use aio_sources::FileIo;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cx = Context::new()?;
/// let files = FileIo::new(&cx, "files", 4);
/// let file = Arc::new(File::open("/proc/self/comm")?);
/// let name = cx.block_on(async {
///     let completed = submit(&files, Operation::read(file, 0, vec![0; 64]))?.await?;
///     Ok::<_, Box<dyn std::error::Error>>(completed.into_bytes()?)
/// })??;
/// assert_eq!(name.last(), Some(&b'\n'));
/// # Ok(()) }
/// ```
pub fn submit<S: Submit>(to: &S, operation: Operation) -> Result<Operating<S::Handle>, NotSubmitted> {
    let state = Rc::new(RefCell::new(State::default()));
    let completer = Completer(state.clone());
    let handle = to.submit(operation, move |_cx, completed| completer.complete(completed))?;
    Ok(Operating {
        state,
        _handle: handle,
    })
}

/// The future of [`submit`]. It returns [`Gone`] if the context was dropped first.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use aio_context::{Context, Operation};
/// use aio_executor::{Operating, submit};
/// use aio_sources::{FileIo, FileOperation};
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// let files = FileIo::new(&cx, "files", 4);
/// let file = Arc::new(std::fs::File::open("/proc/self/comm")?);
/// let reading: Operating<FileOperation> = submit(&files, Operation::read(file, 0, vec![0; 64]))?;
/// drop(reading); // cancels it
/// # Ok(()) }
/// ```
#[must_use = "dropped at once, it cancels the operation; await it"]
pub struct Operating<H> {
    state: Rc<RefCell<State>>,
    /// Cancels the operation when it is dropped.
    _handle: H,
}

#[derive(Default)]
struct State {
    result: Option<Result<Completed, Gone>>,
    waker: Option<Waker>,
}

/// Completes the future when it is called, and also when it is dropped.
struct Completer(Rc<RefCell<State>>);

impl Completer {
    fn complete(&self, completed: Completed) {
        self.finish(Ok(completed));
    }

    fn finish(&self, result: Result<Completed, Gone>) {
        let mut state = self.0.borrow_mut();
        if state.result.is_some() {
            return;
        }
        state.result = Some(result);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Completer {
    fn drop(&mut self) {
        self.finish(Err(gone()));
    }
}

impl<H> Future for Operating<H> {
    type Output = Result<Completed, Gone>;

    fn poll(self: Pin<&mut Self>, polling: &mut Polling<'_>) -> Poll<Self::Output> {
        let mut state = self.state.borrow_mut();
        if let Some(result) = state.result.take() {
            // If polled again, the future returns this instead of waiting for ever.
            state.result = Some(Err(Gone::Dropped));
            return Poll::Ready(result);
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(polling.waker()),
            none => *none = Some(polling.waker().clone()),
        }
        Poll::Pending
    }
}

impl<H> fmt::Debug for Operating<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operating")
            .field("is_done", &self.state.borrow().result.is_some())
            .finish_non_exhaustive()
    }
}
