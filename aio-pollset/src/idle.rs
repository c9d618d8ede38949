//! The demotion of idle sources (rule A8).

use std::ops::ControlFlow;

use aio_backend::Token;

use crate::PollSet;
use crate::arrays::Yes;
use crate::slots::Flags;
use crate::walk::Walk;

/// The largest age. Older sources stay at it, so that the counter of rounds may wrap around.
const OLDEST: u32 = 1 << 30;

impl PollSet {
    /// Demotes idle sources: they are not polled until their next [event](Self::promote).
    ///
    /// A promoted source is idle on two conditions. It has had no event in the last `idle_after` rounds
    /// before the most recent event of any source (so sources do not age while there are no events at all).
    /// And `may_leave` returns `true`: an event can bring it back. If `may_leave` returns `false`, the source
    /// counts as one that has just had an event. `surplus` gets the number of promoted sources and the number
    /// of idle ones among them, and returns how many of the idle ones leave.
    ///
    /// A source that leaves in poll mode has its [`poll_end`](crate::Source::poll_end) and one last `poll`.
    /// If that returns `true`, or if one of the two panics, it stays. `hit` is as in [`round`](Self::round);
    /// `Break` ends the demotion. Returns `true` if a last `poll` returned `true`. Returns `false`, without
    /// effect, inside a walk of the set. In O(promoted): call it once in many [rounds](Self::rounds).
    ///
    /// ```
    /// use std::ops::ControlFlow;
    /// use aio_backend::Token;
    /// use aio_pollset::{PollSet, Source};
    ///
    /// struct Fixed(bool);
    /// impl Source for Fixed {
    ///     fn poll(&self) -> bool {
    ///         self.0
    ///     }
    /// }
    ///
    /// let (set, [busy, idle]) = (PollSet::new(), [Token::new(0, 0), Token::new(1, 0)]);
    /// let _ = (set.join(busy, Fixed(true)), set.join(idle, Fixed(false)));
    /// for _ in 0..100 {
    ///     set.round(|_| ControlFlow::Continue(()));
    /// }
    /// set.demote_idle(50, |_| true, |_promoted, idle| idle, |_| ControlFlow::Continue(()));
    /// assert!(set.is_promoted(busy) && !set.is_promoted(idle));
    /// set.promote(idle);
    /// assert!(set.is_promoted(idle));
    /// ```
    pub fn demote_idle(
        &self,
        idle_after: u32,
        may_leave: impl Fn(Token) -> bool,
        surplus: impl FnOnce(usize, usize) -> usize,
        mut hit: impl FnMut(Token) -> ControlFlow<()>,
    ) -> bool {
        let mut found = false;
        let Some(walk) = Walk::begin(&self.core) else {
            return false;
        };
        let mut idle = self.idle.take();
        idle.clear();
        self.find_idle(&walk, idle_after, &mut idle);
        idle.retain(|slot| {
            let token = self.state().slots.borrow().get(*slot).token;
            let may_leave = may_leave(token);
            if !may_leave {
                // `may_leave` is not called again before the source is old once more.
                self.state().slots.borrow_mut().get_mut(*slot).last_event = self.state().last_event.get();
            }
            may_leave
        });
        let leaving = surplus(self.promoted(), idle.len());
        let yes: &mut Yes<'_> = &mut |slot| self.found(slot, &mut found, &mut hit);
        let _ = idle
            .iter()
            .take(leaving)
            .try_for_each(|slot| self.demote(&walk, *slot, yes));
        self.idle.replace(idle);
        found
    }

    /// Returns the number of rounds so far, which wraps around. Leaving poll mode counts as 17.
    #[inline]
    #[must_use]
    pub fn rounds(&self) -> u32 {
        self.state().rounds.get()
    }

    /// Finds the promoted sources that are old enough.
    #[inline(never)]
    fn find_idle(&self, walk: &Walk<'_>, idle_after: u32, idle: &mut Vec<u32>) {
        for array in walk.arrays() {
            array.append_slots(idle);
        }
        let last_event = self.state().last_event.get();
        let mut slots = self.state().slots.borrow_mut();
        idle.retain(|slot| {
            let entry = slots.get_mut(*slot);
            let age = last_event.wrapping_sub(entry.last_event).cast_signed();
            if age > OLDEST.cast_signed() {
                entry.last_event = last_event.wrapping_sub(OLDEST);
            }
            let is_old = age >= 0 && age.cast_unsigned() >= idle_after;
            is_old && !entry.flags().has_any(Flags::SKIPPED | Flags::HIT)
        });
    }

    /// Demotes a source, unless its last `poll` returns `true`.
    fn demote(&self, walk: &Walk<'_>, slot: u32, yes: &mut Yes<'_>) -> ControlFlow<()> {
        let flags = || self.state().slots.borrow().get(slot).flags();
        // Sources that were called before may have removed, suspended or excluded this one.
        let is_out = || flags().has_any(Flags::SKIPPED | Flags::HIT);
        if is_out() {
            return ControlFlow::Continue(());
        }
        let (array, at) = walk.find(slot);
        let ends = self.state().slots.borrow_mut().take_end(slot);
        if ends {
            // These take effect if the source stays.
            self.state().slots.borrow_mut().queue_recheck(slot);
            self.state().queue_begin(slot);
            array.poll_end(at);
        }
        if is_out() {
            return ControlFlow::Continue(());
        }
        if flags().has_any(Flags::RECHECK) {
            if array.poll(at) {
                return yes(slot);
            }
            self.state().slots.borrow_mut().clear_recheck(slot);
        }
        if !is_out() {
            self.state()
                .slots
                .borrow_mut()
                .edit(slot, |flags| flags | Flags::DEMOTED);
            self.core.settle(slot);
        }
        ControlFlow::Continue(())
    }
}
