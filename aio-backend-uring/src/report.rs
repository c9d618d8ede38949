//! [`Report`]: where completions of operations are reported.

use aio_backend::Token;

/// Where and when completions of operations were reported.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// `None` until the first operation is submitted.
    pub(crate) token: Option<Token>,
    /// The latest wait that has reported completions.
    pub(crate) reported_in: Option<u32>,
    /// The number of operations that have not been given back.
    pub(crate) in_flight: usize,
}
