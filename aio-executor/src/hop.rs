//! [`hop`]: moves the running task to another context.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as Polling, Poll};

use aio_context::Remote;

use crate::current::{Immovable, Request, request, withdraw};

/// Moves the running task to another context: the code after the `.await` runs on that context's home thread.
///
/// Only a task of [`RemoteExt::spawn`](crate::RemoteExt::spawn) can be moved, because its future is `Send`.
/// Such a task cannot hold the descriptors and timers of a context across an `.await`; it can await a task
/// that holds them: `spawn(sleep(pause)).await`.
///
/// If the task is there already, it continues at once. A task that is cancelled on its way is dropped where
/// it arrives. If its destination is dropped before it has arrived, the task is dropped with it.
///
/// ```
/// use aio_context::Context;
/// use aio_executor::{ContextExt, RemoteExt, hop};
/// use aio_sources::IoThread;
/// use std::thread;
///
/// # fn main() -> std::io::Result<()> {
/// let (cx, io) = (Context::new()?, IoThread::spawn(|_cx| Ok(()))?);
/// let (here, there) = (cx.remote(), io.remote().clone());
/// let task = here.clone().spawn(async move {
///     let before = thread::current().id();
///     hop(&there).await?;
///     let between = thread::current().id();
///     hop(&here).await?;
///     Ok::<_, aio_executor::HopError>((before, between, thread::current().id()))
/// });
/// let (before, between, after) = cx.block_on(task)?.unwrap().unwrap();
/// assert!(before != between && before == after);
/// io.stop()
/// # }
/// ```
pub fn hop(to: &Remote) -> Hop {
    Hop {
        to: to.clone(),
        refused: None,
    }
}

/// The reason why [`hop`] did not move a task. The task continues where it is.
///
/// ```
/// use aio_context::Context;
/// use aio_executor::{ContextExt, HopError, hop};
///
/// # fn main() -> std::io::Result<()> {
/// let (cx, other) = (Context::new()?, Context::new()?);
/// // A future that `block_on` polls stays on its thread.
/// let outcome = cx.block_on(hop(&other.remote()))?;
/// assert_eq!(outcome, Err(HopError::NotSend));
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HopError {
    /// The other context is gone.
    Gone,
    /// The task was not spawned by [`RemoteExt::spawn`](crate::RemoteExt::spawn), so it cannot leave its
    /// thread.
    NotSend,
}

impl fmt::Display for HopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gone => "the task cannot move: the other context is gone",
            Self::NotSend => {
                "the task cannot move: only a task of `RemoteExt::spawn` can, whose future is `Send`"
            }
        })
    }
}

impl Error for HopError {}

/// The future of [`hop`].
///
/// # Examples
/// ```
/// use aio_context::Context;
/// use aio_executor::{ContextExt, RemoteExt, hop};
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// let here = cx.remote();
/// let task = cx.remote().spawn(async move {
///     hop(&here).await // it is there already
/// });
/// assert_eq!(cx.block_on(task)?.unwrap(), Ok(()));
/// # Ok(()) }
/// ```
#[must_use = "a future does nothing before it is awaited"]
pub struct Hop {
    to: Remote,
    /// `Some` after the move was requested.
    refused: Option<Arc<AtomicBool>>,
}

impl Future for Hop {
    type Output = Result<(), HopError>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Polling<'_>) -> Poll<Self::Output> {
        if let Some(refused) = &self.refused
            && refused.load(Ordering::Relaxed)
        {
            return Poll::Ready(Err(HopError::Gone));
        }
        let refused = self.refused.get_or_insert_default().clone();
        let to = self.to.clone();
        // The task is moved when the poll that requests it returns.
        match request(Request { to, refused }) {
            Ok(()) => Poll::Pending,
            Err(Immovable::Already) => {
                self.refused = None;
                Poll::Ready(Ok(()))
            }
            Err(Immovable::NotSend | Immovable::NoTask) => Poll::Ready(Err(HopError::NotSend)),
        }
    }
}

impl Drop for Hop {
    /// Withdraws the request of a task that continues without having waited for the move.
    fn drop(&mut self) {
        if let Some(refused) = &self.refused {
            withdraw(refused);
        }
    }
}

impl fmt::Debug for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hop")
            .field("to", &self.to)
            .finish_non_exhaustive()
    }
}
