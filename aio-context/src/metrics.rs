//! Figures of single callbacks (rule M2): [`HandlerMetrics`], and the limit of slow ones.
//!
//! `timed.rs` times the callbacks, and only those that are to be. Self times and limits are `aio-timers`', what other threads read is
//! `aio-notify`'s.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use aio_backend::Token;
use aio_notify::{Counter, WeakMap};
use aio_timers::{SelfTime, SlowLimit};

/// What a handler has done since [`Context::measure`](crate::Context::measure). The figures are read one by one: between two of them
/// the loop may go on.
///
/// The time in a callback begins when the loop calls it and ends when it returns or panics. It contains neither what polls inside the
/// callback have slept, nor the callbacks that those polls have called and that are timed, too.
///
/// # Examples
/// ```
/// use std::io::Write as _;
/// use aio_context::{Context, Wait};
///
/// # fn main() -> std::io::Result<()> {
/// let (cx, (reader, mut writer)) = (Context::new()?, std::io::pipe()?);
/// let registration = cx.on(reader).readable(|_, _| ()).watch()?;
/// let log = registration.measure("log")?;
/// writer.write_all(b"x")?;
/// cx.poll(Wait::Block)?;
/// let stats = log.stats();
/// assert_eq!((stats.events, stats.poll_hits), (1, 0));
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandlerStats {
    /// Calls for readiness of the descriptor; of a [`Source`](crate::Source), calls because it was woken.
    pub events: u64,
    /// Calls for work that [`poll`](crate::Pollable::poll) has found.
    pub poll_hits: u64,
    /// Those of [`events`](Self::events) for which its peer has kicked it, which polling would have spared the peer: all of a polled
    /// handler's; none of another one's, and of a [`Source`](crate::Source)'s.
    pub kicks: u64,
    /// The time in its callbacks.
    pub busy: Duration,
    /// Callbacks that took longer than the [limit](crate::Builder::slow_callback_limit) in force.
    pub slow_callbacks: u64,
}

/// The figures of one handler, readable from any thread while the loop runs. Made by
/// [`Context::measure`](crate::Context::measure). Clones show the same figures; dropping them does not end the measurement.
///
/// # Examples
/// ```
/// use aio_context::{Context, Wait};
///
/// # fn main() -> std::io::Result<()> {
/// let (cx, (reader, writer)) = (Context::new()?, std::io::pipe()?);
/// let registration = cx.on(reader).readable(|_, _| ()).watch()?;
/// let log = registration.measure("log")?;
/// drop(writer);
/// cx.poll(Wait::Block)?;
/// let reads = std::thread::spawn(move || (log.name().to_owned(), log.stats().events));
/// assert_eq!(reads.join().unwrap(), ("log".to_owned(), 1));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct HandlerMetrics(pub(crate) Arc<HandlerCounters>);

impl HandlerMetrics {
    /// The name given to [`Context::measure`](crate::Context::measure).
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What the handler has done so far.
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

/// The counters behind [`HandlerStats`]. Only the home thread writes.
#[derive(Debug, Default)]
pub(crate) struct HandlerCounters {
    pub(crate) name: String,
    pub(crate) events: Counter,
    pub(crate) poll_hits: Counter,
    pub(crate) kicks: Counter,
    pub(crate) busy: Counter,
    pub(crate) slow_callbacks: Counter,
}

impl HandlerCounters {
    pub(crate) fn new(name: String) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }
}

/// The measured handlers of a context.
pub(crate) type Measured = WeakMap<Token, HandlerCounters>;

/// What a context keeps to time callbacks.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// There was a limit, or a measured handler.
    pub(crate) is_on: Cell<bool>,
    pub(crate) times: SelfTime,
    /// The bottom halves and timers that are slow are reported by kind and name.
    pub(crate) slow: SlowLimit<(&'static str, &'static str)>,
}
