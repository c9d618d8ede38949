//! The metric families: their names, their help texts, and the sources of their values.

use std::fmt;
use std::time::Duration;

use aio_context::{HandlerStats, Stats};
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// Figures of one context or handler, with its labels.
pub(crate) struct Sample<const LABELS: usize, T> {
    pub(crate) labels: [(&'static str, String); LABELS],
    pub(crate) figures: T,
}

/// One metric of all contexts, or of all handlers. The encoder appends the unit and `_total`.
pub(crate) struct Family<T> {
    name: &'static str,
    help: &'static str,
    value: Value<T>,
}

enum Value<T> {
    /// A counter.
    Count(fn(&T) -> u64),
    /// A counter in seconds.
    Time(fn(&T) -> Duration),
    /// A gauge in seconds.
    Present(fn(&T) -> Duration),
}

const fn count<T>(name: &'static str, help: &'static str, read: fn(&T) -> u64) -> Family<T> {
    let value = Value::Count(read);
    Family { name, help, value }
}

const fn time<T>(name: &'static str, help: &'static str, read: fn(&T) -> Duration) -> Family<T> {
    let value = Value::Time(read);
    Family { name, help, value }
}

const fn present<T>(name: &'static str, help: &'static str, read: fn(&T) -> Duration) -> Family<T> {
    let value = Value::Present(read);
    Family { name, help, value }
}

pub(crate) const CONTEXT: [Family<Stats>; 14] = [
    count("aio_iterations", "Iterations of the event loop.", |stats| {
        stats.iterations
    }),
    count("aio_events", "Calls of handlers.", |stats| stats.events),
    count(
        "aio_kicks",
        "Events of polled handlers that came through their descriptors.",
        |stats| stats.kicks,
    ),
    count(
        "aio_sleeps",
        "Waits in which the loop slept, or was about to.",
        |stats| stats.blocked,
    ),
    time("aio_sleep", "Time spent in these waits.", |stats| stats.slept),
    count("aio_poll_hits", "Busy polling that found work.", |stats| {
        stats.poll_hits
    }),
    count(
        "aio_poll_misses",
        "Busy polling that found no work in its time.",
        |stats| stats.poll_misses,
    ),
    count(
        "aio_poll_suspensions",
        "Suspensions of busy polling, because the thread shares its core or has used up its quota.",
        |stats| stats.poll_suspensions,
    ),
    time("aio_poll", "Time spent busy polling.", |stats| stats.spun),
    present(
        "aio_poll_budget",
        "The longest time that the next busy polling may take.",
        |stats| stats.budget,
    ),
    count(
        "aio_wakeups_sent",
        "Notifications that cost a system call.",
        |stats| stats.wakeups_sent,
    ),
    count(
        "aio_wakeups_accepted",
        "Sent notifications that the loop has accepted.",
        |stats| stats.wakeups_accepted,
    ),
    count(
        "aio_wakeups_elided",
        "Notifications that cost no system call.",
        |stats| stats.wakeups_elided,
    ),
    count(
        "aio_slow_callbacks",
        "Callbacks that took longer than the limit.",
        |stats| stats.slow_callbacks,
    ),
];

pub(crate) const HANDLER: [Family<HandlerStats>; 5] = [
    count(
        "aio_handler_events",
        "Calls of the handler for events.",
        |stats| stats.events,
    ),
    count(
        "aio_handler_poll_hits",
        "Calls of the handler for work that busy polling found.",
        |stats| stats.poll_hits,
    ),
    count(
        "aio_handler_kicks",
        "Kicks of the handler's peer that busy polling would have spared it.",
        |stats| stats.kicks,
    ),
    time(
        "aio_handler_busy",
        "Time spent in the callbacks of the handler.",
        |stats| stats.busy,
    ),
    count(
        "aio_handler_slow_callbacks",
        "Callbacks of the handler that took longer than the limit.",
        |stats| stats.slow_callbacks,
    ),
];

impl<T> Family<T> {
    /// Writes the metric with a line for each sample; nothing if there are none.
    pub(crate) fn encode<const LABELS: usize>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        samples: &[Sample<LABELS, T>],
    ) -> fmt::Result {
        if samples.is_empty() {
            return Ok(());
        }
        let (unit, kind) = match self.value {
            Value::Count(_) => (None, MetricType::Counter),
            Value::Time(_) => (Some(&Unit::Seconds), MetricType::Counter),
            Value::Present(_) => (Some(&Unit::Seconds), MetricType::Gauge),
        };
        let mut metric = encoder.encode_descriptor(self.name, self.help, unit, kind)?;
        for sample in samples {
            self.value
                .encode(metric.encode_family(&sample.labels)?, &sample.figures)?;
        }
        Ok(())
    }
}

impl<T> Value<T> {
    fn encode(&self, mut metric: MetricEncoder<'_>, figures: &T) -> fmt::Result {
        match self {
            Self::Count(read) => metric.encode_counter::<NoLabelSet, _, f64>(&read(figures), None),
            Self::Time(read) => {
                metric.encode_counter::<NoLabelSet, _, f64>(&read(figures).as_secs_f64(), None)
            }
            Self::Present(read) => metric.encode_gauge(&read(figures).as_secs_f64()),
        }
    }
}
