//! Disturbances of the clocks, and plans of later actions of others.

use std::time::Duration;

use aio_context::Context;

use crate::action::Action;
use crate::world::World;

impl World {
    pub(crate) fn disturb_virtual_clock(&self, cx: &Context) {
        let clock = cx.virtual_clock();
        let busy = self.busy_acting.replace(true);
        match self.below(3) {
            0 => {
                self.record(|| "the virtual clock stops".to_owned(), 49);
                clock.stop();
                self.virtual_runs.set(false);
                self.virtual_stops.set(self.virtual_stops.get() + 1);
                self.plan(Action::StartClock, self.below(10_000_000));
            }
            1 => clock.warp(Duration::from_nanos(self.below(5_000_000))),
            _ => {
                clock.start();
                self.virtual_runs.set(true);
            }
        }
        self.busy_acting.set(busy);
    }

    /// Makes the clock coarse, or stops it for a while (F5).
    pub(crate) fn disturb_time(&self) {
        if self.one_in(2) {
            self.frozen.set((self.below(40) as u32, self.peek_time()));
        } else {
            self.frozen.set((0, self.peek_time()));
            self.grain.set([1, 1, 100, 4_000][self.below(4) as usize]);
        }
    }

    /// Plans an action of another thread or a peer.
    pub(crate) fn plan_something(&self) {
        let some_half = {
            let halves = self.halves.borrow();
            (!halves.is_empty()).then(|| halves[self.below(halves.len() as u64) as usize].id)
        };
        let some_port = {
            let slots = self.slots.borrow();
            let polled: Vec<_> = slots
                .iter()
                .filter(|slot| slot.port.polled)
                .map(|slot| slot.port.id)
                .collect();
            (!polled.is_empty()).then(|| polled[self.below(polled.len() as u64) as usize])
        };
        let soon = if self.one_in(2) {
            self.below(20_000)
        } else {
            self.below(3_000_000)
        };
        let action = match (self.below(12), some_half, some_port) {
            (0, ..) => Action::Notify,
            (1, ..) => Action::PollFor(Duration::from_nanos(self.below(16_000))),
            (2, ..) => Action::Warp(Duration::from_nanos(self.below(5_000_000))),
            (3, Some(half), _) => Action::ScheduleIdle(half),
            (4..7, Some(half), _) => Action::Schedule(half),
            (7..12, _, Some(port)) => Action::Produce(port),
            _ => Action::Job,
        };
        self.plan(action, soon);
    }
}
