//! [`Node`] and [`Parcel`]: what can be in an inbox, and who keeps it in memory; [`Taken`]: what came out.
//!
//! A node is there as long as somebody has a [`Share`] in it: each handle is one, and the queue has one while the node is in
//! line. [`State`] counts them. So a post copies no share and the loop drops none: the queue's is turned on and off in the
//! same step that says whether the node is in line.

use std::cell::Cell;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};

use crate::state::{Begun, State, Urgency};
use crate::sync::{AtomicPtr, is_torn_down};

/// What [`Taken::begin`] says.
#[derive(Debug)]
pub enum Run<T, M: ?Sized = T> {
    /// Nothing: it was cancelled.
    No,
    /// Run it.
    Normal,
    /// Run it; it had no hurry, and is no progress.
    Idle,
    /// Its last handle was [retired](crate::Inbox::retire): this is what it carried.
    Retired(T),
    /// It was [sent](crate::Inbox::send).
    Sent(Box<Parcel<T, M>>),
}

/// What a share leads to. Outside of this module it is only an address.
pub(crate) struct Body<T, M: ?Sized> {
    state: State,
    /// The node that was pushed before this one; whoever has the queue's share uses it.
    next: AtomicPtr<Self>,
    contents: Contents<T, M>,
}

enum Contents<T, M: ?Sized> {
    Node(T),
    /// The parcel that this is the beginning of, as soon as it is sent.
    Parcel(Cell<Option<NonNull<Parcel<T, M>>>>),
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

/// A message with its place in the queue: one allocation for both. A box of one with a sized message becomes, by itself, a box of
/// one with whatever the inbox takes, such as a trait object.
#[repr(C)]
pub struct Parcel<T, M: ?Sized, C: ?Sized = M> {
    /// First: where the parcel is, the body is.
    body: Body<T, M>,
    /// What is sent.
    pub message: C,
}

impl<T, M: ?Sized, C> Parcel<T, M, C> {
    /// To be put into a box, and sent.
    pub fn new(message: C) -> Self {
        let body = Body::new(State::sent(), Contents::Parcel(Cell::new(None)));
        Self { body, message }
    }
}

impl<T, M: ?Sized, C: fmt::Debug + ?Sized> fmt::Debug for Parcel<T, M, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Parcel").field(&&self.message).finish()
    }
}

/// A pointer to a node that is there for as long as the share is. Shares are made with the node, by [`Node::clone`] for one
/// that `State` has counted, and for the queue by who has turned QUEUED on; each is given up once, as `State` says.
struct Share<T, M: ?Sized>(NonNull<Body<T, M>>);

// SAFETY: a share is to a node what an `Arc` is to its contents. A message is never shared: who sends it gives it away, and
// the next one who gets at it is who frees the node.
unsafe impl<T: Send + Sync, M: Send + ?Sized> Send for Share<T, M> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync, M: Send + ?Sized> Sync for Share<T, M> {}

impl<T, M: ?Sized> Share<T, M> {
    #[inline]
    fn body(&self) -> &Body<T, M> {
        // SAFETY: the node is freed by who gives up the last share, and this one has not been given up. Nobody has a unique
        // reference to it before that. A parcel begins with its body, at the same address.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    fn payload(&self) -> Option<&T> {
        match &self.body().contents {
            Contents::Node(payload) => Some(payload),
            Contents::Parcel(_) => None,
        }
    }

    /// Frees the node, for who has the last share in it, as `State` has said.
    #[inline]
    fn free(self) -> Run<T, M> {
        if let Contents::Parcel(parcel) = &self.body().contents {
            let Some(whole) = parcel.get() else {
                unreachable!("a parcel knows where it is, since it was sent");
            };
            // SAFETY: `Taken::sent` got the pointer from a box; for the rest see below.
            return Run::Sent(unsafe { Box::from_raw(whole.as_ptr()) });
        }
        // SAFETY: `Node::new` got the pointer from a box. It is given back once: of several who give up their shares, `State`
        // tells only one that no share is left, after the others are done, and that one comes here with it.
        let body = unsafe { Box::from_raw(self.0.as_ptr()) };
        match body.contents {
            Contents::Node(payload) => Run::Retired(payload),
            Contents::Parcel(_) => Run::No,
        }
    }
}

/// A callback's stand-in: can be posted again and again, and is in the inbox at most once. Clones are handles to the same
/// node.
pub struct Node<T, M: ?Sized = T>(Share<T, M>);

impl<T, M: ?Sized> Node<T, M> {
    /// A node that is not queued.
    pub fn new(payload: T) -> Self {
        let body = Box::new(Body::new(State::at_rest(), Contents::Node(payload)));
        Self(Share(NonNull::from(Box::leak(body))))
    }

    /// What it carries.
    #[must_use]
    pub fn payload(&self) -> &T {
        let Some(payload) = self.0.payload() else {
            unreachable!("a parcel has no handles");
        };
        payload
    }

    /// Takes back what was posted and has not begun. If the loop is just beginning it, it runs once more.
    pub fn cancel(&self) {
        self.0.body().state.cancel();
    }

    /// Whether it is wanted and has not begun.
    #[must_use]
    pub fn is_scheduled(&self) -> bool {
        self.0.body().state.is_scheduled()
    }

    /// Marks it as wanted. What is returned is to be pushed.
    #[inline]
    pub(crate) fn want(&self, urgency: Urgency) -> Option<Taken<T, M>> {
        let is_ours = self.0.body().state.want(urgency);
        is_ours.then(|| Taken(Share(self.0.0)))
    }

    /// Gives up this handle. What is returned is to be pushed.
    pub(crate) fn retire(self) -> Option<Taken<T, M>> {
        let this = ManuallyDrop::new(self);
        let is_last = this.0.body().state.retire();
        is_last.then(|| Taken(Share(this.0.0)))
    }
}

impl<T, M: ?Sized> Clone for Node<T, M> {
    fn clone(&self) -> Self {
        self.0.body().state.share();
        Self(Share(self.0.0))
    }
}

impl<T, M: ?Sized> Drop for Node<T, M> {
    /// The payload is dropped by who drops the last handle or, if the node is queued then, by who takes it.
    fn drop(&mut self) {
        if !is_torn_down() && self.0.body().state.release() {
            Share(self.0.0).free();
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

/// Something that was taken out of the inbox. Dropped, it is as if it had been cancelled.
///
/// It is the queue's share, of which there is one: in a list it is a bare pointer.
pub struct Taken<T, M: ?Sized = T>(Share<T, M>);

impl<T, M: ?Sized> Taken<T, M> {
    /// A parcel that is to be pushed.
    #[inline]
    pub(crate) fn sent(parcel: Box<Parcel<T, M>>) -> Self {
        let whole = NonNull::from(Box::leak(parcel));
        let share = Share(whole.cast());
        if let Contents::Parcel(parcel) = &share.body().contents {
            parcel.set(Some(whole));
        }
        Self(share)
    }

    /// The pointer that stands for it in a list.
    #[inline]
    pub(crate) fn as_ptr(&self) -> *mut Body<T, M> {
        self.0.0.as_ptr()
    }

    /// Back from a list.
    ///
    /// # Safety
    /// The pointer is [`as_ptr`](Self::as_ptr) of one that was forgotten, and has not come back yet.
    #[inline]
    pub(crate) const unsafe fn from_ptr(pointer: NonNull<Body<T, M>>) -> Self {
        Self(Share(pointer))
    }

    /// The one that was pushed before it.
    #[inline]
    pub(crate) fn next(&self) -> &AtomicPtr<Body<T, M>> {
        &self.0.body().next
    }

    /// What a node carries; `None` if it is a parcel.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> Option<&T> {
        self.0.payload()
    }

    /// Whether it is wanted by somebody who could still cancel it, as far as is known before it begins.
    #[must_use]
    pub fn is_scheduled(&self) -> bool {
        self.0.body().state.is_scheduled()
    }

    /// Called right before running it: says what to do. Whatever is posted from now on, also while it runs, queues the node
    /// again.
    #[inline]
    pub fn begin(self) -> Run<T, M> {
        ManuallyDrop::new(self).give_up()
    }

    /// Gives up the queue's share, which may not be used any more after this.
    #[inline]
    fn give_up(&mut self) -> Run<T, M> {
        match self.0.body().state.begin() {
            Begun::No => Run::No,
            Begun::Normal => Run::Normal,
            Begun::Idle => Run::Idle,
            Begun::Last => Share(self.0.0).free(),
        }
    }
}

impl<T, M: ?Sized> Drop for Taken<T, M> {
    fn drop(&mut self) {
        if !is_torn_down() {
            self.give_up();
        }
    }
}

impl<T: fmt::Debug, M: ?Sized> fmt::Debug for Taken<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Taken").field(&self.payload()).finish()
    }
}
