//! Replacing values and changing interests, with the effect of each on the backend.

use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::RawFd;

use aio_backend::{Interest, Readiness, Token};

use crate::Registry;
use crate::mask::Mask;
use crate::registry::Slot;

/// A change of a handler's interest, and its effect on the backend: see [`Registry::change`].
///
/// # Examples
/// ```
/// use aio_backend::Interest;
/// use aio_handlers::{GroupId, InterestChange, Registry};
///
/// let mut registry = Registry::new();
/// let token = registry.insert(Some(7), "a disk", Interest::READ, GroupId::DEFAULT)?;
/// let change: InterestChange = registry.change(token, Some(Interest::BOTH)).expect("it is registered");
/// // ... pass `change.to` to the backend, and once it has accepted:
/// registry.set_interest(token, change.interest);
/// # Ok::<(), aio_handlers::Occupied<&str>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InterestChange {
    /// The new interest of the handler.
    pub interest: Interest,
    /// The present interest of the handler.
    pub former: Interest,
    /// The interest that the backend has: `NONE` while the handler is masked, and after its one-shot event.
    pub from: Interest,
    /// The interest that the backend should have after the change: `NONE` while the handler is masked.
    pub to: Interest,
    /// Whether the backend has the descriptor: see [`Registry::is_watched`]. If not, add it.
    pub is_watched: bool,
}

impl InterestChange {
    /// Returns whether there is anything to do: the interest changes, or is armed again because it is
    /// edge-triggered or one-shot.
    #[inline]
    #[must_use]
    pub fn is_needed(&self) -> bool {
        self.interest != self.former || self.interest.reports_once()
    }
}

/// The reason why a registration cannot be changed. It converts into an [`io::Error`] with this text.
///
/// # Examples
/// ```
/// use std::io;
/// use aio_backend::Interest;
/// use aio_handlers::{ChangeError, GroupId, Registry};
///
/// let mut registry = Registry::new();
/// let disk = registry.insert(Some(7), "a disk", Interest::READ, GroupId::DEFAULT)?;
/// let queue = registry.insert(None, "a queue in memory", Interest::NONE, GroupId::DEFAULT)?;
/// assert_eq!(registry.change(queue, Some(Interest::READ)), Err(ChangeError::NoDescriptor));
/// assert_eq!(registry.replacement(disk, 8, None), Err(ChangeError::OtherDescriptor));
/// registry.remove(disk);
/// let stale = registry.change(disk, None).unwrap_err();
/// assert_eq!(io::Error::from(stale).kind(), io::ErrorKind::NotFound);
/// # Ok::<(), aio_handlers::Occupied<&str>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeError {
    /// The token has no live registration.
    Stale,
    /// The registration has no descriptor number to wait for.
    NoDescriptor,
    /// The new value has another descriptor number.
    OtherDescriptor,
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stale => "the handler is not registered any more",
            Self::NoDescriptor => "the handler has no descriptor to wait for; register one that has",
            Self::OtherDescriptor => {
                "a handler can only be replaced by one for the same descriptor; register the other one instead"
            }
        })
    }
}

impl Error for ChangeError {}

/// Makes an error of the kind `NotFound` for a stale token, otherwise of the kind `InvalidInput`.
impl From<ChangeError> for io::Error {
    #[cold]
    fn from(why: ChangeError) -> Self {
        let kind = match why {
            ChangeError::Stale => io::ErrorKind::NotFound,
            ChangeError::NoDescriptor | ChangeError::OtherDescriptor => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, why.to_string())
    }
}

/// The result of [`Registry::succeed`].
///
/// # Examples
/// ```
/// use aio_backend::{Interest, Readiness};
/// use aio_handlers::{GroupId, Registry, Replaced};
///
/// let mut registry = Registry::new();
/// let token = registry.insert(Some(7), "a disk", Interest::READ, GroupId::DEFAULT)?;
/// // The handler runs. An event comes meanwhile, and masks it; then another one takes its place.
/// registry.exclude(token);
/// registry.record(token, Readiness::IN);
/// let replaced = registry.succeed(token, "a new disk", Interest::BOTH, |former, new| former == new);
/// let Some(Replaced { former, is_other, rearm, .. }) = replaced else { unreachable!("it is registered") };
/// assert_eq!((former, is_other), ("a disk", true));
/// assert_eq!(rearm, Some(Interest::BOTH)); // to be passed to the backend
/// assert_eq!(registry.readmit(token), None); // the former handler returns
/// # Ok::<(), aio_handlers::Occupied<&str>>(())
/// ```
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replaced<T> {
    /// The value that was replaced.
    pub former: T,
    /// Set if the new value is another one. In that case the exclusions of the former one have ended.
    pub is_other: bool,
    /// The interest that the backend needs again, if an exclusion ended that masked the handler.
    pub rearm: Option<Interest>,
}

impl<T> Slot<T> {
    /// Returns the interest that the backend should have.
    #[inline]
    fn effective(&self) -> Interest {
        match self.mask.get() {
            Mask::None => self.state.interest(),
            Mask::Asleep | Mask::Excluded | Mask::Listed(_) => Interest::NONE,
        }
    }

    /// Returns the interest that the backend should have if the handler's were set to `interest`: none while
    /// the handler is masked by a pause or an exclusion.
    #[inline]
    fn effective_if(&self, interest: Interest) -> Interest {
        match self.mask.get() {
            Mask::None | Mask::Asleep => interest,
            Mask::Excluded | Mask::Listed(_) => Interest::NONE,
        }
    }
}

impl<T> Registry<T> {
    /// Replaces a value and returns the former one. Returns `None` and changes nothing if the token is stale.
    ///
    /// The token, the interest, the group, exclusions and the mask stay, with one exception: after its
    /// one-shot event was delivered ([`delivered`](Self::delivered)), the registration waits for an event
    /// again. Recorded readiness is dropped; a level-triggered backend reports it again. The new value is not
    /// [special](Self::set_special), and has another [version](Self::version).
    pub fn replace(&mut self, token: Token, value: T) -> Option<T> {
        self.settle_others(token);
        self.check_slot(token);
        let slot = self.slots.get_mut(token)?;
        slot.state.set_pending(Readiness::empty());
        slot.state.set_special(false);
        slot.state.count_replacement();
        slot.wake();
        let former = std::mem::replace(&mut slot.value, value);
        self.check_slot(token);
        Some(former)
    }

    /// As [`replace`](Self::replace). Also sets the interest, usually that of a
    /// [`replacement`](Self::replacement). `is_same` compares the former value with the new one. If they
    /// differ, [all exclusions end](Self::end_exclusions), so that the new handler can be called while the
    /// former one still runs.
    ///
    /// # Panics
    /// As [`end_exclusions`](Self::end_exclusions).
    pub fn succeed(
        &mut self,
        token: Token,
        value: T,
        interest: Interest,
        is_same: impl FnOnce(&T, &T) -> bool,
    ) -> Option<Replaced<T>> {
        let is_other = !is_same(self.get(token)?, &value);
        let former = self.replace(token, value)?;
        self.set_interest(token, interest);
        Some(Replaced {
            former,
            is_other,
            rearm: is_other.then(|| self.end_exclusions(token)).flatten(),
        })
    }

    /// Returns the number of times that the value was replaced, modulo 2^32.
    #[inline]
    #[must_use]
    pub fn version(&self, token: Token) -> Option<u32> {
        self.slots.get(token).map(|slot| slot.state.version())
    }

    /// Changes the interest and returns the former one. Returns `None` if the token is stale.
    ///
    /// Recorded readiness outside the new interest is dropped. All recorded readiness is dropped with
    /// [`Interest::ONESHOT`], and if only one of the two interests is edge-triggered or one-shot: the
    /// backend, which is armed again, reports the readiness that remains. Pass the
    /// [effective](Self::effective_interest) interest to the backend; it stays `NONE` while the handler is
    /// masked by a pause or an exclusion.
    #[inline]
    pub fn set_interest(&mut self, token: Token, interest: Interest) -> Option<Interest> {
        self.settle_others(token);
        self.check_slot(token);
        let slot = self.slots.get_mut(token)?;
        let former = slot.state.interest();
        let pending = slot.state.pending();
        if !pending.is_empty() {
            let once = Interest::EDGE | Interest::ONESHOT;
            let is_kept = !interest.contains(Interest::ONESHOT) && former & once == interest & once;
            slot.state.set_pending(if is_kept {
                pending & interest.mask()
            } else {
                Readiness::empty()
            });
        }
        slot.state.set_interest(interest);
        slot.is_watched |= interest != Interest::NONE;
        slot.wake();
        self.check_slot(token);
        Some(former)
    }

    /// Returns the interest that the backend should have: `NONE` while the handler is masked, and after its
    /// one-shot event.
    #[must_use]
    pub fn effective_interest(&self, token: Token) -> Option<Interest> {
        self.slots.get(token).map(Slot::effective)
    }

    /// Returns the interest that the backend should have if the handler's interest were set to `interest`.
    #[must_use]
    pub fn effective(&self, token: Token, interest: Interest) -> Option<Interest> {
        self.slots.get(token).map(|slot| slot.effective_if(interest))
    }

    /// Returns the change for the backend if the handler's interest is set to `interest`, or (`None`) is set
    /// again.
    ///
    /// # Errors
    /// [`ChangeError::Stale`], or [`ChangeError::NoDescriptor`] for an interest of a registration without a descriptor number.
    ///
    /// ```
    /// use aio_backend::{Interest, Readiness};
    /// use aio_handlers::{GroupId, Registry};
    ///
    /// let mut registry = Registry::new();
    /// let token = registry.insert(Some(7), "a disk", Interest::READ, GroupId::DEFAULT)?;
    /// let change = registry.change(token, Some(Interest::WRITE)).expect("it is registered");
    /// assert_eq!((change.from, change.to), (Interest::READ, Interest::WRITE));
    /// registry.pause(GroupId::DEFAULT);
    /// registry.record(token, Readiness::IN); // masked: the backend stays silent about it
    /// let change = registry.change(token, None).expect("it is registered");
    /// assert_eq!((change.from, change.interest, change.to), (Interest::NONE, Interest::READ, Interest::NONE));
    /// # Ok::<(), aio_handlers::Occupied<&str>>(())
    /// ```
    #[inline]
    pub fn change(&self, token: Token, interest: Option<Interest>) -> Result<InterestChange, ChangeError> {
        let slot = self.slots.get(token).ok_or(ChangeError::Stale)?;
        let former = slot.state.interest();
        let interest = interest.unwrap_or(former);
        if !slot.is_watched && interest != Interest::NONE && slot.fd().is_none() {
            return Err(ChangeError::NoDescriptor);
        }
        Ok(InterestChange {
            interest,
            former,
            from: slot.effective(),
            to: slot.effective_if(interest),
            is_watched: slot.is_watched,
        })
    }

    /// As [`change`](Self::change), for a new value with the descriptor number `fd` that is to replace the
    /// present one: see [`succeed`](Self::succeed).
    ///
    /// # Errors
    /// As [`change`](Self::change), and [`ChangeError::OtherDescriptor`] if the registration has another number.
    pub fn replacement(
        &self,
        token: Token,
        fd: RawFd,
        interest: Option<Interest>,
    ) -> Result<InterestChange, ChangeError> {
        let slot = self.slots.get(token).ok_or(ChangeError::Stale)?;
        if slot.fd() != Some(fd) {
            return Err(ChangeError::OtherDescriptor);
        }
        self.change(token, interest)
    }
}

#[cfg(test)]
#[path = "change_tests.rs"]
mod tests;
