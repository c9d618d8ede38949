//! What can go wrong between two contexts.

/// The context is gone, or it went away before the job was done.
///
/// The job was dropped on whichever thread let it go; if it had begun, it ended in a panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the context is gone: its home thread dropped it before the job was done")]
pub struct Gone;
