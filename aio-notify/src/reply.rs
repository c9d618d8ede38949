//! [`reply`]: the result of a message, sent back once.
//!
//! The receiver blocks, or goes on with its own loop and checks from time to time. If a sender is dropped,
//! with its message or by a panic, the receiver gets [`Lost`] instead.

use std::fmt;
use std::sync::{Arc, PoisonError};

use crate::sync::{Condvar, Mutex, MutexGuard, faulty};

/// Makes the two ends of a reply. After the result was sent or lost, the same thread calls `wake`.
///
/// ```
/// use aio_notify::{Lost, reply};
///
/// let (sender, receiver) = reply(|| ());
/// std::thread::spawn(move || sender.send(7));
/// assert_eq!(receiver.wait(), Ok(7));
///
/// let (sender, receiver) = reply::<u32, _>(|| ());
/// assert!(receiver.is_pending());
/// drop(sender);
/// assert_eq!(receiver.take(), Some(Err(Lost::Dropped)));
/// ```
pub fn reply<R, W: Fn()>(wake: W) -> (ReplySender<R, W>, ReplyReceiver<R>) {
    let slot = Arc::new(Slot {
        answer: Mutex::new(None),
        is_given: Condvar::new(),
    });
    let sender = ReplySender {
        slot: slot.clone(),
        wake,
    };
    (sender, ReplyReceiver { slot })
}

/// The reason why there is no result.
///
/// # Examples
/// ```
/// use aio_notify::{Lost, reply};
///
/// let (sender, receiver) = reply::<u32, _>(|| ());
/// let job = std::thread::spawn(move || {
///     let _sender = sender;
///     panic!("the job fails");
/// });
/// match receiver.wait() {
///     Ok(result) => unreachable!("{result}"),
///     Err(why) => assert_eq!(why, Lost::Panicked),
/// }
/// # assert!(job.join().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The sender was dropped.
    Dropped,
    /// The sender was dropped by a panic.
    Panicked,
}

/// The shared state of both ends. `None` until there is an answer, and after it was taken.
struct Slot<R> {
    answer: Mutex<Option<Result<R, Lost>>>,
    is_given: Condvar,
}

impl<R> Slot<R> {
    /// Locks the answer. No foreign code runs while it is locked.
    fn answer(&self) -> MutexGuard<'_, Option<Result<R, Lost>>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends the result of a message, once: see [`reply`].
///
/// # Examples
/// ```
/// use aio_notify::{EventNotifier, reply};
/// use std::sync::Arc;
///
/// let bell = Arc::new(EventNotifier::new()?);
/// let other = bell.clone();
/// let (sender, receiver) = reply(move || drop(other.set()));
/// std::thread::spawn(move || sender.send("done"));
/// assert_eq!(receiver.wait(), Ok("done"));
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use = "dropped at once, it sends that there is no result"]
pub struct ReplySender<R, W: Fn()> {
    slot: Arc<Slot<R>>,
    wake: W,
}

impl<R, W: Fn()> ReplySender<R, W> {
    /// Sends the result.
    pub fn send(self, result: R) {
        faulty!(KickedBeforeAnswer: (self.wake)());
        *self.slot.answer() = Some(Ok(result));
    }
}

impl<R, W: Fn()> Drop for ReplySender<R, W> {
    fn drop(&mut self) {
        let why = if std::thread::panicking() {
            Lost::Panicked
        } else {
            Lost::Dropped
        };
        self.slot.answer().get_or_insert(Err(why));
        self.slot.is_given.notify_one();
        faulty!(KickedBeforeAnswer, (self.wake)());
    }
}

/// Receives the result of a message: see [`reply`].
///
/// # Examples
/// ```
/// use aio_notify::reply;
///
/// let (sender, receiver) = reply(|| ());
/// assert!(receiver.is_pending());
/// sender.send(7);
/// // A loop that must not block checks, and takes the result when it is there.
/// assert!(!receiver.is_pending());
/// assert_eq!(receiver.take(), Some(Ok(7)));
/// ```
#[must_use = "dropped, it lets the result go"]
pub struct ReplyReceiver<R> {
    slot: Arc<Slot<R>>,
}

impl<R> ReplyReceiver<R> {
    /// Returns whether the sender still exists and has sent nothing.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.slot.answer().is_none()
    }

    /// Returns the result, if it is there.
    #[must_use]
    pub fn take(self) -> Option<Result<R, Lost>> {
        self.slot.answer().take()
    }

    /// Blocks this thread until the result is there.
    ///
    /// # Errors
    /// [`Lost`] if the sender was dropped instead.
    pub fn wait(self) -> Result<R, Lost> {
        let mut answer = self.slot.answer();
        loop {
            if let Some(given) = answer.take() {
                return given;
            }
            answer = self
                .slot
                .is_given
                .wait(answer)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<R, W: Fn()> fmt::Debug for ReplySender<R, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplySender")
    }
}

impl<R> fmt::Debug for ReplyReceiver<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplyReceiver")
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn w2_the_waker_is_called_once_after_the_answer() {
        let wakes = AtomicU32::new(0);
        let wake = || {
            wakes.fetch_add(1, Ordering::Relaxed);
        };
        let (sender, receiver) = reply(wake);
        assert!(receiver.is_pending());
        sender.send("done");
        assert!(!receiver.is_pending());
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
        assert_eq!(receiver.take(), Some(Ok("done")));
        let (sender, receiver) = reply::<(), _>(wake);
        assert_eq!(receiver.take(), None);
        drop(sender);
        assert_eq!(wakes.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn w2_a_waiting_thread_gets_the_answer_or_why_there_is_none() {
        type End = fn(ReplySender<u32, fn()>);
        let endings: [(End, _); 3] = [
            (|sender| sender.send(7), Ok(7)),
            (drop, Err(Lost::Dropped)),
            (|_sender| panic!("on purpose"), Err(Lost::Panicked)),
        ];
        for (end, expected) in endings {
            let (sender, receiver) = reply::<u32, fn()>(|| ());
            let waiting = std::thread::spawn(move || receiver.wait());
            let _ = catch_unwind(AssertUnwindSafe(|| end(sender)));
            assert_eq!(waiting.join().unwrap(), expected);
        }
    }
}
