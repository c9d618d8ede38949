//! A channel for one message: in loom's own, the receiver does not learn that the sender is gone.

use std::fmt;
use std::sync::{Arc, PoisonError};

pub use std::sync::mpsc::RecvError;

use loom::sync::{Condvar, Mutex};

struct Channel<T> {
    /// The message; `None` inside once the sender is gone.
    sent: Mutex<Option<Option<T>>>,
    changed: Condvar,
}

/// The side that sends.
pub struct SyncSender<T>(Arc<Channel<T>>);

/// The side that receives.
pub struct Receiver<T>(Arc<Channel<T>>);

/// A channel for one message.
pub fn sync_channel<T>(_: usize) -> (SyncSender<T>, Receiver<T>) {
    let channel = Arc::new(Channel {
        sent: Mutex::new(None),
        changed: Condvar::new(),
    });
    (SyncSender(channel.clone()), Receiver(channel))
}

impl<T> SyncSender<T> {
    /// Sends the message.
    ///
    /// # Errors
    /// Never.
    pub fn send(&self, message: T) -> Result<(), T> {
        self.put(Some(message));
        Ok(())
    }

    fn put(&self, last: Option<T>) {
        let mut sent = self.0.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.get_or_insert(last);
        drop(sent);
        self.0.changed.notify_one();
    }
}

impl<T> Drop for SyncSender<T> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.put(None);
        }
    }
}

impl<T> Receiver<T> {
    /// Waits for the message.
    ///
    /// # Errors
    /// If the sender is gone and has sent nothing.
    pub fn recv(&self) -> Result<T, RecvError> {
        let mut sent = self.0.sent.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(last) = sent.take() {
                return last.ok_or(RecvError);
            }
            sent = self.0.changed.wait(sent).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<T> fmt::Debug for SyncSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncSender").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}
