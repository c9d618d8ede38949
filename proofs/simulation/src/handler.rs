//! The calls of a [`Port`], and the checks that each of them is permitted.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use aio_context::{Context, Handler, Interest, Pollable};

use crate::action::Action;
use crate::plant::Plant;
use crate::port::Port;
use crate::world::{self, World};

/// The most consecutive calls of a port without work.
const MOST_CALLS_IN_VAIN: u32 = 24;

impl Port {
    fn enter(&self, world: &World, way: u8) -> Running<'_> {
        world.called();
        let name = ["readable", "writable", "poll_ready"][way as usize];
        world.record(
            || format!("{name} {}", self.id),
            u64::from(self.id) * 4 + u64::from(way),
        );
        world.require(self.live.get(), || {
            format!("I2: {name} of {} after its removal", self.id)
        });
        world.require(!world.is_paused(self.group), || {
            format!("B5: {name} of {} while its group is paused", self.id)
        });
        world.require(!(self.exclusive && self.running.get() > 0), || {
            format!("{name} of {}, which is exclusive and running", self.id)
        });
        let mut levels = world.levels.borrow_mut();
        if let Some(level) = levels.last_mut() {
            let again = level.served.contains(&(self.id, way));
            level.served.push((self.id, way));
            drop(levels);
            world.require(!again, || {
                format!("I3: {name} of {} twice in one iteration", self.id)
            });
        }
        if way < 2 && self.interest.get().contains(Interest::ONESHOT) {
            world.require(!self.asleep.replace(true), || {
                format!("R14: {name} of {} before it is armed again", self.id)
            });
        }
        self.owed_since.set(None);
        self.running.set(self.running.get() + 1);
        Running(self)
    }

    /// Counts calls without work. A few are legal, because another call was faster.
    fn found(&self, world: &World, something: bool) {
        let in_vain = if something { 0 } else { self.in_vain.get() + 1 };
        self.in_vain.set(in_vain);
        world.require(in_vain <= MOST_CALLS_IN_VAIN || self.doomed.get(), || {
            format!("{} was called {in_vain} times in a row for nothing", self.id)
        });
    }

    /// Arms the port for another event in some cases. In the others a later operation does so.
    fn perhaps_rearm(&self, world: &World, cx: &Context) {
        if !self.asleep.get() || !self.live.get() || world.one_in(4) {
            return;
        }
        let Some(token) = cx.token_of(self) else { return };
        world.record(|| format!("rearm {}", self.id), u64::from(self.id));
        self.asleep.set(false);
        if let Err(why) = cx.rearm(token) {
            self.asleep.set(true);
            let is_legal = self.doomed.get() || world.refused.get() > 0;
            world.require(is_legal, || format!("rearm fails without a reason: {why}"));
        }
    }

    /// Removes the port if it can no longer be served.
    fn leave_if_done(&self, world: &World) {
        let file = world.kernel.borrow().files[self.file];
        if file.hung_up || file.failed || (file.regular && world.one_in(3)) {
            world.remove(self.id);
        }
    }
}

/// A guard for a callback of a port on the stack.
struct Running<'a>(&'a Port);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get() - 1);
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Handler for Port {
    fn readable(&self, cx: &Context) {
        let world = world::here();
        let _running = self.enter(&world, 0);
        world.maybe_panic();
        let all = self.interest.get().contains(Interest::EDGE) || self.polled || !world.one_in(4);
        let mut kernel = world.kernel.borrow_mut();
        let file = &mut kernel.files[self.file];
        let something = !(file.readiness() & self.interest.get().mask()).is_empty() || self.work.get() > 0;
        file.bytes = if all { 0 } else { file.bytes.saturating_sub(1) };
        drop(kernel);
        if self.polled {
            self.work.set(0);
        }
        self.found(&world, something);
        world.user_code(cx);
        self.perhaps_rearm(&world, cx);
        self.leave_if_done(&world);
    }

    fn writable(&self, cx: &Context) {
        let world = world::here();
        let _running = self.enter(&world, 1);
        world.maybe_panic();
        let mut kernel = world.kernel.borrow_mut();
        let file = &mut kernel.files[self.file];
        let something = !(file.readiness() & self.interest.get().mask()).is_empty();
        file.room = 0;
        drop(kernel);
        self.found(&world, something);
        // The peer reads some time after the write.
        if !world.quiet.get() {
            world.plan(Action::Read(self.file), 1_000 + world.below(2_000_000));
        }
        world.user_code(cx);
        self.perhaps_rearm(&world, cx);
        self.leave_if_done(&world);
    }

    fn invalidated(&self, _: &Context, why: io::Error) {
        let world = world::here();
        world.called();
        world.record(|| format!("broken {} {why}", self.id), 7);
        world.require(self.live.get(), || {
            format!("I2: {} broken after its removal", self.id)
        });
        world.require(self.doomed.get() || world.refused.get() > 0, || {
            format!("R4: {} was given up without a reason: {why}", self.id)
        });
        self.live.set(false);
    }

    fn exclusive(&self) -> bool {
        self.exclusive
    }
}

impl Pollable for Port {
    fn poll(&self) -> bool {
        world::with(|world| {
            world.pass(5);
            world.others_may_act();
            world.require(self.live.get(), || {
                format!("I2: poll of {} after its removal", self.id)
            });
            self.work.get() > 0
        })
    }

    fn poll_ready(&self, cx: &Context) {
        let world = world::here();
        let _running = self.enter(&world, 2);
        world.maybe_panic();
        self.found(&world, self.work.get() > 0);
        self.work.set(0);
        world.user_code(cx);
    }

    fn poll_begin(&self) {
        world::with(|world| {
            world.require(!self.begun.get(), || {
                format!("A5: poll_begin of {} twice", self.id)
            });
        });
        self.begun.set(true);
    }

    fn poll_end(&self) {
        world::with(|world| {
            world.require(self.begun.get(), || {
                format!("A5: poll_end of {} without a begin", self.id)
            });
            self.begun.set(world.plant == Some(Plant::EndForgotten));
        });
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        let world = world::here();
        world.ports_alive.set(world.ports_alive.get() - 1);
        if self.begun.get() && world.cx().is_some() && world.failure.borrow().is_none() {
            world.record(|| format!("port {} dropped in poll mode", self.id), 3);
        }
        // A handler's drop may use the context (rule R8).
        if !world.quiet.get() && world.one_in(8) {
            world.send_job();
        }
    }
}
