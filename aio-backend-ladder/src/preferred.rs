//! [`preferred`]: a backend that a system may lack or forbid, and its replacement.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use aio_backend::{Backend, remedy};

use crate::Ladder;

/// Set after the first warning that a preferred backend could not be made: one for each process.
static WARNED: AtomicBool = AtomicBool::new(false);

/// Returns a ladder on the backend from `make`, which moves to `lower` for good if that backend fails as a
/// whole. If it cannot be made at all, returns `lower` as the error. The first such failure in a process logs
/// a warning with the error, its remedy, and `name`, the name of the preferred backend.
///
/// This calls `make` once. The ladder may call it again, after a [`drain`](Backend::drain).
///
/// # Errors
/// `lower`, which replaces the backend that could not be made.
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
