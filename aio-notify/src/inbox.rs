//! [`Inbox`]: a lock-free queue with many producers and one consumer.
//!
//! It consists of two stacks of linked nodes: one for all threads, where posting is a compare-and-swap and
//! taking a swap, and one that only the home thread uses, with loads and stores. Taking reverses them, so the
//! order is first in, first out. The inbox wakes no loop: after a post the caller notifies.
//! [`node`](crate::node) decides how long nodes live.

use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::ptr;

use crate::home::HomeThread;
use crate::node::{Body, Dequeued, Item, Message, Node};
use crate::run_queue::RunQueue;
use crate::state::Urgency;
use crate::sync::{AtomicBool, AtomicPtr, Ordering, faulty, read_for_exchange};

/// The result of a post.
///
/// # Examples
/// ```
/// use aio_notify::{Inbox, Node, Posted, RunQueue, Urgency};
///
/// let (inbox, node) = (Inbox::<()>::new(), Node::new(()));
/// assert_eq!(inbox.post(&node, Urgency::Normal), Posted::Queued);
/// assert_eq!(inbox.post(&node, Urgency::Normal), Posted::AlreadyQueued);
/// let mut queue = RunQueue::new();
/// inbox.close(&mut queue);
/// queue.pop().expect("it was queued").begin();
/// assert_eq!(inbox.post(&node, Urgency::Normal), Posted::Closed);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posted {
    /// The node is in the queue.
    Queued,
    /// The node was in the queue already, and runs once for both posts.
    AlreadyQueued,
    /// The inbox is closed; the node is not in it.
    Closed,
}

/// A queue of nodes from any thread to one loop.
///
/// The loop's functions ([`RunQueue::take`], [`close`](Self::close)) are for the home thread, which is the
/// one that made the inbox. On another thread they do not take the home thread's posts, and the order of the
/// two stacks is lost. No function of an inbox may be called in a signal handler.
///
/// Payloads of nodes are shared by threads; a message moves from one thread to another:
/// ```
/// # use {aio_notify::Inbox, std::cell::Cell};
/// fn is_shared<T: Send + Sync>() {}
/// is_shared::<Inbox<u8, Cell<u8>>>();
/// ```
/// ```compile_fail
/// # use {aio_notify::Inbox, std::cell::Cell};
/// fn is_shared<T: Send + Sync>() {}
/// is_shared::<Inbox<Cell<u8>, u8>>();
/// ```
/// ```compile_fail
/// # use {aio_notify::Inbox, std::rc::Rc};
/// fn is_shared<T: Send + Sync>() {}
/// is_shared::<Inbox<u8, Rc<u8>>>();
/// ```
pub struct Inbox<T, M: ?Sized = T> {
    /// The latest node, null, or the mark of a closed inbox. Each node in the list is the queue's reference.
    head: AtomicPtr<Body<T, M>>,
    /// The latest of the nodes that the home thread posted while the other list was empty: they are older
    /// than the present nodes of that list. Only the home thread uses it.
    at_home: AtomicPtr<Body<T, M>>,
    home: HomeThread,
    /// Set if the first list may have a node that is not idle.
    urgent: AtomicBool,
    /// It holds references to nodes, so it is `Send` and `Sync` only if they are.
    _references: PhantomData<Dequeued<T, M>>,
}

impl<T, M: ?Sized> Default for Inbox<T, M> {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns the head of a closed inbox: an address that no node has, because nodes are aligned.
fn closed<T, M: ?Sized>() -> *mut Body<T, M> {
    ptr::without_provenance_mut(1)
}

impl<T, M: ?Sized> Inbox<T, M> {
    /// Makes an empty inbox, at home on this thread.
    #[must_use]
    pub fn new() -> Self {
        Self {
            head: AtomicPtr::new(ptr::null_mut()),
            at_home: AtomicPtr::new(ptr::null_mut()),
            home: HomeThread::here(),
            urgent: AtomicBool::new(false),
            _references: PhantomData,
        }
    }

    /// Queues `node`; the caller notifies afterwards. Lock-free, and allocates nothing. The node may run, and
    /// its other handles may be dropped, before this returns.
    #[inline]
    pub fn post(&self, node: &Node<T, M>, urgency: Urgency) -> Posted {
        let Some(node) = node.want(urgency) else {
            if urgency == Urgency::Normal {
                self.urgent.store(true, Ordering::Release);
            }
            return Posted::AlreadyQueued;
        };
        match self.push(node, urgency) {
            Ok(()) => Posted::Queued,
            Err(_) => Posted::Closed,
        }
    }

    /// Gives up a handle. After the last one the node is queued once more, as [`Urgency::Idle`], and the loop
    /// gets the payload. In that case this returns `true`, and the caller notifies. If the inbox is closed,
    /// the payload is dropped here.
    pub fn retire(&self, node: Node<T, M>) -> bool {
        node.retire()
            .is_some_and(|node| self.push(node, Urgency::Idle).is_ok())
    }

    /// Sends a message; the caller notifies afterwards. The loop gets the same box.
    ///
    /// ```
    /// use aio_notify::{Inbox, Item, Message, RunQueue};
    ///
    /// let inbox = Inbox::<(), dyn FnMut() -> u32 + Send>::new();
    /// assert!(inbox.send(Box::new(Message::new(|| 7))).is_ok());
    ///
    /// let mut queue = RunQueue::new();
    /// queue.take(&inbox);
    /// let Some(Item::Sent(mut message)) = queue.pop().map(|dequeued| dequeued.begin()) else {
    ///     panic!("it is there");
    /// };
    /// assert_eq!((message.contents)(), 7);
    /// ```
    ///
    /// # Errors
    /// The message, if the inbox is closed.
    #[inline]
    pub fn send(&self, message: Box<Message<T, M>>) -> Result<(), Box<Message<T, M>>> {
        match self
            .push(Dequeued::sent(message), Urgency::Normal)
            .map_err(Dequeued::begin)
        {
            Err(Item::Sent(message)) => Err(message),
            _ => Ok(()),
        }
    }

    /// Adds a node to a list, or returns it if the inbox is closed.
    #[inline]
    fn push(&self, node: Dequeued<T, M>, urgency: Urgency) -> Result<(), Dequeued<T, M>> {
        let is_here = faulty!(HomeIsEverywhere, self.home.is_here(), true);
        let is_next = || faulty!(HomeOvertakes, self.head.load(Ordering::Relaxed).is_null(), true);
        if is_here && urgency == Urgency::Normal && is_next() {
            // All earlier posts of other threads were taken, and their later posts come after this one.
            let before = self.at_home.load(Ordering::Relaxed);
            node.next().store(before, Ordering::Relaxed);
            self.at_home.store(node.as_ptr(), Ordering::Relaxed);
            mem::forget(node); // the list owns it
            return Ok(());
        }
        self.push_for_all(node)?;
        if urgency == Urgency::Normal {
            self.urgent.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Ordering: the exchange releases the node and its link to the taker's swap.
    fn push_for_all(&self, node: Dequeued<T, M>) -> Result<(), Dequeued<T, M>> {
        let order = faulty!(PublishRelaxed, Ordering::Release, Ordering::Relaxed);
        let mut head = read_for_exchange(&self.head);
        loop {
            if head == closed() {
                return Err(node);
            }
            node.next().store(head, Ordering::Relaxed);
            match self
                .head
                .compare_exchange_weak(head, node.as_ptr(), order, Ordering::Relaxed)
            {
                Ok(_) => {
                    mem::forget(node); // the list owns it
                    return Ok(());
                }
                Err(now) => head = now,
            }
        }
    }

    /// Closes the inbox for good: later posts are refused. Moves its entries to `queue`.
    pub fn close(&self, queue: &mut RunQueue<T, M>) {
        queue.take_instead(self, Some(closed()));
    }

    /// Takes the list for all threads and leaves `instead`. Returns the latest node, or null.
    ///
    /// Ordering: the swap acquires every node that was pushed.
    fn detach(&self, instead: *mut Body<T, M>) -> *mut Body<T, M> {
        self.urgent.store(false, Ordering::Relaxed);
        let order = faulty!(DetachRelaxed, Ordering::Acquire, Ordering::Relaxed);
        let latest = self.head.swap(instead, order);
        if latest == closed() {
            ptr::null_mut()
        } else {
            latest
        }
    }

    /// Takes the home thread's list. Returns its latest node, or null.
    fn detach_at_home(&self) -> *mut Body<T, M> {
        if !self.home.is_here() {
            return ptr::null_mut();
        }
        let latest = self.at_home.load(Ordering::Relaxed);
        self.at_home.store(ptr::null_mut(), Ordering::Relaxed);
        latest
    }

    /// Returns whether there is anything to take.
    #[inline]
    #[must_use]
    pub fn pending(&self) -> bool {
        self.has_posts() || self.has_posts_from_home()
    }

    /// Returns whether there may be an entry that is not idle. It may be `false` for a moment although there
    /// is one: the thread that posts such a node notifies afterwards, and a loop that accepts a notification
    /// takes all entries.
    #[inline]
    #[must_use]
    pub fn has_normal(&self) -> bool {
        self.has_posts_from_home() || (self.has_posts() && self.is_urgent())
    }

    #[inline]
    fn is_urgent(&self) -> bool {
        self.urgent.load(Ordering::Relaxed)
    }

    #[inline]
    fn has_posts(&self) -> bool {
        self.head.load(Ordering::Relaxed).addr() > closed::<T, M>().addr()
    }

    #[inline]
    fn has_posts_from_home(&self) -> bool {
        !self.at_home.load(Ordering::Relaxed).is_null()
    }
}

/// The operations of a queue on an inbox.
impl<T, M: ?Sized> RunQueue<T, M> {
    /// Takes all nodes of an inbox, in the order of their posts, and appends them to the queue.
    #[inline]
    pub fn take(&mut self, inbox: &Inbox<T, M>) {
        let has_posts = inbox.has_posts();
        if has_posts || inbox.has_posts_from_home() {
            // A node that was wanted once more, while in the home thread's list, may have left its urgency
            // here.
            let detaches = has_posts || inbox.is_urgent();
            self.take_instead(inbox, detaches.then(ptr::null_mut));
        }
    }

    /// Takes the home thread's list and, if `instead` is given, the other list, which is newer, and leaves
    /// `instead` there.
    fn take_instead(&mut self, inbox: &Inbox<T, M>, instead: Option<*mut Body<T, M>>) {
        let before = self.len();
        if let Some(instead) = instead {
            self.append(inbox.detach(instead));
        }
        self.append(inbox.detach_at_home());
        self.move_behind(before);
    }
}

impl<T, M: ?Sized> Drop for Inbox<T, M> {
    fn drop(&mut self) {
        let mut queue = RunQueue::new();
        queue.append(self.detach(closed()));
        // This thread, whichever it is, is the last one with the inbox.
        queue.append(self.at_home.load(Ordering::Relaxed));
    }
}

impl<T, M: ?Sized> fmt::Debug for Inbox<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox")
            .field("pending", &self.pending())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "inbox_tests.rs"]
mod tests;
