//! [`Interval`]: a callback at a fixed rate.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use aio_context::{ClockId, Context, GroupId, Moment, Registration, Timer};

use crate::ticks::{Member, passed};

/// Calls back at a fixed rate. Dropping it ends it.
///
/// Pauses have no effect on it, unless it was made as a member of a group, by [`new_in`](Self::new_in).
///
/// The deadlines are whole periods after the start, independent of the delay and the duration of callbacks,
/// so the rate does not drift. If a callback is late by whole periods, it is called once for all of them,
/// with their number.
///
/// ```
/// use std::time::Duration;
/// use aio_context::{Context, Wait};
/// use aio_sources::Interval;
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// let interval = Interval::new(&cx, Duration::from_millis(1), |_cx, ticks| println!("{ticks} ms more"));
/// assert!(cx.poll(Wait::Block)?);
/// # drop(interval); Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "dropped at once, it never ticks"]
pub struct Interval {
    timer: Rc<Timer>,
    period: Duration,
    /// The membership of an interval that can be paused.
    _membership: Option<Registration>,
}

impl Interval {
    /// Calls `tick` every `period`, for the first time one period from now. Its argument is the number of
    /// deadlines that have passed since the previous call: 1 unless the loop was late.
    ///
    /// `tick` may do anything, including a poll: if it polls for longer than a period, it is called again
    /// inside that poll. If it panics, the interval goes on.
    ///
    /// # Panics
    /// If `period` is zero.
    pub fn new(cx: &Context, period: Duration, tick: impl Fn(&Context, u64) + 'static) -> Self {
        Self::on_clock(cx, ClockId::Monotonic, period, tick)
    }

    /// As [`new`](Self::new), on any clock. If the clock is set forward, one call covers the deadlines that
    /// it has passed; if it is set back, the next deadline stays.
    ///
    /// # Panics
    /// If `period` is zero.
    pub fn on_clock(
        cx: &Context,
        clock: ClockId,
        period: Duration,
        tick: impl Fn(&Context, u64) + 'static,
    ) -> Self {
        Self::made(cx, None, clock, period, tick)
    }

    /// As [`new`](Self::new), as a member of `group`, which can be [paused](Context::pause). One call after a
    /// pause covers the deadlines that have passed during it; they end no wait. A paused interval has no
    /// [deadline](Self::deadline).
    ///
    /// # Panics
    /// If `period` is zero, or the group was not made by this context.
    pub fn new_in(
        cx: &Context,
        group: GroupId,
        period: Duration,
        tick: impl Fn(&Context, u64) + 'static,
    ) -> Self {
        Self::on_clock_in(cx, group, ClockId::Monotonic, period, tick)
    }

    /// As [`new_in`](Self::new_in), on any clock, as [`on_clock`](Self::on_clock).
    ///
    /// # Panics
    /// If `period` is zero, or the group was not made by this context.
    pub fn on_clock_in(
        cx: &Context,
        group: GroupId,
        clock: ClockId,
        period: Duration,
        tick: impl Fn(&Context, u64) + 'static,
    ) -> Self {
        Self::made(cx, Some(group), clock, period, tick)
    }

    fn made(
        cx: &Context,
        group: Option<GroupId>,
        clock: ClockId,
        period: Duration,
        tick: impl Fn(&Context, u64) + 'static,
    ) -> Self {
        assert!(!period.is_zero(), "the period of an interval cannot be zero");
        let first = cx.now(clock).saturating_add(period);
        let due = Rc::new(Cell::new(first));
        let own = due.clone();
        let fire = move |cx: &Context, timer: &Timer| {
            let (ticks, next) = passed(due.get(), cx.now(clock), period);
            // Before the call, for polls inside it, for pauses and for panics.
            due.set(next);
            timer.arm_at(next);
            tick(cx, ticks);
        };
        let timer = Rc::new(cx.timer(clock, fire).armed_at(first));
        let member = group.map(|group| {
            let source = cx.source("interval").group(group);
            source.register(Member {
                timer: timer.clone(),
                due: own,
            })
        });
        Self {
            timer,
            period,
            _membership: member,
        }
    }

    /// Returns the period.
    #[must_use]
    pub fn period(&self) -> Duration {
        self.period
    }

    /// Returns the next deadline. [`Moment::ZERO`] while the interval is due; `None` during a pause and after
    /// the context was dropped.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        self.timer.deadline()
    }
}
