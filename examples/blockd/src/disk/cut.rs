//! [`Cut`]: keeps an image at its length after the disk was made shorter.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::image::Image;

/// The length of an image after a change of its disk's size.
#[derive(Debug, Default)]
pub(super) struct Cut {
    /// The length that the last change set. Locked while the size changes.
    len: Mutex<u64>,
    /// Set if a write on a ring has ended beyond the disk. The thread that executes the write again cuts the
    /// image.
    is_due: AtomicBool,
}

/// The error of a write on a ring that has ended beyond the disk, which has shrunk since the write began.
#[derive(Debug, thiserror::Error)]
#[error("the disk has shrunk while it was written")]
struct Shrunk;

/// Returns `true` if the error means that the disk has shrunk during a write on a ring.
pub(crate) fn has_shrunk(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Shrunk>())
}

impl Cut {
    /// Locks the length of the image, for a change of the size.
    pub(super) fn lock(&self) -> MutexGuard<'_, u64> {
        self.len.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that a ring has written beyond the end. Returns the error with which a thread takes over.
    pub(super) fn leave_to_thread(&self) -> io::Error {
        self.is_due.store(true, Ordering::Relaxed);
        io::Error::other(Shrunk)
    }

    /// Returns `true` if a ring has written beyond the end since the last call.
    pub(super) fn take_due(&self) -> bool {
        self.is_due.swap(false, Ordering::Relaxed)
    }

    /// Cuts an image that a write has extended. May wait for a file server.
    pub(super) fn again(&self, image: &Image) {
        let len = self.lock();
        let cut = match image.len() {
            Ok(now) if now > *len && !image.is_device() => image.set_len(*len),
            other => other.map(drop),
        };
        if let Err(error) = cut {
            tracing::warn!(%error, len = *len, "a write has extended an image that was made shorter meanwhile, and it cannot be cut again");
        }
    }
}
