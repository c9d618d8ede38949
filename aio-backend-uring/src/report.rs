//! [`Report`]: the state of the reports of completed operations.

use aio_backend::Token;

/// The token and the time of the reports of completed operations.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// `None` until the first operation is submitted.
    pub(crate) token: Option<Token>,
    /// The latest wait that has reported completions.
    pub(crate) reported_in: Option<u32>,
    /// The number of operations that have not been returned yet.
    pub(crate) in_flight: usize,
}
