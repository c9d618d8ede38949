//! A wait: what it arms, enters for, verifies and reports.
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
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use aio_backend::{Interest, Readiness, ReadyList};
use rustix::io::Errno;

use crate::Uring;
use crate::calls::{Completion, POLL_MAX, Request, Ring, Sys, asked};
use crate::keys::Key;
use crate::limit::Limit;
use crate::slots::{List, State};

/// The largest number of enters in a wait that neither block nor submit anything. Each turns about 20 wake-ups into completions.
pub(crate) const ROUNDS: u32 = 256;
/// The number of enters in a row that neither submit nor complete anything, after which a wait that does not block ends, although the ring
/// seems to have work. A waker sets `IORING_SQ_TASKRUN` after it has queued its work; if the work was done in between, the flag stays set with
/// nothing behind it until the next wake-up. One enter may also be spent on wake-ups that complete nothing.
pub(crate) const FRUITLESS: u32 = 4;
/// How often in a row an enter is repeated that was refused for lack of memory or of room, both of which may be there the next time.
pub(crate) const RETRIES: u32 = 3;

/// Returns the error of an enter as other calls return it: `EAGAIN` and `EBUSY` are a lack of memory for requests and for completions, and
/// `EOPNOTSUPP` tells that the number means another file than the ring.
pub(crate) fn in_plain_words(error: Errno) -> Errno {
    match error {
        Errno::AGAIN | Errno::BUSY => Errno::NOMEM,
        Errno::OPNOTSUPP => Errno::BADF,
        other => other,
    }
}

impl<S: Sys> Uring<S> {
    /// Returns whether a check would find nothing, as far as can be seen without a system call.
    #[inline]
    pub(crate) fn is_quiet(&mut self) -> bool {
        !self.slots.has_listed() && self.ring.is_quiet()
    }

    /// Waits until a registration is ready, or the limit is reached. The list has room.
    pub(crate) fn wait_until(&mut self, mut limit: Limit, ready: &mut ReadyList) -> io::Result<()> {
        let before = ready.len();
        let (mut rounds, mut fruitless, mut retries, mut sees_all) = (0, 0, 0, self.ring.sees_all());
        self.begin_wait();
        loop {
            if self.has_completed() {
                self.report_completed(ready);
            }
            if let Err(error) = self.report(ready) {
                // Events that were reported come first; what could not be verified is found by the next wait.
                return if ready.len() > before { Ok(()) } else { Err(error) };
            }
            if ready.is_full() {
                return Ok(());
            }
            if ready.len() > before || self.failure.is_some() {
                limit = Limit::Now;
            }
            // The flag for work may be set without any.
            let has_news = fruitless == 0 && self.has_news(ready.room());
            let is_all = !has_news && self.push_all() && self.slots.first(List::Found).is_none();
            let blocks = is_all && limit != Limit::Now;
            if !blocks {
                let is_over = is_all && sees_all && self.ring.pushed() == 0 && self.ring.is_idle();
                if is_over || rounds == ROUNDS || fruitless == FRUITLESS {
                    return self.end_wait(ready.len() > before);
                }
                rounds += u32::from(self.ring.pushed() == 0);
            }
            let timeout = if blocks {
                limit.timeout(|| self.sys.now())
            } else {
                Some(Duration::ZERO)
            };
            let submitted = self.ring.pushed();
            // What completes now has become ready after this moment.
            self.is_watching = blocks && self.ring.sees_all() && self.ring.is_idle();
            let (completions, entered) = self.enter(timeout);
            self.is_watching = false;
            let has_done_nothing = submitted == 0 && completions == 0 && !blocks;
            fruitless = if has_done_nothing { fruitless + 1 } else { 0 };
            sees_all = true;
            if blocks {
                limit = limit.rest(|| self.sys.now());
            }
            match entered {
                Err(Errno::TIME) | Ok(()) => retries = 0,
                Err(Errno::INTR) => limit = Limit::Now,
                Err(Errno::BUSY | Errno::AGAIN) if retries < RETRIES => retries += 1,
                Err(error) => {
                    let reported = self.report(ready);
                    return if ready.len() > before {
                        Ok(())
                    } else {
                        reported.and(Err(in_plain_words(error).into()))
                    };
                }
            }
        }
    }

    #[inline(always)]
    fn begin_wait(&mut self) {
        self.waits = self.waits.wrapping_add(1);
        self.slots.begin_wait();
        self.has_many = self.slots.count_due() >= self.multishot_from;
    }

    /// Returns whether to fetch completions before more requests are armed. Those that were reported before complete at once if they are
    /// ready still, so if they may fill the list, the others come first.
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
    pub(crate) fn submit_cancellations(&mut self) -> io::Result<()> {
        let mut retries = 0;
        while !self.to_cancel.is_empty() || self.ring.pushed() > 0 {
            self.push_cancellations();
            match self.enter(Some(Duration::ZERO)).1 {
                Ok(()) => retries = 0,
                Err(Errno::INTR | Errno::BUSY | Errno::AGAIN) if retries < RETRIES => retries += 1,
                Err(error) => return Err(in_plain_words(error).into()),
            }
        }
        Ok(())
    }

    /// Enters, and takes the completions out of their queue. Returns their number, with those of operations.
    pub(crate) fn enter(&mut self, timeout: Option<Duration>) -> (usize, Result<(), Errno>) {
        self.enters += 1;
        let operations = self.ring.accepted();
        let entered = self.ring.enter(timeout);
        let mut completions = 0;
        while let Some(completion) = self.ring.next() {
            self.complete(completion);
            completions += 1;
        }
        completions += self.ring.accepted().wrapping_sub(operations);
        if self.has_completed() {
            self.mark_completed();
        }
        let entered = entered.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
        (completions, entered)
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

    /// Puts all that is due into the submission queue. Returns `false` if there is no room for all.
    #[inline(always)]
    pub(crate) fn push_all(&mut self) -> bool {
        if !self.push_cancellations() || self.ring.has_waiting() {
            return false;
        }
        while let Some(index) = self.slots.first(List::Due) {
            if self.slots.get(index).state == State::Recheck {
                self.slots.set(index, State::FoundStreaming, Some(List::Found));
            } else if !self.push(index) {
                return false;
            }
        }
        true
    }

    /// Puts the poll request of a slot into the submission queue, if there is room.
    #[inline(always)]
    fn push(&mut self, index: u32) -> bool {
        let Some((_, entry)) = self.entries.at(index) else {
            // Only registrations are in a list, and the mark for completed operations.
            self.slots.set(index, State::Silent, None);
            return true;
        };
        let interest = entry.interest();
        let is_edge = interest.contains(Interest::EDGE) && !interest.contains(Interest::ONESHOT);
        let is_multishot = is_edge || self.is_better_multishot(index, interest);
        let sequence = Key::next_sequence(self.sequence);
        let pushed = self.ring.push(Request::Poll {
            key: Key::Poll {
                slot: index,
                sequence,
            }
            .to_bits(),
            fd: entry.fd().as_raw_fd(),
            readiness: asked(interest),
            is_multishot,
        });
        if pushed {
            self.sequence = sequence;
            let state = if is_multishot {
                State::Streaming
            } else {
                State::Armed
            };
            self.slots.arm(index, state);
            let slot = self.slots.get_mut(index);
            (slot.sequence, slot.known_in) = (sequence, self.waits);
        }
        pushed
    }

    /// Returns whether a level is to have a multishot request, which is verified after each event instead of armed again.
    #[inline(always)]
    fn is_better_multishot(&self, index: u32, interest: Interest) -> bool {
        let slot = self.slots.get(index);
        // One that is armed for the first time may never have an event.
        let is_busy = self.has_many && slot.sequence != 0;
        slot.needs_multishot || is_busy && !interest.contains(Interest::ONESHOT)
    }

    /// Records a completion in the slot of its registration.
    pub(crate) fn complete(&mut self, completion: Completion) {
        let Key::Poll {
            slot: index,
            sequence,
        } = Key::from_bits(completion.key)
        else {
            return;
        };
        let Some(slot) = self.slots.find(index, sequence) else {
            self.stale += u64::from(completion.result >= 0);
            return;
        };
        if completion.result < 0 {
            return self.complete_with_error(index, completion);
        }
        let readiness = Readiness::from_system(completion.result as u32) - Readiness::NVAL;
        let is_watching = self.is_watching;
        let state = slot.state;
        if matches!(state, State::FoundStreaming | State::Recheck) {
            slot.readiness |= readiness;
        } else {
            slot.readiness = readiness;
            if is_watching {
                slot.known_in = self.waits;
            }
        }
        self.find_ready(index, state, completion.has_more);
    }

    /// Records that a request has failed.
    #[cold]
    fn complete_with_error(&mut self, index: u32, completion: Completion) {
        let error = io::Error::from_raw_os_error(-completion.result);
        match Errno::from_io_error(&error) {
            // The number is not open any more.
            Some(Errno::BADF) => {
                let slot = self.slots.get_mut(index);
                slot.readiness = Readiness::NVAL;
                let state = slot.state;
                self.find_ready(index, state, completion.has_more);
            }
            // The file has no queue of waiters and is not ready, as a regular file of which only priority is wanted. It never will be.
            Some(Errno::INVAL) => self.slots.set(index, State::Silent, None),
            Some(Errno::CANCELED) => self.slots.set(index, State::Due, Some(List::Due)),
            _ => {
                self.failure = Some(-completion.result);
                self.slots.set(index, State::Due, Some(List::Served));
            }
        }
    }

    /// Moves a slot that was in this state to the list of completions.
    #[inline]
    fn find_ready(&mut self, index: u32, state: State, has_more: bool) {
        match (state, has_more) {
            (State::FoundStreaming | State::Recheck, true) => {}
            (State::Recheck, false) => {
                // One that this wait has not reported may be ready still, so this wait arms it again.
                let is_reported = self.slots.get(index).reported_in == self.waits;
                let list = if is_reported { List::Served } else { List::Due };
                self.slots.set(index, State::Due, Some(list));
            }
            (State::FoundStreaming, false) => self.slots.set(index, State::Found, Some(List::Found)),
            (_, true) => self.slots.found(index, State::FoundStreaming),
            (_, false) => self.slots.found(index, State::Found),
        }
    }

    /// Reports the registrations that completions have found ready, as far as there is room.
    #[inline]
    fn report(&mut self, ready: &mut ReadyList) -> io::Result<()> {
        while let Some(index) = self.slots.first(List::Found)
            && !ready.is_full()
        {
            if self.is_exact(index) {
                let readiness = self.slots.get(index).readiness;
                self.settle(index, readiness, ready);
            } else {
                self.verify(ready)?;
            }
        }
        Ok(())
    }

    /// Returns whether a completion tells the state of its descriptor: its request was armed by this wait, or it is about an activity during
    /// this wait. A wake-up of a socket may claim priority data where there is other data.
    #[inline]
    fn is_exact(&self, index: u32) -> bool {
        let slot = self.slots.get(index);
        slot.known_in == self.waits && !(slot.readiness.contains(Readiness::PRI) && self.is_socket(index))
    }

    #[cold]
    fn is_socket(&self, index: u32) -> bool {
        let entry = self.entries.at(index);
        entry.is_some_and(|(_, entry)| self.sys.is_socket(entry.fd().as_fd()))
    }

    /// Verifies the completions at the front of their list, and reports those that are ready.
    #[inline(never)]
    fn verify(&mut self, ready: &mut ReadyList) -> io::Result<()> {
        let first = self.slots.first(List::Found);
        let inexact = std::iter::successors(first, |&index| self.slots.after(index));
        let most = ready.room().min(POLL_MAX);
        let mut found = [0; POLL_MAX];
        let mut count = 0;
        for (place, index) in found.iter_mut().zip(inexact.take(most)) {
            if self.is_exact(index) {
                break;
            }
            *place = index;
            count += 1;
        }
        self.verified += count as u64;
        let mut answers = [Readiness::empty(); POLL_MAX];
        match count {
            1 => self.ask::<1>(&found[..1], &mut answers)?,
            2..=8 => self.ask::<8>(&found[..count], &mut answers)?,
            _ => self.ask::<POLL_MAX>(&found[..count], &mut answers)?,
        }
        for (&index, answer) in found[..count].iter().zip(answers) {
            let completed = self.slots.get(index).readiness;
            let once = Readiness::PRI | Readiness::ERR;
            // Some files report a change to the first call that asks, which was the completion: `/proc/self/mounts`, `/proc/pressure`.
            let kept = if completed.contains(Readiness::PRI) && !self.is_socket(index) {
                completed & once
            } else {
                Readiness::empty()
            };
            self.settle(index, answer | kept, ready);
        }
        Ok(())
    }

    /// Asks for the readiness of up to `N` slots, with room for them on the stack.
    fn ask<const N: usize>(&self, slots: &[u32], answers: &mut [Readiness]) -> io::Result<()> {
        let mut fds: Option<[(BorrowedFd<'_>, Interest); N]> = None;
        let mut count = 0;
        for &index in slots {
            let Some((_, entry)) = self.entries.at(index) else {
                continue;
            };
            let one = (entry.fd().as_fd(), entry.interest());
            fds.get_or_insert([one; N])[count] = one;
            count += 1;
        }
        match &fds {
            Some(fds) => self.sys.poll(&fds[..count], answers),
            None => Ok(()),
        }
    }

    /// Reports a registration, if `readiness` concerns it, and decides what becomes of its request.
    fn settle(&mut self, index: u32, readiness: Readiness, ready: &mut ReadyList) {
        let Some((token, entry)) = self.entries.at(index) else {
            return self.slots.set(index, State::Silent, None);
        };
        let interest = entry.interest();
        let readiness = readiness & interest.mask();
        if readiness.is_empty() {
            return self.settle_unready(index);
        }
        let is_streaming = self.slots.get(index).state == State::FoundStreaming;
        if is_streaming {
            let waits = self.waits;
            if mem::replace(&mut self.slots.get_mut(index).reported_in, waits) == waits {
                // Another activity meanwhile. The list has one event already.
                return self.slots.serve(index, State::Recheck);
            }
        }
        ready.push(token, readiness);
        if interest.contains(Interest::ONESHOT) {
            self.disarm(index);
            if let Some(entry) = self.entries.at_mut(index) {
                entry.set(Interest::NONE, 0);
            }
        } else if !is_streaming {
            self.slots.serve(index, State::Due);
        } else if interest.contains(Interest::EDGE) {
            self.slots.set(index, State::Streaming, None);
        } else {
            self.slots.serve(index, State::Recheck);
        }
    }

    /// Goes on waiting for a registration that is not ready.
    fn settle_unready(&mut self, index: u32) {
        let waits = self.waits;
        let slot = self.slots.get_mut(index);
        if slot.state == State::FoundStreaming {
            return self.slots.set(index, State::Streaming, None);
        }
        // Complete in this wait, and not ready: the same could happen again at once.
        slot.needs_multishot |= slot.known_in == waits;
        self.slots.set(index, State::Due, Some(List::Due));
    }
}
