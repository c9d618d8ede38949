//! Flushes of an image, on threads and on rings. Only one flush runs at a time, and none runs after a failed
//! one.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aio_context::{Operation, SharedFd};
use parking_lot::{ArcMutexGuard, Mutex, RawMutex};

use crate::disk::DiskError;

/// The state of flushes: whether one has failed. Data written before a failed flush may be lost, and a later
/// flush would not report that.
#[derive(Debug)]
pub(super) struct Flushes {
    /// The path, for log lines.
    path: PathBuf,
    /// Locked during a flush, because the system reports a failure to only one of two flushes at a time.
    has_failed: Arc<Mutex<bool>>,
}

/// The result of an attempt to begin a flush on the ring.
#[derive(Debug)]
pub(crate) enum FlushStart {
    /// There is nothing to flush.
    Unneeded,
    /// A flush has failed before.
    Failed,
    /// Another flush is not over. A thread can wait for its end.
    Busy,
    /// The flush begins with this operation.
    Begun(Flushing, Operation),
}

/// A flush on the ring. If it is dropped before its end, its result counts as unknown, and all later flushes
/// fail.
pub(crate) struct Flushing {
    flushes: Arc<Flushes>,
    has_failed: ArcMutexGuard<RawMutex, bool>,
    is_over: bool,
}

impl Flushes {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            has_failed: Arc::default(),
        }
    }

    /// Writes all data of the image to the medium.
    ///
    /// After an error the system drops the data that it could not write, and the next flush succeeds. So
    /// after a failed flush, all later ones fail as well, until the image is opened again.
    pub(super) fn flush(&self, file: &File) -> Result<(), DiskError> {
        let mut has_failed = self.has_failed.lock();
        if *has_failed {
            return Err(DiskError::FlushFailed);
        }
        self.accept(&mut has_failed, file.sync_data())
    }

    /// Begins a flush on the ring.
    pub(super) fn begin(self: &Arc<Self>, file: SharedFd) -> FlushStart {
        match self.has_failed.try_lock_arc() {
            None => FlushStart::Busy,
            Some(has_failed) if *has_failed => FlushStart::Failed,
            Some(has_failed) => {
                let flushing = Flushing {
                    flushes: self.clone(),
                    has_failed,
                    is_over: false,
                };
                FlushStart::Begun(flushing, Operation::sync_data(file))
            }
        }
    }

    /// Accepts the result of a flush.
    fn accept(&self, has_failed: &mut bool, result: io::Result<()>) -> Result<(), DiskError> {
        let Err(error) = result else { return Ok(()) };
        *has_failed = true;
        tracing::error!(path = %self.path.display(), %error,
            "a flush failed, and data written since the one before may be lost; every flush of this image fails from now on. \
             Check the medium and the image, then restart the daemon");
        Err(error.into())
    }
}

impl Flushing {
    /// Accepts the result.
    ///
    /// # Errors
    /// The error of the flush. All later flushes fail as well.
    pub(crate) fn end(mut self, result: io::Result<()>) -> Result<(), DiskError> {
        self.is_over = true;
        self.flushes.accept(&mut self.has_failed, result)
    }

    /// Ends a flush that was not executed.
    pub(crate) fn cancel(mut self) {
        self.is_over = true;
    }
}

impl Drop for Flushing {
    fn drop(&mut self) {
        if !self.is_over {
            *self.has_failed = true;
        }
    }
}

impl fmt::Debug for Flushing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flushing")
            .field("is_over", &self.is_over)
            .finish_non_exhaustive()
    }
}
