//! Errors that refuse a message, in the form of the protocol's library.

use std::io;

use vhost::vhost_user::Error;

pub(super) fn no_queue(index: usize, count: usize) -> Error {
    Error::ReqHandlerError(io::Error::other(format!(
        "there is no queue {index}; the export has {count} queues, and queues=N of --export sets their number"
    )))
}

/// Wraps an error in the protocol's error.
pub(super) fn refuse(why: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::ReqHandlerError(io::Error::other(why))
}

pub(super) fn refuse_because(why: &'static str) -> Error {
    Error::ReqHandlerError(io::Error::other(why))
}
