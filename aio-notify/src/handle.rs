//! [`Handle`]: a deferred callback for any thread, with the mailbox to which it is posted.

use std::fmt;
use std::sync::Arc;

use crate::deferred::Slot;
use crate::mailbox::Mailbox;
use crate::node::Node;
use crate::state::Urgency;

/// A [`Node`] of a [`Deferred`](crate::Deferred) callback and the mailbox of its loop. After the last clone
/// is dropped, the loop frees the callback.
///
/// It can be used and dropped by any thread.
///
/// # Examples
/// ```
/// use std::{rc::Rc, sync::Arc};
/// use aio_notify::{Deferred, Due, Handle, Mailbox, Urgency};
///
/// let mailbox = Arc::new(Mailbox::<_, ()>::new()?);
/// let deferred = Deferred::<Rc<dyn Fn()>, ()>::new();
/// let callback = Rc::new(|| println!("flush"));
/// let flush = Handle::new(deferred.insert("flush", callback.clone()), mailbox.clone());
/// let other = flush.clone();
/// std::thread::spawn(move || other.post(Urgency::Normal)).join().unwrap();
/// assert_eq!((flush.name(), flush.is_scheduled()), ("flush", true));
/// drop(flush); // the last one: it never runs
/// assert_eq!(deferred.start(mailbox.inbox()).count(), 0);
/// assert_eq!(Rc::strong_count(&callback), 1);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Handle<M: ?Sized> {
    /// `Some` until it is dropped or taken.
    node: Option<Node<Slot, M>>,
    mailbox: Arc<Mailbox<Slot, M>>,
}

impl<M: ?Sized> Handle<M> {
    /// Makes a handle of `node`, whose loop takes from `mailbox`.
    #[must_use]
    pub fn new(node: Node<Slot, M>, mailbox: Arc<Mailbox<Slot, M>>) -> Self {
        let node = Some(node);
        Self { node, mailbox }
    }

    /// Schedules the callback to run once, in the next round: see [`Mailbox::post`]. No effect if it is
    /// posted already, or if the loop has ended.
    #[inline]
    pub fn post(&self, urgency: Urgency) {
        if let Some(node) = &self.node {
            self.mailbox.post(node, urgency);
        }
    }

    /// Cancels a post: see [`Node::cancel`].
    pub fn cancel(&self) {
        self.node.as_ref().inspect(|node| node.cancel());
    }

    /// Returns whether it was posted, and has neither run nor been cancelled since.
    #[must_use]
    pub fn is_scheduled(&self) -> bool {
        self.node.as_ref().is_some_and(Node::is_scheduled)
    }

    /// Returns the name with which the callback was inserted; empty if it has none.
    #[must_use]
    pub fn name(&self) -> &'static str {
        let node = self.node.as_ref();
        node.and_then(|node| node.payload().name()).unwrap_or_default()
    }

    /// Returns the mailbox of its loop.
    #[must_use]
    pub fn mailbox(&self) -> &Arc<Mailbox<Slot, M>> {
        &self.mailbox
    }

    /// Gives up the handle without retiring it, for [`Deferred::keep`](crate::Deferred::keep), so that the
    /// callback runs once more. Returns `None` if that was done before.
    pub fn take_node(&mut self) -> Option<Node<Slot, M>> {
        self.node.take()
    }
}

impl<M: ?Sized> Clone for Handle<M> {
    fn clone(&self) -> Self {
        Self {
            node: self.node.clone(),
            mailbox: self.mailbox.clone(),
        }
    }
}

impl<M: ?Sized> Drop for Handle<M> {
    /// Retires the node. After the last handle it is queued once more, so that the home thread frees the
    /// closure.
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            self.mailbox.retire(node);
        }
    }
}

impl<M: ?Sized> fmt::Debug for Handle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::deferred::{Deferred, Due};

    #[test]
    fn h6_a_callback_is_freed_with_its_last_handle_on_whichever_thread() {
        let mailbox = Arc::new(Mailbox::<_, ()>::new().expect("there is a descriptor left"));
        let (deferred, callback) = (Deferred::<Rc<()>, ()>::new(), Rc::new(()));
        let handle = Handle::new(deferred.insert("one", callback.clone()), mailbox.clone());
        let count = || deferred.start(mailbox.inbox()).count();
        handle.post(Urgency::Normal);
        handle.cancel();
        assert!(!handle.is_scheduled() && count() == 0);
        let other = handle.clone();
        drop(handle);
        other.post(Urgency::Idle);
        assert_eq!((count(), Rc::strong_count(&callback)), (1, 2));
        std::thread::spawn(move || drop(other)).join().expect("no panic");
        assert_eq!((count(), Rc::strong_count(&callback)), (0, 1));
    }

    #[test]
    fn h7_a_handle_that_is_kept_runs_once_and_goes() {
        let mailbox = Arc::new(Mailbox::<_, ()>::new().expect("there is a descriptor left"));
        let (deferred, callback) = (Deferred::<Rc<()>, ()>::new(), Rc::new(()));
        let mut handle = Handle::new(deferred.insert("one", callback.clone()), mailbox.clone());
        handle.post(Urgency::Normal);
        deferred.keep(handle.take_node().expect("it has one"));
        handle.post(Urgency::Normal);
        assert!(handle.take_node().is_none() && handle.name().is_empty());
        drop(handle);
        let due: Vec<_> = deferred.start(mailbox.inbox()).collect();
        assert!(matches!(&due[..], [Due::Callback(_, Urgency::Normal)]));
        drop(due);
        assert_eq!(Rc::strong_count(&callback), 1);
    }
}
