//! Poll mode: entering it calls `poll_begin`, and leaving it calls `poll_end` and one last `poll` of each
//! source (rules A5, R7).

use std::any::Any;
use std::cell::Cell;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use aio_backend::Token;

use crate::PollSet;
use crate::arrays::Yes;
use crate::walk::Walk;

/// The cost of a `poll_begin` and a `poll_end` of a source, in polls. It counts as rounds, so that sources
/// which stay idle from wait to wait age.
const BEGIN_AND_END: u32 = 16;

impl PollSet {
    /// Enters poll mode: calls [`poll_begin`](crate::Source::poll_begin) of each promoted source that has not had it.
    ///
    /// If poll mode is on already, these are the sources that joined, were promoted or were resumed since; if there are none, the
    /// call is free. Has no effect inside a walk of the set.
    ///
    /// # Panics
    /// A panic of a source propagates. Poll mode is on then. The remaining sources begin before they are
    /// polled.
    #[inline]
    pub fn enter(&self) {
        if !self.state().is_on() {
            self.begin_all();
        }
        if self.state().is_dirty() {
            self.begin_pending();
        }
    }

    #[inline(never)]
    fn begin_all(&self) {
        let Some(walk) = Walk::begin(&self.core) else {
            return;
        };
        self.state().set_on(true);
        let begun = catch_unwind(AssertUnwindSafe(|| {
            walk.arrays()
                .iter()
                .for_each(|array| array.begin_all(self.state()));
        }));
        if let Err(panic) = begun {
            walk.visit(|slot| self.state().slots.borrow_mut().queue_begin(slot));
            self.state().be_careful();
            drop(walk);
            resume_unwind(panic);
        }
    }

    /// Calls `poll_begin` of the sources that joined in poll mode (rule R7). Sources that join meanwhile get theirs before the next
    /// round.
    #[cold]
    pub(crate) fn begin_pending(&self) {
        let mut among = self.state().slots.borrow().begins();
        if among == 0 || !self.state().is_on() {
            return;
        }
        let Some(walk) = Walk::begin(&self.core) else {
            return;
        };
        loop {
            let next = self.state().slots.borrow_mut().next_begin(&mut among);
            let Some(slot) = next else { break };
            let (array, at) = walk.find(slot);
            array.poll_begin(at);
        }
    }

    /// Prepares for a sleep (rule A5). Returns `true` if the loop must not sleep, because a source has work
    /// or its last `poll` is still pending.
    ///
    /// If poll mode is on, this leaves it: it calls [`poll_end`](crate::Source::poll_end) of every source that had its
    /// `poll_begin`, and then one last `poll` of each. If poll mode is off, it polls the sources with a pending recheck. In
    /// O(sources in poll mode) or O(pending).
    ///
    /// `hit` is as in [`round`](Self::round). A source with work stays marked for a recheck until it is [served](Self::serve), because
    /// no notification announces the work: after a nested iteration, a panic, a suspension, a replacement or a full list, `exit`
    /// polls it again. The first `exit` after an exclusion polls the excluded source.
    ///
    /// Inside a walk of the set it only returns `true` if a recheck is pending.
    ///
    /// # Panics
    /// If a `poll_end` panics, the set still calls those of all other sources, leaves poll mode, and marks
    /// every source for a recheck. Then the first panic propagates. A panic of a `poll` or of `hit`
    /// propagates at once, and the remaining sources stay marked.
    pub fn exit(&self, mut hit: impl FnMut(Token) -> ControlFlow<()>) -> bool {
        let mut found = false;
        self.check_last(&mut |slot| self.found(slot, &mut found, &mut hit));
        self.state().slots.borrow().due.count() > 0
    }

    #[inline(never)]
    fn check_last(&self, yes: &mut Yes<'_>) {
        if self.state().is_on() {
            self.leave_mode(yes);
        } else if self.state().slots.borrow().due.count() > 0 {
            self.recheck_pending(yes);
        }
    }

    fn leave_mode(&self, yes: &mut Yes<'_>) {
        let Some(walk) = Walk::begin(&self.core) else {
            return;
        };
        let _rest = Rest(self);
        let panic = self.end_all(&walk);
        // The last polls include a source that replaced another one in its `poll_end`.
        drop(walk);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
        let Some(walk) = Walk::begin(&self.core) else {
            return;
        };
        for array in walk.arrays() {
            if array.recheck_all(self.state(), yes).is_break() {
                break;
            }
        }
    }

    fn recheck_pending(&self, yes: &mut Yes<'_>) {
        let Some(walk) = Walk::begin(&self.core) else {
            return;
        };
        let mut among = self.state().slots.borrow().rechecks();
        while self.state().slots.borrow().due.count() > 0 {
            let next = self.state().slots.borrow_mut().next_recheck(&mut among);
            let Some(slot) = next else { break };
            let (array, at) = walk.find(slot);
            if !array.poll(at) {
                self.state().slots.borrow_mut().clear_recheck(slot);
            } else if yes(slot).is_break() {
                self.state().slots.borrow_mut().recheck_first(slot);
                break;
            }
        }
    }

    /// Calls every `poll_end` that is due. Returns the first panic.
    fn end_all(&self, walk: &Walk<'_>) -> Option<Box<dyn Any + Send>> {
        let mut first_panic = None;
        for array in walk.arrays() {
            let from = Cell::new(0);
            while let Err(panic) = catch_unwind(AssertUnwindSafe(|| array.end_all(self.state(), &from))) {
                first_panic.get_or_insert(panic);
            }
        }
        self.state().set_on(false);
        self.state()
            .rounds
            .set(self.state().rounds.get().wrapping_add(1 + BEGIN_AND_END));
        self.state().slots.borrow_mut().clear_begins();
        first_panic
    }

    /// Returns `true` if poll mode is on.
    #[inline]
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.state().is_on()
    }

    /// Returns `true` if [`exit`](Self::exit) must be called before the loop sleeps: poll mode is on, or a
    /// recheck is due.
    #[inline]
    #[must_use]
    pub fn needs_exit(&self) -> bool {
        self.state().is_on() || self.state().slots.borrow().due.count() > 0
    }
}

/// A guard while poll mode is left. At the end, or on a panic, it queues the sources whose recheck is still
/// due.
struct Rest<'a>(&'a PollSet);

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        let slots = &self.0.state().slots;
        if slots.borrow().due.count() > 0
            && let Some(walk) = Walk::begin(&self.0.core)
        {
            walk.visit(|slot| slots.borrow_mut().queue_recheck(slot));
        }
    }
}
