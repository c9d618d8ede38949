//! [`HandlerMetrics`]: the figures of one handler of a loop. [`HandlerCounters`]: the counters behind them,
//! which the loop raises (rule M2).

use std::sync::Arc;
use std::time::Duration;

use crate::Counter;

/// The figures of a handler of a loop since its measurement began. They are read one by one, and the loop may
/// go on in between.
///
/// The time in a callback begins when the loop calls it and ends when it returns or panics. It includes
/// neither the sleeps of polls inside the callback, nor timed callbacks that those polls have called.
///
/// # Examples
/// ```
/// use aio_notify::{HandlerCounters, HandlerMetrics};
/// use std::time::Duration;
///
/// let metrics = HandlerMetrics::from(HandlerCounters::new("disk".to_owned()));
/// let stats = metrics.stats();
/// assert_eq!((stats.events, stats.busy), (0, Duration::ZERO));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandlerStats {
    /// Calls for readiness of the descriptor; for a source without a descriptor, calls after it was woken.
    pub events: u64,
    /// Calls for work that polling has found.
    pub poll_hits: u64,
    /// The number of [`events`](Self::events) that were kicks of the peer, which polling would have spared
    /// the peer: all events of a polled handler; none of other handlers, and none of a source without a
    /// descriptor.
    pub kicks: u64,
    /// The time in its callbacks.
    pub busy: Duration,
    /// Callbacks that took longer than the limit in force.
    pub slow_callbacks: u64,
}

/// The figures of one handler, readable from any thread while the loop runs. Clones show the same figures; dropping them does not end the
/// measurement.
///
/// # Examples
/// ```
/// use aio_notify::{HandlerCounters, HandlerMetrics};
/// use std::sync::Arc;
///
/// let counters = Arc::new(HandlerCounters::new("disk".to_owned()));
/// let metrics = HandlerMetrics::from(counters.clone());
/// counters.events.add(1); // the loop
/// let reads = std::thread::spawn(move || (metrics.name().to_owned(), metrics.stats().events));
/// assert_eq!(reads.join().unwrap(), ("disk".to_owned(), 1));
/// ```
#[derive(Clone, Debug)]
pub struct HandlerMetrics(Arc<HandlerCounters>);

impl HandlerMetrics {
    /// Returns the name under which the handler is measured.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns the handler's figures so far.
    #[must_use]
    pub fn stats(&self) -> HandlerStats {
        HandlerStats {
            events: self.0.events.get(),
            poll_hits: self.0.poll_hits.get(),
            kicks: self.0.kicks.get(),
            busy: self.0.busy.time(),
            slow_callbacks: self.0.slow_callbacks.get(),
        }
    }
}

impl From<Arc<HandlerCounters>> for HandlerMetrics {
    fn from(counters: Arc<HandlerCounters>) -> Self {
        Self(counters)
    }
}

impl From<HandlerCounters> for HandlerMetrics {
    fn from(counters: HandlerCounters) -> Self {
        Arc::new(counters).into()
    }
}

/// The counters behind [`HandlerStats`]. Only the home thread of the loop writes.
///
/// # Examples
/// ```
/// use aio_notify::{HandlerCounters, HandlerMetrics};
/// use std::time::Duration;
///
/// let counters = HandlerCounters::new("disk".to_owned());
/// counters.events.add(1);
/// counters.busy.add_time(Duration::from_micros(3));
/// assert_eq!(HandlerMetrics::from(counters).stats().busy, Duration::from_micros(3));
/// ```
#[derive(Debug, Default)]
pub struct HandlerCounters {
    /// The name under which the handler is measured.
    pub name: String,
    /// See [`HandlerStats::events`].
    pub events: Counter,
    /// See [`HandlerStats::poll_hits`].
    pub poll_hits: Counter,
    /// See [`HandlerStats::kicks`].
    pub kicks: Counter,
    /// See [`HandlerStats::busy`].
    pub busy: Counter,
    /// See [`HandlerStats::slow_callbacks`].
    pub slow_callbacks: Counter,
}

impl HandlerCounters {
    /// Makes counters that are all zero.
    #[must_use]
    pub fn new(name: String) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m2_each_figure_is_that_of_its_counter() {
        let counters = HandlerCounters::new("one".to_owned());
        let all = [
            &counters.events,
            &counters.poll_hits,
            &counters.kicks,
            &counters.slow_callbacks,
        ];
        all.into_iter()
            .zip(1..)
            .for_each(|(counter, value)| counter.set(value));
        counters.busy.set_time(Duration::from_nanos(9));
        let metrics = HandlerMetrics::from(counters);
        let expected = HandlerStats {
            events: 1,
            poll_hits: 2,
            kicks: 3,
            busy: Duration::from_nanos(9),
            slow_callbacks: 4,
        };
        assert_eq!((metrics.name(), metrics.clone().stats()), ("one", expected));
    }
}
