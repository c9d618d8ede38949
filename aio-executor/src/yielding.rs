//! [`yield_now`]: lets all other work run first.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Polling, Poll};

/// Continues in the next iteration: other tasks, handlers and timers that are ready run before.
///
/// ```
/// use aio_context::Context;
/// use aio_executor::{ContextExt, yield_now};
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// let work = async {
///     for _step in 0..10 {
///         yield_now().await;
///     }
/// };
/// cx.block_on(work)
/// # }
/// ```
pub fn yield_now() -> YieldNow {
    YieldNow { has_yielded: false }
}

/// The future of [`yield_now`].
///
/// # Examples
/// ```
/// use std::{cell::Cell, rc::Rc};
/// use aio_context::Context;
/// use aio_executor::{ContextExt, spawn, yield_now};
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// cx.block_on(async {
///     let done = Rc::new(Cell::new(false));
///     let flag = done.clone();
///     let _task = spawn(async move { flag.set(true) });
///     assert!(!done.get());
///     yield_now().await;
///     assert!(done.get());
/// })
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a future does nothing before it is awaited"]
pub struct YieldNow {
    has_yielded: bool,
}

impl Future for YieldNow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, polling: &mut Polling<'_>) -> Poll<()> {
        if self.has_yielded {
            return Poll::Ready(());
        }
        self.has_yielded = true;
        polling.waker().wake_by_ref();
        Poll::Pending
    }
}
