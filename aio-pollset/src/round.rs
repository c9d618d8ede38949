//! Rounds: every promoted source is polled once (rule A3).

use std::ops::ControlFlow;

use aio_backend::Token;

use crate::PollSet;
use crate::arrays::Next;
use crate::hit::{Hit, MoreHits};
use crate::slots::NONE;
use crate::walk::{Start, Walk};

impl PollSet {
    /// Polls every promoted source once, whether poll mode is on or not. Returns whether one of them has work; `false` inside
    /// a walk of the set.
    ///
    /// `hit` gets the token of each source whose `poll` returned `true`. If `hit` returns `Continue`, it has taken the hit, and the
    /// caller must [serve](Self::serve) or [forget](Self::forget_hit) it. `Break` refuses the hit, for lack of room, and ends the
    /// round; the next round begins with the refused source. Otherwise the round goes on after a hit.
    ///
    /// The round leaves out excluded sources, and sources that were removed, suspended or replaced earlier in the same round. In poll
    /// mode, it first calls each pending `poll_begin`; a source that is replaced even by that call is polled without it if it is
    /// marked for a recheck.
    ///
    /// # Panics
    /// A panic of a source or of `hit` goes through; the sources behind it are polled in the next round.
    #[inline]
    pub fn round(&self, mut hit: impl FnMut(Token) -> ControlFlow<()>) -> bool {
        let (Some(first), more) = self.hits() else {
            return false;
        };
        if let ControlFlow::Break(slot) = first.pass(&mut hit) {
            self.begin_with(slot);
        } else if let Some(more) = more {
            more.pass(hit);
        }
        true
    }

    /// As [`round`](Self::round), but returns the first hit. Most rounds that find work find one, which can be [served](Hit::serve) without
    /// a list. If a second source has work, the rest of the round is returned as well.
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
    /// let (Some(hit), None) = set.hits() else {
    ///     panic!("there is one source");
    /// };
    /// assert_eq!(hit.serve(|| "served"), Some("served"));
    ///
    /// let _ = set.join(Token::new(1, 0), AlwaysBusy);
    /// let (Some(first), Some(more)) = set.hits() else {
    ///     panic!("there are two");
    /// };
    /// let mut list = vec![first.into_token()];
    /// more.pass(|token| {
    ///     list.push(token);
    ///     ControlFlow::Continue(())
    /// });
    /// assert_eq!(list, [Token::new(0, 0), Token::new(1, 0)]);
    /// ```
    ///
    /// # Panics
    /// A panic of a source goes through; the sources behind it are polled in the next round.
    #[inline(always)]
    pub fn hits(&self) -> (Option<Hit<'_>>, Option<MoreHits<'_>>) {
        let state = self.state();
        if state.is_dirty() {
            self.begin_pending();
        }
        let Some(walk) = Walk::begin(&self.core) else {
            return (None, None);
        };
        state.rounds.set(state.rounds.get().wrapping_add(1));
        let start = self.start.get();
        if start != Start::default() {
            let (first, more) = self.hits_from(walk, start);
            return (first.map(Hit::moved), more);
        }
        for (number, array) in (0..).zip(walk.arrays()) {
            let next = array.next_hit(state, 0);
            if next.slot == NONE {
                continue;
            }
            let first = Hit::mark(self, next.slot);
            let second = match next.from {
                NONE => Next::END,
                from => array.next_hit(state, from),
            };
            let is_last = number as usize + 1 == walk.arrays().len();
            if second.slot == NONE && is_last {
                return (first, None);
            }
            let course = Course::new(walk, number, second.from);
            let (first, more) = self.rest(first.map(Hit::moved), second.slot, course);
            return (first.map(Hit::moved), more);
        }
        (None, None)
    }

    /// The rest of a round which has found `first`, if it is one, and the source in slot `second`, if that is one.
    #[inline(never)]
    fn rest<'a>(
        &'a self,
        mut first: Option<Hit<'a>>,
        second: u32,
        mut course: Course<'a>,
    ) -> (Option<Hit<'a>>, Option<MoreHits<'a>>) {
        let mut slot = (second != NONE).then_some(second).or_else(|| course.next());
        while let Some(next) = slot {
            if first.is_some() {
                return (first, Some(MoreHits::new(self, next, course)));
            }
            first = Hit::mark(self, next);
            slot = course.next();
        }
        (first, None)
    }

    /// Has the next round begin with this slot's source.
    #[cold]
    pub(crate) fn begin_with(&self, slot: u32) {
        let slots = self.state().slots.borrow();
        let (array, at) = (slots.get(slot).array.into(), slots.get(slot).at);
        self.start.set(Start { array, at });
    }

    /// A round that begins with a hit that the last one refused.
    #[cold]
    #[inline(never)]
    fn hits_from<'a>(&'a self, walk: Walk<'a>, start: Start) -> (Option<Hit<'a>>, Option<MoreHits<'a>>) {
        self.start.take();
        let course = Course::new(walk, start.array, start.at);
        self.rest(None, NONE, Course { start, ..course })
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

/// A round under way.
pub(crate) struct Course<'a> {
    walk: Walk<'a>,
    /// Where it began.
    start: Start,
    /// Where it goes on; [`NONE`]: nowhere.
    array: u32,
    from: u32,
    /// The arrays before the first one are left, and the beginning of that one.
    wraps: bool,
}

impl<'a> Course<'a> {
    /// A round that has begun at the first source, and goes on from `from` in an array.
    fn new(walk: Walk<'a>, array: u32, from: u32) -> Self {
        Self {
            walk,
            start: Start::default(),
            array,
            from,
            wraps: false,
        }
    }

    /// Polls sources until one has work. Returns its slot.
    #[inline(never)]
    pub(crate) fn next(&mut self) -> Option<u32> {
        loop {
            if self.from == NONE {
                self.go_on();
            }
            let array = self.walk.arrays().get(self.array as usize)?;
            let next = if self.is_last() {
                array.next_hit_within(self.walk.state(), self.from, self.start.at)
            } else {
                array.next_hit(self.walk.state(), self.from)
            };
            self.from = next.from;
            if next.slot != NONE {
                return Some(next.slot);
            }
        }
    }

    fn is_last(&self) -> bool {
        self.wraps && self.array == self.start.array
    }

    /// Goes on with the next array.
    fn go_on(&mut self) {
        self.from = 0;
        if self.is_last() {
            self.array = NONE;
            return;
        }
        self.array += 1;
        let wraps = !self.wraps && self.start != Start::default();
        if self.array as usize >= self.walk.arrays().len() && wraps {
            (self.array, self.wraps) = (0, true);
        }
    }
}
