//! [`EndOwed`]: a `poll_end` that the caller has to call.

use aio_backend::Token;

use crate::state::State;

/// The result of an operation after which a [`poll_end`](crate::Source::poll_end) may be due: a source left,
/// was suspended or was replaced. If it had its [`poll_begin`](crate::Source::poll_begin), the `poll_end` is
/// due, so that both calls stay balanced.
///
/// The caller makes the call, because it chooses the time: after its own tables are in order, and after all
/// other sources of a group were suspended as well.
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
    state: &'a State,
    to: To,
}

/// The source whose `poll_end` is due.
#[derive(Clone, Copy, Debug)]
enum To {
    None,
    /// A source that is not in the set any more.
    Former,
    /// The source that has this token, if it has begun.
    Present(Token),
}

impl<'a> EndOwed<'a> {
    pub(crate) fn none(state: &'a State) -> Self {
        Self { state, to: To::None }
    }

    /// Makes the result for a source that leaves the set.
    pub(crate) fn to_former(state: &'a State, has_begun: bool) -> Self {
        let to = if has_begun { To::Former } else { To::None };
        Self { state, to }
    }

    /// Makes the result for a source that stays in the set.
    pub(crate) fn to_present(state: &'a State, token: Token) -> Self {
        Self {
            state,
            to: To::Present(token),
        }
    }

    /// Returns `true` if a `poll_end` is due. After a [`suspend`](crate::PollSet::suspend) it is due until it
    /// is [finished](Self::finish), or until the source leaves or is replaced; then the result of that
    /// operation has it.
    #[must_use]
    pub fn is_owed(&self) -> bool {
        match self.to {
            To::None => false,
            To::Former => true,
            To::Present(token) => self.state.has_begun(token),
        }
    }

    /// Calls `poll_end` if it is due. The closure calls `poll_end` of the source; after a
    /// [`suspend`](crate::PollSet::suspend), of the source that has the token now. Meanwhile the set [is
    /// calling](crate::PollSet::is_calling).
    pub fn finish(self, poll_end: impl FnOnce()) {
        let is_owed = match self.to {
            To::None => false,
            To::Former => true,
            To::Present(token) => self.state.take_owed_end(token),
        };
        if is_owed {
            let _call = Call::begin(self.state);
            poll_end();
        }
    }
}

/// A guard while a source is called outside of a walk.
struct Call<'a>(&'a State);

impl<'a> Call<'a> {
    fn begin(state: &'a State) -> Self {
        state.enter_call();
        Self(state)
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.leave_call();
    }
}
