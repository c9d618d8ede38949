//! [`Inbox`]: a lock-free queue with many posters and one taker.
//!
//! A stack of linked nodes: posting is one compare-and-swap, taking is one swap and a reversal, which makes it first in,
//! first out. It knows nothing of wake-ups: who posts then notifies.

use std::fmt;
use std::marker::PhantomData;
use std::ptr;
use std::sync::Arc;

use crate::node::Node;
use crate::sync::{AtomicBool, AtomicPtr, Fault, Ordering, is_torn_down, planted};

/// How soon a node is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// In the next iteration.
    Normal,
    /// Some time soon; keeps nobody awake.
    Idle,
}

/// What became of a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posted {
    /// It is in the queue.
    Queued,
    /// It was in the queue already, and runs once for both posts.
    AlreadyQueued,
    /// The inbox is closed; the node is not in it.
    Closed,
}

/// A queue of nodes from any thread to one loop.
///
/// The loop's side ([`take_all`](Self::take_all), [`close`](Self::close)) is for one thread at a time.
pub struct Inbox<T> {
    /// The latest node, null, or the mark of a closed inbox. Each node in the list is a share turned into a pointer.
    head: AtomicPtr<Node<T>>,
    /// There may be a node in the list that has a hurry.
    urgent: AtomicBool,
    /// Holds shares of nodes: is `Send` and `Sync` only if they are.
    _shares: PhantomData<Arc<Node<T>>>,
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// The head of a closed inbox: an address that no node has, because nodes are aligned.
fn closed<T>() -> *mut Node<T> {
    ptr::without_provenance_mut(1)
}

impl<T> Inbox<T> {
    /// An empty inbox.
    #[must_use]
    pub fn new() -> Self {
        Self {
            head: AtomicPtr::new(ptr::null_mut()),
            urgent: AtomicBool::new(false),
            _shares: PhantomData,
        }
    }

    /// Has `node` run; then notify. Lock-free, allocates nothing. The node may run, and the caller's share be the last one,
    /// before this returns.
    pub fn post(&self, node: &Arc<Node<T>>, urgency: Urgency) -> Posted {
        let posted = if node.want(urgency) {
            match self.push(node.clone()) {
                Ok(()) => Posted::Queued,
                Err(_) => {
                    node.unqueue();
                    return Posted::Closed;
                }
            }
        } else {
            Posted::AlreadyQueued
        };
        if urgency == Urgency::Normal {
            self.urgent.store(true, Ordering::Release);
        }
        posted
    }

    /// Sends a payload of its own, which the loop gets as a node whose only share it has; then notify.
    ///
    /// # Errors
    /// The payload, if the inbox is closed.
    pub fn send(&self, payload: T) -> Result<(), T> {
        if let Err(node) = self.push(Node::queued(payload)) {
            // Nobody else has ever seen this node.
            return match node.into_payload() {
                Some(payload) => Err(payload),
                None => Ok(()),
            };
        }
        self.urgent.store(true, Ordering::Release);
        Ok(())
    }

    /// Puts a share into the list, or gives it back if the inbox is closed.
    ///
    /// Ordering: the exchange releases the node and its link to the taker's swap.
    fn push(&self, node: Arc<Node<T>>) -> Result<(), Arc<Node<T>>> {
        let order = if planted(Fault::PublishRelaxed) {
            Ordering::Relaxed
        } else {
            Ordering::Release
        };
        let pointer = Arc::into_raw(node).cast_mut();
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // SAFETY: `pointer` is a share that this function has until the exchange succeeds, so the node is alive; and it
            // is in no list, so its link is free.
            let node = unsafe { &*pointer };
            if head == closed() {
                // SAFETY: the share is still this function's, and it leaves with it.
                return Err(unsafe { Arc::from_raw(pointer.cast_const()) });
            }
            node.next.store(head, Ordering::Relaxed);
            match self
                .head
                .compare_exchange_weak(head, pointer, order, Ordering::Relaxed)
            {
                Ok(_) => return Ok(()), // the share is the list's
                Err(now) => head = now,
            }
        }
    }

    /// Takes all nodes, in the order in which they were posted, and hands them to `each`. Call [`Node::begin`] before
    /// running one.
    pub fn take_all(&self, each: &mut impl FnMut(Arc<Node<T>>)) {
        if !self.pending() {
            return;
        }
        self.urgent.store(false, Ordering::Relaxed);
        let taken = self.detach(ptr::null_mut());
        taken.for_each(each);
    }

    /// Closes for good: later posts are refused. Hands what is in the queue to `each`.
    pub fn close(&self, each: &mut impl FnMut(Arc<Node<T>>)) {
        self.detach(closed()).for_each(each);
    }

    /// Takes the list and leaves `instead`.
    ///
    /// Ordering: the swap acquires every node that was pushed.
    fn detach(&self, instead: *mut Node<T>) -> Taken<T> {
        let latest = self.head.swap(instead, Ordering::Acquire);
        Taken::reversed(if latest == closed() {
            ptr::null_mut()
        } else {
            latest
        })
    }

    /// Whether there is anything to take.
    #[inline]
    #[must_use]
    pub fn pending(&self) -> bool {
        let head = self.head.load(Ordering::Relaxed);
        !head.is_null() && head != closed()
    }

    /// Whether there may be something to take that has a hurry. Never false for long while there is: who posts such a
    /// node notifies afterwards, and a loop that accepts a notification takes everything.
    #[inline]
    #[must_use]
    pub fn has_normal(&self) -> bool {
        self.urgent.load(Ordering::Relaxed) && self.pending()
    }
}

impl<T> Drop for Inbox<T> {
    fn drop(&mut self) {
        if !is_torn_down() {
            self.close(&mut drop);
        }
    }
}

impl<T> fmt::Debug for Inbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox")
            .field("pending", &self.pending())
            .finish_non_exhaustive()
    }
}

/// A list that was taken out, oldest first. Dropping it drops what is left.
struct Taken<T> {
    first: *mut Node<T>,
}

impl<T> Taken<T> {
    /// Turns the list round: `latest` leads to the older ones.
    fn reversed(latest: *mut Node<T>) -> Self {
        let (mut rest, mut first) = (latest, ptr::null_mut());
        while !rest.is_null() {
            // SAFETY: `rest` came from the list, where every pointer is a share turned into a pointer, so the node is alive;
            // the list was taken out as a whole, so nobody else follows or changes its links: who posts a node that is
            // still queued does not touch its link.
            let next = unsafe { &(*rest).next };
            let older = next.load(Ordering::Relaxed);
            next.store(first, Ordering::Relaxed);
            first = rest;
            rest = older;
        }
        Self { first }
    }
}

impl<T> Iterator for Taken<T> {
    type Item = Arc<Node<T>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.first.is_null() {
            return None;
        }
        // SAFETY: `first` is a share that `push` turned into a pointer, and `self.first` is moved on below, so it is turned
        // back just once.
        let node = unsafe { Arc::from_raw(self.first.cast_const()) };
        self.first = node.next.load(Ordering::Relaxed);
        Some(node)
    }
}

impl<T> Drop for Taken<T> {
    fn drop(&mut self) {
        if !is_torn_down() {
            self.for_each(drop);
        }
    }
}

#[cfg(all(test, not(loom)))]
#[path = "inbox_tests.rs"]
mod tests;
