//! The handlers of a sequence: each logs its calls, and runs its script.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::{Rc, Weak};

use aio_context::{Context, Handler, Pollable};

use crate::alive::Counted;
use crate::log::What;
use crate::numbers::Number;
use crate::op::{Callback, Fd, Name, Side};
use crate::plant::Plant;
use crate::real::Real;

/// A handler.
pub(crate) struct Actor {
    fd: Fd,
    label: Name,
    number: Rc<Number>,
    pub(crate) serial: u32,
    world: Weak<Real>,
    /// The number of its callbacks on the stack.
    running: Cell<u32>,
    _alive: Counted,
}

impl Actor {
    fn new(world: &Rc<Real>, fd: Fd, label: Name, number: Rc<Number>, serial: u32) -> Self {
        Self {
            fd,
            label,
            number,
            serial,
            world: Rc::downgrade(world),
            running: Cell::new(0),
            _alive: world.handlers.one(),
        }
    }

    fn called(&self, side: Side) {
        let Some(world) = self.world.upgrade() else { return };
        let _running = Running::enter(&self.running);
        let usual = world.usual(self.fd, side);
        world.called(Callback::Of(self.label, side), usual.as_slice());
    }

    /// Returns the reason why it must not be polled now, if there is one.
    fn objection(&self, world: &Real) -> Option<&'static str> {
        let (serial, group) = world.current[self.fd.place()].get();
        if !world.polling_was_on.get() {
            Some("A1: polled, and polling was never on")
        } else if self.running.get() > 0 {
            Some("A9: polled while it runs")
        } else if serial != self.serial {
            Some("R9: polled after its removal")
        } else if world.is_paused(group) {
            Some("B5: polled while its group is paused")
        } else {
            None
        }
    }
}

impl Real {
    /// Returns a handler for a descriptor. From now on it is the present one.
    pub(crate) fn actor(self: &Rc<Self>, fd: Fd, label: Name, opened: bool) -> Rc<Actor> {
        self.serial.set(self.serial.get() + 1);
        let mut files = self.files.borrow_mut();
        let number = if opened {
            files.open_number(fd)
        } else {
            files.number(fd)
        };
        drop(files);
        Rc::new(Actor::new(self, fd, label, number, self.serial.get()))
    }
}

struct Running<'a>(&'a Cell<u32>);

impl<'a> Running<'a> {
    fn enter(running: &'a Cell<u32>) -> Self {
        running.set(running.get() + 1);
        Self(running)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl AsFd for Actor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.number.as_fd()
    }
}

impl Handler for Actor {
    fn readable(&self, _: &Context) {
        self.called(Side::Readable);
    }

    fn writable(&self, _: &Context) {
        self.called(Side::Writable);
    }

    fn priority(&self, _: &Context) {
        self.called(Side::Priority);
    }

    fn invalidated(&self, _: &Context, _: io::Error) {
        if let Some(world) = self.world.upgrade() {
            let current = &world.current[self.fd.place()];
            if current.get().0 == self.serial {
                current.set((0, current.get().1));
            }
            world.has_ended(self.fd);
        }
        self.called(Side::Invalidated);
    }
}

impl Pollable for Actor {
    fn poll(&self) -> bool {
        let Some(world) = self.world.upgrade() else {
            return false;
        };
        if let Some(why) = self.objection(&world) {
            world.record(What::Illegal(why));
        }
        let callback = Callback::Of(self.label, Side::Poll);
        // The script runs once, however often the handler is polled.
        let script = world.scripts.borrow_mut().take(callback);
        if let Some(script) = script {
            world.record(What::Called(callback));
            world.run_script(&script);
        }
        let device = &world.devices[self.fd.place()];
        let is_last = world.is_planted(Plant::LastPollIgnored) && !device.is_polled.get();
        let is_ignored = is_last || world.is_planted(Plant::WorkIgnored);
        device.work.get() > 0 && !is_ignored
    }

    fn poll_ready(&self, _: &Context) {
        self.called(Side::PollReady);
    }

    fn poll_begin(&self) {
        let Some(world) = self.world.upgrade() else { return };
        world.devices[self.fd.place()].is_polled.set(true);
        self.called(Side::Begin);
    }

    fn poll_end(&self) {
        let Some(world) = self.world.upgrade() else { return };
        if world.strikes(Plant::EndMissing) {
            return;
        }
        world.devices[self.fd.place()].is_polled.set(false);
        let callback = Callback::Of(self.label, Side::End);
        if world.is_registered(self.fd) {
            world.record(What::Called(callback));
        } else {
            world.has_ended(self.fd);
            world.record(What::EndedGone(self.label));
        }
        world.act(callback, &[]);
    }
}
