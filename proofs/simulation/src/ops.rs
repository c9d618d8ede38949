//! The operations of the simulated user on the loop, at the top and inside callbacks.

use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::rc::Rc;
use std::time::Duration;

use aio_context::{Context, Interest, PollParams, Polled, Registration, Wait};

use crate::action::Action;
use crate::kernel::{NOWHERE, NUMBERS};
use crate::plant::Plant;
use crate::port::Port;
use crate::world::{Armed, Level, Planned, Slot, Violation, World};

/// The greatest depth of nested polls.
const DEEPEST: usize = 4;
/// The most objects of a kind.
pub(crate) const MOST: usize = 12;

/// A guard that removes a level from the stack, also during a panic.
struct Leave<'a>(&'a World);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.levels.borrow_mut().pop();
    }
}

impl World {
    pub(crate) fn maybe_panic(&self) {
        if self.strikes(self.rates.get().panics) {
            self.injected.set(self.injected.get() + 1);
            self.record(|| "a callback panics".to_owned(), 21);
            panic_any(Planned);
        }
    }

    /// Runs the additional code of a callback: in some cases an operation or a nested poll.
    pub(crate) fn user_code(&self, cx: &Context) {
        if self.quiet.get() || !self.one_in(4) {
            return;
        }
        if self.levels.borrow().len() < DEEPEST && self.one_in(4) {
            let wait = self.some_wait();
            self.poll(cx, wait);
        } else {
            self.operate(cx);
        }
    }

    fn some_wait(&self) -> Wait {
        match self.below(8) {
            0..3 => Wait::NoBlock,
            3..6 => Wait::AtMost(Duration::from_nanos(self.below(3_000_000))),
            _ => Wait::Block,
        }
    }

    /// Runs one step at the top: an iteration, or an operation.
    pub(crate) fn step(&self, cx: &Context) {
        if self.one_in(2) {
            let wait = self.some_wait();
            self.poll(cx, wait);
        } else {
            self.operate(cx);
        }
    }

    /// Runs one iteration, nested or not, and the checks around it.
    pub(crate) fn poll(&self, cx: &Context, wait: Wait) -> bool {
        if wait == Wait::Block {
            // A blocking poll without work is legal only if another thread will end it.
            self.plan(Action::Notify, 1_000 + self.below(20_000_000));
        }
        let is_top = self.levels.borrow().is_empty();
        let due = if is_top { self.due_timers() } else { Vec::new() };
        let stops = self.virtual_stops.get();
        self.tick.set(self.tick.get() + 1);
        self.record(|| format!("poll {wait:?}"), 31);
        self.levels.borrow_mut().push(Level {
            wait,
            began: self.peek_time(),
            tick: self.tick.get(),
            calls: 0,
            served: Vec::new(),
        });
        let leave = Leave(self);
        if !is_top {
            let polled = cx.poll(wait);
            drop(leave);
            return self.judge(polled);
        }
        let polled = catch_unwind(AssertUnwindSafe(|| cx.poll(wait)));
        drop(leave);
        if self.one_in(16) || polled.is_err() {
            self.require(format!("{cx:?}").contains("depth: 0"), || {
                "I7: the depth is not 0 outside every iteration".to_owned()
            });
        }
        match polled {
            Ok(Ok(progress)) => {
                self.iterations.set(self.iterations.get() + 1);
                let stopped = stops != self.virtual_stops.get() || !self.virtual_runs.get();
                let due: Vec<_> = due
                    .into_iter()
                    .filter(|(armed, _)| !(armed.is_virtual && stopped))
                    .collect();
                self.after_iteration(&due);
                progress
            }
            Ok(error) => self.judge(error),
            Err(payload) if payload.is::<Planned>() => true,
            Err(payload) if payload.is::<Violation>() => panic_any(Violation),
            Err(payload) => {
                let text = payload.downcast_ref::<String>().map(String::as_str);
                let text = text
                    .or_else(|| payload.downcast_ref::<&str>().copied())
                    .unwrap_or("?");
                self.fail(format!("the loop panics: {text}"))
            }
        }
    }

    fn judge(&self, polled: io::Result<bool>) -> bool {
        match polled {
            Ok(progress) => progress,
            Err(why) => {
                self.record(|| format!("poll fails: {why}"), 32);
                self.require(self.refused.get() > 0, || {
                    format!("poll fails without a reason: {why}")
                });
                false
            }
        }
    }

    fn due_timers(&self) -> Vec<(Rc<Armed>, u64)> {
        let all = self.owed_alarms.borrow();
        let due = all.iter().filter(|armed| {
            let deadline = armed
                .deadline
                .get()
                .filter(|at| *at != u64::MAX && !armed.dropped.get());
            deadline.is_some_and(|at| self.now_on(armed.is_virtual).is_some_and(|now| at <= now))
        });
        due.map(|armed| (armed.clone(), armed.order.get())).collect()
    }

    fn operate(&self, cx: &Context) {
        match self.below(54) {
            0..5 => self.watch(cx),
            5..8 => self.with_port(|world, slot| world.remove(slot)),
            8..10 => self.replace(),
            10..13 => self.set_interest(),
            13 => self.pause(cx),
            14..16 => self.resume(),
            16..22 => self.disturb_file(),
            22 => self.close_raw(),
            23..26 => self.disturb_half(cx),
            26..28 => self.send_job(),
            28..32 => self.disturb_timer(cx),
            32 => self.disturb_virtual_clock(cx),
            33 => {
                let max = Duration::from_nanos(self.below(3) * self.below(16_000));
                self.record(|| format!("poll for {max:?}"), 40);
                cx.set_poll_params(PollParams::up_to(max));
            }
            34 => self.disturb_time(),
            35..43 => self.disturb_file(),
            43..49 => self.disturb_operation(cx),
            _ => self.plan_something(),
        }
    }

    fn with_port(&self, act: impl FnOnce(&Self, u32)) {
        let slots = self.slots.borrow();
        if slots.is_empty() {
            return;
        }
        let id = slots[self.below(slots.len() as u64) as usize].port.id;
        drop(slots);
        act(self, id);
    }

    fn some_interest(&self) -> Interest {
        match self.below(8) {
            0 => Interest::NONE,
            1 => Interest::WRITE,
            2 => Interest::BOTH,
            3 => Interest::READ | Interest::EDGE,
            4 => Interest::READ | Interest::ONESHOT,
            5 => Interest::WRITE | Interest::ONESHOT,
            _ => Interest::READ,
        }
    }

    /// Returns a port that is not registered yet.
    fn new_port(&self, number: usize, like: Option<&Port>) -> Rc<Port> {
        let kernel = self.kernel.borrow();
        let file = kernel.numbers[number];
        let polled = self.one_in(3);
        let interest = match like {
            Some(port) => port.interest.get(),
            None if polled => Interest::READ,
            None => self.some_interest(),
        };
        self.ports_alive.set(self.ports_alive.get() + 1);
        Rc::new(Port {
            id: self.id() as u32,
            number,
            fd: kernel.backing[number].clone(),
            file: file.unwrap_or(NOWHERE),
            interest: Cell::new(interest),
            asleep: Cell::new(false),
            group: like.map_or_else(|| self.below(3) as usize, |port| port.group),
            // A polled handler needs events while polling is off.
            polled: polled && interest == Interest::READ,
            exclusive: self.one_in(6),
            live: Cell::new(true),
            doomed: Cell::new(file.is_none()),
            begun: Cell::new(false),
            work: Cell::new(0),
            running: Cell::new(0),
            in_vain: Cell::new(0),
            owed_since: Cell::new(None),
        })
    }

    fn watch(&self, cx: &Context) {
        let number = self.below(NUMBERS as u64) as usize;
        if self.kernel.borrow().numbers[number].is_none() && !self.one_in(8) {
            let regular = self.one_in(24);
            self.kernel.borrow_mut().open(number, regular);
        }
        if self.slots.borrow().len() >= MOST {
            return;
        }
        let port = self.new_port(number, None);
        let group = self.groups.borrow()[port.group];
        self.record(|| format!("watch {port:?}"), u64::from(port.id));
        let slots = self.slots.borrow();
        let is_taken = slots
            .iter()
            .any(|slot| slot.port.number == number && slot.port.live.get());
        drop(slots);
        let watched = if port.polled {
            let watched = cx.watch_in(group, Polled(port.clone()), port.interest.get());
            watched.map_err(io::Error::from)
        } else {
            let watched = cx.watch_in(group, port.clone(), port.interest.get());
            watched.map_err(io::Error::from)
        };
        match watched {
            Ok(registration) => self.slots.borrow_mut().push(Slot { port, registration }),
            Err(why) => {
                self.record(|| format!("watch fails: {why}"), 41);
                port.live.set(false);
                let is_legal = match why.kind() {
                    io::ErrorKind::AlreadyExists => is_taken,
                    _ => port.doomed.get() || self.refused.get() > 0,
                };
                self.require(is_legal, || format!("R3: watch fails without a reason: {why}"));
            }
        }
    }

    pub(crate) fn remove(&self, id: u32) {
        let Some(slot) = self.take_slot(id) else { return };
        self.record(|| format!("remove {id}"), u64::from(id));
        if self.plant == Some(Plant::RemovalForgotten) {
            let _ = slot.registration.detach();
        } else {
            drop(slot.registration);
        }
        slot.port.live.set(false);
        self.leaves_nothing(&slot.port);
    }

    fn take_slot(&self, id: u32) -> Option<Slot> {
        let mut slots = self.slots.borrow_mut();
        let place = slots.iter().position(|slot| slot.port.id == id)?;
        Some(slots.swap_remove(place))
    }

    fn replace(&self) {
        self.with_port(|world, id| {
            let Some(Slot {
                port: old,
                registration,
            }) = world.take_slot(id)
            else {
                return;
            };
            if !old.live.get() {
                return;
            }
            let new = world.new_port(old.number, Some(&old));
            world.record(|| format!("replace {id} by {new:?}"), u64::from(new.id));
            let replaced = match world.cx().filter(|_| world.one_in(2)) {
                Some(cx) => replace_by_number(&cx, &new, world),
                None => replace_in(&registration, &new),
            };
            let (stays, goes) = match &replaced {
                Ok(()) => (new, old),
                Err(why) => {
                    world.record(|| format!("replace fails: {why}"), 42);
                    // The former handler stays, unless the attempt has invalidated it.
                    (old, new)
                }
            };
            goes.live.set(false);
            let slot = Slot {
                port: stays,
                registration,
            };
            world.slots.borrow_mut().push(slot);
        });
    }

    fn set_interest(&self) {
        self.with_port(|world, id| {
            let Some(Slot { port, registration }) = world.take_slot(id) else {
                return;
            };
            if port.live.get() && !port.polled {
                let interest = world.some_interest();
                world.record(|| format!("interest of {id}: {interest:?}"), u64::from(id));
                let former = port.interest.replace(interest);
                let slept = port.asleep.replace(false);
                if let Err(why) = registration.set_interest(interest) {
                    world.record(|| format!("interest fails: {why}"), 43);
                    port.interest.set(former);
                    port.asleep.set(slept);
                    let is_legal = port.doomed.get() || world.refused.get() > 0;
                    world.require(is_legal, || format!("set_interest fails without a reason: {why}"));
                }
            }
            world.slots.borrow_mut().push(Slot { port, registration });
        });
    }

    fn pause(&self, cx: &Context) {
        let place = self.below(3) as usize;
        if self.pauses.borrow().len() >= 4 {
            return;
        }
        self.record(|| format!("pause {place}"), 44);
        let group = self.groups.borrow()[place];
        let paused = cx.pause(group);
        self.pauses.borrow_mut().push((place, paused));
    }

    fn resume(&self) {
        let mut pauses = self.pauses.borrow_mut();
        if pauses.is_empty() {
            return;
        }
        let place = self.below(pauses.len() as u64) as usize;
        let (group, paused) = pauses.swap_remove(place);
        drop(pauses);
        self.record(|| format!("resume {group}"), 45);
        if self.plant == Some(Plant::ResumeForgotten) {
            std::mem::forget(paused);
        }
    }

    fn disturb_file(&self) {
        let file = {
            let kernel = self.kernel.borrow();
            let open: Vec<_> = kernel.numbers.iter().flatten().copied().collect();
            if open.is_empty() {
                return;
            }
            open[self.below(open.len() as u64) as usize]
        };
        let action = match self.below(12) {
            0 => Action::HangUp(file),
            1 => Action::Fail(file),
            2..4 => Action::Read(file),
            _ => Action::Write(file),
        };
        if self.one_in(2) {
            self.act(action);
        } else {
            self.plan(action, self.below(4_000_000));
        }
    }

    /// Closes a watched number (F4), with or without another reference to its file. In some cases the number
    /// is reopened at once for another file, or for the same one.
    fn close_raw(&self) {
        let number = self.below(NUMBERS as u64) as usize;
        let mut kernel = self.kernel.borrow_mut();
        let Some(file) = kernel.numbers[number] else {
            return;
        };
        let (shared, again) = (self.one_in(2), self.below(3));
        if shared {
            kernel.dup(file);
        }
        kernel.close(number);
        match again {
            0 if kernel.is_open(file) => kernel.reopen(number, file),
            1 => drop(kernel.open(number, false)),
            _ => {}
        }
        drop(kernel);
        self.record(
            || format!("close number {number}, shared {shared}, again {again}"),
            46,
        );
        for slot in self
            .slots
            .borrow()
            .iter()
            .filter(|slot| slot.port.number == number)
        {
            slot.port.doomed.set(true);
        }
    }
}

fn replace_in(registration: &Registration, new: &Rc<Port>) -> io::Result<()> {
    if new.polled {
        Ok(registration.replace(Polled(new.clone()))?)
    } else {
        Ok(registration.replace(new.clone())?)
    }
}

/// Replaces a handler by number, in some cases with another interest.
fn replace_by_number(cx: &Context, new: &Rc<Port>, world: &World) -> io::Result<()> {
    if new.polled {
        cx.replace(Polled(new.clone()), new.interest.get())?;
    } else {
        new.interest.set(world.some_interest());
        cx.replace(new.clone(), new.interest.get())?;
    }
    Ok(())
}
