//! [`Inbox`]: a lock-free queue with many posters and one taker, and [`Line`]: what was taken.
//!
//! Two stacks of linked nodes: one for everybody, where posting is a compare-and-swap and taking a swap, and one that only the
//! home thread uses, with loads and stores. Taking turns them round, which makes it first in, first out. The inbox knows
//! nothing of wake-ups: who posts then notifies. How long nodes live is not decided here either, but in [`node`](crate::node).

use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::ptr::{self, NonNull};

use crate::home::HomeThread;
use crate::node::{Body, Node, Parcel, Run, Taken};
use crate::state::Urgency;
use crate::sync::{
    AtomicBool, AtomicPtr, Fault, Ordering, is_torn_down, planted, read_for_exchange, weakened,
};

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
/// The loop's side ([`Line::take`], [`close`](Self::close)) is for the home thread, which is the one that made the inbox. Another
/// thread that takes gets what is in no order with what the home thread has posted, and none of that. No function of an inbox
/// may be called in a signal handler.
///
/// What nodes carry is shared by threads, a message moves from one to another:
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
    /// The latest node, null, or the mark of a closed inbox. Each node in the list is the queue's share.
    head: AtomicPtr<Body<T, M>>,
    /// The latest of the nodes that the home thread posted while the other list was empty: they are older than what is in
    /// that one now. Only the home thread uses it.
    at_home: AtomicPtr<Body<T, M>>,
    home: HomeThread,
    /// There may be a node in the first list that has a hurry.
    urgent: AtomicBool,
    /// Holds shares of nodes: is `Send` and `Sync` only if they are.
    _shares: PhantomData<Taken<T, M>>,
}

impl<T, M: ?Sized> Default for Inbox<T, M> {
    fn default() -> Self {
        Self::new()
    }
}

/// The head of a closed inbox: an address that no node has, because nodes are aligned.
fn closed<T, M: ?Sized>() -> *mut Body<T, M> {
    ptr::without_provenance_mut(1)
}

impl<T, M: ?Sized> Inbox<T, M> {
    /// An empty inbox, at home on this thread.
    #[must_use]
    pub fn new() -> Self {
        Self {
            head: AtomicPtr::new(ptr::null_mut()),
            at_home: AtomicPtr::new(ptr::null_mut()),
            home: HomeThread::here(),
            urgent: AtomicBool::new(false),
            _shares: PhantomData,
        }
    }

    /// Has `node` run; then notify. Lock-free, allocates nothing. The node may run, and this be its last handle, before this
    /// returns.
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

    /// Gives up a handle. With the last one the node travels once more, as [`Urgency::Idle`], and the loop gets the payload:
    /// true, then notify. It is dropped here if the inbox is closed.
    pub fn retire(&self, node: Node<T, M>) -> bool {
        node.retire()
            .is_some_and(|node| self.push(node, Urgency::Idle).is_ok())
    }

    /// Sends a message: the loop gets the parcel back. Then notify.
    ///
    /// ```
    /// use aio_notify::{Inbox, Line, Parcel, Run};
    ///
    /// let inbox = Inbox::<(), dyn FnMut() -> u32 + Send>::new();
    /// assert!(inbox.send(Box::new(Parcel::new(|| 7))).is_ok());
    ///
    /// let mut line = Line::new();
    /// line.take(&inbox);
    /// let Some(Run::Sent(mut parcel)) = line.pop().map(|taken| taken.begin()) else {
    ///     panic!("it is there");
    /// };
    /// assert_eq!((parcel.message)(), 7);
    /// ```
    ///
    /// # Errors
    /// The parcel, if the inbox is closed.
    #[inline]
    pub fn send(&self, parcel: Box<Parcel<T, M>>) -> Result<(), Box<Parcel<T, M>>> {
        match self
            .push(Taken::sent(parcel), Urgency::Normal)
            .map_err(Taken::begin)
        {
            Err(Run::Sent(parcel)) => Err(parcel),
            _ => Ok(()),
        }
    }

    /// Puts a node into a list, or gives it back if the inbox is closed.
    #[inline]
    fn push(&self, node: Taken<T, M>, urgency: Urgency) -> Result<(), Taken<T, M>> {
        let is_here = self.home.is_here() || planted(Fault::HomeIsEverywhere);
        let is_next = || self.head.load(Ordering::Relaxed).is_null() || planted(Fault::HomeOvertakes);
        if is_here && urgency == Urgency::Normal && is_next() {
            // What other threads have posted so far was taken, and what they post from now on comes after this.
            let before = self.at_home.load(Ordering::Relaxed);
            node.next().store(before, Ordering::Relaxed);
            self.at_home.store(node.as_ptr(), Ordering::Relaxed);
            mem::forget(node); // it is the list's
            return Ok(());
        }
        self.push_for_all(node)?;
        if urgency == Urgency::Normal {
            self.urgent.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Ordering: the exchange releases the node and its link to the taker's swap.
    fn push_for_all(&self, node: Taken<T, M>) -> Result<(), Taken<T, M>> {
        let order = if planted(Fault::PublishRelaxed) {
            Ordering::Relaxed
        } else {
            Ordering::Release
        };
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
                    mem::forget(node); // it is the list's
                    return Ok(());
                }
                Err(now) => head = now,
            }
        }
    }

    /// Closes for good: later posts are refused. What is in the queue is put into `line`.
    pub fn close(&self, line: &mut Line<T, M>) {
        line.take_instead(self, Some(closed()));
    }

    /// Takes the list that is for everybody and leaves `instead`: the latest node of it, or null.
    ///
    /// Ordering: the swap acquires every node that was pushed.
    fn detach(&self, instead: *mut Body<T, M>) -> *mut Body<T, M> {
        self.urgent.store(false, Ordering::Relaxed);
        let latest = self
            .head
            .swap(instead, weakened(Fault::DetachRelaxed, Ordering::Acquire));
        if latest == closed() {
            ptr::null_mut()
        } else {
            latest
        }
    }

    /// Takes the home thread's list: the latest node of it, or null.
    fn detach_at_home(&self) -> *mut Body<T, M> {
        if !self.home.is_here() {
            return ptr::null_mut();
        }
        let latest = self.at_home.load(Ordering::Relaxed);
        self.at_home.store(ptr::null_mut(), Ordering::Relaxed);
        latest
    }

    /// Whether there is anything to take.
    #[inline]
    #[must_use]
    pub fn pending(&self) -> bool {
        self.has_posts() || self.has_posts_from_home()
    }

    /// Whether there may be something to take that has a hurry. Never false for long while there is: who posts such a
    /// node notifies afterwards, and a loop that accepts a notification takes everything.
    #[inline]
    #[must_use]
    pub fn has_normal(&self) -> bool {
        self.has_posts_from_home() || (self.has_posts() && self.urgent.load(Ordering::Relaxed))
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

impl<T, M: ?Sized> Drop for Inbox<T, M> {
    fn drop(&mut self) {
        if !is_torn_down() {
            let mut line = Line::new();
            line.walk(self.detach(closed()));
            // Whichever thread this is, it is the last one that has the inbox.
            line.walk(self.at_home.load(Ordering::Relaxed));
        }
    }
}

impl<T, M: ?Sized> fmt::Debug for Inbox<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox")
            .field("pending", &self.pending())
            .finish_non_exhaustive()
    }
}

/// What was taken and has not begun.
pub struct Line<T, M: ?Sized = T> {
    /// The one that is next is the last one.
    taken: Vec<Taken<T, M>>,
}

impl<T, M: ?Sized> Line<T, M> {
    /// Nobody is in line.
    #[must_use]
    pub const fn new() -> Self {
        Self { taken: Vec::new() }
    }

    /// Whether nobody is in line.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// Takes all nodes of an inbox, in the order in which they were posted, behind those that are in line.
    #[inline]
    pub fn take(&mut self, inbox: &Inbox<T, M>) {
        let has_posts = inbox.has_posts();
        if has_posts || inbox.has_posts_from_home() {
            // A node that was wanted once more may have left its hurry here while it was in the home thread's list.
            let detaches = has_posts || inbox.urgent.load(Ordering::Relaxed);
            self.take_instead(inbox, detaches.then(ptr::null_mut));
        }
    }

    /// Takes the home thread's list and, if there is something to leave `instead`, the other one, which is newer.
    fn take_instead(&mut self, inbox: &Inbox<T, M>, instead: Option<*mut Body<T, M>>) {
        let before = self.taken.len();
        if let Some(instead) = instead {
            self.walk(inbox.detach(instead));
        }
        self.walk(inbox.detach_at_home());
        self.taken.rotate_left(before);
    }

    /// Appends the nodes of a list that was taken out: the latest first, so that the oldest is next.
    fn walk(&mut self, latest: *mut Body<T, M>) {
        let mut rest = latest;
        while let Some(node) = NonNull::new(rest) {
            // SAFETY: every pointer in a list is a node that `push` has forgotten. The list was taken out as a whole, so nobody
            // else follows it, and each of its links is followed once: who posts a node that is still queued does not push it.
            let node = unsafe { Taken::from_ptr(node) };
            rest = node.next().load(Ordering::Relaxed);
            self.taken.push(node);
        }
    }

    /// The one that is next.
    #[inline]
    pub fn pop(&mut self) -> Option<Taken<T, M>> {
        self.taken.pop()
    }
}

impl<T, M: ?Sized> Default for Line<T, M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, M: ?Sized> fmt::Debug for Line<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line")
            .field("len", &self.taken.len())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
#[path = "inbox_tests.rs"]
mod tests;
