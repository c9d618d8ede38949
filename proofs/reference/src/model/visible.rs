//! The readiness and the work that a check or a poll can find at the moment.

use aio_context::{Interest, Readiness};

use super::{Hit, Masked, Model, Registration};
use crate::setup::Waiter;

impl Model {
    /// Returns the readiness that a check would report.
    pub(super) fn ready(&mut self, place: usize) -> Readiness {
        let one = &self.registrations[place];
        if one.masked == Masked::Yes || one.is_asleep {
            return Readiness::empty();
        }
        let (fd, mask) = (one.fd, one.interest.mask());
        self.files.readiness(fd) & mask
    }

    /// Returns `true` if the handler may be polled now (rules A9, B5).
    pub(super) fn may_be_polled(&self, one: &Registration) -> bool {
        one.polled && one.busy == 0 && !self.is_paused(one.group) && self.waiter != Waiter::Foreign
    }

    pub(super) fn may_hit(&self, place: usize) -> bool {
        let one = &self.registrations[place];
        let device = self.devices[one.fd.place()];
        // After an outer iteration has taken a hit, the handler is polled once more.
        let owed = one.owed || device.unkicked || one.pending.hit != Hit::No;
        let is_polling = self.most_polling > 0 || self.poll_mode || owed;
        device.work > 0 && is_polling && self.may_be_polled(one)
    }

    /// Returns `true` if the handler has work without a kick. Then every iteration polls it (rule A5).
    pub(super) fn must_be_polled(&self, one: &Registration) -> bool {
        self.may_be_polled(one) && self.devices[one.fd.place()].unkicked
    }

    /// Handles the interruption of a check: paused handlers are perhaps masked, and only events of others
    /// perhaps collected.
    pub(super) fn interrupt_check(&mut self) {
        for place in 0..self.registrations.len() {
            let (ready, is_paused) = (self.ready(place), self.is_paused(self.registrations[place].group));
            let one = &mut self.registrations[place];
            if !is_paused && one.awaits_only_event() && one.masked == Masked::No {
                one.pending.perhaps |= ready;
            } else if is_paused && !ready.is_empty() && one.masked == Masked::No {
                one.masked = Masked::Perhaps;
            }
        }
    }

    pub(super) fn is_any_close_unreported(&self) -> bool {
        self.registrations.iter().any(|one| {
            let has_interest = one.interest != Interest::NONE;
            let is_active = has_interest && one.masked == Masked::No && !one.may_be_spent();
            is_active && !self.files.is_open(one.fd)
        })
    }
}
