//! [`Timer`] and [`Context::after`]: callbacks at a moment of one of three clocks.
//!
//! A timer is a handle to one of the timers of its clock (`timers.rs`).

use std::any::type_name;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aio_timers::{Moment, TimerId, VirtualClock};

use crate::clock_id::ClockId;
use crate::context::{Context, Job};
use crate::macros::impl_debug;
use crate::timers;

/// The timers of one clock of a context.
pub(crate) type ClockTimers = timers::ClockTimers<Fire, Job>;
type Handle = timers::TimerHandle<Fire, Job>;

/// A callback at a deadline; dropping it cancels.
///
/// [`Context::timer`] makes one. It is used on the home thread; another thread arms one through
/// [`Remote::run`](crate::Remote::run). The callback may use the timer, poll again, and drop the timer.
/// Dropping the context drops the callbacks of its timers; their handles have no effect then.
///
/// ```
/// use aio_context::{ClockId, Context, Wait};
/// use std::time::Duration;
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// // Periodic: the callback arms its timer again.
/// let tick = cx
///     .timer(ClockId::Monotonic, |_cx, timer| timer.arm_after(Duration::from_millis(100)))
///     .armed_after(Duration::from_millis(1));
/// assert!(cx.poll(Wait::Block)?);
/// tick.cancel();
/// assert!(tick.deadline().is_none());
/// # Ok(()) }
/// ```
#[doc(alias = "QEMUTimer")]
#[must_use = "dropped at once, it never fires"]
pub struct Timer(Handle);

pub(crate) type Fire = Box<dyn Callback>;

/// The callback of a timer. Its name takes no space, unless it was given one.
pub(crate) trait Callback {
    fn call(&self, cx: &Context, timer: &Timer);
    /// Returns the name for messages.
    fn name(&self) -> &'static str;
}

impl<F: Fn(&Context, &Timer)> Callback for F {
    #[inline]
    fn call(&self, cx: &Context, timer: &Timer) {
        self(cx, timer);
    }
    /// Returns the name of the function that contains the closure.
    fn name(&self) -> &'static str {
        type_name::<F>()
    }
}

/// A callback with another name.
struct Named {
    name: &'static str,
    callback: Fire,
}

impl Callback for Named {
    fn call(&self, cx: &Context, timer: &Timer) {
        self.callback.call(cx, timer);
    }
    fn name(&self) -> &'static str {
        self.name
    }
}

impl Timer {
    /// Fires once, `delay` from now. A delay of zero fires in the next iteration.
    #[doc(alias = "timer_mod")]
    pub fn arm_after(&self, delay: Duration) {
        end_wait_if(self.0.arm_after(delay), self.0.timers());
    }

    /// Fires once, at `deadline`. A deadline in the past fires in the next iteration, [`Moment::NEVER`] never.
    #[doc(alias = "timer_mod_ns")]
    pub fn arm_at(&self, deadline: Moment) {
        end_wait_if(self.0.arm_at(deadline), self.0.timers());
    }

    /// Fires at `deadline`, unless it is armed for an earlier moment.
    #[doc(alias = "timer_mod_anticipate_ns")]
    pub fn anticipate(&self, deadline: Moment) {
        end_wait_if(self.0.anticipate(deadline), self.0.timers());
    }

    /// Disarms the timer. Has no effect if it is not armed.
    #[doc(alias = "timer_del")]
    pub fn cancel(&self) {
        self.0.cancel();
    }

    /// Returns the deadline; `None` if the timer is not armed, [`Moment::ZERO`] if it is due and about to
    /// fire.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        self.0.deadline()
    }

    /// Returns the clock that the timer follows.
    #[must_use]
    pub fn clock(&self) -> ClockId {
        ClockId::ALL[self.0.timers().position()]
    }
}

impl_debug!(Timer, "Timer": |it| clock = it.clock(), deadline = it.deadline());

/// Ends a wait if a newly armed timer makes it `shorter` than the timeout that was already decided: that of a
/// foreign loop, or of an iteration that is polling. The home thread decides any other timeout later.
#[inline]
fn end_wait_if(shorter: bool, timers: &ClockTimers) {
    if shorter {
        timers.beside().notify_if_about_to_wait();
    }
}

/// Fires the timers of one clock that are due. Returns whether there were any.
pub(crate) fn fire_due(timers: &Rc<ClockTimers>, cx: &Context) -> bool {
    let call = |fire: &Fire, timer: &Timer| {
        cx.call_named("timer", || fire.name(), |cx| fire.call(cx, timer));
    };
    timers.fire_lent(Timer, |timer| &mut timer.0, call)
}

/// A timer before it exists: chooses whether the [`Timer`] begins armed. Made by [`Context::timer`].
///
/// A timer that is not kept never fires. The compiler warns of one that is not kept:
///
/// ```compile_fail
/// #![deny(unused_must_use)]
/// # use aio_context::{ClockId, Context};
/// # use std::time::Duration;
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// cx.timer(ClockId::Monotonic, |_, _| {}).armed_after(Duration::from_millis(1));
/// # Ok(()) }
/// ```
/// ```
/// #![deny(unused_must_use)]
/// # use aio_context::{ClockId, Context};
/// # use std::time::Duration;
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// let _timer = cx.timer(ClockId::Monotonic, |_, _| {}).armed_after(Duration::from_millis(1));
/// # Ok(()) }
/// ```
///
/// The builder has no methods that arm a kept timer again, so that this mistake is noticed, too:
///
/// ```compile_fail,E0599
/// # use aio_context::{ClockId, Context};
/// # use std::time::Duration;
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// cx.timer(ClockId::Monotonic, |_, _| {}).arm_after(Duration::from_millis(1));
/// # Ok(()) }
/// ```
///
/// To run something once, [`Context::after`] needs nothing to be kept.
#[must_use = "it makes no timer before it is `armed_after`, `armed_at` or `disarmed`"]
pub struct TimerBuilder<'cx> {
    cx: &'cx Context,
    clock: ClockId,
    fire: Fire,
}

impl TimerBuilder<'_> {
    /// Gives the timer a name for messages about it, such as that its callback is
    /// [slow](Context::set_slow_callback_limit). Without this call it has the name of the function that
    /// contains the closure, which all closures of that function share.
    pub fn named(mut self, name: &'static str) -> Self {
        let callback = self.fire;
        self.fire = Box::new(Named { name, callback });
        self
    }

    /// Returns the timer, not armed.
    pub fn disarmed(self) -> Timer {
        Timer(self.cx.0.timers.of(self.clock).add(self.fire))
    }

    /// Returns the timer, armed as by [`Timer::arm_after`].
    pub fn armed_after(self, delay: Duration) -> Timer {
        let timer = self.disarmed();
        timer.arm_after(delay);
        timer
    }

    /// Returns the timer, armed as by [`Timer::arm_at`].
    pub fn armed_at(self, deadline: Moment) -> Timer {
        let timer = self.disarmed();
        timer.arm_at(deadline);
        timer
    }
}

impl_debug!(TimerBuilder<'_>, "TimerBuilder": |it| clock = it.clock);

/// A call that [`Context::after`] has scheduled. [`cancel`](Self::cancel) cancels it; dropping this value
/// changes nothing.
///
/// ```
/// use aio_context::{Context, Wait};
/// use std::time::Duration;
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// let timeout = cx.after(Duration::from_secs(30), |_cx| println!("no answer"));
/// assert!(timeout.cancel());
/// assert!(!timeout.cancel());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Delayed {
    timers: Rc<ClockTimers>,
    id: TimerId,
}

impl Delayed {
    /// Drops the call without running it. Returns `false` if it has run, is running, was cancelled, or its
    /// context is gone.
    pub fn cancel(&self) -> bool {
        self.timers.remove(self.id).is_some()
    }

    /// Returns the moment at which the call runs; `None` if it has run, is running, was cancelled, or its
    /// context is gone.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        self.timers.deadline(self.id)
    }
}

impl_debug!(Delayed, "Delayed": |it| deadline = it.deadline());

/// The callback of [`Context::after`].
struct Once<F>(Cell<Option<F>>);

impl<F: FnOnce(&Context)> Callback for Once<F> {
    fn call(&self, cx: &Context, timer: &Timer) {
        if let Some(call) = self.0.take() {
            // Removed before it runs, so that it is gone even if the call panics.
            drop(timer.0.remove());
            call(cx);
        }
    }
    fn name(&self) -> &'static str {
        type_name::<F>()
    }
}

impl Context {
    /// Returns the present time of `clock`.
    #[must_use]
    pub fn now(&self, clock: ClockId) -> Moment {
        self.0.timers.now(clock)
    }

    /// Returns the clock behind [`ClockId::Virtual`], to stop, start, set and warp it. Each of these changes
    /// wakes the loop.
    #[must_use]
    pub fn virtual_clock(&self) -> Arc<VirtualClock> {
        self.0.timers.virtual_clock()
    }

    /// Makes a timer on `clock` that calls `fire` on the home thread when it is due. The builder chooses
    /// whether it begins armed.
    ///
    /// `fire` gets the timer, to arm it again.
    #[doc(alias = "aio_timer_new")]
    pub fn timer(&self, clock: ClockId, fire: impl Fn(&Self, &Timer) + 'static) -> TimerBuilder<'_> {
        TimerBuilder {
            cx: self,
            clock,
            fire: Box::new(fire),
        }
    }

    /// Runs `call` once on the home thread, `delay` from now on the monotonic clock; with a delay of zero in
    /// the next iteration.
    ///
    /// The returned value need not be kept: it only serves to cancel the call. If the context is dropped
    /// first, `call` is dropped without having run.
    ///
    /// ```
    /// use aio_context::{Context, Wait};
    /// use std::time::Duration;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let cx = Context::new()?;
    /// let name = String::from("moved into the call");
    /// cx.after(Duration::from_millis(1), move |_cx| drop(name));
    /// assert!(cx.poll(Wait::Block)?);
    /// # Ok(()) }
    /// ```
    pub fn after(&self, delay: Duration, call: impl FnOnce(&Self) + 'static) -> Delayed {
        let timers = self.0.timers.of(ClockId::Monotonic).clone();
        let id = timers.insert(Box::new(Once(Cell::new(Some(call)))));
        end_wait_if(timers.arm(|set| set.arm_after(id, delay)), &timers);
        Delayed { timers, id }
    }
}
