//! The page: the figures of a [`Snapshot`], and those of the loop, in the format of Prometheus.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use aio_metrics::ContextCollector;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::figures::{ExportFigures, KindFigures, Latency, QueueFigures, Snapshot, bucket_limit_us};

/// Returns the page for these figures.
///
/// # Errors
/// If a figure cannot be formatted.
pub(super) fn page(snapshot: Snapshot, contexts: ContextCollector) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Figures(Mutex::new(snapshot))));
    registry.register_collector(Box::new(contexts));
    let mut page = String::new();
    prometheus_text::encode(&mut page, &registry)?;
    Ok(page)
}

/// The figures of the daemon as a collector.
#[derive(Debug)]
struct Figures(Mutex<Snapshot>);

type OfKind = (&'static str, &'static str, Option<Unit>, fn(&KindFigures) -> u64);
const OF_KIND: [OfKind; 3] = [
    ("blockd_requests", "Complete requests.", None, |kind| {
        kind.requests
    }),
    (
        "blockd_request",
        "Bytes that requests have moved or cleared.",
        Some(Unit::Bytes),
        |kind| kind.bytes,
    ),
    (
        "blockd_request_errors",
        "Requests that ended with an error.",
        None,
        |kind| kind.errors,
    ),
];

type OfQueue = (&'static str, &'static str, fn(&QueueFigures) -> u64);
const OF_QUEUE: [OfQueue; 3] = [
    (
        "blockd_poll_hits",
        "How many times busy polling found requests.",
        |queue| queue.poll_hits,
    ),
    ("blockd_kicks", "Kicks by the driver.", |queue| queue.kicks),
    ("blockd_calls", "Calls of the driver.", |queue| queue.calls),
];

type OfExport = (
    &'static str,
    &'static str,
    Option<Unit>,
    MetricType,
    fn(&ExportFigures) -> u64,
);
const OF_EXPORT: [OfExport; 4] = [
    (
        "blockd_clients",
        "Clients that have connected.",
        None,
        MetricType::Counter,
        |export| export.clients,
    ),
    (
        "blockd_connected",
        "Whether a client is connected.",
        None,
        MetricType::Gauge,
        |export| export.connected.into(),
    ),
    (
        "blockd_in_flight",
        "Requests that threads execute.",
        None,
        MetricType::Gauge,
        |export| export.in_flight as u64,
    ),
    (
        "blockd_disk",
        "The size of the disk.",
        Some(Unit::Bytes),
        MetricType::Gauge,
        |export| export.size,
    ),
];

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let snapshot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let exports = &snapshot.exports;
        let help = "The thread that serves an export.";
        let mut metric = encoder.encode_descriptor("blockd_export_info", help, None, MetricType::Gauge)?;
        for export in exports {
            let labels = [
                ("export", export.name.as_str()),
                ("thread", export.thread.as_str()),
            ];
            metric.encode_family(&labels)?.encode_gauge(&1_u64)?;
        }
        for (name, help, unit, kind, read) in &OF_EXPORT {
            let mut metric = encoder.encode_descriptor(name, help, unit.as_ref(), *kind)?;
            for export in exports {
                let labels = [("export", export.name.as_str())];
                let mut metric = metric.encode_family(&labels)?;
                if matches!(kind, MetricType::Counter) {
                    metric.encode_counter::<NoLabelSet, _, f64>(&read(export), None)?;
                } else {
                    metric.encode_gauge(&read(export))?;
                }
            }
        }
        let queues = || {
            exports.iter().flat_map(|export| {
                export
                    .by_queue()
                    .map(move |(number, queue)| (export, number, queue))
            })
        };
        for (name, help, unit, read) in &OF_KIND {
            let mut metric = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
            for (export, number, queue) in queues() {
                for (kind, figures) in &queue.kinds {
                    let labels = [
                        ("export", export.name.as_str()),
                        ("queue", number.as_str()),
                        ("kind", kind.as_str()),
                    ];
                    let mut metric = metric.encode_family(&labels)?;
                    metric.encode_counter::<NoLabelSet, _, f64>(&read(figures), None)?;
                }
            }
        }
        for (name, help, read) in &OF_QUEUE {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (export, number, queue) in queues() {
                let labels = [("export", export.name.as_str()), ("queue", number.as_str())];
                let mut metric = metric.encode_family(&labels)?;
                metric.encode_counter::<NoLabelSet, _, f64>(&read(queue), None)?;
            }
        }
        let help =
            "From the taking of a request to its completion; those that the loop executes are a sample.";
        let mut metric = encoder.encode_descriptor(
            "blockd_request_duration",
            help,
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for (export, number, queue) in queues() {
            let labels = [("export", export.name.as_str()), ("queue", number.as_str())];
            let (sum, count, buckets) = histogram(&queue.latency);
            let mut metric = metric.encode_family(&labels)?;
            metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }
}

/// Returns the sum in seconds, the count, and the limit in seconds and the count of each bucket.
fn histogram(latency: &Latency) -> (f64, u64, Vec<(f64, u64)>) {
    let limit = |bucket| bucket_limit_us(bucket).map_or(f64::INFINITY, |us| us as f64 / 1e6);
    let buckets: Vec<_> = (0..)
        .zip(&latency.buckets)
        .map(|(bucket, count)| (limit(bucket), *count))
        .collect();
    let count = latency.buckets.iter().sum();
    (latency.sum_ns as f64 / 1e9, count, buckets)
}
