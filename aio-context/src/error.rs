//! Errors between two contexts, and between a context and the system.

use std::error::Error;
use std::fmt;
use std::rc::Rc;

use aio_backend::NotTaken;
use aio_notify::Lost;

/// The reason why a job on another context has no result.
///
/// The job was dropped on the thread that let it go. If it had begun, it ended in a panic.
///
/// # Examples
/// ```
/// use aio_context::{Context, Gone};
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// let remote = cx.remote();
/// drop(cx);
/// match remote.run(|_cx| unreachable!("there is no context to run it")) {
///     Ok(()) => unreachable!("the context is gone"),
///     Err(gone) => assert_eq!(gone, Gone::Dropped),
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Gone {
    /// The home thread dropped the context before the job was done.
    Dropped,
    /// The job panicked, or the home thread did and dropped the context.
    Panicked,
    /// The waiting context cannot be polled any longer. The job may still run.
    CannotWait,
}

impl Gone {
    /// Converts the mailbox's reason for a lost job.
    pub(crate) fn of(lost: Lost) -> Self {
        match lost {
            Lost::Dropped => Self::Dropped,
            Lost::Panicked => Self::Panicked,
        }
    }
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dropped => "the context is gone: its home thread dropped it before the job was done",
            Self::Panicked => "the job, or the home thread of its context, panicked before the job was done",
            Self::CannotWait => {
                "the waiting context cannot be polled any longer, so the result of the job is lost"
            }
        })
    }
}

impl Error for Gone {}

/// The error of a handler that was not registered or did not replace another one, with the handler itself.
/// Its [kind](NotTaken::kind) is `AlreadyExists` if the descriptor has a handler already.
///
/// ```
/// use std::{io, rc::Rc};
/// use aio_context::{Context, Handler, Interest};
/// # use std::os::fd::{AsFd, BorrowedFd};
/// # struct Quiet(io::PipeReader);
/// # impl AsFd for Quiet { fn as_fd(&self) -> BorrowedFd<'_> { self.0.as_fd() } }
/// # impl Handler for Quiet {}
///
/// # fn main() -> io::Result<()> {
/// let cx = Context::new()?;
/// let (reader, _writer) = io::pipe()?;
/// let handler = Rc::new(Quiet(reader));
/// let first = cx.watch(handler.clone(), Interest::READ)?;
/// let refused = cx.watch(handler, Interest::READ).unwrap_err();
/// assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
/// let handler = refused.into_inner();
/// drop(first);
/// let second = cx.watch(handler, Interest::READ)?;
/// # drop(second); Ok(()) }
/// ```
pub type WatchError<H> = NotTaken<Rc<H>>;
