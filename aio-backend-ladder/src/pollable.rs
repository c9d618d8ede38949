//! [`make_pollable`]: moves a backend's registrations to one that a foreign loop can wait for.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use aio_backend::{Backend, Completed, Interest, Token, Watched};

use crate::Split;

/// Returns a reference to the descriptor with which a foreign loop waits for a backend. If the backend [has
/// none](Backend::make_pollable), also returns its [`Successor`]: a backend from `make` that has one, with
/// all registrations.
///
/// `report` is the token under which the backend reports completions of operations, if any were submitted.
///
/// # Errors
/// The error of the backend, of `make`, or of the new backend for one of the registrations; `Unsupported` if
/// the new backend has no descriptor, either. Nothing has changed then.
///
/// ```
/// use aio_backend::Backend;
/// use aio_backend_epoll::Epoll;
/// use aio_backend_ladder::make_pollable;
/// use aio_backend_ppoll::Ppoll;
///
/// let mut backend: Box<dyn Backend> = Box::new(Ppoll::new());
/// let (fd, successor) = make_pollable(&mut *backend, Epoll::new, None)?;
/// if let Some(successor) = successor {
///     let mut ended = Vec::new();
///     backend = successor.replace(backend, &mut ended);
///     assert!(ended.is_empty(), "no operations were submitted");
/// }
/// assert_eq!(backend.name(), "epoll");
/// # drop(fd);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn make_pollable<D: Backend>(
    backend: &mut dyn Backend,
    make: impl FnOnce() -> io::Result<D>,
    report: Option<Token>,
) -> io::Result<(OwnedFd, Option<Successor<D>>)> {
    if let Some(fd) = backend.make_pollable()? {
        return Ok((fd.try_clone_to_owned()?, None));
    }
    let mut descriptors = make()?;
    let mut filled = Ok(());
    backend.visit(&mut |fd, token, interest| {
        if filled.is_ok() {
            filled = descriptors.add(fd.clone(), token, interest);
        }
    });
    filled?;
    let shown = match backend.make_operations_pollable()? {
        Some(shown) => Some(Watched::from(Rc::new(shown.try_clone_to_owned()?))),
        None => None,
    };
    if let (Some(shown), Some(report)) = (&shown, report) {
        descriptors.add(shown.clone(), report, Interest::READ)?;
    }
    let no_descriptor = || io::Error::from(io::ErrorKind::Unsupported);
    let fd = descriptors.make_pollable()?.ok_or_else(no_descriptor)?;
    let fd = fd.try_clone_to_owned()?;
    let successor = Successor {
        descriptors,
        shown,
        report,
    };
    Ok((fd, Some(successor)))
}

/// A backend with the registrations of another one, which it is to [replace](Self::replace). Made by [`make_pollable`].
///
/// # Examples
/// ```
/// use aio_backend::{Backend, Interest, Token, Watched};
/// use aio_backend_epoll::Epoll;
/// use aio_backend_ladder::{Successor, make_pollable};
/// use aio_backend_ppoll::Ppoll;
///
/// let mut backend = Box::new(Ppoll::new());
/// let (reader, _writer) = std::io::pipe()?;
/// let reader = std::rc::Rc::new(reader);
/// backend.add(Watched::from(reader), Token::new(0, 0), Interest::READ)?;
/// let (_fd, successor) = make_pollable(&mut *backend, Epoll::new, None)?;
/// let successor: Successor<Epoll> = successor.expect("ppoll has no descriptor");
/// let backend = successor.replace(backend, &mut Vec::new());
/// assert_eq!((backend.name(), backend.watched()), ("epoll", 1));
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use = "until it has replaced the other backend, both have the registrations"]
pub struct Successor<D> {
    descriptors: D,
    /// Shows the completions of the other backend, if that backend can go on executing operations.
    shown: Option<Watched>,
    report: Option<Token>,
}

impl<D: Backend + 'static> Successor<D> {
    /// Replaces the backend that was passed to [`make_pollable`].
    ///
    /// That backend goes on executing operations, if it can [show their
    /// completions](Backend::make_operations_pollable) while it has no registrations. If not, the operations
    /// are cancelled, and put into `ended` with their ids.
    pub fn replace(
        self,
        mut backend: Box<dyn Backend>,
        ended: &mut Vec<(Token, Completed)>,
    ) -> Box<dyn Backend> {
        tracing::debug!(
            from = backend.name(),
            to = self.descriptors.name(),
            "the backend was replaced for a foreign loop"
        );
        if let Some(shown) = self.shown {
            return Box::new(Split::new(self.descriptors, backend, shown, self.report));
        }
        backend.end_operations();
        ended.extend(std::iter::from_fn(|| backend.next_completed()));
        Box::new(self.descriptors)
    }
}

impl<D: fmt::Debug> fmt::Debug for Successor<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Successor")
            .field("descriptors", &self.descriptors)
            .field("report", &self.report)
            .finish_non_exhaustive()
    }
}
