//! What can go wrong: between two contexts, and between a context and the system.

use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;

use aio_backend::{concerns_all, remedy};
use rustix::io::Errno;

/// Why a job on another context has no result.
///
/// The job was dropped on whichever thread let it go; if it had begun, it ended in a panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Gone {
    /// The home thread dropped the context before the job was done.
    #[error("the context is gone: its home thread dropped it before the job was done")]
    Dropped,
    /// The job panicked, or the home thread did and dropped the context.
    #[error("the job, or the home thread of its context, panicked before the job was done")]
    Panicked,
    /// The waiting context cannot be polled any longer. The job may still run.
    #[error("the waiting context cannot be polled any longer, so the result of the job is lost")]
    CannotWait,
}

/// What the system refused, and what can be done about it.
///
/// It is what the [`io::Error`]s of a context hold when the refusal concerns the whole loop, or a descriptor that is closed:
///
/// ```
/// # use std::io;
/// # use aio_context::Refused;
/// fn errno(error: &io::Error) -> Option<i32> {
///     let refused = error.get_ref().and_then(|inner| inner.downcast_ref::<Refused>());
///     refused.map_or_else(|| error.raw_os_error(), |refused| refused.source.raw_os_error())
/// }
/// # assert_eq!(errno(&io::Error::from_raw_os_error(9)), Some(9));
/// ```
#[derive(Debug, thiserror::Error)]
#[error("{call} ({}): {source}; {remedy}", Subject(self))]
#[non_exhaustive]
pub struct Refused {
    /// What was to be done.
    pub call: &'static str,
    /// The backend that was in charge.
    pub backend: &'static str,
    /// The number of the descriptor, if the refusal concerns it alone.
    pub descriptor: Option<RawFd>,
    /// What whoever runs the program can do about it.
    pub remedy: &'static str,
    /// What the system said.
    pub source: io::Error,
}

/// What a refusal concerns: one descriptor, whichever the backend, or the backend.
struct Subject<'a>(&'a Refused);

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.descriptor {
            Some(number) => write!(f, "number {number}"),
            None => f.write_str(self.0.backend),
        }
    }
}

/// Why a handler was not registered or did not replace another one, and the handler itself.
///
/// It converts into an [`io::Error`], so that `?` works where the handler is not wanted back.
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
/// let handler = refused.into_handler();
/// drop(first);
/// let second = cx.watch(handler, Interest::READ)?;
/// # drop(second); Ok(()) }
/// ```
pub struct WatchError<H: ?Sized> {
    handler: Rc<H>,
    error: io::Error,
}

impl<H: ?Sized> WatchError<H> {
    pub(crate) fn new(handler: Rc<H>, error: io::Error) -> Self {
        Self { handler, error }
    }

    /// The kind of the error: `AlreadyExists` if the descriptor has a handler already.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        self.error.kind()
    }

    /// The system's number for the error, if the system refused it: `EBADF` for a number that is not open.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        let refused = self
            .error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Refused>());
        refused.map_or_else(
            || self.error.raw_os_error(),
            |refused| refused.source.raw_os_error(),
        )
    }

    /// The error.
    #[must_use]
    pub fn error(&self) -> &io::Error {
        &self.error
    }

    /// Gives the handler back.
    #[must_use]
    pub fn into_handler(self) -> Rc<H> {
        self.handler
    }

    /// Gives back the handler and the error.
    #[must_use]
    pub fn into_parts(self) -> (Rc<H>, io::Error) {
        (self.handler, self.error)
    }
}

impl<H: ?Sized> fmt::Debug for WatchError<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchError")
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

impl<H: ?Sized> fmt::Display for WatchError<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<H: ?Sized> Error for WatchError<H> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

impl<H: ?Sized> From<WatchError<H>> for io::Error {
    fn from(refused: WatchError<H>) -> Self {
        refused.error
    }
}

/// Says of an error of the system what failed and what helps.
pub(crate) fn explained(call: &'static str, backend: &'static str, source: io::Error) -> io::Error {
    if source.raw_os_error().is_none() {
        return source;
    }
    into_io_error(Refused {
        call,
        backend,
        descriptor: None,
        remedy: remedy(&source),
        source,
    })
}

/// The same for a backend that cannot move to where one descriptor stands for all.
pub(crate) fn cannot_embed(backend: &'static str, source: io::Error) -> io::Error {
    if Errno::from_io_error(&source) != Some(Errno::BADF) {
        return explained("embed", backend, source);
    }
    into_io_error(Refused {
        call: "embed",
        backend,
        descriptor: None,
        remedy: "a watched descriptor was closed behind the loop's back: poll once without waiting, so that its handler is \
                 told and removed, and embed again",
        source,
    })
}

/// The same for a call about one descriptor: what concerns the whole backend is explained so, and that the descriptor is closed in
/// the same words on every backend. Other errors stay as they are.
pub(crate) fn explained_for(
    call: &'static str,
    backend: &'static str,
    number: RawFd,
    source: io::Error,
) -> io::Error {
    if concerns_all(&source) {
        return explained(call, backend, source);
    }
    if Errno::from_io_error(&source) != Some(Errno::BADF) {
        return source;
    }
    into_io_error(Refused {
        call,
        backend,
        descriptor: Some(number),
        remedy: "the number is not open: give the handler an owner that keeps it open, and look for a close() of it",
        source,
    })
}

fn into_io_error(refused: Refused) -> io::Error {
    io::Error::new(refused.source.kind(), refused)
}

/// What a handler is told that cannot be watched any longer. In which call the number was found closed does not matter to it.
pub(crate) fn in_words(why: io::Error) -> io::Error {
    if Errno::from_io_error(&why) == Some(Errno::BADF) {
        closed_while_registered()
    } else {
        why
    }
}

/// The number was closed under a handler.
pub(crate) fn closed_while_registered() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "the descriptor was closed while it was registered; remove the registration before closing",
    )
}

/// The descriptor has a handler, which stays.
pub(crate) fn is_taken(number: RawFd) -> io::Error {
    io::Error::new(
        io::ErrorKind::AlreadyExists,
        format!(
            "descriptor {number} has a handler already: drop its registration first, or put the new one in its place with `replace`"
        ),
    )
}
