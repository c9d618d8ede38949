//! [`AddError`]: why a source was not added, with the value that was to be its owner's.

use std::fmt;
use std::io;
use std::rc::Rc;

use aio_context::WatchError;

/// Why a source was not added to a context, and the process or socket that was given to it.
///
/// It converts into an [`io::Error`], so that `?` works where the value is not wanted back.
///
/// ```
/// use aio_context::Context;
/// use aio_sources::Listener;
/// use std::net::TcpListener;
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// let socket = TcpListener::bind("127.0.0.1:0")?;
/// let socket = match Listener::new(&cx, socket, |_cx, _client, _address| {}) {
///     Ok(_listener) => return Ok(()),
///     Err(refused) => refused.into_inner(), // the socket is still bound
/// };
/// # drop(socket); Ok(()) }
/// ```
pub struct AddError<T> {
    value: T,
    error: io::Error,
}

impl<T> AddError<T> {
    pub(crate) fn new(value: T, error: io::Error) -> Self {
        Self { value, error }
    }

    /// For a handler that was not registered; `take` takes the value out of it.
    pub(crate) fn of<H>(refused: WatchError<H>, take: impl FnOnce(H) -> T) -> Self {
        let (handler, error) = refused.into_parts();
        let Some(handler) = Rc::into_inner(handler) else {
            unreachable!("a refused handler is not kept");
        };
        Self::new(take(handler), error)
    }

    /// Gives back the value that was not taken.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.value
    }

    /// Returns the kind of the error.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        self.error.kind()
    }
}

impl<T> From<AddError<T>> for io::Error {
    fn from(refused: AddError<T>) -> Self {
        refused.error
    }
}

impl<T> std::error::Error for AddError<T> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl<T> fmt::Display for AddError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<T> fmt::Debug for AddError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AddError").field(&self.error).finish()
    }
}
