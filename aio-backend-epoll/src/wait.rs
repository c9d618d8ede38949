//! Waiting on an epoll set to the nanosecond, with system calls that every Linux has.
//!
//! `epoll_wait` takes milliseconds. This module waits for whole milliseconds with it, and for the rest of the
//! last one with `ppoll` on the set. An event before the last millisecond costs one call, an event during it
//! three, and a timeout that passes two. Costs for a descriptor that is ready already, relative to an
//! `epoll_wait` of zero (`examples/timeouts.rs`, medians):
//!
//! | way | ratio |
//! |---|---|
//! | this module, less than a millisecond | 1.1 |
//! | this module, more | 1.45 |
//! | `epoll_pwait2`, any timeout | 1.4 |
//! | `ppoll` on the set, then `epoll_wait` of zero | 2.7 |
//!
//! `epoll_pwait2` would be slower for short timeouts, is missing before Linux 5.11, and is forbidden by some
//! filters. (With its feature `linux_5_11`, rustix uses it for every wait; this module works with both.)

use std::io::Result;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use crate::sys::{Events, Sys};

/// The end of a wait without events.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    /// At once.
    Now,
    /// When `left` has passed since `start`.
    After { start: Instant, left: Duration },
    /// Not at all.
    Never,
}

impl Limit {
    /// Returns the limit of a wait that starts now.
    #[inline]
    pub(crate) fn after(sys: &impl Sys, timeout: Option<Duration>) -> Self {
        match timeout {
            None => Self::Never,
            Some(Duration::ZERO) => Self::Now,
            Some(left) => Self::After {
                start: sys.now(),
                left,
            },
        }
    }

    /// Returns the same moment, relative to now.
    pub(crate) fn rest(self, sys: &impl Sys) -> Self {
        let Self::After { start, left } = self else {
            return self;
        };
        let now = sys.now();
        match left.saturating_sub(now.duration_since(start)) {
            Duration::ZERO => Self::Now,
            left => Self::After { start: now, left },
        }
    }
}

/// Waits until a descriptor in `set` is ready, and returns the number of events in `events`.
///
/// Inlined by force, as its callers are: every return after a system call is mispredicted on kernels that
/// clear the return stack, and costs as much as fifty instructions (6 ns as measured by
/// `examples/returns.rs`).
#[inline(always)]
pub(crate) fn wait(
    (sys, set): (&impl Sys, BorrowedFd<'_>),
    events: &mut Events<'_>,
    limit: Limit,
) -> Result<usize> {
    match limit {
        Limit::Now => sys.wait(set, events, Some(Duration::ZERO)),
        Limit::Never => sys.wait(set, events, None),
        Limit::After { .. } => wait_until((sys, set), events, limit),
    }
}

#[cold]
#[inline(never)]
fn wait_until<S: Sys>(
    (sys, set): (&S, BorrowedFd<'_>),
    events: &mut Events<'_>,
    mut limit: Limit,
) -> Result<usize> {
    loop {
        let Limit::After { left, .. } = limit else {
            return wait((sys, set), events, limit);
        };
        // Whole milliseconds first: an event that is pending, or arrives meanwhile, costs only this call.
        let found = sys.wait(set, events, Some(whole_millis(left)))?;
        if found > 0 {
            return Ok(found);
        }
        if left >= MILLI {
            limit = limit.rest(sys);
        }
        let Limit::After { left, .. } = limit else {
            return Ok(0);
        };
        // Then the rest of the last millisecond.
        if !sys.poll(set, left)? {
            return Ok(0);
        }
        limit = limit.rest(sys);
    }
}

const MILLI: Duration = Duration::from_millis(1);

/// Returns the time in whole milliseconds, within the range of `epoll_wait`.
fn whole_millis(left: Duration) -> Duration {
    let left = left.min(Duration::from_millis(i32::MAX as u64));
    Duration::new(left.as_secs(), left.subsec_millis() * 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Kernel;

    #[test]
    fn b2_whole_milliseconds_are_rounded_down() {
        let check = |left: Duration, millis: u32| {
            assert_eq!(
                whole_millis(left),
                Duration::from_millis(millis.into()),
                "{left:?}"
            );
        };
        check(Duration::from_nanos(1), 0);
        check(Duration::from_nanos(999_999), 0);
        check(Duration::from_nanos(1_000_000), 1);
        check(Duration::from_nanos(10_300_000), 10);
        check(Duration::from_millis(i32::MAX as u64 + 1), i32::MAX as u32);
        check(Duration::MAX, i32::MAX as u32);
    }

    #[test]
    fn b2_a_limit_shrinks_and_ends() {
        assert!(matches!(Limit::after(&Kernel, None).rest(&Kernel), Limit::Never));
        assert!(matches!(
            Limit::after(&Kernel, Some(Duration::ZERO)).rest(&Kernel),
            Limit::Now
        ));
        assert!(
            matches!(Limit::after(&Kernel, Some(Duration::MAX)).rest(&Kernel), Limit::After { left, .. } if left <= Duration::MAX)
        );
        let (start, left) = (Instant::now(), Duration::from_nanos(1));
        while start.elapsed() < left {}
        assert!(matches!(Limit::After { start, left }.rest(&Kernel), Limit::Now));
    }
}
