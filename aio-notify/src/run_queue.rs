//! [`RunQueue`]: the entries that a loop has taken out of its inbox and not begun.

use std::fmt;
use std::ptr::NonNull;

use crate::node::{Body, Dequeued};
use crate::sync::Ordering;

/// Entries that were taken out of an [`Inbox`](crate::Inbox) and have not begun, first in, first out.
///
/// # Examples
/// ```
/// use aio_notify::{Inbox, Item, Node, RunQueue, Urgency};
///
/// let inbox = Inbox::<u32>::new();
/// let nodes = [1, 2, 3].map(Node::new);
/// nodes.iter().for_each(|node| drop(inbox.post(node, Urgency::Normal)));
/// nodes[1].cancel();
/// let (mut queue, mut ran) = (RunQueue::new(), Vec::new());
/// queue.take(&inbox);
/// while let Some(dequeued) = queue.pop() {
///     let number = dequeued.payload().copied();
///     if let Item::Normal = dequeued.begin() {
///         ran.extend(number);
///     }
/// }
/// assert_eq!(ran, [1, 3]);
/// ```
pub struct RunQueue<T, M: ?Sized = T> {
    /// In reverse order: the last element is the next entry.
    dequeued: Vec<Dequeued<T, M>>,
}

impl<T, M: ?Sized> RunQueue<T, M> {
    /// Makes an empty queue.
    #[must_use]
    pub const fn new() -> Self {
        Self { dequeued: Vec::new() }
    }

    /// Returns whether it is empty.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.dequeued.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.dequeued.len()
    }

    /// Moves the entries that were appended to a queue of this length behind the earlier ones.
    pub(crate) fn move_behind(&mut self, before: usize) {
        self.dequeued.rotate_left(before);
    }

    /// Appends the nodes of a list that was taken out: the latest first, so that the oldest is next.
    pub(crate) fn append(&mut self, latest: *mut Body<T, M>) {
        let mut rest = latest;
        while let Some(node) = NonNull::new(rest) {
            // SAFETY: every pointer in a list is a node that `Inbox::push` has forgotten. The list was taken
            // out as a whole, so only this loop follows it, and follows each link once: a post of a node that
            // is still queued does not push it.
            let node = unsafe { Dequeued::from_ptr(node) };
            rest = node.next().load(Ordering::Relaxed);
            self.dequeued.push(node);
        }
    }

    /// Removes the next entry.
    #[inline]
    pub fn pop(&mut self) -> Option<Dequeued<T, M>> {
        self.dequeued.pop()
    }
}

impl<T, M: ?Sized> Default for RunQueue<T, M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, M: ?Sized> fmt::Debug for RunQueue<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunQueue")
            .field("len", &self.dequeued.len())
            .finish_non_exhaustive()
    }
}
