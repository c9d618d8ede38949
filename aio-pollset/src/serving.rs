//! Serving hits: each hit is taken once, and a source is not polled while its handler runs (rule A9).

use std::fmt;

use aio_backend::Token;

use crate::PollSet;
use crate::hit::Hit;
use crate::slots::Flags;

impl PollSet {
    /// Serves a hit: calls `run`, which should do the work of the source with this token.
    ///
    /// Returns `None` without a call if another iteration has taken the hit meanwhile, if it was
    /// [forgotten](Self::forget_hit), or if the source is suspended or has left.
    ///
    /// The source is not polled until `run` returns, unless it [nests](crate::Source::nests). If `run` panics, work may be
    /// left without a notification, so the source is marked for a [recheck](Self::recheck).
    #[inline]
    pub fn serve<R>(&self, token: Token, run: impl FnOnce() -> R) -> Option<R> {
        let slot = self.state().slots.borrow().find(token)?;
        self.serve_slot(slot, token, run)
    }

    /// Returns a hit that was taken and is not served yet. If the value is dropped, the hit stays so.
    ///
    /// ```
    /// use std::ops::ControlFlow;
    /// use aio_backend::Token;
    /// use aio_pollset::{PollSet, Source};
    ///
    /// struct AlwaysBusy;
    /// impl Source for AlwaysBusy {
    ///     fn poll(&self) -> bool {
    ///         true
    ///     }
    /// }
    ///
    /// let (set, token) = (PollSet::new(), Token::new(0, 0));
    /// let _ = set.join(token, AlwaysBusy);
    /// set.round(|_| ControlFlow::Continue(()));
    /// assert!(set.hit(token).is_some());
    /// set.hit(token).expect("it was not served").serve(|| ());
    /// assert!(set.hit(token).is_none());
    /// ```
    #[must_use]
    pub fn hit(&self, token: Token) -> Option<Hit<'_>> {
        let slots = self.state().slots.borrow();
        let slot = slots.find(token)?;
        let marked = slots.marked(slot);
        drop(slots);
        marked.map(|marked| Hit::new(self, slot, marked))
    }

    /// As [`serve`](Self::serve), for the source with this token in `slot`, which it may have left.
    #[inline(always)]
    pub(crate) fn serve_slot<R>(&self, slot: u32, token: Token, run: impl FnOnce() -> R) -> Option<R> {
        let excludes = self.state().slots.borrow_mut().begin_serving(slot, token)?;
        Some(self.run_excluded(slot, token, excludes, run))
    }

    /// Serves a source that announced its work, instead of one with a hit. Promotes it if it was demoted,
    /// takes its hit if there is one, and calls `run` as [`serve`](Self::serve) does. Returns `None` without
    /// a call if there is no such source, or if it is suspended or excluded; in the latter two cases it is
    /// marked for a [recheck](Self::recheck).
    ///
    /// ```
    /// use aio_backend::Token;
    /// use aio_pollset::{PollSet, Source};
    ///
    /// struct Mailbox;
    /// impl Source for Mailbox {
    ///     fn poll(&self) -> bool {
    ///         false
    ///     }
    /// }
    ///
    /// let (set, token) = (PollSet::new(), Token::new(0, 0));
    /// let _ = set.join(token, Mailbox);
    /// assert_eq!(set.serve_woken(token, || "a letter"), Some("a letter"));
    /// set.suspend(token).finish(|| ());
    /// assert_eq!(set.serve_woken(token, || "another one"), None);
    /// ```
    pub fn serve_woken<R>(&self, token: Token, run: impl FnOnce() -> R) -> Option<R> {
        let (slot, excludes) = self.begin_serving_woken(token)?;
        Some(self.run_excluded(slot, token, excludes, run))
    }

    /// Calls `run` while the source in this slot is `excluded`, or is not because it nests.
    #[inline(always)]
    fn run_excluded<R>(&self, slot: u32, token: Token, excluded: bool, run: impl FnOnce() -> R) -> R {
        if excluded {
            self.state().add_care();
        }
        let guard = Unserved {
            set: self,
            slot,
            token,
            excluded,
        };
        let result = run();
        std::mem::forget(guard);
        self.end_serving(slot, token, excluded);
        result
    }

    #[inline(always)]
    fn end_serving(&self, slot: u32, token: Token, excluded: bool) {
        if excluded {
            self.state().slots.borrow_mut().end_serving(slot, token);
            self.state().drop_care();
        }
    }

    /// Returns the slot, and `true` if it is excluded.
    #[inline(always)]
    fn begin_serving_woken(&self, token: Token) -> Option<(u32, bool)> {
        let state = self.state();
        let mut slots = state.slots.borrow_mut();
        let slot = slots.find(token)?;
        let flags = slots.get(slot).flags();
        if flags.has_any(Flags::SUSPENDED | Flags::EXCLUDED) {
            drop(slots);
            self.recheck(token);
            return None;
        }
        if flags.has_any(Flags::DEMOTED) {
            drop(slots);
            self.promote(token);
            slots = state.slots.borrow_mut();
        }
        if flags.has_any(Flags::HIT | Flags::RECHECK) {
            slots.edit(slot, |flags| flags.without(Flags::HIT | Flags::RECHECK));
        }
        slots.get_mut(slot).last_event = state.rounds.get();
        state.last_event.set(state.rounds.get());
        Some((slot, slots.exclude(slot)))
    }

    /// Returns `true` if this source has a hit that is not served yet.
    ///
    /// ```
    /// use std::ops::ControlFlow;
    /// use aio_backend::Token;
    /// use aio_pollset::{PollSet, Source};
    ///
    /// struct AlwaysBusy;
    /// impl Source for AlwaysBusy {
    ///     fn poll(&self) -> bool {
    ///         true
    ///     }
    /// }
    ///
    /// let (set, token) = (PollSet::new(), Token::new(0, 1));
    /// set.join(token, AlwaysBusy).finish(|| ());
    /// set.enter();
    /// assert!(!set.has_hit(token));
    /// set.round(|_| ControlFlow::Continue(()));
    /// assert!(set.has_hit(token));
    /// set.serve(token, || ());
    /// assert!(!set.has_hit(token));
    /// ```
    #[must_use]
    pub fn has_hit(&self, token: Token) -> bool {
        let slots = self.state().slots.borrow();
        let slot = slots.find(token);
        slot.is_some_and(|slot| slots.get(slot).flags().has_any(Flags::HIT))
    }

    /// Drops a hit that will not be served, such as a hit of an iteration that a panic ends. The source is
    /// polled again: in the next round, or, if the hit came from the exit of poll mode, by the recheck that
    /// is still pending.
    pub fn forget_hit(&self, token: Token) {
        let mut slots = self.state().slots.borrow_mut();
        if let Some(slot) = slots.find(token) {
            slots.edit(slot, |flags| flags.without(Flags::HIT));
        }
    }

    /// Marks a source for a recheck: [`exit`](Self::exit) polls it before the loop sleeps. This is for work that
    /// may have arrived without a notification because of poll mode. A demoted source is promoted.
    pub fn recheck(&self, token: Token) {
        let mut slots = self.state().slots.borrow_mut();
        let Some(slot) = slots.find(token) else { return };
        let was_demoted = slots.get(slot).flags().has_any(Flags::DEMOTED);
        slots.edit(slot, |flags| flags.without(Flags::DEMOTED) | Flags::RECHECK);
        drop(slots);
        if was_demoted {
            self.core.promoted_again(slot);
        }
    }

    /// Excludes a source from polling until the guard is dropped, while its handler runs. Exclusions nest:
    /// the source is polled again after its last guard. Has no effect on a source that
    /// [nests](crate::Source::nests), or if there is no such source.
    ///
    /// ```
    /// use std::ops::ControlFlow;
    /// use aio_backend::Token;
    /// use aio_pollset::{PollSet, Source};
    ///
    /// struct AlwaysBusy;
    /// impl Source for AlwaysBusy {
    ///     fn poll(&self) -> bool {
    ///         true
    ///     }
    /// }
    ///
    /// let (set, token) = (PollSet::new(), Token::new(0, 0));
    /// let _ = set.join(token, AlwaysBusy);
    /// let round = || set.round(|_| ControlFlow::Continue(()));
    /// let excluded = set.exclude(token);
    /// assert!(!round());
    /// drop(excluded);
    /// assert!(round());
    /// ```
    pub fn exclude(&self, token: Token) -> Excluded<'_> {
        let mut slots = self.state().slots.borrow_mut();
        let slot = slots.find(token).filter(|slot| slots.exclude(*slot));
        drop(slots);
        self.excluded(slot.map(|slot| (slot, token)))
    }

    /// Ends all exclusions of a source, such as those of one that was replaced while its handler ran. Their
    /// guards have no effect any more, so drop them before the guards of later exclusions.
    pub fn end_exclusions(&self, token: Token) {
        let mut slots = self.state().slots.borrow_mut();
        if let Some(slot) = slots.find(token)
            && slots.get(slot).excluded > 0
        {
            slots.get_mut(slot).excluded = 1;
            slots.include(slot, token);
        }
    }

    #[inline]
    fn excluded(&self, slot: Option<(u32, Token)>) -> Excluded<'_> {
        if slot.is_some() {
            self.state().add_care();
        }
        Excluded { set: self, slot }
    }
}

/// A guard while which a source is not polled; see [`PollSet::exclude`].
///
/// # Examples
/// ```
/// use std::ops::ControlFlow;
/// use aio_backend::Token;
/// use aio_pollset::{PollSet, Source};
///
/// struct AlwaysBusy;
/// impl Source for AlwaysBusy {
///     fn poll(&self) -> bool {
///         true
///     }
/// }
///
/// let (set, token) = (PollSet::new(), Token::new(0, 0));
/// let _ = set.join(token, AlwaysBusy);
/// {
///     let _excluded = set.exclude(token);
///     // ... run the handler; a nested iteration does not poll the source.
///     assert!(!set.round(|_| ControlFlow::Continue(())));
/// }
/// assert!(set.round(|_| ControlFlow::Continue(())));
/// ```
#[must_use = "dropped at once, the source is polled again at once"]
pub struct Excluded<'a> {
    set: &'a PollSet,
    slot: Option<(u32, Token)>,
}

impl Drop for Excluded<'_> {
    fn drop(&mut self) {
        if let Some((slot, token)) = self.slot {
            self.set.end_serving(slot, token, true);
        }
    }
}

impl fmt::Debug for Excluded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Excluded")
            .field(&self.slot.map(|(_, token)| token))
            .finish()
    }
}

/// A guard while a hit is being served. Only a panic drops it.
struct Unserved<'a> {
    set: &'a PollSet,
    slot: u32,
    token: Token,
    excluded: bool,
}

impl Drop for Unserved<'_> {
    #[inline]
    fn drop(&mut self) {
        unserved(self.set, self.slot, self.token, self.excluded);
    }
}

#[cold]
#[inline(never)]
fn unserved(set: &PollSet, slot: u32, token: Token, excluded: bool) {
    set.recheck(token);
    set.end_serving(slot, token, excluded);
}
