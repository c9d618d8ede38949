//! [`Deferred`]: callbacks that a loop runs in its next iteration, and the messages that arrive between them.
//!
//! The callbacks stay on the home thread, in a slab. A [`Node`] with the index of a slot travels through the
//! inbox. The loop starts a [`Round`] in each iteration and runs its entries. Nothing is borrowed while a
//! callback runs: it may insert, post and retire callbacks, start a round of its own, and panic.
//!
//! A callback whose handle is [kept](Deferred::keep) runs once: the slab keeps the handle beside it, and
//! gives both up when the callback becomes due.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use crate::inbox::Inbox;
use crate::mailbox::Mailbox;
use crate::node::{Dequeued, Item, Message, Node};
use crate::run_queue::RunQueue;
use crate::state::Urgency;
use crate::sync::faulty;

/// The largest number of entries that one round takes; the others stay queued for the next round.
const BUDGET: usize = 4096;

/// The callbacks of one loop, and the queue of those that are due. It lives on the home thread.
///
/// `C` is the callback, such as an `Rc<dyn Fn()>`; it is cloned for each call. `M` is the type of messages.
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
    state: RefCell<State<C, M>>,
    /// The bit of the word that is set if the queue may have entries: a round is under way, or has left some.
    bit: u32,
    word: Rc<Cell<u32>>,
}

/// In one cell, because a callback that becomes due is taken from both.
struct State<C, M: ?Sized> {
    callbacks: Slab<C, Node<Slot, M>>,
    queue: RunQueue<Slot, M>,
}

/// The payload of a deferred callback's node: its position and its name.
///
/// # Examples
/// ```
/// use std::rc::Rc;
/// use aio_notify::{Deferred, Node, Slot};
///
/// let deferred = Deferred::<Rc<dyn Fn()>, ()>::new();
/// let flush: Node<Slot, ()> = deferred.insert("flush", Rc::new(|| ()));
/// assert_eq!(flush.payload().name(), Some("flush"));
/// ```
#[derive(Debug)]
pub struct Slot {
    index: u32,
    is_named: bool,
    name: &'static str,
}

impl Slot {
    /// Returns the name with which the callback was inserted, if it has one.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        self.is_named.then_some(self.name)
    }
}

/// The next entry for a loop to run.
///
/// # Examples
/// ```
/// use std::rc::Rc;
/// use aio_notify::{Deferred, Due, Mailbox, Message, Urgency};
///
/// let (mailbox, deferred) = (Mailbox::<_, u32>::new()?, Deferred::<Rc<dyn Fn() -> u32>, u32>::new());
/// let idle = deferred.insert("idle", Rc::new(|| 1));
/// mailbox.post(&idle, Urgency::Idle);
/// assert!(mailbox.send(Box::new(Message::new(2))).is_ok());
/// let results = deferred.start(mailbox.inbox()).map(|due| match due {
///     Due::Callback(call, urgency) => (call(), urgency == Urgency::Normal),
///     Due::Message(message) => (message.contents, true),
/// });
/// assert_eq!(results.collect::<Vec<_>>(), [(1, false), (2, true)]);
/// # mailbox.retire(idle);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub enum Due<C, M: ?Sized> {
    /// A callback, and the urgency of its post. [`Urgency::Idle`] counts as no progress.
    Callback(C, Urgency),
    /// A message.
    Message(Box<Message<Slot, M>>),
}

impl<C, M: ?Sized> Deferred<C, M> {
    fn set_has_queued(&self, has_queued: bool) {
        let others = self.word.get() & !self.bit;
        self.word.set(others | if has_queued { self.bit } else { 0 });
    }
}

impl<C: Clone, M: ?Sized> Deferred<C, M> {
    /// Makes a value without callbacks.
    #[must_use]
    pub fn new() -> Self {
        Self::sharing(Rc::default(), 1)
    }

    /// As [`new`](Self::new). `bit` of `word` shows whether a round is under way, or has left entries; the
    /// other bits are the caller's.
    #[must_use]
    pub fn sharing(word: Rc<Cell<u32>>, bit: u32) -> Self {
        Self {
            state: RefCell::new(State {
                callbacks: Slab::default(),
                queue: RunQueue::default(),
            }),
            bit,
            word,
        }
    }

    /// Adds a callback and returns its node, which any thread may post to the loop's inbox. When the last
    /// handle is [retired](Inbox::retire), the next round frees the callback. If it is only dropped, the
    /// callback stays until this value is dropped.
    pub fn insert(&self, name: &'static str, callback: C) -> Node<Slot, M> {
        self.insert_as(Some(name), callback)
    }

    fn insert_as(&self, name: Option<&'static str>, callback: C) -> Node<Slot, M> {
        let index = self.state.borrow_mut().callbacks.insert(callback);
        Node::new(Slot {
            index,
            is_named: name.is_some(),
            name: name.unwrap_or_default(),
        })
    }

    /// Posts a callback that runs once, in the next round, and needs no handle. It has no name: [`close`](Self::close) drops it
    /// without listing it.
    ///
    /// ```
    /// use std::rc::Rc;
    /// use aio_notify::{Deferred, Due, Mailbox};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let (mailbox, deferred) = (Mailbox::<_, ()>::new()?, Deferred::<Rc<str>, ()>::new());
    /// deferred.post_once(Rc::from("hello"), &mailbox);
    /// let due = deferred.start(mailbox.inbox()).next();
    /// assert!(matches!(due, Some(Due::Callback(text, _)) if &*text == "hello"));
    /// assert!(!deferred.has_due(mailbox.inbox()));
    /// # Ok(()) }
    /// ```
    pub fn post_once(&self, callback: C, mailbox: &Mailbox<Slot, M>) {
        let node = self.insert_as(None, callback);
        mailbox.post(&node, Urgency::Normal);
        self.keep(node);
    }

    /// Keeps a handle until its callback is due, also if it was cancelled, and then gives the handle up. If
    /// it is the last handle, the callback is freed after it has run.
    pub fn keep(&self, node: Node<Slot, M>) {
        let former = self.state.borrow_mut().callbacks.keep(node.payload().index, node);
        drop(former); // not the last handle: the other one is kept now
    }

    /// Returns whether a round would have any entries.
    #[inline]
    #[must_use]
    pub fn has_due(&self, inbox: &Inbox<Slot, M>) -> bool {
        inbox.pending() || self.has_queued()
    }

    /// Returns whether a round would have entries that are not [`Urgency::Idle`]; may be late: see
    /// [`Inbox::has_normal`].
    #[inline]
    #[must_use]
    pub fn has_urgent(&self, inbox: &Inbox<Slot, M>) -> bool {
        self.has_queued() || inbox.has_normal()
    }

    #[inline]
    fn has_queued(&self) -> bool {
        self.word.get() & self.bit != 0 && self.finds_queued()
    }

    #[cold]
    fn finds_queued(&self) -> bool {
        !self.state.borrow().queue.is_empty()
    }

    /// Takes all entries of the inbox and starts a round over them. Later posts, also by a callback of this
    /// round, belong to the next round. A round inside a callback continues the outer one, then yields the
    /// new entries (rules H2-H4).
    #[inline]
    pub fn start(&self, inbox: &Inbox<Slot, M>) -> Round<'_, C, M> {
        self.state.borrow_mut().queue.take(inbox);
        self.set_has_queued(true);
        Round {
            deferred: self,
            budget: BUDGET,
        }
    }

    /// Closes the inbox, and drops its entries and the queued ones, at the end of a loop. Returns the names
    /// of the callbacks that were posted and did not run.
    pub fn close(&self, inbox: &Inbox<Slot, M>) -> Vec<&'static str> {
        let mut queue = std::mem::take(&mut self.state.borrow_mut().queue);
        faulty!(LeftOpen, inbox.close(&mut queue), queue.take(inbox));
        let mut names = Vec::new();
        while let Some(dequeued) = queue.pop() {
            if let Some(name) = dequeued.payload().and_then(Slot::name)
                && dequeued.is_scheduled()
            {
                names.push(name);
            }
        }
        names
    }

    /// Gives up the kept handle, and returns the callback.
    #[cold]
    fn get_last(&self, index: u32) -> Option<C> {
        let callbacks = &mut self.state.borrow_mut().callbacks;
        let retired = callbacks.take_kept(index).and_then(Node::retire);
        match retired.map(Dequeued::begin) {
            Some(Item::Retired(_)) => callbacks.remove(index),
            // There are other handles.
            _ => callbacks.get(index).cloned(),
        }
    }

    /// Frees the callback of a node that is retired, or that was cancelled and has no handle but the kept
    /// one.
    #[cold]
    fn free(&self, index: u32, item: Item<Slot, M>) {
        let freed = match item {
            Item::Retired(slot) => self.state.borrow_mut().callbacks.remove(slot.index),
            _ if self.state.borrow().callbacks.is_kept(index) => self.get_last(index),
            _ => None,
        };
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
        let state = self.state.try_borrow();
        f.debug_struct("Deferred")
            .field("queue", &state.as_ref().map(|state| &state.queue))
            .finish_non_exhaustive()
    }
}

/// The due callbacks and messages of one iteration, in the order of their posts. See [`Deferred::start`].
///
/// Dropping a round, also by a panic of a callback, leaves the rest for the next one.
///
/// # Examples
/// ```
/// use std::rc::Rc;
/// use aio_notify::{Deferred, Mailbox};
///
/// let (mailbox, deferred) = (Mailbox::<_, ()>::new()?, Deferred::<Rc<str>, ()>::new());
/// for text in ["first", "second"] {
///     deferred.post_once(Rc::from(text), &mailbox);
/// }
/// let mut round = deferred.start(mailbox.inbox());
/// assert!(round.next().is_some());
/// drop(round);
/// assert_eq!(deferred.start(mailbox.inbox()).count(), 1);
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use = "it runs nothing by itself"]
pub struct Round<'a, C, M: ?Sized> {
    deferred: &'a Deferred<C, M>,
    /// The number of entries that it may still take.
    budget: usize,
}

impl<C: Clone, M: ?Sized> Iterator for Round<'_, C, M> {
    type Item = Due<C, M>;

    #[inline]
    fn next(&mut self) -> Option<Due<C, M>> {
        self.next_named().map(|(due, _)| due)
    }
}

impl<C: Clone, M: ?Sized> Round<'_, C, M> {
    /// As [`next`](Iterator::next), with the name with which the callback was inserted.
    #[inline(always)]
    pub fn next_named(&mut self) -> Option<(Due<C, M>, Option<&'static str>)> {
        while self.budget > 0 {
            self.budget -= 1;
            let mut state = self.deferred.state.borrow_mut();
            let dequeued = state.queue.pop()?;
            let index = dequeued.payload().map_or(u32::MAX, |slot| slot.index);
            let name = dequeued.payload().and_then(Slot::name);
            let urgency = match dequeued.begin() {
                Item::Normal => Urgency::Normal,
                Item::Idle => Urgency::Idle,
                Item::Sent(message) => return Some((Due::Message(message), None)),
                other => {
                    drop(state);
                    self.deferred.free(index, other);
                    continue;
                }
            };
            let callback = if state.callbacks.is_kept(index) {
                drop(state);
                self.deferred.get_last(index)
            } else {
                state.callbacks.get(index).cloned()
            };
            if let Some(callback) = callback {
                return Some((Due::Callback(callback, urgency), name));
            }
        }
        None
    }
}

impl<C, M: ?Sized> Drop for Round<'_, C, M> {
    #[inline]
    fn drop(&mut self) {
        let is_empty = self.deferred.state.borrow().queue.is_empty();
        self.deferred.set_has_queued(!is_empty);
    }
}

impl<C, M: ?Sized> fmt::Debug for Round<'_, C, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Round")
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}

/// Callbacks, and the handles `H` of those that run once.
struct Slab<C, H> {
    slots: Vec<Option<C>>,
    vacant: Vec<u32>,
    /// The kept handles by index, up to the last one ever kept, because most callbacks have none.
    kept: Vec<Option<H>>,
}

impl<C, H> Slab<C, H> {
    #[inline]
    fn get(&self, index: u32) -> Option<&C> {
        self.slots.get(index as usize)?.as_ref()
    }

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

    #[inline]
    fn is_kept(&self, index: u32) -> bool {
        matches!(self.kept.get(index as usize), Some(Some(_)))
    }

    fn keep(&mut self, index: u32, handle: H) -> Option<H> {
        let index = index as usize;
        if self.kept.len() <= index {
            self.kept.resize_with(index + 1, || None);
        }
        self.kept[index].replace(handle)
    }

    fn take_kept(&mut self, index: u32) -> Option<H> {
        self.kept.get_mut(index as usize)?.take()
    }
}

impl<C, H> Default for Slab<C, H> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            vacant: Vec::new(),
            kept: Vec::new(),
        }
    }
}

#[cfg(test)]
#[path = "deferred_tests.rs"]
mod tests;
