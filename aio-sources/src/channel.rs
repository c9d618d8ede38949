//! [`Channel`]: values from any number of threads to a callback, and the news that the last sender is gone.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use aio_context::Context;
use aio_notify::{Item, RunQueue};

use crate::sender::{Sender, Shared};
use crate::sync::Ordering;
use crate::{Bell, DoorbellBoard};

/// How many values are delivered in a row.
const BATCH: usize = 64;

/// What a [`Channel`] delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<T> {
    /// A value that was sent.
    Value(T),
    /// The last sender was dropped, and all values were delivered. Delivered once.
    Closed,
}

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
    /// Makes a channel. `deliver` is called on the home thread with each value, in the order in which one thread sent its values,
    /// and at last with [`Event::Closed`]. It may do anything, poll included.
    ///
    /// The channel has no limit: senders never wait. A value takes one allocation.
    pub fn new<T: Send + 'static>(
        cx: &Context,
        deliver: impl Fn(&Context, Event<T>) + 'static,
    ) -> (Sender<T>, Self) {
        let shared = Arc::new(Shared::new());
        let is_live = Rc::new(Cell::new(true));
        let own_bell = Rc::new(RefCell::new(None));
        let receiver = Receiver {
            shared: shared.clone(),
            queue: RefCell::new(RunQueue::new()),
            bell: own_bell.clone(),
            is_live: is_live.clone(),
            has_ended: Cell::new(false),
        };
        let board = DoorbellBoard::new(cx, 1, move |cx, _| receiver.deliver_batch(cx, &deliver));
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

/// The home thread's side.
struct Receiver<T> {
    shared: Arc<Shared<T>>,
    queue: RefCell<RunQueue<(), T>>,
    /// The channel's own bell; `None` until the channel is made.
    bell: Rc<RefCell<Option<Bell>>>,
    is_live: Rc<Cell<bool>>,
    has_ended: Cell<bool>,
}

impl<T> Receiver<T> {
    fn deliver_batch(&self, cx: &Context, deliver: &impl Fn(&Context, Event<T>)) {
        let mut is_rung = false;
        for _ in 0..BATCH {
            let Some((event, is_last)) = self.next() else {
                return;
            };
            if !is_last && !is_rung {
                // For polls inside the callback, after a panic, and for more than one batch.
                self.bell.borrow().iter().for_each(Bell::ring);
                is_rung = true;
            }
            deliver(cx, event);
        }
    }

    /// The next event, and whether it is the last one for now. None for a channel that was dropped in a callback.
    fn next(&self) -> Option<(Event<T>, bool)> {
        if !self.is_live.get() {
            return None;
        }
        // Read before the values are taken: they were sent before it was set.
        let is_closed = self.shared.is_closed.load(Ordering::Acquire);
        let mut queue = self.queue.borrow_mut();
        if queue.is_empty() {
            queue.take(&self.shared.inbox);
        }
        if let Some(sent) = queue.pop() {
            let is_last = queue.is_empty() && !self.shared.inbox.pending() && !is_closed;
            let Item::Sent(message) = sent.begin() else {
                unreachable!("only messages are sent");
            };
            return Some((Event::Value(message.contents), is_last));
        }
        (is_closed && !self.has_ended.replace(true)).then_some((Event::Closed, true))
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.inbox.close(&mut self.queue.borrow_mut());
    }
}
