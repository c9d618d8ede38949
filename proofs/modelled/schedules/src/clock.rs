//! [`Ticking`]: a clock that advances with each reading.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aio_context::{Clock, Moment};

/// A clock that advances by a microsecond with each reading, so that a search of limited time ends. In place
/// of a sleep until a deadline, the [`Fake`](crate::Fake) backend advances the clock.
#[derive(Debug, Default)]
pub struct Ticking(AtomicU64);

impl Ticking {
    /// Advances the clock.
    pub fn advance(&self, duration: Duration) {
        self.0.fetch_add(duration.as_nanos() as u64, Ordering::Relaxed);
    }
}

impl Clock for Ticking {
    fn now(&self) -> Moment {
        self.advance(Duration::from_micros(1));
        Moment::from_nanos(self.0.load(Ordering::Relaxed))
    }
}
