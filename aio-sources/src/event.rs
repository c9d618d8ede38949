//! [`Event`]: the events that a channel delivers.

/// An event that a [`Channel`](crate::Channel) delivers.
///
/// # Examples
/// ```
/// use std::{cell::Cell, rc::Rc};
/// use aio_context::{Context, Wait};
/// use aio_sources::{Channel, Event};
///
/// # fn main() -> std::io::Result<()> {
/// let (cx, sum) = (Context::new()?, Rc::new(Cell::new(None)));
/// let (result, total) = (sum.clone(), Cell::new(0));
/// let (sender, _channel) = Channel::new(&cx, move |_cx, event| match event {
///     Event::Value(number) => total.set(total.get() + number),
///     Event::Closed => result.set(Some(total.get())),
/// });
/// std::thread::spawn(move || [1, 2, 3].map(|number| sender.send(number)));
/// while sum.get().is_none() {
///     cx.poll(Wait::Block)?;
/// }
/// assert_eq!(sum.get(), Some(6));
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<T> {
    /// A value that was sent.
    Value(T),
    /// The last sender was dropped, and all values were delivered. Delivered once.
    Closed,
}
