//! [`Node`] and [`Message`]: the entries of an inbox, and how long they stay in memory. [`Dequeued`]: an
//! entry that was taken out.
//!
//! A node lives as long as there is a [`Reference`] to it: each handle is one, and the queue has one while
//! the node is queued. [`State`] counts them. A post copies no reference and the loop drops none: the step
//! that sets whether the node is queued turns the queue's reference on and off.

use std::cell::Cell;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};

use crate::state::{Begun, State, Urgency};
use crate::sync::AtomicPtr;

/// The action for a dequeued entry: the result of [`Dequeued::begin`].
///
/// # Examples
/// ```
/// use aio_notify::{Inbox, Item, Message, Node, RunQueue, Urgency};
///
/// let (inbox, node) = (Inbox::<&str>::new(), Node::new("flush"));
/// inbox.post(&node, Urgency::Idle);
/// inbox.send(Box::new(Message::new("hello"))).expect("the inbox is open");
/// let (mut queue, mut done) = (RunQueue::new(), Vec::new());
/// queue.take(&inbox);
/// while let Some(dequeued) = queue.pop() {
///     match dequeued.begin() {
///         Item::Cancelled => {}
///         Item::Normal | Item::Idle => done.push("callback"),
///         Item::Retired(payload) => done.push(payload),
///         Item::Sent(message) => done.push(message.contents),
///     }
/// }
/// assert_eq!(done, ["callback", "hello"]);
/// ```
#[derive(Debug)]
pub enum Item<T, M: ?Sized = T> {
    /// Nothing: the node was cancelled.
    Cancelled,
    /// Run the node.
    Normal,
    /// Run the node, which was posted as [`Urgency::Idle`]; it counts as no progress.
    Idle,
    /// The last handle was [retired](crate::Inbox::retire): this is the node's payload.
    Retired(T),
    /// A message that was [sent](crate::Inbox::send).
    Sent(Box<Message<T, M>>),
}

/// The target of a reference. Other modules use only its address.
pub(crate) struct Body<T, M: ?Sized> {
    state: State,
    /// The node that was pushed before this one; for the owner of the queue's reference.
    next: AtomicPtr<Self>,
    contents: Contents<T, M>,
}

enum Contents<T, M: ?Sized> {
    Node(T),
    /// The message that begins with this body, once it is sent.
    Message(Cell<Option<NonNull<Message<T, M>>>>),
}

impl<T, M: ?Sized> Body<T, M> {
    fn new(state: State, contents: Contents<T, M>) -> Self {
        let next = AtomicPtr::new(ptr::null_mut());
        Self {
            state,
            next,
            contents,
        }
    }
}

/// A message with its link in the queue: one allocation for both.
///
/// A box of a message with sized contents coerces to a box of a message with the contents of the inbox, such
/// as a trait object.
///
/// ```
/// use aio_notify::Message;
///
/// let sized = Box::new(Message::new(|| 7));
/// let unsized_: Box<Message<(), dyn Fn() -> u32>> = sized;
/// assert_eq!((unsized_.contents)(), 7);
/// ```
#[repr(C)]
pub struct Message<T, M: ?Sized, C: ?Sized = M> {
    /// First, so that the body has the address of the message.
    body: Body<T, M>,
    /// The contents that are sent.
    pub contents: C,
}

impl<T, M: ?Sized, C> Message<T, M, C> {
    /// Makes a message, to be boxed and [sent](crate::Inbox::send).
    pub fn new(contents: C) -> Self {
        let body = Body::new(State::sent(), Contents::Message(Cell::new(None)));
        Self { body, contents }
    }
}

impl<T, M: ?Sized, C: fmt::Debug + ?Sized> fmt::Debug for Message<T, M, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Message").field(&&self.contents).finish()
    }
}

/// A pointer to a node that lives for as long as the reference. References are made with the node, by [`Node::clone`] for one
/// that `State` has counted, and for the queue by the step that turned QUEUED on; each is given up once, as `State` decides.
struct Reference<T, M: ?Sized>(NonNull<Body<T, M>>);

// SAFETY: a reference shares a node as an `Arc` shares its contents. A message is never shared: its sender gives it away, and
// the next access to it is by the thread that frees the node.
unsafe impl<T: Send + Sync, M: Send + ?Sized> Send for Reference<T, M> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync, M: Send + ?Sized> Sync for Reference<T, M> {}

impl<T, M: ?Sized> Reference<T, M> {
    #[inline]
    fn body(&self) -> &Body<T, M> {
        // SAFETY: the node is freed when the last reference is given up, and this one has not been given up. Nothing has a unique
        // reference to it before that. A message begins with its body, at the same address.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    fn payload(&self) -> Option<&T> {
        match &self.body().contents {
            Contents::Node(payload) => Some(payload),
            Contents::Message(_) => None,
        }
    }

    /// Frees the node. The caller has the last reference, by the result of a step of `State`.
    #[inline]
    fn free(self) -> Item<T, M> {
        if let Contents::Message(message) = &self.body().contents {
            let Some(whole) = message.get() else {
                unreachable!("a message knows its own address, since it was sent");
            };
            // SAFETY: `Dequeued::sent` got the pointer from a box; for the rest see below.
            return Item::Sent(unsafe { Box::from_raw(whole.as_ptr()) });
        }
        // SAFETY: `Node::new` got the pointer from a box. It is given back once: of several threads that give
        // up references, `State` reports to only one that none is left, after the others are done, and only
        // that thread comes here with it.
        let body = unsafe { Box::from_raw(self.0.as_ptr()) };
        match body.contents {
            Contents::Node(payload) => Item::Retired(payload),
            Contents::Message(_) => Item::Cancelled,
        }
    }
}

/// Stands for a callback. It can be posted again and again, and is in the inbox at most once. Clones are
/// handles to the same node.
///
/// # Examples
/// ```
/// use aio_notify::{Inbox, Node, Urgency};
///
/// let (inbox, node) = (Inbox::<&str>::new(), Node::new("flush"));
/// let handle = node.clone();
/// std::thread::scope(|threads| {
///     threads.spawn(|| inbox.post(&handle, Urgency::Normal));
/// });
/// assert!(node.is_scheduled());
/// node.cancel();
/// assert!(!handle.is_scheduled());
/// ```
pub struct Node<T, M: ?Sized = T>(Reference<T, M>);

impl<T, M: ?Sized> Node<T, M> {
    /// Makes a node that is not queued.
    pub fn new(payload: T) -> Self {
        let body = Box::new(Body::new(State::at_rest(), Contents::Node(payload)));
        Self(Reference(NonNull::from(Box::leak(body))))
    }

    /// Returns the payload.
    #[must_use]
    pub fn payload(&self) -> &T {
        let Some(payload) = self.0.payload() else {
            unreachable!("a message has no handles");
        };
        payload
    }

    /// Cancels a post that has not begun. If the loop is just beginning the node, it runs once more.
    pub fn cancel(&self) {
        self.0.body().state.cancel();
    }

    /// Returns whether it is wanted and has not begun.
    #[must_use]
    pub fn is_scheduled(&self) -> bool {
        self.0.body().state.is_scheduled()
    }

    /// Marks it as wanted. The caller pushes the result.
    #[inline]
    pub(crate) fn want(&self, urgency: Urgency) -> Option<Dequeued<T, M>> {
        let is_ours = self.0.body().state.want(urgency);
        is_ours.then(|| Dequeued(Reference(self.0.0)))
    }

    /// Gives up this handle. The caller pushes the result.
    pub(crate) fn retire(self) -> Option<Dequeued<T, M>> {
        let this = ManuallyDrop::new(self);
        let is_last = this.0.body().state.retire();
        is_last.then(|| Dequeued(Reference(this.0.0)))
    }
}

impl<T, M: ?Sized> Clone for Node<T, M> {
    fn clone(&self) -> Self {
        self.0.body().state.share();
        Self(Reference(self.0.0))
    }
}

impl<T, M: ?Sized> Drop for Node<T, M> {
    /// Gives up the handle. The payload is dropped with the last one or, if the node is queued then, by the
    /// loop that dequeues it.
    fn drop(&mut self) {
        if self.0.body().state.release() {
            Reference(self.0.0).free();
        }
    }
}

impl<T: fmt::Debug, M: ?Sized> fmt::Debug for Node<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("scheduled", &self.is_scheduled())
            .field("payload", self.payload())
            .finish()
    }
}

/// A node or a message that was taken out of the inbox. Dropping it has the effect of a cancellation.
///
/// It is the only reference of the queue: in a list it is a bare pointer.
///
/// # Examples
/// ```
/// use aio_notify::{Inbox, Node, RunQueue, Urgency};
///
/// let (inbox, node) = (Inbox::<&str>::new(), Node::new("flush"));
/// inbox.post(&node, Urgency::Normal);
/// let mut queue = RunQueue::new();
/// queue.take(&inbox);
/// let dequeued = queue.pop().expect("it was posted");
/// assert_eq!((dequeued.payload(), dequeued.is_scheduled()), (Some(&"flush"), true));
/// drop(dequeued); // as if it had been cancelled
/// assert!(!node.is_scheduled());
/// ```
pub struct Dequeued<T, M: ?Sized = T>(Reference<T, M>);

impl<T, M: ?Sized> Dequeued<T, M> {
    /// Makes the queue's reference to a message, which the caller pushes.
    #[inline]
    pub(crate) fn sent(message: Box<Message<T, M>>) -> Self {
        let whole = NonNull::from(Box::leak(message));
        let reference = Reference(whole.cast());
        if let Contents::Message(message) = &reference.body().contents {
            message.set(Some(whole));
        }
        Self(reference)
    }

    /// Returns the pointer that stands for it in a list.
    #[inline]
    pub(crate) fn as_ptr(&self) -> *mut Body<T, M> {
        self.0.0.as_ptr()
    }

    /// Takes it back from a list.
    ///
    /// # Safety
    /// The pointer is [`as_ptr`](Self::as_ptr) of one that was forgotten, and has not come back yet.
    #[inline]
    pub(crate) const unsafe fn from_ptr(pointer: NonNull<Body<T, M>>) -> Self {
        Self(Reference(pointer))
    }

    /// Returns the link to the entry that was pushed before it.
    #[inline]
    pub(crate) fn next(&self) -> &AtomicPtr<Body<T, M>> {
        &self.0.body().next
    }

    /// Returns the payload of a node; `None` for a message.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> Option<&T> {
        self.0.payload()
    }

    /// Returns whether a node is wanted and has a handle that could cancel it; until it begins, this may
    /// change.
    #[must_use]
    pub fn is_scheduled(&self) -> bool {
        self.0.body().state.is_scheduled()
    }

    /// Returns the action for this entry. Call it right before running the node: a later post, also while the
    /// node runs, queues it again.
    #[inline]
    pub fn begin(self) -> Item<T, M> {
        ManuallyDrop::new(self).give_up()
    }

    /// Gives up the queue's reference, which may not be used any more after this.
    #[inline]
    fn give_up(&mut self) -> Item<T, M> {
        match self.0.body().state.begin() {
            Begun::Cancelled => Item::Cancelled,
            Begun::Normal => Item::Normal,
            Begun::Idle => Item::Idle,
            Begun::Last => Reference(self.0.0).free(),
        }
    }
}

impl<T, M: ?Sized> Drop for Dequeued<T, M> {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl<T: fmt::Debug, M: ?Sized> fmt::Debug for Dequeued<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Dequeued").field(&self.payload()).finish()
    }
}
