//! What threads synchronize by, real or modelled, and the faults that the schedules plant: the only file that names the
//! model checkers.
//!
//! Not from here comes what no thread waits for and nothing follows from: figures ([`Stats`](crate::Stats),
//! [`PollTime`](crate::PollTime)), and that a home thread has panicked. A checker would try all their orders for
//! nothing.

#[cfg(not(any(loom, shuttle)))]
pub(crate) use real::*;

#[cfg(loom)]
use loom as checker;
#[cfg(shuttle)]
use shuttle as checker;

#[cfg(any(loom, shuttle))]
pub(crate) use modelled::*;

#[cfg(not(any(loom, shuttle)))]
mod real {
    pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
    pub(crate) use std::sync::{Mutex, mpsc};
    pub(crate) use std::thread_local;

    pub(crate) use arc_swap::ArcSwap;

    use super::Fault;

    /// Whether a fault is planted: never, outside the models.
    pub(crate) const fn planted(_: Fault) -> bool {
        false
    }
}

#[cfg(any(loom, shuttle))]
mod modelled {
    use std::sync::{Arc, PoisonError};

    #[cfg(loom)]
    pub(crate) use aio_notify::loads::AtomicU64;
    #[cfg(shuttle)]
    pub(crate) use shuttle::sync::atomic::AtomicU64;

    pub(crate) use super::checker::sync::Mutex;
    pub(crate) use super::checker::sync::atomic::Ordering;
    #[cfg(shuttle)]
    pub(crate) use shuttle::{sync::mpsc, thread_local};

    use super::Fault;

    /// As the checker's own, which does not know initial values that are constant.
    #[cfg(loom)]
    macro_rules! thread_local_of_constant {
        ($(#[$attribute:meta])* static $name:ident: $type:ty = const { $value:expr };) => {
            loom::thread_local! {
                $(#[$attribute])* static $name: $type = $value;
            }
        };
    }
    #[cfg(loom)]
    pub(crate) use thread_local_of_constant as thread_local;

    pub(crate) fn planted(fault: Fault) -> bool {
        aio_notify::planting::is_planted(fault)
    }

    /// A value that is swapped as a whole.
    pub(crate) struct ArcSwap<T>(Mutex<Arc<T>>);

    impl<T> ArcSwap<T> {
        pub(crate) fn from_pointee(value: T) -> Self {
            Self(Mutex::new(Arc::new(value)))
        }

        pub(crate) fn load_full(&self) -> Arc<T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
        }

        pub(crate) fn store(&self, value: Arc<T>) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = value;
        }
    }
}

/// A channel for one message: the checker's own does not report that the sender is gone.
#[cfg(loom)]
pub(crate) mod mpsc {
    use std::sync::{Arc, PoisonError};

    pub(crate) use std::sync::mpsc::RecvError;

    use loom::sync::{Condvar, Mutex};

    struct Channel<T> {
        /// The message; `None` inside once the sender is gone.
        said: Mutex<Option<Option<T>>>,
        heard: Condvar,
    }

    pub(crate) struct SyncSender<T>(Arc<Channel<T>>);

    pub(crate) struct Receiver<T>(Arc<Channel<T>>);

    pub(crate) fn sync_channel<T>(_: usize) -> (SyncSender<T>, Receiver<T>) {
        let channel = Arc::new(Channel {
            said: Mutex::new(None),
            heard: Condvar::new(),
        });
        (SyncSender(channel.clone()), Receiver(channel))
    }

    impl<T> SyncSender<T> {
        pub(crate) fn send(&self, message: T) -> Result<(), T> {
            self.put(Some(message));
            Ok(())
        }

        fn put(&self, last: Option<T>) {
            let mut said = self.0.said.lock().unwrap_or_else(PoisonError::into_inner);
            said.get_or_insert(last);
            drop(said);
            self.0.heard.notify_one();
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
        pub(crate) fn recv(&self) -> Result<T, RecvError> {
            let mut said = self.0.said.lock().unwrap_or_else(PoisonError::into_inner);
            loop {
                if let Some(last) = said.take() {
                    return last.ok_or(RecvError);
                }
                said = self.0.heard.wait(said).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

/// A fault that can be planted on purpose, to see that the schedules find it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Polling parameters are announced before they are there.
    VersionBeforeParams,
    /// Who waits for another context is kicked before the answer is there.
    KickedBeforeAnswer,
    /// `wait_while` is counted after its condition was read.
    CountedLate,
    /// A foreign loop learns how long it may wait before others can see that it waits.
    ChecksBeforeFlag,
}
