//! Rounds: every promoted source is polled once (rule A3).

use std::mem;
use std::ops::ControlFlow;

use aio_backend::Token;

use crate::PollSet;
use crate::arrays::Next;
use crate::hit::Hit;
use crate::slots::NONE;
use crate::walk::{Course, Start, Walk};

impl PollSet {
    /// Polls every promoted source once, in poll mode or not. Returns `true` if a source has work; `false`
    /// inside a walk of the set.
    ///
    /// `hit` gets the token of each source whose `poll` returned `true`. If `hit` returns `Continue`, it has taken the hit, and the
    /// caller must [serve](Self::serve) or [forget](Self::forget_hit) it. `Break` refuses the hit, for lack of room, and ends the
    /// round; the next round begins with the refused source. Otherwise the round goes on after a hit.
    ///
    /// The round leaves out excluded sources, and sources that were removed, suspended or replaced earlier in
    /// the same round. In poll mode, it first calls each pending `poll_begin`. If that call replaces its
    /// source, the new source is polled without a `poll_begin` if it is marked for a recheck.
    ///
    /// # Panics
    /// A panic of a source or of `hit` propagates. The remaining sources are polled in the next round.
    #[inline]
    pub fn round(&self, mut hit: impl FnMut(Token) -> ControlFlow<()>) -> bool {
        let (Some(first), has_more) = self.hits() else {
            return false;
        };
        if let ControlFlow::Break(slot) = first.pass(&mut hit) {
            self.begin_with(slot);
        } else if has_more {
            self.pass_rest(hit);
        }
        true
    }

    /// As [`round`](Self::round), but returns the first hit, and `true` if there is a second one. Most rounds
    /// that find work find one hit, which can be [served](Hit::serve) without a list. If there is a second
    /// one, the rest of the round has to be [passed on](Self::pass_rest) at once.
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
    /// let set = PollSet::new();
    /// let _ = set.join(Token::new(0, 0), AlwaysBusy);
    /// let (Some(hit), false) = set.hits() else {
    ///     panic!("there is one source");
    /// };
    /// assert_eq!(hit.serve(|| "served"), Some("served"));
    ///
    /// let _ = set.join(Token::new(1, 0), AlwaysBusy);
    /// let (Some(first), true) = set.hits() else {
    ///     panic!("there are two");
    /// };
    /// let mut list = vec![first.into_token()];
    /// set.pass_rest(|token| {
    ///     list.push(token);
    ///     ControlFlow::Continue(())
    /// });
    /// assert_eq!(list, [Token::new(0, 0), Token::new(1, 0)]);
    /// ```
    ///
    /// # Panics
    /// A panic of a source propagates. The remaining sources are polled in the next round.
    #[inline(always)]
    pub fn hits(&self) -> (Option<Hit<'_>>, bool) {
        let state = self.state();
        if state.is_dirty() {
            self.begin_pending();
        }
        let Some(walk) = Walk::begin(&self.core) else {
            return (None, false);
        };
        state.rounds.set(state.rounds.get().wrapping_add(1));
        let start = self.start.get();
        if start != Start::default() {
            let (first, has_more) = self.hits_from(&walk, start);
            return (first.map(Hit::moved), has_more);
        }
        for (number, array) in (0..).zip(walk.arrays()) {
            let next = array.next_hit(state, 0);
            if next.slot == NONE {
                continue;
            }
            let marked = state.slots.borrow_mut().mark_hit(next.slot, state.rounds.get());
            let second = match next.from {
                NONE => Next::END,
                from => {
                    // A panic refuses the first hit. This is a copy, because a value that a panic may drop stays in memory.
                    let first = marked.map(|marked| Hit::new(self, next.slot, marked));
                    let second = array.next_hit(state, from);
                    mem::forget(first);
                    second
                }
            };
            let first = marked.map(|marked| Hit::new(self, next.slot, marked));
            let is_last = number as usize + 1 == walk.arrays().len();
            if second.slot == NONE && is_last {
                return (first, false);
            }
            let course = Course {
                array: number,
                from: second.from,
                ..Course::default()
            };
            let (first, has_more) = self.first_of(&walk, first, second.slot, course);
            return (first.map(Hit::moved), has_more);
        }
        (None, false)
    }

    /// Returns the first hit of a round, and `true` if there is a second one. The candidates are `first`, the
    /// source in slot `second`, and the rest of the `course`.
    #[inline(never)]
    fn first_of<'a>(
        &'a self,
        walk: &Walk<'_>,
        mut first: Option<Hit<'a>>,
        second: u32,
        mut course: Course,
    ) -> (Option<Hit<'a>>, bool) {
        let mut slot = (second != NONE)
            .then_some(second)
            .or_else(|| walk.next_hit(&mut course));
        while let Some(next) = slot {
            let hit = Hit::mark(self, next);
            if first.is_none() {
                first = hit;
            } else if let Some(second) = hit {
                course.second = Some(second.into_mark());
                self.course.set(course);
                return (first, true);
            }
            slot = walk.next_hit(&mut course);
        }
        (first, false)
    }

    /// Passes on the hits after the first one that [`hits`](Self::hits) has returned, and polls the remaining
    /// sources, as [`round`](Self::round) does. Call it at once, and only if there is a second hit.
    pub fn pass_rest(&self, mut hit: impl FnMut(Token) -> ControlFlow<()>) {
        let Some(walk) = Walk::begin(&self.core) else {
            return;
        };
        let mut course = self.course.take();
        let mut second = course
            .second
            .take()
            .map(|(slot, marked)| Hit::new(self, slot, marked));
        while let Some(next) = second {
            if let ControlFlow::Break(slot) = next.pass(&mut hit) {
                return self.begin_with(slot);
            }
            second = std::iter::from_fn(|| walk.next_hit(&mut course)).find_map(|slot| Hit::mark(self, slot));
        }
    }

    /// Makes the next round begin with this slot's source.
    #[cold]
    pub(crate) fn begin_with(&self, slot: u32) {
        let slots = self.state().slots.borrow();
        let (array, at) = (slots.get(slot).array.into(), slots.get(slot).at);
        self.start.set(Start { array, at });
    }

    /// Polls a round that begins with the hit that the last one refused.
    #[cold]
    #[inline(never)]
    fn hits_from(&self, walk: &Walk<'_>, start: Start) -> (Option<Hit<'_>>, bool) {
        self.start.take();
        let course = Course {
            start,
            array: start.array,
            from: start.at,
            ..Course::default()
        };
        self.first_of(walk, None, NONE, course)
    }

    /// Passes a source with work to `hit`.
    #[inline]
    pub(crate) fn found(
        &self,
        slot: u32,
        found: &mut bool,
        hit: &mut impl FnMut(Token) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        match Hit::mark(self, slot) {
            Some(marked) => {
                *found = true;
                marked.pass(hit).map_break(drop)
            }
            None => ControlFlow::Continue(()),
        }
    }
}
