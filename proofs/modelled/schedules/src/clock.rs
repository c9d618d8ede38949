//! [`Ticking`]: a clock that goes on whenever somebody looks at it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aio_context::{Clock, Moment};

/// A clock that every look moves on by a microsecond. A search that goes on for some time ends, as on a real clock; where a
/// loop would sleep until some time, the [`Fake`](crate::Fake) backend lets it pass.
#[derive(Debug, Default)]
pub struct Ticking(AtomicU64);

impl Ticking {
    /// Moves on.
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
