//! [`SharedFd`]: shared ownership of a descriptor, for any thread.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::sync::Arc;

/// A descriptor that stays open for as long as this value lives, on any thread.
///
/// It shares ownership of the descriptor's owner, as [`Watched`](crate::Watched) does for one thread.
///
/// ```
/// use std::sync::Arc;
/// use aio_backend::SharedFd;
///
/// # fn main() -> std::io::Result<()> {
/// let file = Arc::new(std::fs::File::open("/proc/self/stat")?);
/// let shared = SharedFd::from(file.clone());
/// assert_eq!(Arc::strong_count(&file), 2);
/// drop(shared);
/// assert_eq!(Arc::strong_count(&file), 1);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct SharedFd(Arc<dyn AsFd + Send + Sync>);

impl SharedFd {
    /// Shares ownership of `owner`.
    #[must_use]
    pub fn new(owner: Arc<dyn AsFd + Send + Sync>) -> Self {
        Self(owner)
    }
}

impl<T: AsFd + Send + Sync + 'static> From<Arc<T>> for SharedFd {
    fn from(owner: Arc<T>) -> Self {
        Self(owner)
    }
}

impl AsFd for SharedFd {
    #[inline]
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl fmt::Debug for SharedFd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedFd({})", self.as_fd().as_raw_fd())
    }
}
