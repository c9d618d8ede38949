//! One iteration of a context, with its steps in their order (rule D5).
//!
//! [`iterate`](Inner::iterate) is the page to read; its steps follow. An iteration holds no borrow while a
//! callback runs.

use std::io;
use std::time::Duration;

use aio_backend::{Readiness, ReadyList, Token};
use aio_handlers::{Delivering, call_each};
use aio_notify::BeforePoll;
use aio_pollctl::{EndedWait, PreSleepSpin, Searched, Waited};
use aio_pollset::Hit;

use crate::Context;
use crate::Event;
use crate::bottom_half;
use crate::context::{Inner, Wait};
use crate::descriptors::is_own;
use crate::timer::fire_due;

mod calling;
pub(crate) mod concerns;
pub(crate) mod found;
pub(crate) mod measure;
mod poll;
mod search;
mod waiting;

use found::Found;
use search::push_hit;

/// The longest wait while an idle bottom half is queued (rule H8).
const IDLE_NAP: Duration = Duration::from_millis(10);

impl Inner {
    /// Runs one iteration. Returns `true` if there was progress.
    ///
    /// Compiled three times: the variants without waiting or without polling leave out much of the code.
    #[inline(always)]
    fn iterate<const WAITS: bool, const POLLS: bool>(&self, cx: &Context, wait: Wait) -> io::Result<bool> {
        let _iteration = self.nesting.enter();
        self.shared.counters.iteration();
        let mut found = Found::new(self, self.descriptors.lists.take());
        // 1. poll in user space; 2. wait, or check the descriptors once
        let waited = self.search_and_wait::<WAITS, POLLS>(cx, wait, &mut found)?;
        self.finish(cx, found, || self.ended(waited?))
    }

    /// Runs the rest of an iteration, after polling and waiting. `ended` returns the wait to pass to the policy.
    #[inline(always)]
    fn finish(
        &self,
        cx: &Context,
        mut found: Found<'_>,
        ended: impl FnOnce() -> Option<EndedWait>,
    ) -> io::Result<bool> {
        // 3. accept the notification: from here on, a new one starts the next iteration
        if self.mailbox.is_notified() {
            self.mailbox.accept();
        }
        // 4. measure how long there was nothing to do
        let ended = ended();
        // 5. bottom halves
        let mut progress = false;
        if self.deferred.has_due(self.mailbox.inbox()) {
            // A bottom half may change the handlers of events that are only on the list.
            if !found.is_recorded {
                self.record(cx, &mut found);
            }
            progress |= bottom_half::run(&self.deferred, &self.mailbox, cx);
        }
        // 6. ready handlers (7. a removed handler was dropped when its last user returned)
        let list = if found.list().is_empty() {
            found.into_list()
        } else {
            let is_recorded = found.is_recorded;
            self.deliver(cx, found.into_list(), is_recorded, &mut progress)?
        };
        if let Some(ended) = ended {
            self.adapt(ended, list.as_slice());
        }
        self.descriptors.lists.give_back(list);
        Ok(self.conclude(cx, progress))
    }

    /// Checks the descriptors without waiting, for an iteration that [has only
    /// descriptors](Self::has_descriptors_only). Most iterations of a busy loop are of this kind. Returns `true` if
    /// there was progress, with the state before the iteration; `None` if the check found no event.
    #[inline(always)]
    fn check_only<const WAITS: bool>(&self, cx: &Context) -> io::Result<Option<(bool, BeforePoll)>> {
        self.pacing.checks.step(|checks| checks.checked_only());
        self.descriptors.backend.rebalance(true);
        let mut list = self.descriptors.lists.take();
        self.descriptors.backend.wait(Some(Duration::ZERO), &mut list)?;
        let is_notified = self.mailbox.is_notified();
        if list.is_empty() && !is_notified {
            self.descriptors.lists.give_back_unused(list);
            if !WAITS {
                self.shared.counters.iteration();
            }
            return Ok(None);
        }
        let before = self.nesting.before();
        if is_notified || list.has_invalid() {
            return Ok(Some((self.finish_check(cx, list)?, before)));
        }
        if WAITS {
            self.pacing.pre_sleep.step(PreSleepSpin::found_at_once);
        }
        Ok(Some((self.serve(cx, list)?, before)))
    }

    /// Polls each handler once, for an iteration that [has to poll first](Self::has_to_poll_first). While a peer
    /// is busy, this finds work. If there is only a single hit, it is served without a list. Returns the same as
    /// [`check_only`](Self::check_only).
    #[inline(always)]
    fn poll_first(&self, cx: &Context) -> io::Result<Option<(bool, BeforePoll)>> {
        let before = self.nesting.before();
        let _iteration = self.nesting.enter();
        cx.assert_free();
        let (Some(hit), has_more) = self.polling.set.hits() else {
            return Ok(None);
        };
        let counters = &self.shared.counters;
        counters.iteration();
        counters.hit();
        let can_peek = || self.descriptors.backend.can_peek();
        let now_ns = || self.now().as_nanos();
        let has_to_check = self.pacing.count_hit(self.polling.set.rounds(), can_peek, now_ns);
        let progress = if has_more || has_to_check || self.has_posts() {
            self.serve_hits(cx, hit.into_token(), has_more, has_to_check)?
        } else {
            self.serve_hit(cx, hit)
        };
        Ok(Some((progress, before)))
    }

    /// Returns `true` if another thread has notified, or a bottom half is due.
    #[inline(always)]
    fn has_posts(&self) -> bool {
        self.mailbox.is_notified() || self.deferred.has_due(self.mailbox.inbox())
    }

    /// Serves a single hit of the first round, and ends the iteration.
    #[inline(always)]
    fn serve_hit(&self, cx: &Context, hit: Hit<'_>) -> bool {
        let token = hit.token();
        let progress = self.call_polled(cx, hit);
        self.shared.counters.events.add(progress.into());
        self.adapt(EndedWait::AT_ONCE, &[(token, Readiness::empty())]);
        self.conclude(cx, progress)
    }

    /// As [`serve_hit`](Self::serve_hit), for a hit that may not be the only work.
    #[inline(never)]
    fn serve_hits(&self, cx: &Context, first: Token, has_more: bool, has_to_check: bool) -> io::Result<bool> {
        let mut found = Found::new(self, self.descriptors.lists.take());
        let _there_is_room = push_hit(found.list(), first);
        if has_more {
            self.polling.set.pass_rest(|token| push_hit(found.list(), token));
        }
        if has_to_check {
            let searching = &mut self.searching(cx, found.list());
            self.pacing.after_counted_hit(searching)?;
        }
        self.finish(cx, found, || Some(EndedWait::AT_ONCE))
    }

    /// Serves an iteration that has found only events of descriptors, and ends it.
    #[inline(always)]
    fn serve(&self, cx: &Context, list: Box<ReadyList>) -> io::Result<bool> {
        let _iteration = self.nesting.enter();
        self.shared.counters.iteration();
        let mut progress = false;
        let list = self.deliver(cx, list, false, &mut progress)?;
        self.descriptors.lists.give_back(list);
        Ok(self.conclude(cx, progress))
    }

    /// As [`serve`](Self::serve), for a check that also found a notification or an invalid descriptor.
    #[cold]
    fn finish_check(&self, cx: &Context, list: Box<ReadyList>) -> io::Result<bool> {
        let _iteration = self.nesting.enter();
        self.shared.counters.iteration();
        let mut found = Found::new(self, list);
        self.collect(cx, 0, &mut found);
        self.finish(cx, found, || None)
    }

    /// Ends an iteration.
    #[inline(always)]
    fn conclude(&self, cx: &Context, mut progress: bool) -> bool {
        // 8. timers
        progress |= self.timers.run(|timers| fire_due(timers, cx));
        self.pacing.pre_sleep.step(|spin| spin.served(progress));
        progress
    }

    /// Returns `true` if there are no bottom halves, no [concerns](concerns::Concerns), and no outer iteration.
    #[inline(always)]
    fn has_descriptors_only(&self) -> bool {
        debug_assert!(
            !self.concerns.is_empty() || self.is_without_concerns(),
            "a part has not shown its concern"
        );
        self.concerns.is_empty() && self.nesting.depth() == 0 && !self.mailbox.inbox().pending()
    }

    /// Recomputes from the parts whether the word of [concerns](concerns::Concerns) has to be zero.
    fn is_without_concerns(&self) -> bool {
        let registry = self.descriptors.registry.borrow();
        !registry.has_edges()
            && !registry.has_paused()
            && !self.polling.set.needs_exit()
            && !self.timers.has_armed()
            && !self.timers.is_simulated()
    }

    /// Returns `true` if polling comes first: in poll mode, if nothing prevents or limits a wait.
    #[inline(always)]
    fn has_to_poll_first(&self) -> bool {
        self.concerns.is_polling_only()
            && self.nesting.depth() == 0
            && !self.mailbox.inbox().pending()
            && !self.pacing.checks.get().is_pending()
            && !self.polling.controller.budget(None).is_zero()
    }

    /// Polls in user space, then waits or checks the descriptors. Returns the search and the wait, for the policy.
    #[inline(always)]
    fn search_and_wait<const WAITS: bool, const POLLS: bool>(
        &self,
        cx: &Context,
        wait: Wait,
        found: &mut Found<'_>,
    ) -> io::Result<Option<Waited>> {
        let planning = self.mailbox.plan_guard();
        let has_edges = self.descriptors.registry.borrow().needs_recall() && self.recall(found.list());
        let is_urgent = WAITS && self.has_bottom_halves();
        let timeout = if WAITS {
            self.timeout(wait, is_urgent || has_edges)
        } else {
            Some(Duration::ZERO)
        };
        let searched = if POLLS {
            self.try_polling(cx, timeout, found.list())?
        } else {
            Searched::default()
        };
        let steps = &mut self.searching(cx, found.list());
        let plan = self.pacing.plan(steps, timeout, searched, is_urgent)?;
        let blocked = self.carry_out(cx, plan, found)?;
        drop(planning);
        Ok(POLLS.then_some(Waited {
            timeout,
            searched,
            blocked,
        }))
    }

    /// Recalls recorded edges. Returns whether there are any.
    #[cold]
    fn recall(&self, ready: &mut ReadyList) -> bool {
        let mut registry = self.descriptors.registry.borrow_mut();
        registry.recall(ready);
        registry.has_edges()
    }

    /// Returns the longest time that a foreign loop may wait.
    pub(crate) fn foreign_timeout(&self) -> Option<Duration> {
        let has_edges = self.descriptors.registry.borrow().has_edges();
        self.timeout(Wait::Block, has_edges || self.has_bottom_halves())
    }

    /// Returns the longest time that this iteration may wait (rule T1); `None`: for ever. Inside a walk over the
    /// polled handlers it is zero, because the handlers cannot be notified now that the loop sleeps.
    ///
    /// `is_urgent` is `true` if the context [has bottom halves](Self::has_bottom_halves) or edges.
    #[inline(always)]
    fn timeout(&self, wait: Wait, is_urgent: bool) -> Option<Duration> {
        if self.polling.set.is_calling() {
            return Some(Duration::ZERO);
        }
        let longest = match wait {
            Wait::NoBlock => return Some(Duration::ZERO),
            Wait::AtMost(limit) => Some(limit),
            Wait::Until(at) => Some(at.since(self.now())),
            Wait::Block => None,
        };
        if is_urgent {
            return Some(Duration::ZERO);
        }
        if self.mailbox.inbox().pending() || self.timers.has_armed() {
            return self.limited(longest);
        }
        longest
    }

    #[inline(never)]
    fn limited(&self, longest: Option<Duration>) -> Option<Duration> {
        let nap = self.mailbox.inbox().pending().then_some(IDLE_NAP);
        let time_left = self.timers.time_left(&self.descriptors.backend);
        [longest, nap, time_left].into_iter().flatten().min()
    }

    /// Returns `true` if a bottom half is queued that is not idle.
    #[inline]
    pub(crate) fn has_bottom_halves(&self) -> bool {
        self.deferred.has_urgent(self.mailbox.inbox())
    }

    #[inline]
    fn try_polling(
        &self,
        cx: &Context,
        timeout: Option<Duration>,
        ready: &mut ReadyList,
    ) -> io::Result<Searched> {
        if timeout == Some(Duration::ZERO) {
            return Ok(Searched::default());
        }
        let budget = self.polling.controller.budget(timeout);
        if budget.is_zero() {
            return Ok(Searched::not_at(self.now().as_nanos()));
        }
        self.search(cx, budget, timeout, ready)
    }

    /// Takes over the events of a wait, from position `first` of the list on. Usually these are all; then they are
    /// delivered straight from the list.
    #[inline(always)]
    pub(crate) fn collect(&self, cx: &Context, first: usize, found: &mut Found<'_>) {
        let has_paused = self.descriptors.registry.borrow().has_paused();
        if first == 0 && !has_paused && !found.list().has_invalid() {
            found.is_recorded = false;
        } else {
            self.record_from(cx, first, found.list());
        }
    }

    /// Records the events on the list, before code other than their delivery can run.
    fn record(&self, cx: &Context, found: &mut Found<'_>) {
        found.is_recorded = true;
        self.record_from(cx, 0, found.list());
    }

    #[inline(never)]
    pub(crate) fn record_from(&self, cx: &Context, first: usize, ready: &ReadyList) {
        self.record_but(cx, first, ready, |_, _| false);
    }

    /// As [`record_from`](Self::record_from), but leaves out readable events of handlers that already have a hit.
    /// The backend reports such an event again while there is data. Returns `true` if there are other events.
    #[inline(never)]
    pub(crate) fn record_unless_hit(&self, cx: &Context, first: usize, ready: &ReadyList) -> bool {
        let registry = &self.descriptors.registry;
        let is_level = |token| {
            let interest = registry.borrow().interest(token);
            interest.is_some_and(|interest| !interest.reports_once())
        };
        let left_out = self.record_but(cx, first, ready, |token, readiness| {
            readiness == Readiness::IN && self.polling.set.has_hit(token) && is_level(token)
        });
        ready.len() - first > left_out
    }

    /// Records the events of a wait, and only then invalidates handlers: an invalidated handler may poll or panic,
    /// and events that the backend reports once must be recorded by then. Returns how many events `leaves_out` has
    /// left out.
    #[inline]
    fn record_but(
        &self,
        cx: &Context,
        first: usize,
        ready: &ReadyList,
        leaves_out: impl Fn(Token, Readiness) -> bool,
    ) -> usize {
        let mut left_out = 0;
        for (token, readiness) in ready.iter_from(first) {
            if is_own(token) {
                self.own_event(token, readiness);
            } else if leaves_out(token, readiness) {
                left_out += 1;
            } else if !readiness.contains(Readiness::NVAL) {
                self.descriptors.record(token, readiness);
            }
        }
        if ready.has_invalid() {
            self.invalidate_all(cx, first, ready);
        }
        left_out
    }

    /// Invalidates the handlers of all closed descriptors, even if one handler panics: the backend may report each
    /// once.
    #[cold]
    fn invalidate_all(&self, cx: &Context, first: usize, ready: &ReadyList) {
        let invalid = ready.invalid_from(first).filter(|token| !is_own(*token));
        call_each(invalid, |token| {
            self.invalidate(cx, token, rustix::io::Errno::BADF.into());
            self.nesting.record_progress();
        });
    }

    /// Handles an event of the loop's own descriptors.
    #[cold]
    pub(crate) fn own_event(&self, token: Token, readiness: Readiness) {
        if !self.descriptors.accept_wakeup(token, readiness) {
            self.timers.wall_changed(readiness, &self.descriptors.backend);
        }
    }

    /// Calls the handlers of the listed events, in the order of the list. Returns the list; sets `progress` if a
    /// handler was called.
    ///
    /// Inlined into the iteration, with the code for each event, because of the price of returns after a system
    /// call (see `any_backend.rs`).
    #[inline(always)]
    pub(crate) fn deliver(
        &self,
        cx: &Context,
        list: Box<ReadyList>,
        is_recorded: bool,
        progress: &mut bool,
    ) -> io::Result<Box<ReadyList>> {
        let mut registry = self.descriptors.registry.borrow_mut();
        if let Some((token, due)) = registry.only_event(&list, is_recorded) {
            let handler = due.value.handler.clone();
            let event = Event::new(token, due.readiness, due.interest, due.version);
            drop(registry);
            cx.call(|cx| handler.ready(cx, event));
            self.shared.counters.events.add(1);
            *progress = true;
            return Ok(list);
        }
        let mut delivering = Delivering::new(self, registry.start_delivery(list, is_recorded));
        while let Some((token, readiness, due)) = registry.next_event() {
            match due {
                Some(due) => {
                    let handler = due.value.handler.clone();
                    let event = Event::new(token, readiness, due.interest, due.version);
                    drop(registry);
                    cx.call(|cx| handler.ready(cx, event));
                }
                None if readiness.is_empty() => {
                    drop(registry);
                    delivering.missed += usize::from(!self.call_listed(cx, token));
                }
                None => {
                    drop(registry);
                    delivering.missed += usize::from(!self.call_unusual(cx, token, readiness));
                }
            }
            registry = self.descriptors.registry.borrow_mut();
        }
        let missed = delivering.missed;
        let list = registry.end_delivery(delivering.finish());
        drop(registry);
        let delivered = list.len() - missed;
        *progress |= delivered != 0;
        self.shared.counters.events.add(delivered as u64);
        if self.descriptors.wakeup_lost.take() {
            // Every wait reports the event from now on. Without the error, the caller would spin.
            return Err(rustix::io::Errno::BADF.into());
        }
        Ok(list)
    }
}
