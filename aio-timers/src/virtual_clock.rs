//! [`VirtualClock`]: runs with another clock, and can be stopped, set and warped.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;
use std::sync::PoisonError;

use crate::sync::{Mutex, MutexGuard, faulty};
use crate::{Clock, Moment};

/// A clock that runs with a source clock, and can be stopped, set and warped: the time of a virtual machine or a simulation.
///
/// Any thread may read and change it. After each change it calls its subscribers, on the thread that made the change, so that a
/// loop that waits for a deadline can compute its timeout again.
///
/// ```
/// use aio_timers::{Clock, ManualClock, VirtualClock};
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// let source = Arc::new(ManualClock::new());
/// let clock = VirtualClock::new(source.clone());
/// let start = clock.now();
/// clock.stop();
/// source.advance(Duration::from_secs(5));
/// assert_eq!(clock.now(), start);
/// clock.warp(Duration::from_secs(60));
/// assert_eq!(clock.now().since(start), Duration::from_secs(60));
/// ```
pub struct VirtualClock {
    source: Arc<dyn Clock + Send + Sync>,
    state: Mutex<State>,
    subscribers: Mutex<Subscribers>,
}

type Subscriber = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct Subscribers {
    all: Vec<(u64, Subscriber)>,
    next: u64,
}

/// A function that a [`VirtualClock`] calls after every change, until this value is dropped. It may be called once more by a
/// change that another thread is making during the drop.
///
/// ```
/// use aio_timers::{ManualClock, VirtualClock};
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU32, Ordering};
///
/// let clock = Arc::new(VirtualClock::new(Arc::new(ManualClock::new())));
/// let changes = Arc::new(AtomicU32::new(0));
/// let counter = changes.clone();
/// let subscription = clock.subscribe(move || {
///     counter.fetch_add(1, Ordering::Relaxed);
/// });
/// clock.stop();
/// drop(subscription);
/// clock.start();
/// assert_eq!(changes.load(Ordering::Relaxed), 1);
/// ```
#[must_use = "dropped at once, it is never called"]
pub struct Subscription {
    clock: Arc<VirtualClock>,
    number: u64,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut subscribers = self.clock.subscribers();
        let index = subscribers
            .all
            .iter()
            .position(|(number, _)| *number == self.number);
        let removed = index.map(|index| subscribers.all.swap_remove(index));
        drop(subscribers);
        drop(removed); // its drop may use the clock
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug)]
enum State {
    Stopped {
        at: Moment,
    },
    /// Shows `base` when the source shows `since`, and advances with it.
    Running {
        base: Moment,
        since: Moment,
    },
}

impl VirtualClock {
    /// Creates a clock that starts at one nanosecond and runs with `source`.
    #[must_use]
    pub fn new(source: Arc<dyn Clock + Send + Sync>) -> Self {
        // As for the system's clock: no time is `Moment::ZERO`, the deadline that is always due.
        let running = State::Running {
            base: Moment::from_nanos(1),
            since: source.now(),
        };
        Self {
            source,
            state: Mutex::new(running),
            subscribers: Mutex::default(),
        }
    }

    /// Stops the clock. No effect if it is stopped.
    pub fn stop(&self) {
        self.change(|now, _, _| State::Stopped { at: now });
    }

    /// Starts the clock again, from the time that it shows. No effect if it runs.
    pub fn start(&self) {
        self.change(|now, source, _| State::Running {
            base: now,
            since: source,
        });
    }

    /// Advances the clock by `duration` at once, running or not.
    pub fn warp(&self, duration: Duration) {
        self.jump(|now| now.saturating_add(duration));
    }

    /// Sets the clock to `moment`, earlier or later, running or not.
    pub fn set(&self, moment: Moment) {
        self.jump(|_| moment);
    }

    /// Calls `changed` after every change, on the thread that makes it, until the subscription is dropped. `changed` must not
    /// change this clock.
    pub fn subscribe(self: &Arc<Self>, changed: impl Fn() + Send + Sync + 'static) -> Subscription {
        let mut subscribers = self.subscribers();
        let number = subscribers.next;
        subscribers.next += 1;
        subscribers.all.push((number, Arc::new(changed)));
        drop(subscribers);
        Subscription {
            clock: self.clone(),
            number,
        }
    }

    fn jump(&self, to: impl FnOnce(Moment) -> Moment) {
        self.change(|now, source, state| match state {
            State::Running { .. } => State::Running {
                base: to(now),
                since: source,
            },
            State::Stopped { .. } => State::Stopped { at: to(now) },
        });
    }

    /// Replaces the state and notifies the subscribers.
    fn change(&self, next: impl FnOnce(Moment, Moment, State) -> State) {
        faulty!(NotifiedBeforeChange, self.replace(next); self.notify());
    }

    /// Replaces the state in one atomic step. `next` computes it from the time shown, the source's time and the state.
    fn replace(&self, next: impl FnOnce(Moment, Moment, State) -> State) {
        faulty!(ReplacedInTwoSteps: return *self.state() = self.compute(*self.state(), next));
        let mut state = self.state();
        *state = self.compute(*state, next);
    }

    fn compute(&self, state: State, next: impl FnOnce(Moment, Moment, State) -> State) -> State {
        let source = self.source.now();
        next(state.at(source), source, state)
    }

    fn notify(&self) {
        let subscribers = self.subscribers().all.clone();
        for (_, changed) in subscribers {
            changed();
        }
    }

    fn subscribers(&self) -> MutexGuard<'_, Subscribers> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A subscriber that panics does so after the change is made.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn at(self, source: Moment) -> Moment {
        match self {
            Self::Stopped { at } => at,
            Self::Running { base, since } => base.saturating_add(source.since(since)),
        }
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Moment {
        let state = *self.state();
        match state {
            State::Stopped { at } => at,
            State::Running { .. } => state.at(self.source.now()),
        }
    }

    fn is_running(&self) -> bool {
        matches!(*self.state(), State::Running { .. })
    }

    fn pass(&self, duration: Duration) -> bool {
        self.source.pass(duration)
    }
}

impl fmt::Debug for VirtualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtualClock")
            .field("state", &*self.state())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::ManualClock;

    const TICK: Duration = Duration::from_nanos(100);

    #[test]
    fn t2_stops_starts_sets_and_warps() {
        let source = Arc::new(ManualClock::new());
        let clock = VirtualClock::new(source.clone());
        let start = clock.now();
        source.advance(TICK);
        assert_eq!(clock.now().since(start), TICK);
        clock.stop();
        source.advance(TICK);
        assert_eq!((clock.now().since(start), clock.is_running()), (TICK, false));
        clock.warp(TICK);
        assert_eq!(clock.now().since(start), TICK * 2);
        clock.start();
        clock.start();
        source.advance(TICK);
        assert_eq!((clock.now().since(start), clock.is_running()), (TICK * 3, true));
        clock.set(Moment::from_nanos(5));
        source.advance(TICK);
        assert_eq!(clock.now(), Moment::from_nanos(105));
    }

    #[test]
    fn t2_every_change_wakes_the_subscribers() {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        let clock = Arc::new(VirtualClock::new(Arc::new(ManualClock::new())));
        let subscription = clock.subscribe(|| {
            CALLS.fetch_add(1, Ordering::Relaxed);
        });
        clock.stop();
        clock.start();
        clock.warp(TICK);
        clock.set(Moment::ZERO);
        assert_eq!(CALLS.load(Ordering::Relaxed), 4);
        let other = clock.subscribe(|| {
            CALLS.fetch_add(10, Ordering::Relaxed);
        });
        drop(subscription);
        clock.stop();
        assert_eq!(
            CALLS.load(Ordering::Relaxed),
            14,
            "only the subscriber that is left"
        );
        assert!(std::format!("{other:?}").contains("Stopped"));
        drop(other);
        assert_eq!(Arc::strong_count(&clock), 1);
    }

    #[test]
    fn t2_a_subscriber_sees_the_change_until_its_subscription_ends() {
        let clock = Arc::new(VirtualClock::new(Arc::new(ManualClock::new())));
        let [seen, later] = [(); 2].map(|()| Arc::new(Mutex::new(Vec::new())));
        let subscribe = |seen: &Arc<Mutex<Vec<bool>>>| {
            let (weak, seen) = (Arc::downgrade(&clock), seen.clone());
            clock.subscribe(move || {
                let runs = weak.upgrade().is_some_and(|clock| clock.is_running());
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(runs);
            })
        };
        let _first = subscribe(&seen);
        let second = subscribe(&later);
        clock.stop();
        drop(second);
        clock.start();
        let copy = |seen: &Mutex<Vec<bool>>| seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        assert_eq!(
            (copy(&seen), copy(&later)),
            ([false, true].into(), [false].into())
        );
    }

    #[test]
    fn t2_a_stopped_clock_that_is_warped_stays_stopped() {
        let source = Arc::new(ManualClock::new());
        let clock = VirtualClock::new(source.clone());
        clock.stop();
        clock.warp(TICK);
        clock.set(Moment::from_nanos(77));
        source.advance(TICK);
        assert_eq!((clock.now(), clock.is_running()), (Moment::from_nanos(77), false));
        assert!(std::format!("{clock:?}").contains("Stopped"));
    }

    #[test]
    fn t2_a_jump_at_the_same_time_does_not_start_a_stopped_clock() {
        let clock = VirtualClock::new(Arc::new(ManualClock::new()));
        let done = core::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    clock.warp(TICK);
                }
            });
            let started_again = (0..20_000).any(|_| {
                clock.start();
                clock.stop();
                (0..4).any(|_| clock.is_running())
            });
            done.store(true, Ordering::Relaxed);
            assert!(
                !started_again,
                "a jump has started the clock after it was stopped"
            );
        });
    }

    #[test]
    fn t2_time_passes_as_on_the_source() {
        let source = Arc::new(ManualClock::new());
        let simulated = VirtualClock::new(source.clone());
        assert!(simulated.pass(TICK));
        assert_eq!(source.now(), Moment::ZERO.saturating_add(TICK));
        let real = VirtualClock::new(Arc::new(crate::Monotonic::new()));
        assert!(!real.pass(TICK));
    }
}
