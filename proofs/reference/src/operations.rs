//! The effects of operations on the real context's registrations, bottom halves and timers.
//!
//! No table is borrowed during a call of the loop, because it may call back at once.

use std::rc::Rc;
use std::time::Duration;

use aio_context::{BottomHalf, Clock, ClockId, Interest, Polled, Registration, Timer};

use crate::log::Verb;
use crate::op::{Callback, Fd, Name, Op};
use crate::plant::Plant;
use crate::real::Real;

impl Real {
    fn registration(&self, fd: Fd) -> Option<Rc<Registration>> {
        self.registrations.borrow()[fd.place()].clone()
    }

    pub(crate) fn is_registered(&self, fd: Fd) -> bool {
        self.registration(fd)
            .is_some_and(|registration| registration.is_live())
    }

    pub(crate) fn watch(self: &Rc<Self>, fd: Fd, interest: Interest, name: Name, polled: bool) {
        let is_taken = self.is_registered(fd);
        let actor = self.actor(fd, fd.name(), !is_taken);
        let (group, serial, began) = (self.group(name), actor.serial, self.written());
        if is_taken && self.strikes(Plant::TakenReplaced) {
            drop(self.cx.replace(actor, interest));
            return;
        }
        let watched = if polled {
            self.cx.watch_in(group, Polled(actor), interest).ok()
        } else {
            self.cx.watch_in(group, actor, interest).ok()
        };
        let Some(registration) = watched else {
            return self.refused_at(began, Verb::Watch, fd);
        };
        self.current[fd.place()].set((serial, name));
        let former = self.registrations.borrow_mut()[fd.place()].replace(Rc::new(registration));
        assert!(former.is_none_or(|former| !former.is_live()), "R3: two handlers");
        if polled {
            self.kick_if_there_is_work(fd);
        }
    }

    pub(crate) fn replace(self: &Rc<Self>, fd: Fd, by: Name, interest: Option<Interest>, polled: bool) {
        let Some(registration) = self
            .registration(fd)
            .filter(|registration| registration.is_live())
        else {
            return;
        };
        if self.strikes(Plant::ReplacementLost) {
            return;
        }
        let actor = self.actor(fd, by, false);
        let (serial, began) = (actor.serial, self.written());
        let former = self.current[fd.place()].get();
        self.current[fd.place()].set((serial, former.1));
        self.replacing.set(Some((fd, began)));
        // With an interest, the replacement is by number.
        let replaced = match (interest, polled) {
            (Some(_), _) if self.strikes(Plant::NumberNotFound) => Ok(()),
            (None, true) => registration.replace(Polled(actor)).map_err(drop),
            (None, false) => registration.replace(actor).map_err(drop),
            (Some(interest), true) => self.cx.replace(Polled(actor), interest).map(drop).map_err(drop),
            (Some(interest), false) => self.cx.replace(actor, interest).map(drop).map_err(drop),
        };
        let is_recorded = self.replacing.take().is_none();
        match replaced {
            Ok(()) if polled => {}
            Ok(()) => self.kick_if_there_is_work(fd),
            Err(_) => {
                if self.current[fd.place()].get().0 == serial {
                    self.current[fd.place()].set(former);
                }
                if !is_recorded {
                    self.refused_at(began, Verb::Replace, fd);
                }
            }
        }
    }

    pub(crate) fn remove(&self, fd: Fd) {
        let registration = self.registrations.borrow_mut()[fd.place()].take();
        let Some(registration) = registration else { return };
        self.current[fd.place()].set((0, self.current[fd.place()].get().1));
        match Rc::try_unwrap(registration) {
            Ok(registration) if self.is_planted(Plant::RemovalLost) => drop(registration.detach()),
            Ok(registration) => registration.remove(),
            // Its handler is being replaced.
            Err(shared) => drop(self.cx.unwatch(shared.token())),
        }
    }

    pub(crate) fn set_interest(&self, fd: Fd, interest: Interest) {
        if let Some(registration) = self.registration(fd)
            && registration.is_live()
            && registration.set_interest(interest).is_err()
        {
            self.refused_at(self.written(), Verb::Interest, fd);
        }
    }

    pub(crate) fn rearm(&self, fd: Fd) {
        if let Some(registration) = self.registration(fd)
            && registration.is_live()
            && !self.strikes(Plant::RearmLost)
            && registration.rearm().is_err()
        {
            self.refused_at(self.written(), Verb::Interest, fd);
        }
    }

    pub(crate) fn run_deferred(self: &Rc<Self>, op: &Op) {
        match op {
            Op::BottomHalf(name)
            | Op::Schedule(name)
            | Op::Idle(name)
            | Op::Cancel(name)
            | Op::Delete(name) => {
                self.run_on_half(op, *name);
            }
            Op::Timer(name)
            | Op::Arm(name, _)
            | Op::Anticipate(name, _)
            | Op::Disarm(name)
            | Op::Forget(name) => self.run_on_timer(op, *name),
            _ => unreachable!("{op}"),
        }
    }

    fn run_on_half(self: &Rc<Self>, op: &Op, name: Name) {
        let halves = self.halves.borrow();
        let half = halves
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, half)| half.clone());
        drop(halves);
        match (op, half) {
            (Op::BottomHalf(_), None) => {
                let half = self.half(name);
                self.halves.borrow_mut().push((name, half));
            }
            (Op::Schedule(_), Some(half)) => half.schedule(),
            (Op::Idle(_), Some(half)) => half.schedule_idle(),
            (Op::Cancel(_), Some(half)) if !self.is_planted(Plant::CancelLost) => half.cancel(),
            (Op::Delete(_), Some(half)) => {
                drop(half);
                let mut halves = self.halves.borrow_mut();
                let place = halves.iter().position(|(known, _)| *known == name);
                let deleted = place.map(|place| halves.remove(place).1);
                drop(halves);
                let Some(deleted) = deleted else { return };
                if self.is_planted(Plant::DeleteLost) {
                    self.kept.borrow_mut().push(deleted);
                } else {
                    deleted.delete();
                }
            }
            _ => {}
        }
    }

    fn half(self: &Rc<Self>, name: Name) -> BottomHalf {
        let (world, counted) = (Rc::downgrade(self), self.closures.one());
        self.cx.bottom_half("of a sequence", move |_| {
            let _ = &counted;
            let Some(world) = world.upgrade() else { return };
            if world.strikes(Plant::HalfTwice) {
                world.run(&Op::Schedule(name));
            }
            world.called(Callback::Deferred(name), &[]);
        })
    }

    fn run_on_timer(self: &Rc<Self>, op: &Op, name: Name) {
        let mut timers = self.timers.borrow_mut();
        let place = timers.iter().position(|(known, _)| *known == name);
        match (op, place) {
            (Op::Timer(_), None) => {
                let timer = self.timer(name);
                timers.push((name, timer));
            }
            (Op::Arm(_, ms), Some(place)) => {
                let ms = match self.plant {
                    Some(Plant::TimerEarly) => ms.saturating_sub(1),
                    Some(Plant::TimerLate) => ms + 1,
                    _ => *ms,
                };
                timers[place].1.arm_after(Duration::from_millis(ms));
            }
            (Op::Anticipate(_, ms), Some(place)) => {
                let deadline = self.clock.now().saturating_add(Duration::from_millis(*ms));
                timers[place].1.anticipate(deadline);
            }
            (Op::Disarm(_), Some(place)) if !self.is_planted(Plant::DisarmLost) => timers[place].1.cancel(),
            (Op::Forget(_), Some(place)) => {
                let forgotten = timers.swap_remove(place);
                drop(timers);
                drop(forgotten);
            }
            _ => {}
        }
    }

    fn timer(self: &Rc<Self>, name: Name) -> Timer {
        let (world, counted) = (Rc::downgrade(self), self.closures.one());
        self.cx
            .timer(ClockId::Monotonic, move |_, _| {
                let _ = &counted;
                if let Some(world) = world.upgrade() {
                    world.called(Callback::Deferred(name), &[]);
                }
            })
            .disarmed()
    }
}
