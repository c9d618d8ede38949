//! [`sleep`], [`sleep_until`] and [`timeout`]: timers as futures.

use std::cell::RefCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context as Polling, Poll, Waker};
use std::time::Duration;

use aio_context::{ClockId, Context, Moment, Timer};

use crate::current::current;

/// Waits for `delay` on the monotonic clock of the running task's context. A delay of zero ends in the next iteration.
///
/// ```
/// use aio_context::Context;
/// use aio_executor::{ContextExt, sleep};
/// use std::time::Duration;
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// cx.block_on(async { sleep(Duration::from_millis(1)).await })
/// # }
/// ```
///
/// # Panics
/// Outside a task; see [`Sleep::new`].
pub fn sleep(delay: Duration) -> Sleep {
    let cx = current();
    let now = cx.now(ClockId::Monotonic);
    Sleep::new(&cx, ClockId::Monotonic, now.saturating_add(delay))
}

/// Waits until `clock` of the running task's context shows `deadline`; for ever if that is [`Moment::NEVER`].
///
/// ```
/// use aio_context::{ClockId, Context};
/// use aio_executor::{ContextExt, current, sleep_until};
/// use std::time::Duration;
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// cx.block_on(async {
///     let begin = current().now(ClockId::Monotonic);
///     for tick in 1..=3 {
///         let delay = Duration::from_millis(1) * tick;
///         sleep_until(ClockId::Monotonic, begin.saturating_add(delay)).await;
///     }
/// })
/// # }
/// ```
///
/// # Panics
/// Outside a task; see [`Sleep::new`].
pub fn sleep_until(clock: ClockId, deadline: Moment) -> Sleep {
    Sleep::new(&current(), clock, deadline)
}

/// The future of [`sleep`] and [`sleep_until`]; dropping it disarms the timer. It can be used again and again:
///
/// ```
/// use aio_context::{ClockId, Context, Moment};
/// use aio_executor::{ContextExt, Sleep};
/// use std::time::Duration;
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// let mut tick = Sleep::new(&cx, ClockId::Monotonic, Moment::ZERO);
/// for _ in 0..3 {
///     cx.block_on(&mut tick)?;
///     tick.reset(cx.now(ClockId::Monotonic).saturating_add(Duration::from_millis(1)));
/// }
/// # Ok(()) }
/// ```
#[must_use = "a future does nothing before it is awaited"]
pub struct Sleep {
    timer: Timer,
    /// The timer's callback owns it, so that no waker is left when the context is dropped.
    alarm: Weak<Alarm>,
}

/// The waker of a [`Sleep`], which the timer's callback wakes.
#[derive(Default)]
struct Alarm {
    waker: RefCell<Option<Waker>>,
}

impl Sleep {
    /// Waits until `clock` of `cx` shows `deadline`.
    ///
    /// Polling it after the context was dropped panics, because it could never end.
    pub fn new(cx: &Context, clock: ClockId, deadline: Moment) -> Self {
        let alarm = Rc::new(Alarm::default());
        let weak = Rc::downgrade(&alarm);
        let timer = cx.timer(clock, move |_, _| alarm.ring()).armed_at(deadline);
        Self { timer, alarm: weak }
    }

    /// Returns the moment at which it ends; `None` if it has ended.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        self.timer.deadline()
    }

    /// Ends at `deadline` instead, also if it has ended before.
    pub fn reset(&self, deadline: Moment) {
        self.timer.arm_at(deadline);
    }
}

impl Alarm {
    fn ring(&self) {
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Sleep {
    /// Drops the waker first, so that the end of the timer does not wake the task.
    fn drop(&mut self) {
        let waker = self.alarm.upgrade().and_then(|alarm| alarm.waker.take());
        drop(waker); // outside the borrow
    }
}

impl Drop for Alarm {
    /// Wakes the task when the context is dropped, because a task of another context must not wait for ever.
    fn drop(&mut self) {
        self.ring();
    }
}

impl Future for Sleep {
    type Output = ();

    /// # Panics
    /// If the context was dropped.
    fn poll(self: Pin<&mut Self>, polling: &mut Polling<'_>) -> Poll<()> {
        let alarm = self.alarm.upgrade();
        let Some(alarm) = alarm else {
            panic!("the context of a `Sleep` was dropped, so that it cannot end");
        };
        if self.timer.deadline().is_none() {
            return Poll::Ready(());
        }
        let mut waker = alarm.waker.borrow_mut();
        if !waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(polling.waker()))
        {
            let former = waker.replace(polling.waker().clone());
            drop(waker);
            drop(former);
        }
        Poll::Pending
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sleep").field(&self.timer).finish()
    }
}

/// The error of a [`timeout`] whose time is over.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use aio_context::Context;
/// use aio_executor::{ContextExt, Elapsed, sleep, timeout};
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// let outcome = cx.block_on(async {
///     timeout(Duration::from_millis(1), sleep(Duration::from_secs(3600))).await
/// })?;
/// match outcome {
///     Ok(()) => unreachable!("an hour is longer"),
///     Err(Elapsed) => {}
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time is over")
    }
}

impl std::error::Error for Elapsed {}

/// Runs `future` for at most `limit`, on the monotonic clock. If the future is done when the time is over,
/// its result is returned.
///
/// ```
/// use aio_context::Context;
/// use aio_executor::{ContextExt, Elapsed, timeout};
/// use std::time::Duration;
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// let answer = cx.block_on(timeout(Duration::from_millis(1), std::future::pending::<()>()))?;
/// assert_eq!(answer, Err(Elapsed));
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`Elapsed`] if the time is over; the future is then dropped.
///
/// # Panics
/// Outside a task.
pub async fn timeout<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    let (mut future, mut limit) = (pin!(future), sleep(limit));
    poll_fn(|polling| {
        if let Poll::Ready(output) = future.as_mut().poll(polling) {
            return Poll::Ready(Ok(output));
        }
        Pin::new(&mut limit).poll(polling).map(|()| Err(Elapsed))
    })
    .await
}
