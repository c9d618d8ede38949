//! [`Timers`]: a context's part of its timers.
//!
//! They are [`TimerSets`]. What a context adds: it watches for changes of the wall clock while it waits for one of its timers, and wakes
//! when the virtual clock is changed.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aio_backend::Readiness;
use aio_notify::{Mailbox, Slot};
use aio_timers::{Clock, Moment, Subscription, TimerSets, VirtualClock};

use crate::any_backend::LoopBackend;
use crate::clock_id::ClockId;
use crate::iteration::concerns::Concerns;
use crate::wall::WallChanges;

/// The position of the wall clock.
const WALL: usize = ClockId::Wall as usize;

pub(crate) type SharedClock = Arc<dyn Clock + Send + Sync>;

/// The timers of one clock, with the mailbox whose loop waits for them.
pub(crate) type ClockTimers<F, J> = aio_timers::ClockTimers<F, SharedClock, Arc<Mailbox<Slot, J>>>;

/// One of these timers.
pub(crate) type TimerHandle<F, J> = aio_timers::TimerHandle<F, SharedClock, Arc<Mailbox<Slot, J>>>;

/// The timers of a context: those of each clock, and the wall clock's changes.
pub(crate) struct Timers<F, J: ?Sized> {
    /// As in the sets: here they are one step nearer to a loop that reads them while it polls.
    clocks: [SharedClock; 3],
    sets: TimerSets<F, SharedClock, Arc<Mailbox<Slot, J>>, 3>,
    wall_changes: WallChanges,
    virtual_clock: Arc<VirtualClock>,
    /// A clock that outlives the context must not keep its eventfd.
    _virtual_changes: Subscription,
    /// Time passes only when the loop waits for it.
    is_simulated: bool,
}

impl<F, J: ?Sized + Send + 'static> Timers<F, J> {
    /// Changes of the virtual clock wake the loop.
    pub(crate) fn new(
        monotonic: SharedClock,
        wall: SharedClock,
        virtual_clock: Arc<VirtualClock>,
        wall_changes: WallChanges,
        waker: &Arc<Mailbox<Slot, J>>,
        concerns: &Concerns,
    ) -> Self {
        let is_simulated = monotonic.pass(Duration::ZERO);
        concerns.simulated().set(is_simulated);
        let clocks: [SharedClock; 3] = [monotonic, wall, virtual_clock.clone()];
        let woken = waker.clone();
        let virtual_changes = virtual_clock.subscribe(move || woken.interrupt());
        Self {
            sets: TimerSets::sharing(clocks.clone(), waker.clone(), concerns.word()),
            clocks,
            wall_changes,
            virtual_clock,
            _virtual_changes: virtual_changes,
            is_simulated,
        }
    }

    pub(crate) fn of(&self, clock: ClockId) -> &Rc<ClockTimers<F, J>> {
        self.sets.get(clock as usize)
    }

    pub(crate) fn clock(&self, id: ClockId) -> &(dyn Clock + Send + Sync) {
        &*self.clocks[id as usize]
    }

    pub(crate) fn virtual_clock(&self) -> Arc<VirtualClock> {
        self.virtual_clock.clone()
    }

    /// Whether the loop's own clock is a simulated one.
    #[inline]
    pub(crate) fn is_simulated(&self) -> bool {
        self.is_simulated
    }

    pub(crate) fn now(&self, id: ClockId) -> Moment {
        self.clock(id).now()
    }

    /// Whether timers may be armed.
    #[inline]
    pub(crate) fn has_armed(&self) -> bool {
        self.sets.has_armed()
    }

    /// How long until the earliest deadline of a running clock. No clock is read if no timer of its is armed.
    ///
    /// If a wall timer is armed, a change of that clock ends a wait from now on.
    pub(crate) fn time_left(&self, backend: &LoopBackend) -> Option<Duration> {
        let time_left = |timers: &Rc<ClockTimers<F, J>>| match timers.position() {
            WALL => self.wall_time_left(backend),
            _ => timers.time_left(),
        };
        self.sets.in_use().filter_map(time_left).min()
    }

    #[cold]
    fn wall_time_left(&self, backend: &LoopBackend) -> Option<Duration> {
        let wall = self.of(ClockId::Wall);
        if wall.next_deadline().is_none() {
            self.wall_changes.forget_failure();
        }
        // Watched first: a change after this ends the wait, one before is seen in what the clock shows.
        wall.time_left_within(|| self.wall_changes.watch(backend))
    }

    /// Takes note of an event of the descriptor that reports changes of the wall clock. The timers of this iteration are fired
    /// later, by what the clock shows then.
    #[cold]
    pub(crate) fn wall_changed(&self, readiness: Readiness, backend: &LoopBackend) {
        let is_armed = self.of(ClockId::Wall).next_deadline().is_some();
        self.wall_changes.accept(readiness, is_armed, backend);
    }

    /// Fires what is due, clock by clock: `fire_due` fires the timers of one and returns whether there were any (rule T4: each clock
    /// is read once). Returns whether there were any.
    #[inline]
    pub(crate) fn run(&self, fire_due: impl FnMut(&Rc<ClockTimers<F, J>>) -> bool) -> bool {
        self.sets.fire(fire_due, |clock| {
            if clock == WALL {
                self.wall_changes.forget_failure();
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timer::Fire;
    use crate::{Context, Timer, Wait};

    /// The size of a timer besides its entry in the set and what its callback has captured.
    #[test]
    fn p12_a_handle_and_a_callback_are_two_words_each() {
        assert_eq!(size_of::<Timer>(), 16);
        assert_eq!(size_of::<Option<Fire>>(), 16);
    }

    #[test]
    fn t1_an_iteration_reads_the_clocks_in_use_only() {
        let cx = Context::new().expect("there is a descriptor left");
        let in_use = || {
            let clocks = cx.0.timers.sets.in_use();
            clocks.fold(0, |bits, timers| bits | 1 << timers.position())
        };
        let poll = || cx.poll(Wait::NoBlock).expect("the backend works");
        let timers = ClockId::ALL.map(|clock| cx.timer(clock, |_, _| {}).disarmed());
        assert!(!poll() && in_use() == 0);
        for (timer, expected) in timers.iter().zip([0b001, 0b011, 0b111]) {
            timer.arm_at(Moment::NEVER);
            assert_eq!(in_use(), expected);
        }
        assert!(!poll() && in_use() == 0b111);
        timers[1].arm_at(Moment::ZERO);
        assert!(poll() && !poll());
        assert_eq!(in_use(), 0b101);
        timers.iter().for_each(Timer::cancel);
        assert!(!poll() && in_use() == 0);
    }
}
