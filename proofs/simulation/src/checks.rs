//! The conditions before the loop sleeps, after each iteration, and at the end.

use std::os::fd::AsRawFd;

use aio_context::{Interest, Readiness};

use crate::port::Port;
use crate::world::World;

/// The latest end of a wait after a deadline (promise 7 of a backend), in nanoseconds.
const LATEST: u64 = 1_000_000;

impl World {
    /// Returns `true` if a port's descriptor has readiness that its handler must get.
    pub(crate) fn is_ready(&self, port: &Port) -> bool {
        let kernel = self.kernel.borrow();
        let now = kernel.files[port.file].readiness();
        !port.asleep.get() && !(now & port.interest.get().mask()).is_empty()
    }

    /// Returns `true` if a call of this port is due now.
    pub(crate) fn is_owed(&self, port: &Port) -> bool {
        let listens = port.live.get() && !port.doomed.get() && !self.is_paused(port.group);
        listens && port.running.get() == 0 && (self.is_ready(port) || (port.polled && port.work.get() > 0))
    }

    /// Checks invariants I1, I5 and A5 at the only moment when a violation does harm: the loop is about to
    /// sleep for `timeout`, and the kernel has no event that prevents it.
    pub(crate) fn may_sleep(&self, timeout: Option<u64>) {
        let slots = self.slots.borrow();
        for port in slots.iter().map(|slot| &slot.port) {
            self.require(!self.is_owed(port), || {
                format!(
                    "I1: the loop sleeps while port {} is ready ({:?}, {:?}, work {})",
                    port.id,
                    self.kernel.borrow().files[port.file].readiness(),
                    port.interest.get(),
                    port.work.get()
                )
            });
            let asked_in_vain = port.begun.get() && port.live.get() && port.running.get() == 0;
            self.require(!asked_in_vain, || {
                format!(
                    "A5: the loop sleeps, and the peer of port {} is in poll mode",
                    port.id
                )
            });
        }
        drop(slots);
        if let Some(number) = self.jobs.borrow().keys().next() {
            self.fail(format!("I1: the loop sleeps while job {number} waits"));
        }
        let scheduled = self
            .owed_halves
            .borrow()
            .iter()
            .any(|owed| owed.since.get().is_some());
        self.require(!scheduled, || {
            "I1: the loop sleeps while a bottom half is scheduled".to_owned()
        });
        let idle = self.owed_halves.borrow().iter().any(|owed| owed.idle.get());
        self.require(
            !idle || timeout.is_some_and(|timeout| timeout <= 10_000_000),
            || format!("H8: the loop sleeps for {timeout:?} ns while an idle bottom half is scheduled"),
        );
        self.operations_may_sleep();
        self.wakes_in_time(timeout);
    }

    /// Checks that no wait is longer than the time to the earliest deadline.
    fn wakes_in_time(&self, timeout: Option<u64>) {
        let began = self.levels.borrow().last().map_or(0, |level| level.began);
        // The clock has advanced since the timeout was computed, and shows less than the time.
        let tolerance = LATEST + (self.time.get() - began) + self.grain.get();
        let ends = timeout.map_or(u64::MAX, |timeout| self.time.get().saturating_add(timeout));
        for armed in self.owed_alarms.borrow().iter() {
            let Some(deadline) = armed.deadline.get() else {
                continue;
            };
            let Some(now) = self.now_on(armed.is_virtual) else {
                continue;
            };
            if armed.dropped.get() || deadline == u64::MAX {
                continue;
            }
            let due = self.time.get().saturating_add(deadline.saturating_sub(now));
            self.require(ends <= due.saturating_add(tolerance), || {
                format!(
                    "I5: the loop sleeps {timeout:?} ns past a timer ({armed:?}) that is due in {} ns",
                    due - self.time.get()
                )
            });
        }
    }

    /// Returns the reading of a timer's clock, if the clock runs.
    pub(crate) fn now_on(&self, is_virtual: bool) -> Option<u64> {
        if !is_virtual {
            return Some(self.peek_time());
        }
        if !self.virtual_runs.get() {
            return None;
        }
        // This reading is no step of the loop.
        let peeking = self.peeking.replace(true);
        let now = self
            .cx()
            .map(|cx| cx.now(aio_context::ClockId::Virtual).as_nanos());
        self.peeking.set(peeking);
        now
    }

    /// Checks invariants I6 and I10, and the timers, after an iteration of the outermost level that
    /// succeeded. `due` holds the timers that were due when it began.
    pub(crate) fn after_iteration(&self, due: &[(std::rc::Rc<crate::world::Armed>, u64)]) {
        let ended = self.iterations.get();
        for (armed, order) in due {
            let left = armed.order.get() == *order && armed.deadline.get().is_some() && !armed.dropped.get();
            self.require(!left, || {
                "T1: a timer that was due did not fire in an iteration".to_owned()
            });
        }
        let late = |since: u64| ended >= since + 2;
        for owed in self.owed_halves.borrow().iter() {
            let is_late = owed.since.get().is_some_and(late);
            self.require(!is_late, || {
                "I6: a bottom half did not run within 2 iterations".to_owned()
            });
        }
        if let Some((number, since)) = self.jobs.borrow().first_key_value() {
            self.require(!late(*since), || {
                format!("I6: job {number} did not run within 2 iterations")
            });
        }
        self.operations_are_delivered();
        let slots = self.slots.borrow();
        let alive = self.ports_alive.get();
        self.require(alive as usize == slots.len(), || {
            format!(
                "R8: {} handlers are registered, and {alive} are kept",
                slots.len()
            )
        });
        let bound = 80 + 70 * slots.len() as u64;
        for slot in slots.iter() {
            let port = &slot.port;
            if !self.is_owed(port) {
                port.owed_since.set(None);
                continue;
            }
            let since = port.owed_since.get().unwrap_or(ended);
            port.owed_since.set(Some(since));
            self.require(ended - since <= bound, || {
                format!(
                    "I10: port {} was ready for {} iterations and was not called",
                    port.id,
                    ended - since
                )
            });
        }
    }

    /// Checks that the kernel has no poll request for a removed descriptor, unless a call was refused.
    pub(crate) fn leaves_nothing(&self, port: &Port) {
        let slots = self.slots.borrow();
        let is_taken = slots.iter().any(|other| other.port.number == port.number);
        drop(slots);
        let raw = port.fd.as_raw_fd();
        let is_kept = self.kernel.borrow().requests.has_number(raw);
        self.require(is_taken || !is_kept || self.refused.get() > 0, || {
            format!(
                "R8: the kernel has a request for port {} after its removal",
                port.id
            )
        });
    }

    /// Returns `true` if no call or action is pending.
    pub(crate) fn is_quiet(&self) -> bool {
        let ports = self.slots.borrow().iter().any(|slot| self.is_owed(&slot.port));
        let halves = self
            .owed_halves
            .borrow()
            .iter()
            .any(|owed| owed.since.get().is_some() || owed.idle.get());
        let alarms = self
            .owed_alarms
            .borrow()
            .iter()
            .any(|armed| !armed.dropped.get() && armed.deadline.get().is_some_and(|at| at != u64::MAX));
        let is_done = self.jobs.borrow().is_empty() && self.submissions.borrow().is_empty();
        !ports && !halves && !alarms && is_done && self.agenda.borrow().is_empty()
    }

    /// Returns the pending calls and actions, for the message of a failed run.
    pub(crate) fn debts(&self) -> String {
        let slots = self.slots.borrow();
        let ports: Vec<_> = slots
            .iter()
            .filter(|slot| self.is_owed(&slot.port))
            .map(|slot| {
                let port = &slot.port;
                (
                    port.id,
                    self.kernel.borrow().files[port.file].readiness(),
                    port.interest.get(),
                )
            })
            .collect::<Vec<(u32, Readiness, Interest)>>();
        let armed: Vec<_> = self
            .owed_alarms
            .borrow()
            .iter()
            .filter(|armed| !armed.dropped.get())
            .map(|armed| (armed.is_virtual, armed.deadline.get()))
            .collect();
        format!(
            "ports {ports:?}, {} jobs, {} operations, timers {armed:?}, {} actions to come",
            self.jobs.borrow().len(),
            self.submissions.borrow().len(),
            self.agenda.borrow().len()
        )
    }
}
