//! [`EndOwed`]: a `poll_end` that the caller makes.

use crate::PollSet;

/// A source has left, was suspended or gave way to another one. If it had its [`poll_begin`](crate::Source::poll_begin), it
/// is owed a [`poll_end`](crate::Source::poll_end), so that begin and end stay balanced.
///
/// The caller makes the call, because it decides when: after its own tables are in order, and after all others of a group
/// were suspended as well.
///
/// ```
/// use std::rc::Rc;
/// use aio_backend::Token;
/// use aio_pollset::{PollSet, Source};
/// # struct Ring;
/// # impl Source for Ring { fn poll(&self) -> bool { false } }
///
/// let (set, token, ring) = (PollSet::new(), Token::new(0, 0), Rc::new(Ring));
/// let _ = set.join(token, ring.clone());
/// set.enter(); // calls `poll_begin`
/// let owed = set.leave(token);
/// assert!(owed.is_owed());
/// owed.finish(|| ring.poll_end());
/// ```
#[derive(Debug)]
#[must_use = "a source that had its `poll_begin` is owed a `poll_end`; call `finish`"]
pub struct EndOwed<'a> {
    set: &'a PollSet,
    owed: bool,
}

impl<'a> EndOwed<'a> {
    pub(crate) fn new(set: &'a PollSet, owed: bool) -> Self {
        Self { set, owed }
    }

    /// Returns whether a `poll_end` is owed.
    #[must_use]
    pub fn is_owed(&self) -> bool {
        self.owed
    }

    /// Calls `poll_end`, which should be that of the source, if it is owed. Meanwhile the set
    /// [is calling](PollSet::is_calling).
    pub fn finish(self, poll_end: impl FnOnce()) {
        if self.owed {
            let _call = Call::begin(self.set);
            poll_end();
        }
    }
}

/// A source is being called outside of a walk.
struct Call<'a>(&'a PollSet);

impl<'a> Call<'a> {
    fn begin(set: &'a PollSet) -> Self {
        set.enter_call();
        Self(set)
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.leave_call();
    }
}
