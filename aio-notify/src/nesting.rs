//! [`Nesting`]: the shared state of a loop's polls that run inside each other's callbacks.

use std::cell::Cell;

use crate::mailbox::{Interrupted, Mailbox};

/// The depth of a loop's nested iterations, and their progress.
///
/// A callback may poll its loop, and that poll may do the work for which the outer one waits. The outer poll
/// then returns, too: it finds the progress of the inner one here. It belongs to the home thread.
///
/// # Examples
/// ```
/// use aio_notify::{Interrupted, Mailbox, Nesting};
///
/// let (nesting, mailbox) = (Nesting::default(), Mailbox::<()>::new()?);
/// let outer = nesting.before();
/// {
///     let _iteration = nesting.enter();
///     let inner = nesting.before(); // a callback polls
///     assert!(nesting.is_progress(true, inner));
/// }
/// // The outer iteration has found nothing itself.
/// assert!(nesting.is_progress(false, outer));
/// assert_eq!(nesting.interrupted_since(outer, &mailbox), Interrupted::No);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Nesting {
    depth: Cell<u32>,
    /// The number of times that polls inside other polls, and other events inside them, made progress.
    progress: Cell<u64>,
    /// The number of interrupts when a poll last returned without progress.
    interrupts_seen: Cell<u64>,
}

/// The state of a [`Nesting`] when a poll began.
///
/// ```
/// let nesting = aio_notify::Nesting::default();
/// let before = nesting.before();
/// nesting.record_progress();
/// assert!(nesting.has_progressed(before) && !nesting.has_progressed(nesting.before()));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct BeforePoll {
    progress: u64,
    interrupts: u64,
}

impl Nesting {
    /// Counts an iteration as under way until the guard is dropped, also by a panic.
    #[inline]
    pub fn enter(&self) -> IterationGuard<'_> {
        self.depth.set(self.depth.get() + 1);
        IterationGuard(&self.depth)
    }

    /// Returns the number of iterations under way: 0 outside callbacks, 1 in an outermost iteration.
    #[inline]
    #[must_use]
    pub fn depth(&self) -> u32 {
        self.depth.get()
    }

    /// Returns the state before a poll.
    #[inline]
    #[must_use]
    pub fn before(&self) -> BeforePoll {
        BeforePoll {
            progress: self.progress.get(),
            interrupts: self.interrupts_seen.get(),
        }
    }

    /// Records progress that no iteration reports by itself.
    pub fn record_progress(&self) {
        self.progress.set(self.progress.get() + 1);
    }

    /// Returns whether a nested poll has made progress since `before`, or progress was
    /// [recorded](Self::record_progress).
    #[inline]
    #[must_use]
    pub fn has_progressed(&self, before: BeforePoll) -> bool {
        self.progress.get() != before.progress
    }

    /// Returns whether a poll that began at `before` has made progress, in its own iteration or in one nested
    /// in it. If this poll is itself nested, the progress also counts for the outer one.
    #[inline]
    #[must_use]
    pub fn is_progress(&self, progress: bool, before: BeforePoll) -> bool {
        let is_progress = progress || self.has_progressed(before);
        if is_progress && self.depth.get() != 0 {
            self.progress.set(before.progress + 1);
        }
        is_progress
    }

    /// Returns whether a thread has interrupted the home thread since `before`: see [`Mailbox::interrupted_since`].
    #[inline]
    pub fn interrupted_since<T, M: ?Sized>(
        &self,
        before: BeforePoll,
        mailbox: &Mailbox<T, M>,
    ) -> Interrupted {
        mailbox.interrupted_since(before.interrupts, &self.interrupts_seen)
    }
}

/// Counts an iteration as under way until it is dropped: see [`Nesting::enter`].
///
/// ```
/// let nesting = aio_notify::Nesting::default();
/// let iteration = nesting.enter();
/// assert_eq!(nesting.depth(), 1);
/// drop(iteration);
/// assert_eq!(nesting.depth(), 0);
/// ```
#[derive(Debug)]
#[must_use = "dropped at once, the iteration is over before it begins"]
pub struct IterationGuard<'a>(&'a Cell<u32>);

impl Drop for IterationGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn d4_progress_reaches_all_outer_polls_and_no_later_one() {
        let nesting = Nesting::default();
        let outermost = nesting.before();
        let first = nesting.enter();
        let middle = nesting.before();
        let second = nesting.enter();
        let inner = nesting.before();
        assert!(!nesting.is_progress(false, inner) && !nesting.has_progressed(outermost));
        assert!(nesting.is_progress(true, inner));
        drop(second);
        assert!(nesting.is_progress(false, middle));
        drop(first);
        assert!(nesting.is_progress(false, outermost));
        let next = nesting.before();
        assert!(!nesting.is_progress(false, next), "that was the poll before");
        assert!(nesting.is_progress(true, next) && !nesting.has_progressed(next));
    }

    #[test]
    fn d6_d9_the_depth_is_right_also_after_a_panic() {
        let nesting = Nesting::default();
        let outer = nesting.enter();
        let panics = catch_unwind(AssertUnwindSafe(|| {
            let _inner = nesting.enter();
            assert_eq!(nesting.depth(), 1, "on purpose: it is 2");
        }));
        assert!(panics.is_err());
        assert_eq!(nesting.depth(), 1);
        drop(outer);
        assert_eq!(nesting.depth(), 0);
    }

    #[test]
    fn d4_an_interrupt_ends_the_inner_poll_and_not_the_next_one() {
        let (nesting, mailbox) = (Nesting::default(), Mailbox::<()>::new().unwrap());
        let outer = nesting.before();
        let inner = nesting.before();
        mailbox.interrupt();
        assert_eq!(nesting.interrupted_since(inner, &mailbox), Interrupted::Unserved);
        mailbox.accept();
        assert_eq!(nesting.interrupted_since(inner, &mailbox), Interrupted::Served);
        assert_eq!(nesting.interrupted_since(outer, &mailbox), Interrupted::Served);
        let next = nesting.before();
        assert_eq!(nesting.interrupted_since(next, &mailbox), Interrupted::No);
    }
}
