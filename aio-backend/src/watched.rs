//! [`Watched`]: shared ownership of a descriptor.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;

/// A descriptor that stays open for as long as this value lives.
///
/// It shares ownership of the descriptor's owner, so safe code cannot close a descriptor that a backend still watches. (A raw
/// `close(2)` of the number can; see [`Readiness::NVAL`](crate::Readiness::NVAL).) It is neither `Send` nor `Sync`.
///
/// ```
/// use std::os::fd::AsFd;
/// use std::rc::Rc;
/// use aio_backend::Watched;
///
/// # fn main() -> std::io::Result<()> {
/// let (reader, _writer) = std::io::pipe()?;
/// let reader = Rc::new(reader);
/// let watched = Watched::from(reader.clone());
/// assert_eq!(Rc::strong_count(&reader), 2); // the descriptor cannot be closed
/// drop(watched);
/// assert_eq!(Rc::strong_count(&reader), 1);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Watched(Rc<dyn AsFd>);

impl Watched {
    /// Shares ownership of `owner`.
    #[must_use]
    pub fn new(owner: Rc<dyn AsFd>) -> Self {
        Self(owner)
    }
}

impl<T: AsFd + 'static> From<Rc<T>> for Watched {
    fn from(owner: Rc<T>) -> Self {
        Self(owner)
    }
}

impl AsFd for Watched {
    #[inline]
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Watched {
    #[inline]
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watched({})", self.as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_shows_the_number_of_its_owner_and_keeps_it_open() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let owner = Rc::new(reader);
        let number = owner.as_raw_fd();
        let watched = Watched::from(owner.clone());
        assert_eq!(
            (watched.as_raw_fd(), watched.as_fd().as_raw_fd()),
            (number, number)
        );
        assert_eq!(format!("{watched:?}"), format!("Watched({number})"));
        assert_eq!(Rc::strong_count(&owner), 2);
        drop(watched);
        assert_eq!(Rc::strong_count(&owner), 1);
    }
}
