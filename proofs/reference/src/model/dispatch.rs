//! The callbacks in an iteration of the reference: bottom halves, handlers, timers.

use aio_context::{Interest, Readiness};

use super::iteration::Found;
use super::{Flow, Hit, Masked, Model, Registration};
use crate::op::{Callback, Side};

type Wakes = fn(Readiness, Interest) -> bool;
/// The callbacks of an event, in their order.
const SIDES: [(Side, Wakes); 3] = [
    (Side::Readable, Readiness::wakes_reader),
    (Side::Writable, Readiness::wakes_writer),
    (Side::Priority, Readiness::wakes_priority),
];

impl Model {
    pub(super) fn run_bottom_halves(&mut self) -> Flow<bool> {
        self.urgent &= self.inbox.is_empty();
        self.line.extend(std::mem::take(&mut self.inbox));
        let mut progress = false;
        while let Some(index) = self.line.pop_front() {
            let half = &mut self.halves[index];
            half.queued = false;
            let (scheduled, idle) = (
                std::mem::take(&mut half.scheduled),
                std::mem::take(&mut half.idle),
            );
            if !half.deleted && (scheduled || idle) {
                let name = half.name;
                progress |= scheduled;
                self.called(Callback::Deferred(name), &[])?;
            }
        }
        Ok(progress)
    }

    pub(super) fn run_timers(&mut self) -> Flow<bool> {
        let now = self.now;
        let is_due = |armed: (u64, u64)| armed.0 <= now;
        let mut due: Vec<_> = self
            .timers
            .iter()
            .filter_map(|(name, timer)| Some((timer.armed.filter(|armed| is_due(*armed))?, *name)))
            .collect();
        due.sort_unstable_by_key(|(armed, _)| *armed);
        for ((_, sequence), name) in due {
            if let Some(timer) = self.timer(name) {
                (timer.armed, timer.due) = (None, Some(sequence));
            }
            self.due.push_back((name, sequence));
        }
        let mut fired = false;
        while let Some((name, sequence)) = self.due.pop_front() {
            let timer = self.timer(name);
            if timer.is_some_and(|timer| timer.due.take_if(|due| *due == sequence).is_some()) {
                fired = true;
                self.called(Callback::Deferred(name), &[])?;
            }
        }
        Ok(fired)
    }

    /// Serves the registrations with events, in the order of the real context. If it `may_go_on`, there was
    /// perhaps no check and no progress, and another iteration follows.
    pub(super) fn dispatch(&mut self, mut found: Vec<Found>, may_go_on: bool) -> Flow<bool> {
        let mut served = Vec::new();
        let polled_late = if may_go_on { self.with_work() } else { Vec::new() };
        loop {
            // A registration that was not callable at some moment need not be called later, because its turn
            // may have been then.
            for one in &mut found {
                one.was_uncallable |= !self.is_callable(one);
            }
            let next = self.next_call_now();
            let is_next = |one: &Found| next.is_some_and(|next| self.may_be(one, next));
            let is_due = |one: &Found| one.is_sure && !one.was_uncallable && self.must_be(one).is_some();
            let place = found.iter().position(is_next).or(found.iter().position(is_due));
            let Some(place) = place else {
                if may_go_on
                    && let Some(late) = self
                        .find_late(&served)
                        .or_else(|| self.find_late_hit(&served, &polled_late))
                {
                    found.push(late);
                    continue;
                }
                self.forget(&found);
                return Ok(!served.is_empty());
            };
            let next = found.swap_remove(place);
            served.push(next);
            self.serve(next)?;
        }
    }

    /// Finds a registration that a second iteration has served. If an iteration ended polling without a
    /// check, and made no progress because the handler of its hit was gone, another iteration follows that
    /// checks. The log shows both as one. Returns the registration that is called next, if the check of the
    /// second iteration can have found it.
    fn find_late(&mut self, served: &[Found]) -> Option<Found> {
        let Some(Callback::Of(label, Side::Readable | Side::Writable | Side::Priority)) =
            self.next_call_now()
        else {
            return None;
        };
        let was_served = |id: u64| served.iter().any(|one| one.id == id);
        if served.iter().any(|one| one.is_hit || one.is_sure) {
            return None;
        }
        let is_it = |one: &Registration| one.label == label && !was_served(one.id);
        let place = self.registrations.iter().position(is_it)?;
        let ready = self.ready(place);
        let is_new = !self.registrations[place].pending.perhaps.contains(ready);
        let one = &mut self.registrations[place];
        let left = one.pending;
        one.pending.perhaps |= ready;
        is_new.then_some(Found::new(one.id, false, false, left))
    }

    /// Returns the registrations for which a poll would find work now.
    fn with_work(&self) -> Vec<u64> {
        let places = (0..self.registrations.len()).filter(|place| self.may_hit(*place));
        places.map(|place| self.registrations[place].id).collect()
    }

    /// Like [`find_late`](Self::find_late): if a notification ends an iteration before a hit, another
    /// iteration follows that polls again, and finds the work that bottom halves of the first one have left.
    /// `polled` are the registrations with work at that time.
    fn find_late_hit(&mut self, served: &[Found], polled: &[u64]) -> Option<Found> {
        let Some(Callback::Of(label, Side::PollReady)) = self.next_call_now() else {
            return None;
        };
        if served.iter().any(|one| !one.is_hit || one.is_sure) {
            return None;
        }
        let was_served = |id: u64| served.iter().any(|one| one.id == id);
        let is_it =
            |one: &&mut Registration| one.label == label && polled.contains(&one.id) && !was_served(one.id);
        let one = self.registrations.iter_mut().find(is_it)?;
        let left = one.pending;
        one.pending.hit = Hit::Perhaps;
        Some(Found::new(one.id, true, false, left))
    }

    /// Returns the next callback if no time has passed before it. Otherwise another iteration has made it.
    fn next_call_now(&self) -> Option<Callback> {
        self.next().filter(|next| next.at == self.now)?;
        self.next_call()
    }

    fn place(&self, id: u64) -> Option<usize> {
        self.registrations.iter().position(|one| one.id == id)
    }

    /// Returns the registration if its handler may be called.
    fn listening(&self, found: &Found) -> Option<&Registration> {
        let one = &self.registrations[self.place(found.id)?];
        (!self.is_paused(one.group)).then_some(one)
    }

    fn is_callable(&self, found: &Found) -> bool {
        self.listening(found).is_some_and(|one| {
            if found.is_hit {
                one.polled && one.pending.hit != Hit::No
            } else {
                let perhaps = one.pending.perhaps;
                perhaps.wakes_reader(one.interest)
                    || perhaps.wakes_writer(one.interest)
                    || perhaps.wakes_priority(one.interest)
            }
        })
    }

    /// Returns `true` if its next callback may be this one.
    fn may_be(&self, found: &Found, callback: Callback) -> bool {
        let Some(one) = self.listening(found).filter(|_| self.is_callable(found)) else {
            return false;
        };
        let Callback::Of(label, side) = callback else {
            return false;
        };
        let is_side = match side {
            Side::PollReady => found.is_hit,
            Side::Readable => !found.is_hit && one.pending.perhaps.wakes_reader(one.interest),
            Side::Writable => {
                let writable = one.pending.perhaps.wakes_writer(one.interest);
                !found.is_hit && writable && !one.pending.sure.wakes_reader(one.interest)
            }
            Side::Priority => {
                let sure = one.pending.sure;
                let is_first = !sure.wakes_reader(one.interest) && !sure.wakes_writer(one.interest);
                !found.is_hit && is_first && one.pending.perhaps.wakes_priority(one.interest)
            }
            _ => false,
        };
        label == one.label && is_side
    }

    /// Returns the callback that it must get next, if there is one.
    fn must_be(&self, found: &Found) -> Option<Side> {
        let one = self.listening(found)?;
        if found.is_hit {
            return (one.polled && one.pending.hit == Hit::Yes).then_some(Side::PollReady);
        }
        let (sure, interest) = (one.pending.sure, one.interest);
        if sure.wakes_reader(interest) {
            Some(Side::Readable)
        } else if sure.wakes_writer(interest) {
            Some(Side::Writable)
        } else {
            sure.wakes_priority(interest).then_some(Side::Priority)
        }
    }

    fn serve(&mut self, found: Found) -> Flow {
        let Some(place) = self.place(found.id) else {
            return Ok(());
        };
        let one = &mut self.registrations[place];
        let (busy, handler) = (u32::from(one.polled), one.handler);
        one.busy += busy;
        if found.is_hit {
            one.pending.hit = Hit::No;
            self.call(place, Side::PollReady)?;
        } else {
            one.passed_over = 0;
            self.serve_event(place)?;
        }
        if let Some(place) = self.place(found.id)
            && self.registrations[place].handler == handler
        {
            self.registrations[place].busy -= busy;
        }
        Ok(())
    }

    fn call(&mut self, place: usize, side: Side) -> Flow {
        let one = &self.registrations[place];
        let (label, fd) = (one.label, one.fd);
        let (id, handler, unkicked) = (one.id, one.handler, self.devices[fd.place()].unkicked);
        if one.polled && !one.begun {
            // It had its `poll_end`, so work that it leaves is not polled for, unless it panics.
            self.devices[fd.place()].unkicked = false;
        }
        let usual = self.usual(fd, side);
        let called = self.called(Callback::Of(label, side), usual.as_slice());
        if called.is_err() && side == Side::PollReady {
            self.recheck_after_panic(id, handler, unkicked);
        }
        called
    }

    /// Marks a handler that panicked when it was served for a recheck: it may have left work without a kick.
    fn recheck_after_panic(&mut self, id: u64, handler: u64, unkicked: bool) {
        let Some(place) = self.place(id) else { return };
        let one = &mut self.registrations[place];
        one.owed = true;
        let device = &mut self.devices[one.fd.place()];
        device.unkicked |= unkicked && one.handler == handler && device.work > 0;
    }

    /// Serves the events of a registration: rule D3, with the second check of rule R9. The first callback is
    /// the delivery of an only event (rule R14).
    fn serve_event(&mut self, place: usize) -> Flow {
        let one = &mut self.registrations[place];
        let (id, handler, label, interest) = (one.id, one.handler, one.label, one.interest);
        let sure = std::mem::replace(&mut one.pending.sure, Readiness::empty());
        let perhaps = std::mem::replace(&mut one.pending.perhaps, Readiness::empty());
        let mut is_first = true;
        for (side, wakes) in SIDES {
            let Some(place) = self.place(id) else {
                return Ok(());
            };
            let one = &self.registrations[place];
            let is_current = one.handler == handler && !self.is_paused(one.group) && !one.awaits_only_event();
            let concerns =
                |ready: Readiness| wakes(ready, interest) && (is_first || wakes(ready, one.interest));
            let is_next = self.next_call() == Some(Callback::Of(label, side));
            let is_due = concerns(sure) || concerns(perhaps) && is_next;
            if !is_due || !(is_first || is_current) {
                continue;
            }
            if std::mem::take(&mut is_first) {
                self.registrations[place].is_asleep = interest.contains(Interest::ONESHOT);
            }
            self.call(place, side)?;
        }
        Ok(())
    }

    /// Drops the events that were not delivered, because the next check finds them again. Uncertain events
    /// stay as an outer iteration has left them.
    fn forget(&mut self, found: &[Found]) {
        for one in found {
            let Some(place) = self.place(one.id) else { continue };
            let is_paused = self.is_paused(self.registrations[place].group);
            let is_open = self.files.is_open(self.registrations[place].fd);
            let registration = &mut self.registrations[place];
            let pending = &mut registration.pending;
            let stays = !one.is_sure && !one.was_uncallable;
            if one.is_hit {
                registration.owed |= pending.hit != Hit::No;
                pending.hit = match one.left.hit {
                    hit if stays => hit,
                    Hit::Yes if !one.is_sure => Hit::Perhaps,
                    _ => Hit::No,
                };
                continue;
            }
            registration.passed_over += u32::from(is_open && stays && !pending.perhaps.is_empty());
            let left = if one.is_sure {
                Readiness::empty()
            } else {
                one.left.perhaps
            };
            let is_kept = registration.interest.contains(Interest::ONESHOT) && !registration.is_asleep;
            if is_kept && is_paused {
                // A rejected event masks its handler.
                (pending.sure, pending.perhaps) = (Readiness::empty(), Readiness::empty());
                if registration.masked == Masked::No {
                    registration.masked = Masked::Perhaps;
                }
                continue;
            }
            if !is_kept {
                pending.perhaps &= left;
            }
            pending.sure &= if stays { one.left.sure } else { Readiness::empty() };
        }
    }
}
