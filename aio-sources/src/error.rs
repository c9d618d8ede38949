//! [`AddError`]: the reason why a source was not added, with the value that it would have owned.

use std::rc::Rc;

use aio_context::{NotTaken, WatchError};

/// The reason why a source was not added to a context, and the process or socket that was passed.
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
pub type AddError<T> = NotTaken<T>;

/// Makes the error of a handler that was not registered; `take` takes the value out of the handler.
pub(crate) fn not_watched<H, T>(refused: WatchError<H>, take: impl FnOnce(H) -> T) -> AddError<T> {
    let (handler, error) = refused.into_parts();
    let Some(handler) = Rc::into_inner(handler) else {
        unreachable!("a refused handler is not kept");
    };
    AddError::new(take(handler), error)
}
