//! The figures and states that the daemon reports: plain data, in the form that the control socket sends.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde::{Deserialize, Serialize};

/// An export, in the answer to `list`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct ExportState {
    pub(crate) name: String,
    /// The name of the loop that serves it. The names of several loops are joined by `+`.
    #[serde(default)]
    pub(crate) thread: String,
    /// The path of its socket.
    pub(crate) socket: String,
    /// The disk, in the form of `--export`: `path=FILE`, `ram` or `null`.
    pub(crate) disk: String,
    #[serde(default, skip_serializing_if = "ImageState::is_in_place")]
    pub(crate) image: ImageState,
    /// The size in bytes.
    pub(crate) size: u64,
    pub(crate) readonly: bool,
    /// The most queues of a client.
    pub(crate) queues: u16,
    /// Whether a vhost-user client is connected.
    pub(crate) connected: bool,
    /// The number of connected NBD clients.
    #[serde(default)]
    pub(crate) nbd_clients: usize,
    /// The number of queues that are served now.
    pub(crate) serving: u16,
    /// The number of requests that threads execute.
    pub(crate) in_flight: usize,
    /// Whether the export completes its last requests before its removal.
    pub(crate) is_leaving: bool,
}

/// The state of an image since it was opened, at the last check.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ImageState {
    /// Its path names it, or this could not be determined; or the disk is no image.
    #[default]
    InPlace,
    /// Its path names another file or device.
    Replaced,
    /// Its path names no file.
    Missing,
}

impl ImageState {
    fn is_in_place(&self) -> bool {
        *self == Self::InPlace
    }
}

/// An event loop, in the answer to `list`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct LoopState {
    pub(crate) name: String,
    /// The system facility that waits for descriptors.
    pub(crate) backend: String,
    /// The polling policy and its parameters.
    pub(crate) polling: String,
    /// The longest busy polling, in nanoseconds.
    pub(crate) poll_max_ns: u64,
    /// Whether the loop answers. If not, its other figures are empty.
    #[serde(default = "yes")]
    pub(crate) responds: bool,
}

fn yes() -> bool {
    true
}

impl LoopState {
    /// Returns the state of a loop that does not answer.
    pub(crate) fn without_response(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            backend: String::new(),
            polling: String::new(),
            poll_max_ns: 0,
            responds: false,
        }
    }
}

/// The answer to `list`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct List {
    pub(crate) exports: Vec<ExportState>,
    pub(crate) loops: Vec<LoopState>,
    /// The address at which metrics are served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) metrics: Option<String>,
}

/// The kinds of requests.
pub(crate) const KINDS: [&str; 6] = ["read", "write", "flush", "discard", "write-zeroes", "other"];
/// The buckets of a latency: up to 1 us, 2 us, 4 us, .. 2^23 us (8.4 s), and above.
pub(crate) const BUCKETS: usize = 25;

/// Returns the bucket for a latency.
pub(crate) fn bucket_of(ns: u64) -> usize {
    let us = ns.div_ceil(1000).max(1);
    // The exponent of the smallest power of two that is not less than `us`.
    let power = (us - 1).checked_ilog2().map_or(0, |power| power as usize + 1);
    power.min(BUCKETS - 1)
}

/// Returns the longest latency of a bucket in microseconds. `None` for the last bucket.
pub(crate) fn bucket_limit_us(bucket: usize) -> Option<u64> {
    (bucket < BUCKETS - 1).then(|| 1 << bucket)
}

/// The figures of the requests of one kind.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct KindFigures {
    /// The number of complete requests, with and without an error.
    pub(crate) requests: u64,
    /// The number of bytes that they have moved or cleared.
    pub(crate) bytes: u64,
    pub(crate) errors: u64,
}

/// A histogram of the times from taking a request to its completion.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Latency {
    /// The number of requests in each bucket. The limits between buckets are those of [`bucket_limit_us`].
    pub(crate) buckets: Vec<u64>,
    pub(crate) sum_ns: u64,
}

impl Latency {
    /// Returns the limit of the bucket in which this part of the requests ends, in microseconds. `None`
    /// without requests.
    pub(crate) fn quantile_us(&self, part: f64) -> Option<u64> {
        let all: u64 = self.buckets.iter().sum();
        let wanted = ((all as f64 * part).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Some(1 << bucket.min(BUCKETS - 1));
            }
        }
        None
    }

    /// Adds the requests of another histogram.
    pub(crate) fn add(&mut self, other: &Self) {
        self.buckets.resize(BUCKETS, 0);
        for (count, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *count += more;
        }
        self.sum_ns = self.sum_ns.wrapping_add(other.sum_ns);
    }

    /// Returns the requests since an earlier state.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let earlier = before.buckets.iter().copied().chain(std::iter::repeat(0));
        let buckets = self.buckets.iter().zip(earlier);
        Self {
            buckets: buckets.map(|(now, then)| now.saturating_sub(then)).collect(),
            sum_ns: self.sum_ns.wrapping_sub(before.sum_ns),
        }
    }
}

/// The figures of a queue.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct QueueFigures {
    pub(crate) queue: u16,
    /// The requests by kind, with the names of [`KINDS`].
    pub(crate) kinds: BTreeMap<String, KindFigures>,
    pub(crate) latency: Latency,
    /// The number of polls that found requests.
    pub(crate) poll_hits: u64,
    /// The number of kicks by the driver.
    pub(crate) kicks: u64,
    /// The number of calls of the driver.
    pub(crate) calls: u64,
}

/// The figures of an export.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct ExportFigures {
    pub(crate) name: String,
    /// The name of the loop that serves it. The names of several loops are joined by `+`.
    #[serde(default)]
    pub(crate) thread: String,
    /// The size in bytes.
    pub(crate) size: u64,
    pub(crate) connected: bool,
    /// The number of clients so far.
    pub(crate) clients: u64,
    /// The number of requests that threads execute.
    pub(crate) in_flight: usize,
    /// The queues that have served.
    pub(crate) queues: Vec<QueueFigures>,
    /// The sum of all NBD clients, in the form of one queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) nbd: Option<QueueFigures>,
}

/// Returns the figures of each export in the order of the keys. The figures from all loops that serve its
/// queues are added up.
pub(crate) fn merge<K: Ord>(parts: impl IntoIterator<Item = (K, ExportFigures)>) -> Vec<ExportFigures> {
    let mut merged: BTreeMap<K, ExportFigures> = BTreeMap::new();
    for (id, part) in parts {
        match merged.entry(id) {
            Entry::Vacant(place) => drop(place.insert(part)),
            Entry::Occupied(mut place) => place.get_mut().add(part),
        }
    }
    merged.into_values().collect()
}

/// The sums over the queues of an export.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) requests: u64,
    pub(crate) read: u64,
    pub(crate) written: u64,
    pub(crate) errors: u64,
    pub(crate) latency: Latency,
    pub(crate) poll_hits: u64,
    pub(crate) kicks: u64,
    pub(crate) calls: u64,
}

impl ExportFigures {
    /// Adds the figures of another loop, which serves other queues.
    fn add(&mut self, other: Self) {
        self.thread = format!("{}+{}", self.thread, other.thread);
        self.connected |= other.connected;
        self.clients += other.clients;
        self.in_flight += other.in_flight;
        self.queues.extend(other.queues);
        self.queues.sort_by_key(|queue| queue.queue);
        self.nbd = self.nbd.take().or(other.nbd);
    }

    /// Returns the figures of all queues by their numbers, and those of NBD clients.
    pub(crate) fn by_queue(&self) -> impl Iterator<Item = (String, &QueueFigures)> {
        let numbered = self.queues.iter().map(|queue| (queue.queue.to_string(), queue));
        let nbd = self.nbd.iter().map(|queue| ("nbd".to_owned(), queue));
        numbered.chain(nbd)
    }

    pub(crate) fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        for queue in self.queues.iter().chain(&self.nbd) {
            for (name, kind) in &queue.kinds {
                sums.requests += kind.requests;
                sums.errors += kind.errors;
                match name.as_str() {
                    "read" => sums.read += kind.bytes,
                    "write" => sums.written += kind.bytes,
                    _ => {}
                }
            }
            sums.latency.add(&queue.latency);
            sums.poll_hits += queue.poll_hits;
            sums.kicks += queue.kicks;
            sums.calls += queue.calls;
        }
        sums
    }
}

/// The figures of an event loop. `aio_context::Stats` describes them.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct LoopFigures {
    pub(crate) name: String,
    pub(crate) iterations: u64,
    pub(crate) events: u64,
    pub(crate) sleeps: u64,
    pub(crate) slept_ns: u64,
    pub(crate) poll_hits: u64,
    pub(crate) poll_misses: u64,
    pub(crate) polled_ns: u64,
    pub(crate) kicks: u64,
}

/// The answer to `stats`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Snapshot {
    /// The monotonic clock, in nanoseconds from some moment.
    pub(crate) at_ns: u64,
    pub(crate) exports: Vec<ExportFigures>,
    pub(crate) loops: Vec<LoopFigures>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_powers_of_two() {
        for (ns, bucket) in [
            (0, 0),
            (1000, 0),
            (1001, 1),
            (2000, 1),
            (2001, 2),
            (4_000_000, 12),
            (4_096_000, 12),
            (4_096_001, 13),
            (8_388_608_000, 23),
            (8_388_608_001, 24),
            (u64::MAX, 24),
        ] {
            assert_eq!(bucket_of(ns), bucket, "{ns}");
            if let Some(limit) = bucket_limit_us(bucket) {
                assert!(ns <= limit * 1000);
            }
        }
        assert_eq!(bucket_limit_us(BUCKETS - 1), None);
    }

    #[test]
    fn the_figures_of_several_loops_are_those_of_one_export() {
        let part = |thread: &str, queues: &[u16], clients| ExportFigures {
            name: "disk".to_owned(),
            thread: thread.to_owned(),
            size: 512,
            connected: clients > 0,
            clients,
            in_flight: 2,
            queues: queues
                .iter()
                .map(|queue| QueueFigures {
                    queue: *queue,
                    kicks: 1,
                    ..QueueFigures::default()
                })
                .collect(),
            nbd: (clients > 0).then(QueueFigures::default),
        };
        let other = ExportFigures {
            name: "other".to_owned(),
            ..part("main", &[0], 1)
        };
        let parts = [
            (3, part("main", &[1, 3], 4)),
            (2, other.clone()),
            (3, part("io1", &[0, 2], 0)),
        ];
        let merged = merge(parts);
        assert_eq!(merged.len(), 2);
        assert_eq!(merged[0], other);
        let disk = &merged[1];
        let numbers: Vec<u16> = disk.queues.iter().map(|queue| queue.queue).collect();
        assert_eq!(numbers, [0, 1, 2, 3]);
        assert_eq!(
            (disk.thread.as_str(), disk.clients, disk.in_flight),
            ("main+io1", 4, 4)
        );
        assert!(disk.connected && disk.nbd.is_some());
        assert_eq!(disk.sums().kicks, 4);
    }

    #[test]
    fn quantiles_are_limits_of_buckets() {
        let mut latency = Latency::default();
        assert_eq!(latency.quantile_us(0.5), None);
        let mut more = Latency {
            buckets: vec![0; BUCKETS],
            sum_ns: 10,
        };
        more.buckets[2] = 98;
        more.buckets[10] = 2;
        latency.add(&more);
        assert_eq!(
            (latency.quantile_us(0.5), latency.quantile_us(0.98)),
            (Some(4), Some(4))
        );
        assert_eq!(
            (latency.quantile_us(0.99), latency.quantile_us(1.0)),
            (Some(1024), Some(1024))
        );
        latency.add(&more);
        assert_eq!(latency.since(&more), more);
    }
}
