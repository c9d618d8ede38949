//! [`Timers`]: a context's part of its timers.
//!
//! The timers of a clock are a [`TimerSet`], which fires them. What a context adds: it ends a wait that is about to begin and has
//! become too long, reads only clocks that have timers armed, and watches for changes of the wall clock while it waits for one
//! of its timers.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aio_backend::Readiness;
use aio_notify::{Mailbox, Slot};
use aio_timers::{Clock, Moment, Subscription, TimerSet, VirtualClock};

use crate::any_backend::AnyBackend;
use crate::clock_id::ClockId;
use crate::wall::WallChanges;

pub(crate) type SharedClock = Arc<dyn Clock + Send + Sync>;

/// The timers of one clock. The context owns it together with the handles.
pub(crate) struct ClockTimers<F, J: ?Sized> {
    pub(crate) clock: ClockId,
    bit: u32,
    pub(crate) set: TimerSet<F, SharedClock>,
    /// The [bits](ClockId::bit) of the clocks that may have timers armed: set by arming, cleared by an iteration that sees none.
    /// All clocks of a context share it.
    in_use: Rc<Cell<u32>>,
    waker: Arc<Mailbox<Slot, J>>,
}

impl<F, J: ?Sized> ClockTimers<F, J> {
    #[inline]
    pub(crate) fn use_clock(&self) {
        self.in_use.set(self.in_use.get() | self.bit);
    }

    /// Ends a wait whose timeout was decided before a timer was armed: that of a foreign loop, or of an iteration that is polling.
    /// The home thread decides about any other wait later.
    #[inline]
    pub(crate) fn end_wait(&self) {
        self.waker.notify_if_about_to_wait();
    }
}

/// The timers of a context: those of each clock, and the wall clock's changes.
pub(crate) struct Timers<F, J: ?Sized> {
    /// As in the sets: here they are one step nearer to a loop that reads them while it polls.
    clocks: [SharedClock; 3],
    by_clock: [Rc<ClockTimers<F, J>>; 3],
    /// As in each of them.
    in_use: Rc<Cell<u32>>,
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
    ) -> Self {
        let is_simulated = monotonic.pass(Duration::ZERO);
        let clocks: [SharedClock; 3] = [monotonic, wall, virtual_clock.clone()];
        let woken = waker.clone();
        let virtual_changes = virtual_clock.subscribe(move || woken.interrupt());
        let in_use = Rc::new(Cell::new(0));
        let timers = |clock: ClockId| {
            Rc::new(ClockTimers {
                clock,
                bit: clock.bit(),
                set: TimerSet::new(clocks[clock as usize].clone()),
                in_use: in_use.clone(),
                waker: waker.clone(),
            })
        };
        Self {
            by_clock: ClockId::ALL.map(timers),
            clocks,
            in_use,
            wall_changes,
            virtual_clock,
            _virtual_changes: virtual_changes,
            is_simulated,
        }
    }

    pub(crate) fn of(&self, clock: ClockId) -> &Rc<ClockTimers<F, J>> {
        &self.by_clock[clock as usize]
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

    /// The timers of the clocks that are in use now.
    #[inline]
    fn in_use(&self) -> impl Iterator<Item = &Rc<ClockTimers<F, J>>> {
        let mut bits = self.in_use.get();
        std::iter::from_fn(move || {
            if bits == 0 {
                return None;
            }
            let lowest = bits.trailing_zeros();
            bits &= bits - 1;
            self.by_clock.get(lowest as usize)
        })
    }

    /// Whether timers may be armed.
    #[inline]
    pub(crate) fn has_armed(&self) -> bool {
        self.in_use.get() != 0
    }

    /// How long until the earliest deadline of a running clock. No clock is read if no timer of its is armed.
    ///
    /// If a wall timer is armed, a change of that clock ends a wait from now on.
    pub(crate) fn time_left(&self, backend: &RefCell<AnyBackend>) -> Option<Duration> {
        let time_left = |timers: &Rc<ClockTimers<F, J>>| match timers.clock {
            ClockId::Wall => self.wall_time_left(backend),
            _ => timers.set.time_left(),
        };
        self.in_use().filter_map(time_left).min()
    }

    #[cold]
    fn wall_time_left(&self, backend: &RefCell<AnyBackend>) -> Option<Duration> {
        let wall = &self.of(ClockId::Wall).set;
        match wall.next_deadline() {
            None => {
                self.wall_changes.forget_failure();
                return None;
            }
            Some(Moment::NEVER) => return None,
            Some(_) => {}
        }
        // Watched first: a change after this ends the wait, one before is seen in what the clock shows.
        let longest = self.wall_changes.watch(backend);
        Some(wall.time_left()?.min(longest))
    }

    /// Takes note of an event of the descriptor that reports changes of the wall clock. The timers of this iteration are fired
    /// later, by what the clock shows then.
    #[cold]
    pub(crate) fn wall_changed(&self, readiness: Readiness, backend: &RefCell<AnyBackend>) {
        let is_armed = self.of(ClockId::Wall).set.next_deadline().is_some();
        self.wall_changes.accept(readiness, is_armed, backend);
    }

    /// Fires what is due, clock by clock: `fire_due` fires the timers of one and returns whether there were any (rule T4: each clock
    /// is read once). Returns whether there were any.
    #[inline]
    pub(crate) fn run(&self, fire_due: impl FnMut(&Rc<ClockTimers<F, J>>) -> bool) -> bool {
        self.has_armed() && self.run_armed(fire_due)
    }

    #[inline(never)]
    fn run_armed(&self, mut fire_due: impl FnMut(&Rc<ClockTimers<F, J>>) -> bool) -> bool {
        let mut has_fired = false;
        for timers in self.in_use() {
            if timers.set.next_deadline().is_some() {
                has_fired |= fire_due(timers);
            } else {
                self.in_use.set(self.in_use.get() & !timers.bit);
                if timers.clock == ClockId::Wall {
                    self.wall_changes.forget_failure();
                }
            }
        }
        has_fired
    }
}

impl<F, J: ?Sized> Drop for Timers<F, J> {
    /// Drops the callbacks. Handles keep the sets themselves, and a callback may keep a handle.
    fn drop(&mut self) {
        for timers in &self.by_clock {
            timers.set.clear();
        }
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
        let in_use = || cx.0.timers.in_use.get();
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
