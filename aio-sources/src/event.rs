//! [`Event`]: what a channel delivers.

/// What a [`Channel`](crate::Channel) delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<T> {
    /// A value that was sent.
    Value(T),
    /// The last sender was dropped, and all values were delivered. Delivered once.
    Closed,
}
