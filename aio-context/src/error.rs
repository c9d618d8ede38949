//! What can go wrong: between two contexts, and between a context and the system.

use std::io;

use aio_backend::{concerns_all, remedy};

/// The context is gone, or it went away before the job was done.
///
/// The job was dropped on whichever thread let it go; if it had begun, it ended in a panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the context is gone: its home thread dropped it before the job was done")]
pub struct Gone;

/// What the system refused, and what can be done about it.
///
/// It is what the [`io::Error`]s of a context hold when the refusal concerns the whole loop and not just one descriptor:
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
#[error("{call} ({backend}): {source}; {remedy}")]
#[non_exhaustive]
pub struct Refused {
    /// What was to be done.
    pub call: &'static str,
    /// The backend that was in charge.
    pub backend: &'static str,
    /// What whoever runs the program can do about it.
    pub remedy: &'static str,
    /// What the system said.
    pub source: io::Error,
}

/// Says of an error of the system what failed and what helps.
pub(crate) fn explained(call: &'static str, backend: &'static str, source: io::Error) -> io::Error {
    if source.raw_os_error().is_none() {
        return source;
    }
    let refused = Refused {
        call,
        backend,
        remedy: remedy(&source),
        source,
    };
    io::Error::new(refused.source.kind(), refused)
}

/// The same for what concerns one descriptor, unless the error says that it concerns all.
pub(crate) fn explained_if_all(call: &'static str, backend: &'static str, source: io::Error) -> io::Error {
    if concerns_all(&source) {
        explained(call, backend, source)
    } else {
        source
    }
}
