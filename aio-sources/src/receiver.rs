//! [`Receiver`]: delivers the values of a [`Channel`](crate::Channel), in batches.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use aio_context::{Context, GroupId};
use aio_notify::{Item, RunQueue};

use crate::sender::Shared;
use crate::sync::Ordering;
use crate::{Bell, Event};

/// The number of values that are delivered in a row.
const BATCH: usize = 64;

/// The home thread's side.
pub(crate) struct Receiver<T> {
    shared: Arc<Shared<T>>,
    queue: RefCell<RunQueue<(), T>>,
    /// The channel's own bell; `None` until the channel is made.
    bell: Rc<RefCell<Option<Bell>>>,
    is_live: Rc<Cell<bool>>,
    group: GroupId,
    has_ended: Cell<bool>,
}

impl<T> Receiver<T> {
    pub(crate) fn new(
        shared: Arc<Shared<T>>,
        bell: Rc<RefCell<Option<Bell>>>,
        is_live: Rc<Cell<bool>>,
        group: GroupId,
    ) -> Self {
        Self {
            shared,
            queue: RefCell::new(RunQueue::new()),
            bell,
            is_live,
            group,
            has_ended: Cell::new(false),
        }
    }

    /// Delivers sent values, one batch at most, or until the channel is dropped or paused.
    pub(crate) fn deliver_batch(&self, cx: &Context, deliver: &impl Fn(&Context, Event<T>)) {
        let mut is_rung = false;
        for _ in 0..BATCH {
            if cx.is_paused(self.group) {
                return;
            }
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

    /// Returns the next event, and whether it is the last one for now. `None` for a channel that was dropped
    /// in a callback.
    fn next(&self) -> Option<(Event<T>, bool)> {
        if !self.is_live.get() {
            return None;
        }
        // Read before the values are taken, because all values were sent before it was set.
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
