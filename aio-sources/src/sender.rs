//! [`Sender`]: the side of a [`Channel`](crate::Channel) for any thread.

use std::fmt;
use std::sync::Arc;

use aio_notify::{Inbox, Message};

use crate::Bell;
use crate::sync::{AtomicBool, Ordering, faulty};

/// The sending side of a [`Channel`](crate::Channel), for any thread. Clones send to the same channel.
///
/// # Examples
/// ```
/// use aio_context::Context;
/// use aio_sources::Channel;
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// let (sender, channel) = Channel::new(&cx, |_cx, _event| ());
/// let other = sender.clone();
/// let sent = std::thread::spawn(move || other.send("a line"));
/// assert_eq!(sent.join().unwrap(), Ok(()));
/// drop(channel);
/// assert_eq!(sender.send("another one"), Err("another one"));
/// # Ok(()) }
/// ```
pub struct Sender<T>(Arc<SendingSide<T>>);

/// Dropped with the last sender.
struct SendingSide<T> {
    shared: Arc<Shared<T>>,
    bell: Bell,
}

/// The part of a channel that both sides use.
pub(crate) struct Shared<T> {
    pub(crate) inbox: Inbox<(), T>,
    /// Set after the last sender was dropped.
    pub(crate) is_closed: AtomicBool,
}

impl<T> Shared<T> {
    pub(crate) fn new() -> Self {
        Self {
            inbox: Inbox::new(),
            is_closed: AtomicBool::new(false),
        }
    }
}

impl<T> Sender<T> {
    pub(crate) fn new(shared: Arc<Shared<T>>, bell: Bell) -> Self {
        Self(Arc::new(SendingSide { shared, bell }))
    }
}

impl<T: Send> Sender<T> {
    /// Sends a value. Never blocks, and makes a system call only if the context sleeps and no other thread
    /// has woken it yet.
    ///
    /// # Errors
    /// The value, if the [`Channel`](crate::Channel) or its context was dropped.
    pub fn send(&self, value: T) -> Result<(), T> {
        self.push(value)?;
        self.ring();
        Ok(())
    }

    /// As [`send`](Self::send), but the value may wait until the next [`ring`](Self::ring).
    pub(crate) fn push(&self, value: T) -> Result<(), T> {
        let message = Box::new(Message::new(value));
        self.0
            .shared
            .inbox
            .send(message)
            .map_err(|message| message.contents)?;
        Ok(())
    }

    pub(crate) fn ring(&self) {
        self.0.bell.ring();
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Drop for SendingSide<T> {
    fn drop(&mut self) {
        let is_closed = &self.shared.is_closed;
        faulty!(RungBeforeClosed, is_closed.store(true, Ordering::Release); self.bell.ring());
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}
