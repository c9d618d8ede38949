//! [`Channel`]: passes values from any number of threads to a callback, and reports the end of the last
//! sender.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use aio_context::{Context, GroupId};

use crate::receiver::Receiver;
use crate::sender::{Sender, Shared};
use crate::{DoorbellBoard, Event};

/// The receiving side of a channel, on the home thread. Dropping it ends the channel, drops the values that were not delivered,
/// and makes sends fail.
///
/// ```
/// use std::rc::Rc;
/// use std::cell::Cell;
/// use aio_context::{Context, Wait};
/// use aio_sources::{Channel, Event};
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// let done = Rc::new(Cell::new(false));
/// let is_closed = done.clone();
/// let (sender, _channel) = Channel::new(&cx, move |_cx, event: Event<String>| match event {
///     Event::Value(line) => println!("{line}"),
///     Event::Closed => is_closed.set(true),
/// });
/// std::thread::spawn(move || sender.send("the last line".to_owned()));
/// while !done.get() {
///     cx.poll(Wait::Block)?;
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "dropped at once, every send fails"]
pub struct Channel {
    /// Owns the receiver, which closes the inbox when it is dropped.
    _board: DoorbellBoard,
    is_live: Rc<Cell<bool>>,
}

impl Channel {
    /// Makes a channel. `deliver` is called on the home thread with each value, in the order in which one
    /// thread sent its values, and finally with [`Event::Closed`]. It may do anything, including a poll.
    ///
    /// The channel has no limit: senders never wait. A value takes one allocation.
    pub fn new<T: Send + 'static>(
        cx: &Context,
        deliver: impl Fn(&Context, Event<T>) + 'static,
    ) -> (Sender<T>, Self) {
        Self::new_in(cx, GroupId::DEFAULT, deliver)
    }

    /// As [`new`](Self::new), as a member of `group`, which can be [paused](Context::pause). Values sent
    /// during a pause are delivered after it; a pause in `deliver` takes effect before the next value.
    ///
    /// # Panics
    /// If the group was not made by this context.
    pub fn new_in<T: Send + 'static>(
        cx: &Context,
        group: GroupId,
        deliver: impl Fn(&Context, Event<T>) + 'static,
    ) -> (Sender<T>, Self) {
        let shared = Arc::new(Shared::new());
        let is_live = Rc::new(Cell::new(true));
        let own_bell = Rc::new(RefCell::new(None));
        let receiver = Receiver::new(shared.clone(), own_bell.clone(), is_live.clone(), group);
        let board = DoorbellBoard::new_in(cx, group, 1, move |cx, _| receiver.deliver_batch(cx, &deliver));
        let bell = board.bell(0);
        own_bell.replace(Some(bell.clone()));
        let channel = Self {
            _board: board,
            is_live,
        };
        (Sender::new(shared, bell), channel)
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.is_live.set(false);
    }
}
