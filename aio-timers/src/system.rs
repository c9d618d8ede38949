//! The system's clocks.

use core::time::Duration;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::{Clock, Moment};

/// The system's monotonic clock. Its start is the creation of this value. It never jumps, and stands still while the machine is
/// suspended.
///
/// ```
/// use aio_timers::{Clock, Monotonic};
///
/// let clock = Monotonic::new();
/// let before = clock.now();
/// assert!(clock.now() >= before);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Monotonic(Instant);

impl Monotonic {
    /// Creates a clock that starts now.
    #[must_use]
    pub fn new() -> Self {
        // One nanosecond of head start: `Moment::ZERO` is the deadline that is always due, not a time.
        let now = Instant::now();
        Self(now.checked_sub(Duration::from_nanos(1)).unwrap_or(now))
    }
}

impl Default for Monotonic {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for Monotonic {
    fn now(&self) -> Moment {
        Moment::ZERO.saturating_add(self.0.elapsed())
    }
}

/// The system's wall clock: time since 1970. It jumps when it is set, and when a suspended machine resumes.
///
/// It does not report its jumps. A loop that waits for a moment of this clock must get them from the system,
/// or wait for a bounded time.
///
/// ```
/// use aio_timers::{Clock, Moment, Wall};
///
/// assert!(Wall::new().now() > Moment::ZERO);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Wall;

impl Wall {
    /// Creates a handle to the wall clock.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl Clock for Wall {
    fn now(&self) -> Moment {
        // Before 1970 counts as 1970.
        Moment::ZERO.saturating_add(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t2_real_clocks_run_and_make_their_users_wait() {
        let clock = Monotonic::new();
        let before = clock.now();
        assert!(before > Moment::ZERO && clock.now() >= before);
        assert!(!clock.pass(Duration::from_secs(1)) && clock.is_running());
        assert!(Wall::new().now() > Moment::from_nanos(1_700_000_000_000_000_000));
    }
}
