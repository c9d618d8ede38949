//! [`preferred`]: a backend that a system may lack or forbid, and another one that takes its place.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use aio_backend::{Backend, remedy};

use crate::Ladder;

/// The failure to make a preferred backend was reported: one warning for each process.
static WARNED: AtomicBool = AtomicBool::new(false);

/// Returns a ladder on the backend from `make`, which moves to `lower` for good if that backend fails as a whole. If it cannot be made at all,
/// gives `lower` back; the first time in a process, a warning says so, with the error and its remedy. `name` is that of the preferred backend in
/// this warning.
///
/// `make` is called once now, and perhaps again by the ladder, after a [`drain`](Backend::drain).
///
/// # Errors
/// `lower`, which takes the place of the backend that could not be made.
///
/// # Examples
/// ```
/// use aio_backend::Backend;
/// use aio_backend_epoll::Epoll;
/// use aio_backend_ladder::preferred;
/// use aio_backend_ppoll::Ppoll;
///
/// let backend: Box<dyn Backend> = match preferred("epoll", Epoll::new, Ppoll::new()) {
///     Ok(ladder) => Box::new(ladder),
///     Err(ppoll) => Box::new(ppoll),
/// };
/// assert_eq!(backend.name(), "epoll");
/// ```
pub fn preferred<L: Backend, U: Backend + 'static>(
    name: &'static str,
    mut make: impl FnMut() -> io::Result<U> + 'static,
    lower: L,
) -> Result<Ladder<L, U>, L> {
    match make() {
        Ok(upper) => {
            let mut made = Some(upper);
            Ok(Ladder::new(
                lower,
                move || made.take().map_or_else(&mut make, Ok),
                0,
            ))
        }
        Err(error) => {
            if !WARNED.swap(true, Ordering::Relaxed) {
                let (remedy, lower) = (remedy(&error), lower.name());
                tracing::warn!(%error, remedy, "{name} is not available; {lower} takes its place");
            }
            Err(lower)
        }
    }
}
