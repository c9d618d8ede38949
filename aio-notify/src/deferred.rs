//! [`Deferred`]: callbacks that a loop runs in its next iteration, and the messages that arrive between them.
//!
//! The callbacks stay on the home thread, in a slab; a [`Node`] that names a slot of it travels through the inbox. The loop starts a
//! [`Round`] in each iteration and runs what it yields. Nothing is borrowed while a callback runs: it may insert, post and retire
//! callbacks, start a round of its own, and panic.

use std::cell::RefCell;
use std::fmt;

use crate::inbox::Inbox;
use crate::node::{Dequeued, Item, Message, Node};
use crate::run_queue::RunQueue;
use crate::state::Urgency;
use crate::sync::faulty;

/// How many entries one round takes at the most; the rest stays queued for the next round.
const BUDGET: usize = 4096;

/// The callbacks of one loop, and the queue of those that are due. It lives on the home thread.
///
/// `C` is what the loop calls, such as an `Rc<dyn Fn()>`; it is cloned for each call. `M` are the messages.
///
/// ```
/// use std::rc::Rc;
/// use aio_notify::{Deferred, Due, Mailbox, Urgency};
///
/// # fn main() -> std::io::Result<()> {
/// let mailbox = Mailbox::<_, ()>::new()?;
/// let deferred = Deferred::<Rc<dyn Fn()>, ()>::new();
/// let node = deferred.insert("hello", Rc::new(|| println!("hello")));
/// mailbox.post(&node, Urgency::Normal);
///
/// for due in deferred.start(mailbox.inbox()) {
///     if let Due::Callback(call, _) = due {
///         call();
///     }
/// }
/// mailbox.retire(node);
/// # Ok(()) }
/// ```
pub struct Deferred<C, M: ?Sized> {
    callbacks: RefCell<Slab<C>>,
    queue: RefCell<RunQueue<Slot, M>>,
}

/// The payload of a deferred callback's node: where the callback is, and its name.
#[derive(Debug)]
pub struct Slot {
    index: u32,
    name: &'static str,
}

impl Slot {
    /// The name that the callback was inserted with.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }
}

/// What a loop runs next.
#[derive(Debug)]
pub enum Due<C, M: ?Sized> {
    /// A callback, and how it was posted: [`Urgency::Idle`] is no progress.
    Callback(C, Urgency),
    /// A message.
    Message(Box<Message<Slot, M>>),
}

impl<C: Clone, M: ?Sized> Deferred<C, M> {
    /// No callbacks.
    #[must_use]
    pub fn new() -> Self {
        Self {
            callbacks: RefCell::default(),
            queue: RefCell::default(),
        }
    }

    /// Adds a callback and returns its node, which any thread may post to the loop's inbox. When the last handle is
    /// [retired](Inbox::retire), the next round frees the callback; if it is only dropped, the callback stays until this is dropped.
    pub fn insert(&self, name: &'static str, callback: C) -> Node<Slot, M> {
        let index = self.callbacks.borrow_mut().insert(callback);
        Node::new(Slot { index, name })
    }

    /// Whether a round would find anything.
    #[inline]
    #[must_use]
    pub fn has_due(&self, inbox: &Inbox<Slot, M>) -> bool {
        inbox.pending() || self.has_queued()
    }

    /// Whether a round would find something that is not [`Urgency::Idle`], as far as is known: see [`Inbox::has_normal`].
    #[inline]
    #[must_use]
    pub fn has_urgent(&self, inbox: &Inbox<Slot, M>) -> bool {
        self.has_queued() || inbox.has_normal()
    }

    #[inline]
    fn has_queued(&self) -> bool {
        !self.queue.borrow().is_empty()
    }

    /// Takes what is in the inbox and starts a round over it. What is posted from now on, also by a callback of this round, is for
    /// the next round. A round inside a callback goes on where the outer one was, then yields what is new (rules H2-H4).
    #[inline]
    pub fn start(&self, inbox: &Inbox<Slot, M>) -> Round<'_, C, M> {
        self.queue.borrow_mut().take(inbox);
        Round {
            deferred: self,
            budget: BUDGET,
        }
    }

    /// Closes the inbox, and drops what is in it and what is queued: the end of a loop. Returns the names of the callbacks that
    /// were posted and did not run.
    pub fn close(&self, inbox: &Inbox<Slot, M>) -> Vec<&'static str> {
        let mut queue = self.queue.take();
        faulty!(LeftOpen, inbox.close(&mut queue), queue.take(inbox));
        let mut names = Vec::new();
        while let Some(dequeued) = queue.pop() {
            if let Some(slot) = dequeued.payload()
                && dequeued.is_scheduled()
            {
                names.push(slot.name);
            }
        }
        names
    }

    #[inline]
    fn pop(&self) -> Option<Dequeued<Slot, M>> {
        self.queue.borrow_mut().pop()
    }

    #[inline]
    fn get(&self, index: u32) -> Option<C> {
        self.callbacks.borrow().slots.get(index as usize)?.clone()
    }

    fn free(&self, slot: &Slot) {
        let freed = self.callbacks.borrow_mut().remove(slot.index);
        drop(freed); // outside the borrow: its drop may use this
    }
}

impl<C: Clone, M: ?Sized> Default for Deferred<C, M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C, M: ?Sized> fmt::Debug for Deferred<C, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deferred")
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

/// The due callbacks and messages of one iteration, in the order of their posts. See [`Deferred::start`].
///
/// Dropping a round, also by a panic of a callback, leaves the rest for the next one.
#[must_use = "it runs nothing by itself"]
pub struct Round<'a, C, M: ?Sized> {
    deferred: &'a Deferred<C, M>,
    /// How many entries it may still take.
    budget: usize,
}

impl<C: Clone, M: ?Sized> Iterator for Round<'_, C, M> {
    type Item = Due<C, M>;

    #[inline]
    fn next(&mut self) -> Option<Due<C, M>> {
        while self.budget > 0 {
            self.budget -= 1;
            let dequeued = self.deferred.pop()?;
            let index = dequeued.payload().map(|slot| slot.index);
            let urgency = match dequeued.begin() {
                Item::Normal => Urgency::Normal,
                Item::Idle => Urgency::Idle,
                Item::Cancelled => continue,
                Item::Retired(slot) => {
                    self.deferred.free(&slot);
                    continue;
                }
                Item::Sent(message) => return Some(Due::Message(message)),
            };
            if let Some(callback) = index.and_then(|index| self.deferred.get(index)) {
                return Some(Due::Callback(callback, urgency));
            }
        }
        None
    }
}

impl<C, M: ?Sized> fmt::Debug for Round<'_, C, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Round")
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}

struct Slab<C> {
    slots: Vec<Option<C>>,
    vacant: Vec<u32>,
}

impl<C> Slab<C> {
    fn insert(&mut self, callback: C) -> u32 {
        if let Some(index) = self.vacant.pop() {
            self.slots[index as usize] = Some(callback);
            return index;
        }
        self.slots.push(Some(callback));
        self.slots.len() as u32 - 1
    }

    fn remove(&mut self, index: u32) -> Option<C> {
        let removed = self.slots[index as usize].take();
        self.vacant.push(index);
        removed
    }
}

impl<C> Default for Slab<C> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            vacant: Vec::new(),
        }
    }
}

#[cfg(test)]
#[path = "deferred_tests.rs"]
mod tests;
