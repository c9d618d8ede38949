//! The operations on the reference.

use aio_context::{Interest, Readiness};

use super::{Flow, Half, Masked, Model, Pending, Registration, Timer};
use crate::MOST_WORK;
use crate::log::{Verb, What};
use crate::op::{Callback, Fd, Name, Op, Side};

impl Model {
    /// Returns the place of a descriptor's registration.
    pub(super) fn registration(&self, fd: Fd) -> Option<usize> {
        self.registrations.iter().position(|one| one.fd == fd)
    }

    pub(super) fn is_paused(&self, group: Name) -> bool {
        self.pauses
            .iter()
            .any(|(paused, count)| *paused == group && *count > 0)
    }

    /// Records a change that must end the next wait.
    fn changed(&mut self) {
        self.notified |= self.deciding;
    }

    /// Returns `true` if the real context refuses the next operation.
    fn is_refused(&mut self, verb: Verb, fd: Fd) -> bool {
        let refusal = What::Refused(verb, fd);
        let refused = self.next().is_some_and(|entry| entry.what == refusal);
        if refused {
            self.record(refusal);
        }
        refused
    }

    pub(super) fn drain(&mut self, fd: Fd) {
        self.files.drain(fd);
        let device = &mut self.devices[fd.place()];
        (device.work, device.unkicked) = (0, false);
    }

    pub(super) fn work(&mut self, fd: Fd) {
        let device = &mut self.devices[fd.place()];
        device.work = (device.work + 1).min(MOST_WORK);
        if device.is_polled {
            device.unkicked = true;
        } else {
            self.files.kick(fd);
        }
    }

    fn kick_if_there_is_work(&mut self, fd: Fd) {
        self.devices[fd.place()].unkicked = false;
        if self.devices[fd.place()].work > 0 {
            self.files.kick(fd);
        }
    }

    pub(super) fn crowd(&mut self, there: bool) {
        if self.crowd != there {
            self.crowd = there;
            self.changed();
        }
    }

    pub(super) fn close_raw(&mut self, fd: Fd) {
        self.files.close_raw(fd);
        self.haunted |= self.registration(fd).is_some() && self.files.is_shared(fd);
    }

    pub(super) fn watch(&mut self, fd: Fd, interest: Interest, group: Name, polled: bool) -> Flow {
        if self.registration(fd).is_some() {
            if !self.is_refused(Verb::Watch, fd) {
                self.record(What::Illegal("R3: two handlers of one descriptor"));
            }
            return Ok(());
        }
        self.files.open(fd);
        let (id, handler) = (self.count(), self.count());
        self.registrations.push(Registration {
            id,
            fd,
            label: fd.name(),
            handler,
            polled,
            interest,
            group,
            pending: Pending::NOTHING,
            masked: Masked::No,
            begun: false,
            owed: false,
            busy: 0,
            passed_over: 0,
            is_asleep: false,
        });
        self.changed();
        self.devices[fd.place()].unkicked = false;
        if polled {
            self.kick_if_there_is_work(fd);
        }
        Ok(())
    }

    /// Calls `poll_end` of a removed handler, if it had its `poll_begin`.
    fn finish_removal(&mut self, one: &Registration) -> Flow {
        if !one.begun {
            return Ok(());
        }
        self.devices[one.fd.place()].is_polled = false;
        self.record(What::EndedGone(one.label));
        self.act(Callback::Of(one.label, Side::End), &[])
    }

    pub(super) fn remove(&mut self, place: usize) -> Flow {
        let one = self.registrations.remove(place);
        self.changed();
        self.finish_removal(&one)
    }

    /// Invalidates a registration, as the loop does (rule R4).
    pub(super) fn invalidate(&mut self, place: usize) -> Flow {
        let one = self.registrations.remove(place);
        self.finish_removal(&one)?;
        self.called(Callback::Of(one.label, Side::Invalidated), &[])
    }

    pub(super) fn replace(&mut self, fd: Fd, by: Name, interest: Option<Interest>, polled: bool) -> Flow {
        let Some(place) = self.registration(fd) else {
            return Ok(());
        };
        // An open number is never refused. Without an interest no backend calls the system, so a refusal that
        // comes next belongs to another operation.
        let wanted = interest.unwrap_or(self.registrations[place].interest);
        if !self.files.is_open(fd) && wanted != Interest::NONE && self.is_refused(Verb::Replace, fd) {
            return if self.is_invalidated_too(place) {
                self.invalidate(place)
            } else {
                Ok(())
            };
        }
        let handler = self.count();
        let one = &mut self.registrations[place];
        let (former, begun) = (one.label, std::mem::replace(&mut one.begun, false));
        (one.label, one.handler, one.polled) = (by, handler, polled);
        one.interest = interest.unwrap_or(one.interest);
        one.drop_pending();
        // The new handler does not run, so it may be called while the former one runs (rule R3).
        (one.passed_over, one.is_asleep, one.busy) = (0, false, 0);
        self.changed();
        if begun {
            self.devices[fd.place()].is_polled = false;
            self.called(Callback::Of(former, Side::End), &[])?;
        }
        if !polled {
            self.kick_if_there_is_work(fd);
        }
        Ok(())
    }

    /// Returns `true` if a refused replacement also invalidates the former handler. A handler without an
    /// interest is not invalidated.
    fn is_invalidated_too(&self, place: usize) -> bool {
        let one = &self.registrations[place];
        match one.masked {
            _ if one.interest == Interest::NONE => false,
            Masked::No if !one.may_be_spent() => true,
            // If the number was closed before the pause, it had no event that would have masked it.
            _ => self.next().is_some_and(|entry| match entry.what {
                What::EndedGone(label) => label == one.label,
                What::Called(callback) => callback == Callback::Of(one.label, Side::Invalidated),
                _ => false,
            }),
        }
    }

    pub(super) fn set_interest(&mut self, fd: Fd, interest: Interest) {
        let Some(place) = self.registration(fd) else {
            return;
        };
        let present = &self.registrations[place];
        if present.interest == interest && !present.is_once() {
            return;
        }
        let refused = !self.files.is_open(fd) && self.is_refused(Verb::Interest, fd);
        let one = &mut self.registrations[place];
        one.pending.sure &= interest.mask();
        if !refused {
            let was_once = one.is_once();
            (one.interest, one.is_asleep) = (interest, false);
            one.pending.perhaps &= interest.mask();
            if was_once || one.is_once() {
                // It is armed again, and its events are reported again.
                (one.pending.sure, one.pending.perhaps) = (Readiness::empty(), Readiness::empty());
            }
        }
        self.changed();
    }

    pub(super) fn pause(&mut self, group: Name) -> Flow {
        let place = match self.pauses.iter().position(|(known, _)| *known == group) {
            Some(place) => place,
            None => {
                self.pauses.push((group, 0));
                self.pauses.len() - 1
            }
        };
        self.pauses[place].1 += 1;
        if self.pauses[place].1 == 1 {
            let members = self.registrations.iter_mut();
            members
                .filter(|one| one.group == group)
                .for_each(|one| one.owed = true);
        }
        if self.pauses[place].1 == 1
            && let Err(panic) = self.end_polling_of(group)
        {
            self.resume(group)?;
            return Err(panic);
        }
        self.guards.push(group);
        Ok(())
    }

    /// Calls `poll_end` of all members of a group that had their `poll_begin`, in any order, even if one of
    /// them panics. The first panic is propagated.
    fn end_polling_of(&mut self, group: Name) -> Flow {
        let mut ended = Ok(());
        loop {
            let has_begun = |one: &&mut Registration| one.group == group && one.begun;
            let next = self.next_call();
            let mut begun = self.registrations.iter_mut().filter(has_begun);
            let is_next = |one: &&mut Registration| Some(Callback::Of(one.label, Side::End)) == next;
            let Some(first) = begun.next() else {
                return ended;
            };
            let one = if is_next(&first) {
                first
            } else {
                begun.find(is_next).unwrap_or(first)
            };
            one.begun = false;
            let (fd, label) = (one.fd, one.label);
            self.devices[fd.place()].is_polled = false;
            let called = self.called(Callback::Of(label, Side::End), &[]);
            ended = ended.and(called.map(|_| ()));
        }
    }

    /// Ends one pause.
    pub(super) fn resume(&mut self, group: Name) -> Flow {
        let pauses = self.pauses.iter_mut().find(|(known, _)| *known == group);
        let Some((_, count)) = pauses else { return Ok(()) };
        *count -= 1;
        if *count > 0 {
            return Ok(());
        }
        self.notified = true;
        let mut unmasked = Vec::new();
        for one in self.registrations.iter_mut().filter(|one| one.group == group) {
            if one.masked != Masked::No || one.is_once() {
                unmasked.push(one.id);
            }
            one.masked = Masked::No;
        }
        // A number that was closed during the pause cannot be watched again. All such handlers are
        // invalidated, even if one of them panics.
        let mut result = Ok(());
        while let Some(Callback::Of(label, Side::Invalidated)) = self.next_call() {
            let is_it = |one: &Registration| one.label == label && unmasked.contains(&one.id);
            let place = self.registrations.iter().position(is_it);
            match place.filter(|place| !self.files.is_open(self.registrations[*place].fd)) {
                Some(place) => result = result.and(self.invalidate(place)),
                None => break,
            }
        }
        result
    }

    pub(super) fn run_deferred(&mut self, op: &Op) {
        match *op {
            Op::BottomHalf(name) => {
                if self.half(name).is_none() {
                    self.halves.push(Half {
                        name,
                        queued: false,
                        scheduled: false,
                        idle: false,
                        deleted: false,
                    });
                }
            }
            Op::Schedule(name) | Op::Idle(name) | Op::Cancel(name) | Op::Delete(name) => {
                if let Some(index) = self.half(name) {
                    self.run_on_half(op, index);
                }
            }
            Op::Timer(name) => {
                if self.timer(name).is_none() {
                    self.timers.push((name, Timer::default()));
                }
            }
            Op::Arm(name, ms) => self.arm(name, ms, false),
            Op::Anticipate(name, ms) => self.arm(name, ms, true),
            Op::Disarm(name) => {
                if let Some(timer) = self.timer(name) {
                    *timer = Timer::default();
                }
            }
            Op::Forget(name) => self.timers.retain(|(known, _)| *known != name),
            _ => unreachable!("{op}"),
        }
    }

    fn half(&self, name: Name) -> Option<usize> {
        self.halves
            .iter()
            .position(|half| half.name == name && !half.deleted)
    }

    fn run_on_half(&mut self, op: &Op, index: usize) {
        let half = &mut self.halves[index];
        match op {
            Op::Schedule(_) => half.scheduled = true,
            Op::Idle(_) => half.idle = true,
            // It is posted once more, so that the loop frees it.
            Op::Delete(_) => half.deleted = true,
            _ => (half.scheduled, half.idle) = (false, false),
        }
        if matches!(op, Op::Cancel(_)) {
            return;
        }
        self.urgent |= matches!(op, Op::Schedule(_));
        if std::mem::replace(&mut half.queued, true) {
            if matches!(op, Op::Delete(_)) {
                // It is freed when it reaches the front, which may take long.
                return;
            }
        } else {
            self.inbox.push(index);
        }
        self.changed();
    }

    pub(super) fn timer(&mut self, name: Name) -> Option<&mut Timer> {
        let found = self.timers.iter_mut().find(|(known, _)| *known == name);
        found.map(|(_, timer)| timer)
    }

    fn arm(&mut self, name: Name, ms: u64, only_earlier: bool) {
        let armed = (self.now + ms * super::MILLI, self.count());
        let Some(timer) = self.timer(name) else { return };
        let present = timer.due.map(|_| 0).or(timer.armed.map(|(deadline, _)| deadline));
        if only_earlier && present.is_some_and(|present| present <= armed.0) {
            return;
        }
        *timer = Timer {
            armed: Some(armed),
            due: None,
        };
        let earliest = self.timers.iter().filter_map(|(_, timer)| timer.armed).min();
        if earliest == Some(armed) {
            self.changed();
        }
    }
}
