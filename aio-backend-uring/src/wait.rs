//! A wait: arming requests, entering, verifying and reporting completions.
//!
//! In a wait each slot moves along these arrows; [`State`] has the states.
//!
//! ```text
//! Due -> Armed (one-shot)      -> Found          -> reported: Due in the next wait    | not ready: Due
//! Due -> Streaming (multishot) -> FoundStreaming -> reported: Streaming, if an edge   | not ready: Streaming
//!                                                             Recheck in the next wait, if a level
//! ```
//!
//! A multishot request serves edges, and two kinds of levels. The first are those that are due beside many others (`Config::multishot_from`):
//! one `poll(2)` verifies 64 of them, for less than it takes to arm 64 requests again. The second are the few for which a one-shot request
//! would complete at once for ever without being ready: the kernel completes each poll request when the peer closes its half, and a
//! registration that only writes does not wait for that.

use std::io;
use std::mem;
use std::time::Duration;

use aio_backend::{Interest, ReadyList};

use crate::Uring;
use crate::attempts::{Attempts, Entered};
use crate::calls::{Request, Ring, Sys};
use crate::keys::Key;
use crate::limit::Limit;
use crate::slots::{List, State};

/// The largest number of enters in a wait that neither block nor submit requests. Each turns about 20 wake-ups into
/// completions.
pub(crate) const ROUNDS: u32 = 256;
/// The number of enters in a row that neither submit nor complete anything, after which a wait that does not block ends,
/// although the ring seems to have work. A waker sets `IORING_SQ_TASKRUN` after it has queued its work. If the work was done
/// in between, the flag stays set without work until the next wake-up. One enter may also be spent on wake-ups that complete
/// nothing.
pub(crate) const FRUITLESS: u32 = 4;

impl<S: Sys> Uring<S> {
    /// Returns `true` if a check would find no event, as far as is visible without a system call.
    #[inline]
    pub(crate) fn is_quiet(&mut self) -> bool {
        !self.slots.has_listed() && self.ring.is_quiet()
    }

    /// Waits, or, without `WAITS`, only checks. Most waits are one enter, which arms all due requests, and whose completions
    /// are reported at once.
    #[inline(never)]
    pub(crate) fn wait_for<const WAITS: bool>(
        &mut self,
        timeout: Option<Duration>,
        ready: &mut ReadyList,
    ) -> io::Result<()> {
        // If the list is full, its events have to be handled first.
        if ready.is_full() {
            return Ok(());
        }
        let limit = if WAITS {
            Limit::after(timeout, || self.sys.now())
        } else {
            Limit::Now
        };
        let before = ready.len();
        self.begin_wait();
        let first = self.enter_first(limit, ready);
        let sees_all = self.ring.sees_all();
        let has_ended = first
            .as_ref()
            .is_some_and(|first| first.result.is_ok() && (sees_all || !first.arms_multishot));
        if has_ended && ready.len() > before && self.is_settled() {
            return Ok(());
        }
        self.wait_on(limit, before, first, ready)
    }

    #[inline(always)]
    fn begin_wait(&mut self) {
        self.waits = self.waits.wrapping_add(1);
        self.slots.begin_wait();
        self.has_many = self.slots.count_due() >= self.multishot_from;
    }

    /// Makes the first enter of a wait. Returns `None` if there is none, because completions have to be reported first, the
    /// queue has no room, or no enter is needed.
    #[inline(always)]
    fn enter_first(&mut self, limit: Limit, ready: &mut ReadyList) -> Option<Enter> {
        let is_usual = self.report.in_flight == 0 && self.failure.is_none() && !self.slots.has_found();
        if !is_usual || self.has_news(ready.room()) || !self.push_all() || self.slots.has_found() {
            return None;
        }
        let (blocks, submitted) = (limit != Limit::Now, self.ring.pushed());
        if !blocks && submitted == 0 && self.ring.sees_all() && self.ring.is_idle() {
            return None;
        }
        Some(self.enter_for::<false>(limit, blocks, submitted, ready))
    }

    /// Returns `true` if an enter has left no more work for this wait.
    #[inline(always)]
    fn is_settled(&mut self) -> bool {
        self.failure.is_none()
            && !self.slots.has_found()
            && self.slots.first(List::Due).is_none()
            && self.ring.is_quiet()
    }

    /// Waits until a registration is ready, or the limit is reached. The list has room. `latest` is an enter that this wait
    /// has already made.
    #[inline(never)]
    fn wait_on(
        &mut self,
        mut limit: Limit,
        before: usize,
        mut latest: Option<Enter>,
        ready: &mut ReadyList,
    ) -> io::Result<()> {
        let (mut rounds, mut fruitless, mut sees_all) = (0, 0, self.ring.sees_all());
        let mut attempts = Attempts::default();
        loop {
            if let Some(enter) = latest.take() {
                if enter.blocks {
                    limit = limit.rest(|| self.sys.now());
                }
                match attempts.judge(enter.result, enter.completions) {
                    Ok(Entered::Done) => {
                        let has_submitted_nothing = enter.submitted == 0 && !enter.blocks;
                        let has_done_nothing = has_submitted_nothing && enter.completions == 0;
                        fruitless = if has_done_nothing { fruitless + 1 } else { 0 };
                        rounds += u32::from(has_submitted_nothing);
                        sees_all = self.ring.sees_all() || !enter.arms_multishot;
                    }
                    Ok(Entered::Interrupted) => limit = Limit::Now,
                    Ok(Entered::Refused) => {}
                    Err(error) => return self.give_up(error, before, ready),
                }
            }
            if self.has_completed() {
                self.report_completed(ready);
            }
            if let Err(error) = self.report(ready) {
                // Reported events come first. The next wait finds those that could not be verified.
                return if ready.len() > before { Ok(()) } else { Err(error) };
            }
            if ready.is_full() {
                return Ok(());
            }
            if ready.len() > before || self.failure.is_some() {
                limit = Limit::Now;
            }
            // The flag for work may be set although there is none.
            let has_news = fruitless == 0 && self.has_news(ready.room());
            let is_all = !has_news && self.push_all() && !self.slots.has_found();
            let (blocks, submitted) = (is_all && limit != Limit::Now, self.ring.pushed());
            if !blocks {
                let is_over = is_all && sees_all && submitted == 0 && self.ring.is_idle();
                if is_over || rounds == ROUNDS || fruitless == FRUITLESS {
                    return self.end_wait(ready.len() > before);
                }
            }
            latest = Some(self.enter_for::<true>(limit, blocks, submitted, ready));
        }
    }

    /// Enters, until the limit if it `blocks`. Reports exact completions at once. Without `OPERATIONS`, no operation may be
    /// in flight.
    #[inline(always)]
    fn enter_for<const OPERATIONS: bool>(
        &mut self,
        limit: Limit,
        blocks: bool,
        submitted: usize,
        ready: &mut ReadyList,
    ) -> Enter {
        let timeout = if blocks {
            // A completion from now on is about a descriptor that became ready after this moment.
            self.is_watching = self.ring.sees_all() && self.ring.is_idle();
            limit.timeout(|| self.sys.now())
        } else {
            Some(Duration::ZERO)
        };
        let accepted = if OPERATIONS { self.ring.accepted() } else { 0 };
        let arms_multishot = mem::take(&mut self.arms_multishot);
        self.enters += 1;
        let result = self.ring.enter(timeout);
        let mut completions = self.take(ready);
        self.is_watching = false;
        if OPERATIONS {
            completions += self.accept_operations(accepted);
        }
        Enter {
            blocks,
            submitted,
            completions,
            arms_multishot,
            result,
        }
    }

    /// Ends a wait whose enter failed. Events that were reported by then come first, and an interrupted wait ends early.
    #[cold]
    fn give_up(&mut self, error: io::Error, before: usize, ready: &mut ReadyList) -> io::Result<()> {
        let reported = self.report(ready);
        if ready.len() > before || error.kind() == io::ErrorKind::Interrupted {
            Ok(())
        } else {
            reported.and(Err(error))
        }
    }

    /// Returns `true` if completions are to be fetched before more requests are armed. Requests of registrations that were
    /// reported before complete at once if they are still ready. So if they may fill the list, the other completions come
    /// first.
    fn has_news(&mut self, room: usize) -> bool {
        self.slots.count_due() > room / 2 && !self.ring.is_idle()
    }

    /// Returns the error of a request that could not be armed, unless there are events, after which the next wait tries again.
    fn end_wait(&mut self, has_events: bool) -> io::Result<()> {
        match self.failure.take() {
            Some(number) if !has_events => Err(io::Error::from_raw_os_error(number)),
            _ => Ok(()),
        }
    }

    /// Submits the cancellations that are pending, so that the kernel keeps nothing of their files.
    #[inline]
    pub(crate) fn submit_cancellations(&mut self) -> io::Result<()> {
        if self.to_cancel.is_empty() && self.ring.pushed() == 0 {
            return Ok(());
        }
        self.submit_now()
    }

    fn submit_now(&mut self) -> io::Result<()> {
        let mut attempts = Attempts::default();
        while !self.to_cancel.is_empty() || self.ring.pushed() > 0 {
            self.push_cancellations();
            let (completions, entered) = self.enter(Some(Duration::ZERO));
            attempts.judge(entered, completions)?;
        }
        Ok(())
    }

    /// Enters, and takes the completions out of their queue. Returns their number, with those of operations.
    pub(crate) fn enter(&mut self, timeout: Option<Duration>) -> (usize, io::Result<()>) {
        let accepted = self.ring.accepted();
        self.enters += 1;
        let entered = self.ring.enter(timeout);
        let mut completions = 0;
        while let Some(completion) = self.ring.next() {
            self.complete(completion);
            completions += 1;
        }
        (completions + self.accept_operations(accepted), entered)
    }

    /// Returns the number of operations that have completed since `accepted` were.
    #[inline(always)]
    fn accept_operations(&mut self, accepted: usize) -> usize {
        if self.has_completed() {
            self.mark_completed();
        }
        self.ring.accepted().wrapping_sub(accepted)
    }

    /// Puts the pending cancellations into the submission queue. Returns `false` if there is no room for all.
    fn push_cancellations(&mut self) -> bool {
        while let Some(&target) = self.to_cancel.last() {
            let key = Key::Cancellation.to_bits();
            if !self.ring.push(Request::Cancel { key, target }) {
                return false;
            }
            self.to_cancel.pop();
        }
        true
    }

    /// Puts all due requests into the submission queue. Returns `false` if there is no room for all.
    #[inline(always)]
    pub(crate) fn push_all(&mut self) -> bool {
        if !self.push_cancellations() || self.ring.has_waiting() {
            return false;
        }
        if !self.has_many {
            self.push_plain();
        }
        self.slots.first(List::Due).is_none() || self.push_others()
    }

    /// Puts the requests of the plain slots at the front of the list into the submission queue, as far as there is room.
    #[inline(always)]
    fn push_plain(&mut self) {
        let (ring, latest) = (&mut self.ring, &mut self.sequence);
        self.slots.arm_plain(self.waits, |index, slot| {
            let sequence = Key::next_sequence(*latest);
            let pushed = ring.push(slot.request(index, sequence, false));
            pushed.then(|| {
                *latest = sequence;
                sequence
            })
        });
    }

    /// As [`push_all`](Self::push_all), for slots of all kinds.
    #[inline(never)]
    fn push_others(&mut self) -> bool {
        while let Some(index) = self.slots.first(List::Due) {
            let Some(is_multishot) = self.plan(index) else {
                continue;
            };
            let sequence = Key::next_sequence(self.sequence);
            let request = self.slots.get(index).request(index, sequence, is_multishot);
            if !self.ring.push(request) {
                return false;
            }
            self.sequence = sequence;
            self.arms_multishot |= is_multishot;
            let state = if is_multishot {
                State::Streaming
            } else {
                State::Armed
            };
            self.slots.arm_first(state, sequence, self.waits);
        }
        true
    }

    /// Returns `true` if the request of a slot is to be multishot. `None`: it needs no request, and has left the list.
    fn plan(&mut self, index: u32) -> Option<bool> {
        let slot = self.slots.get(index);
        let interest = slot.interest();
        if slot.state == State::Recheck {
            self.slots.set(index, State::FoundStreaming, Some(List::Found));
            return None;
        }
        if interest.is_empty() {
            // The mark for completed operations.
            self.slots.set(index, State::Silent, None);
            return None;
        }
        if interest.contains(Interest::ONESHOT) {
            return Some(slot.needs_multishot());
        }
        // A registration that is armed for the first time may never have an event.
        let is_busy = self.has_many && slot.sequence != 0;
        Some(interest.contains(Interest::EDGE) || slot.needs_multishot() || is_busy)
    }
}

/// An enter of a wait.
struct Enter {
    /// Set if it was to wait.
    blocks: bool,
    /// The number of requests in the submission queue before.
    submitted: usize,
    /// The number of completions after it.
    completions: usize,
    /// Set if it submitted a multishot request. The kernel may complete such a request after the enter, although its
    /// descriptor is ready: it queues the first completion as work.
    arms_multishot: bool,
    result: io::Result<()>,
}
