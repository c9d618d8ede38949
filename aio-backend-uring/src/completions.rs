//! Completions: some state the readiness of a descriptor, others have to be verified. Each decides how its
//! request goes on.

use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};

use aio_backend::{Interest, Readiness, ReadyList, Token};
use rustix::io::Errno;

use crate::Uring;
use crate::calls::{Completion, POLL_MAX, Ring, Sys};
use crate::keys::Key;
use crate::slots::{List, State};

impl<S: Sys> Uring<S> {
    /// Takes the completions out of their queue, and reports exact ones at once. Returns their number.
    // A function of its own, so that it has all registers.
    #[inline(never)]
    pub(crate) fn take(&mut self, ready: &mut ReadyList) -> usize {
        let mut completions = 0;
        while let Some(completion) = self.ring.next() {
            if !self.report_at_once(completion, ready) {
                self.complete(completion);
            }
            completions += 1;
        }
        completions
    }

    /// Reports a registration straight from its completion, without [`List::Found`]. Returns `false` if that
    /// is not possible: others came before, there is no room, or the completion has to be verified, is an
    /// error, or needs more than arming its request again.
    #[inline(always)]
    fn report_at_once(&mut self, completion: Completion, ready: &mut ReadyList) -> bool {
        let (index, sequence) = Key::parts(completion.key);
        let Some(slot) = self.slots.armed_once(index, sequence) else {
            return false;
        };
        let readiness = (Readiness::from_system(completion.result as u32) - Readiness::NVAL) & slot.mask();
        let is_exact = self.is_watching | (slot.known_in == self.waits);
        if !is_exact || !slot.is_plain() || completion.result < 0 || readiness.is_empty() {
            return false;
        }
        let token = Token::new(index, slot.generation);
        if self.slots.has_found() || !ready.push(token, readiness) {
            return false;
        }
        self.slots.append(index, State::Due, List::Served);
        true
    }

    /// Records a completion in the slot of its registration.
    #[inline(never)]
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
            // The file has no queue of waiters and is not ready, such as a regular file with an interest in
            // priority only. It never will be.
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
                // A registration that this wait has not reported may be ready still, so this wait arms it
                // again.
                let is_reported = self.slots.get(index).reported_in == self.waits;
                let list = if is_reported { List::Served } else { List::Due };
                self.slots.set(index, State::Due, Some(list));
            }
            (State::FoundStreaming, false) => self.slots.set(index, State::Found, Some(List::Found)),
            (_, true) => self.slots.append(index, State::FoundStreaming, List::Found),
            (_, false) => self.slots.append(index, State::Found, List::Found),
        }
    }

    /// Reports the registrations in [`List::Found`] that are ready, as far as there is room.
    #[inline]
    pub(crate) fn report(&mut self, ready: &mut ReadyList) -> io::Result<()> {
        if self.slots.has_found() {
            self.report_found(ready)
        } else {
            Ok(())
        }
    }

    #[inline(never)]
    fn report_found(&mut self, ready: &mut ReadyList) -> io::Result<()> {
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

    /// Returns `true` if a completion is exact: it states the readiness of its descriptor. Either this wait
    /// armed its request, or it is about an activity during this wait. A wake-up of a socket may claim
    /// priority data where there is other data.
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
            // Some files (`/proc/self/mounts`, `/proc/pressure`) report a change only to the first poll after
            // it, which was that of the completion.
            let kept = if completed.contains(Readiness::PRI) && !self.is_socket(index) {
                completed & once
            } else {
                Readiness::empty()
            };
            self.settle(index, answer | kept, ready);
        }
        Ok(())
    }

    /// Polls the readiness of up to `N` slots, with room for them on the stack.
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

    /// Reports a registration, if `readiness` concerns it, and decides how its request goes on.
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
                // There was another activity meanwhile. The list already has an event.
                return self.slots.set(index, State::Recheck, Some(List::Served));
            }
        }
        ready.push(token, readiness);
        if interest.contains(Interest::ONESHOT) {
            self.silence(index);
        } else if !is_streaming {
            self.slots.set(index, State::Due, Some(List::Served));
        } else if interest.contains(Interest::EDGE) {
            self.slots.set(index, State::Streaming, None);
        } else {
            self.slots.set(index, State::Recheck, Some(List::Served));
        }
    }

    /// Goes on waiting for a registration that is not ready.
    fn settle_unready(&mut self, index: u32) {
        let waits = self.waits;
        let slot = self.slots.get_mut(index);
        if slot.state == State::FoundStreaming {
            return self.slots.set(index, State::Streaming, None);
        }
        // It has completed in this wait without being ready: the same could happen again at once.
        if slot.known_in == waits {
            slot.set_needs_multishot();
        }
        self.slots.set(index, State::Due, Some(List::Due));
    }
}
