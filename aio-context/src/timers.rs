//! [`Timers`]: a context's part of its timers.
//!
//! They are [`TimerSets`]. A context adds two functions: it watches for changes of the wall clock while it
//! waits for a timer of that clock, and wakes when the virtual clock is changed.
//!
//! # Changes of the wall clock (rule T6)
//! A wait for a deadline of the wall clock has a timeout, which the kernel measures on the monotonic clock. When the wall clock is
//! set, or a suspended machine resumes, that timeout is wrong, and the timer would fire hours late. So before a loop waits for a
//! wall timer, its backend watches a descriptor that becomes readable at such a change ([`ClockChanges`]).
//!
//! The alternative is to cap such waits. It costs a wake-up each second for as long as a wall timer is armed,
//! and the timer is up to a second late. It is the fallback if the descriptor cannot be created, or the
//! backend refuses it.
//!
//! A loop without wall timers makes no system call for this. The first wait with one makes three: two for the timerfd, one to watch
//! it. Later waits and arms make none. The descriptor stays watched ([`OnDemand`]) when the last wall timer is cancelled, since programs
//! that arm a timer for each request and cancel it would otherwise add and remove it all the time. The first change of the clock
//! that finds no wall timer armed closes it; so does the drop of the context.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aio_backend::{OnDemand, Readiness};
use aio_notify::{ClockChanges, Mailbox, Slot};
use aio_timers::{Clock, Moment, Subscription, TimerSets, VirtualClock};

use crate::any_backend::LoopBackend;
use crate::clock_id::ClockId;
use crate::iteration::concerns::Concerns;

/// The longest wait for a wall timer while changes of the clock are not reported.
const LONGEST_UNREPORTED: Duration = Duration::from_secs(1);

/// The position of the wall clock.
const WALL: usize = ClockId::Wall as usize;

pub(crate) type SharedClock = Arc<dyn Clock + Send + Sync>;

/// The timers of one clock, with the mailbox whose loop waits for them.
pub(crate) type ClockTimers<F, J> = aio_timers::ClockTimers<F, SharedClock, Arc<Mailbox<Slot, J>>>;

/// A handle to a timer of one clock.
pub(crate) type TimerHandle<F, J> = aio_timers::TimerHandle<F, SharedClock, Arc<Mailbox<Slot, J>>>;

/// The timers of a context: those of each clock, and the wall clock's changes.
pub(crate) struct Timers<F, J: ?Sized> {
    /// The same clocks as in the sets. A loop that reads them here while it polls saves one indirection.
    clocks: [SharedClock; 3],
    sets: TimerSets<F, SharedClock, Arc<Mailbox<Slot, J>>, 3>,
    /// The descriptor of the changes. After a failure, waits are capped until no wall timer is armed.
    wall_changes: OnDemand<ClockChanges>,
    has_warned: Cell<bool>,
    virtual_clock: Arc<VirtualClock>,
    /// Ends with the context, because a clock that outlives the context must not keep its eventfd.
    _virtual_changes: Subscription,
    /// Set if time passes only when the loop waits for it.
    is_simulated: bool,
}

impl<F, J: ?Sized + Send + 'static> Timers<F, J> {
    /// Makes the timers. Changes of the virtual clock wake the loop.
    pub(crate) fn new(
        monotonic: SharedClock,
        wall: SharedClock,
        virtual_clock: Arc<VirtualClock>,
        wall_changes: OnDemand<ClockChanges>,
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
            has_warned: Cell::new(false),
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

    /// Returns `true` if the loop's own clock is a simulated one.
    #[inline]
    pub(crate) fn is_simulated(&self) -> bool {
        self.is_simulated
    }

    pub(crate) fn now(&self, id: ClockId) -> Moment {
        self.clock(id).now()
    }

    /// Returns `true` if timers may be armed.
    #[inline]
    pub(crate) fn has_armed(&self) -> bool {
        self.sets.has_armed()
    }

    /// Returns the time until the earliest deadline of a running clock. A clock without armed timers is not
    /// read.
    ///
    /// If a wall timer is armed, a change of that clock ends waits from now on.
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
        // The watch comes first: a later change ends the wait, and the clock's time includes an earlier one.
        wall.time_left_within(|| {
            let watched = self.wall_changes.watch(backend);
            if watched.inspect_err(|why| self.warn(why)).unwrap_or(false) {
                Duration::MAX
            } else {
                LONGEST_UNREPORTED
            }
        })
    }

    /// Reads the descriptor that reports changes of the wall clock, so that the same change is not reported
    /// again. The timers of this iteration are fired later, by the clock's time then.
    #[cold]
    pub(crate) fn wall_changed(&self, readiness: Readiness, backend: &LoopBackend) {
        let is_armed = self.of(ClockId::Wall).next_deadline().is_some();
        let read = ClockChanges::accept;
        let accepted = self.wall_changes.accept(backend, readiness, is_armed, read);
        let _warned = accepted.inspect_err(|why| self.warn(why));
    }

    fn warn(&self, why: &io::Error) {
        if !self.has_warned.replace(true) {
            tracing::warn!(
                error = %why,
                "changes of the wall clock cannot be watched; waits for its timers are limited to one second"
            );
        }
    }

    /// Fires the due timers, clock by clock: `fire_due` fires those of one clock and returns `true` if there
    /// were any (rule T4: each clock is read once). Returns `true` if there were any.
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

    /// The size of a timer besides its entry in the set and the values that its callback has captured.
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
