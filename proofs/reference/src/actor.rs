//! The handlers of a sequence: each logs its calls, and runs its script.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::{Rc, Weak};

use aio_context::{Context, Handler, Pollable};

use crate::log::What;
use crate::numbers::Number;
use crate::op::{Callback, Fd, Name, Side};
use crate::plant::Plant;
use crate::real::Real;

/// Counts the values that the loop has and has not dropped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alive(Rc<Cell<u32>>);

/// One of the counted.
#[derive(Debug)]
pub(crate) struct Counted(Rc<Cell<u32>>);

impl Alive {
    pub(crate) fn one(&self) -> Counted {
        self.0.set(self.0.get() + 1);
        Counted(self.0.clone())
    }

    pub(crate) fn count(&self) -> u32 {
        self.0.get()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A handler.
pub(crate) struct Actor {
    fd: Fd,
    label: Name,
    number: Rc<Number>,
    pub(crate) serial: u32,
    world: Weak<Real>,
    /// How many of its callbacks are on the stack.
    running: Cell<u32>,
    _alive: Counted,
}

impl Actor {
    pub(crate) fn new(world: &Rc<Real>, fd: Fd, label: Name, number: Rc<Number>, serial: u32) -> Self {
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

    /// Returns why it must not be polled now.
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

    fn broken(&self, _: &Context, _: io::Error) {
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
        // However often it is polled, it runs its script once.
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

/// One of a crowd, which is never ready.
pub(crate) struct Bystander(pub(crate) Rc<OwnedFd>);

impl AsFd for Bystander {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Handler for Bystander {}
