//! Actions of others: peers at the far end of streams, and other threads through `Remote`.

use aio_context::{PollParams, Readiness};

use crate::action::Action;
use crate::target::Target;
use crate::world::{self, World};

impl World {
    pub(crate) fn plan(&self, action: Action, after: u64) {
        let key = (self.time.get().saturating_add(after), self.id());
        self.agenda.borrow_mut().insert(key, action);
    }

    /// Runs the actions that are due.
    pub(crate) fn others_may_act(&self) {
        if self.busy_acting.replace(true) {
            return;
        }
        let now = self.time.get();
        loop {
            let mut agenda = self.agenda.borrow_mut();
            let due = agenda.first_entry().filter(|first| first.key().0 <= now);
            let Some(action) = due.map(|first| first.remove()) else {
                break;
            };
            drop(agenda);
            self.act(action);
        }
        self.busy_acting.set(false);
    }

    /// Returns the time of the next action.
    pub(crate) fn next_action(&self) -> Option<u64> {
        self.agenda.borrow().first_key_value().map(|((time, _), _)| *time)
    }

    pub(crate) fn act(&self, action: Action) {
        self.record(|| format!("other: {action:?}"), 1);
        match action {
            Action::Write(file) | Action::Read(file) | Action::HangUp(file) | Action::Fail(file) => {
                let mut kernel = self.kernel.borrow_mut();
                let state = &mut kernel.files[file];
                match action {
                    Action::Write(_) if state.hung_up => return,
                    Action::Write(_) => state.bytes = (state.bytes + 1).min(4),
                    Action::Read(_) => state.room = 4,
                    Action::HangUp(_) => state.hung_up = true,
                    _ => state.failed = true,
                }
                let cause = match action {
                    // Some files report no cause.
                    _ if self.one_in(4) => Readiness::empty(),
                    Action::Write(_) => Readiness::IN,
                    Action::Read(_) => Readiness::OUT,
                    Action::HangUp(_) => Readiness::HUP | Readiness::RDHUP,
                    _ => Readiness::ERR,
                };
                kernel.touch(Target::File(file), cause);
            }
            Action::Produce(port) => {
                let port = self
                    .slots
                    .borrow()
                    .iter()
                    .find(|slot| slot.port.id == port)
                    .map(|slot| slot.port.clone());
                if let Some(port) = port {
                    port.work.set(port.work.get() + 1);
                    if !port.begun.get() {
                        self.act(Action::Write(port.file));
                    }
                }
            }
            Action::Schedule(id) => self.on_half(id, |world, half| {
                half.owed
                    .since
                    .set(half.owed.since.get().or(Some(world.iterations.get())));
                half.handle.schedule();
            }),
            Action::ScheduleIdle(id) => self.on_half(id, |_, half| {
                half.owed.idle.set(true);
                half.handle.schedule_idle();
            }),
            Action::Cancel(id) => self.on_half(id, |_, half| {
                half.owed.since.set(None);
                half.owed.idle.set(false);
                half.handle.cancel();
            }),
            Action::Delete(id) => {
                let mut halves = self.halves.borrow_mut();
                let place = halves.iter().position(|half| half.id == id);
                let half = place.map(|place| halves.swap_remove(place));
                drop(halves);
                if let Some(half) = half {
                    half.owed.since.set(None);
                    half.owed.idle.set(false);
                    half.owed.deleted.set(true);
                    half.handle.delete();
                }
            }
            Action::EndOperation(id) => self.end_operation(id),
            Action::Job => self.send_job(),
            Action::Notify => {
                if let Some(remote) = self.remote() {
                    remote.notify();
                }
            }
            Action::PollFor(max) => {
                if let Some(remote) = self.remote() {
                    remote.set_poll_params(PollParams::up_to(max));
                }
            }
            Action::Warp(by) => {
                if let Some(cx) = self.cx() {
                    cx.virtual_clock().warp(by);
                }
            }
            Action::StartClock => {
                if let Some(cx) = self.cx() {
                    cx.virtual_clock().start();
                    self.virtual_runs.set(true);
                }
            }
        }
    }

    fn on_half(&self, id: u32, act: impl FnOnce(&Self, &crate::world::Half)) {
        let halves = self.halves.borrow();
        if let Some(half) = halves.iter().find(|half| half.id == id) {
            act(self, half);
        }
    }

    pub(crate) fn send_job(&self) {
        let Some(remote) = self.remote() else { return };
        let number = self.id();
        self.jobs.borrow_mut().insert(number, self.iterations.get());
        let sent = remote.run(move |cx| {
            let world = world::here();
            world.called();
            world.record(|| format!("job {number}"), number);
            let was_owed = world.jobs.borrow_mut().remove(&number).is_some();
            world.require(was_owed, || format!("I6: job {number} ran twice"));
            world.user_code(cx);
        });
        if sent.is_err() {
            self.jobs.borrow_mut().remove(&number);
        }
    }
}
