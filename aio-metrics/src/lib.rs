//! Exports the statistics of [contexts](aio_context::Context), and of their [measured](aio_context::Context::measure) handlers, to
//! Prometheus.
//!
//! A [`ContextCollector`] is a [`Collector`] of the crate `prometheus-client`: each scrape reads the figures of its contexts, on the
//! thread that scrapes.
//!
//! ```
//! use aio_context::{Context, Interest, Wait};
//! use aio_metrics::ContextCollector;
//! use prometheus_client::{encoding::prometheus_text, registry::Registry};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let contexts = ContextCollector::new();
//! let mut registry = Registry::default();
//! registry.register_collector(Box::new(contexts.clone()));
//!
//! let (cx, (reader, writer)) = (Context::new()?, std::io::pipe()?);
//! contexts.add("io-0", cx.remote());
//! let log = cx.on(reader).readable(|_, _| ()).watch()?;
//! log.measure("log")?;
//! drop(writer);
//! cx.poll(Wait::Block)?;
//!
//! let mut page = String::new();
//! prometheus_text::encode(&mut page, &registry)?;
//! assert!(page.contains("aio_events_total{context=\"io-0\"} 1\n"));
//! assert!(page.contains("aio_handler_events_total{context=\"io-0\",handler=\"log\"} 1\n"));
//! # Ok(()) }
//! ```
//!
//! # Metrics
//! Their names begin with `aio_`, after a [prefix](prometheus_client::registry::Registry::with_prefix) of the
//! registry. Times are in seconds. Metrics of contexts have the label `context`:
//!
//! | metric | is |
//! |---|---|
//! | `aio_iterations_total` | [`Stats::iterations`] |
//! | `aio_events_total` | [`Stats::events`] |
//! | `aio_kicks_total` | [`Stats::kicks`] |
//! | `aio_sleeps_total` | [`Stats::blocked`] |
//! | `aio_sleep_seconds_total` | [`Stats::slept`] |
//! | `aio_poll_hits_total` | [`Stats::poll_hits`] |
//! | `aio_poll_misses_total` | [`Stats::poll_misses`] |
//! | `aio_poll_suspensions_total` | [`Stats::poll_suspensions`] |
//! | `aio_poll_seconds_total` | [`Stats::spun`] |
//! | `aio_poll_budget_seconds` | [`Stats::budget`], a gauge |
//! | `aio_wakeups_sent_total` | [`Stats::wakeups_sent`] |
//! | `aio_wakeups_accepted_total` | [`Stats::wakeups_accepted`] |
//! | `aio_wakeups_elided_total` | [`Stats::wakeups_elided`] |
//! | `aio_slow_callbacks_total` | [`Stats::slow_callbacks`] |
//!
//! Metrics of handlers have the labels `context` and `handler`. Handlers of one context with the same name
//! are one series, their sum:
//!
//! | metric | is |
//! |---|---|
//! | `aio_handler_events_total` | [`HandlerStats::events`] |
//! | `aio_handler_poll_hits_total` | [`HandlerStats::poll_hits`] |
//! | `aio_handler_kicks_total` | [`HandlerStats::kicks`] |
//! | `aio_handler_busy_seconds_total` | [`HandlerStats::busy`] |
//! | `aio_handler_slow_callbacks_total` | [`HandlerStats::slow_callbacks`] |
//!
//! The series of a handler ends when the handler is removed, unless the program keeps its
//! [`HandlerMetrics`](aio_context::HandlerMetrics). If one of several handlers with the same name is removed,
//! the sum falls, which Prometheus takes for a restart of the counter.
//!
//! # What it does not do
//! It serves no page: the example `metrics` is a loop that does. It exports only the figures of
//! [`Remote::stats`] and [`Remote::measured_handlers`], and no histograms.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

/// The example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

mod families;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aio_context::{HandlerStats, Remote, Stats};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use families::{CONTEXT, HANDLER, Sample};

/// The contexts whose figures are exported. Clones share them, so that contexts can be added after the
/// collector was registered.
///
/// Register one collector for all contexts: each metric may occur once in a page.
///
/// # Examples
/// ```
/// use aio_context::Context;
/// use aio_metrics::ContextCollector;
/// use prometheus_client::{encoding::text, registry::Registry};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (contexts, mut registry) = (ContextCollector::new(), Registry::default());
/// registry.register_collector(Box::new(contexts.clone()));
/// let page = || -> Result<String, std::fmt::Error> {
///     let mut page = String::new();
///     text::encode(&mut page, &registry)?;
///     Ok(page)
/// };
/// let cx = Context::new()?;
/// contexts.add("main", cx.remote());
/// assert!(page()?.contains("aio_iterations_total{context=\"main\"} 0\n"));
/// contexts.remove("main");
/// assert!(!page()?.contains("context=\"main\""));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct ContextCollector(Arc<Mutex<BTreeMap<String, Remote>>>);

impl ContextCollector {
    /// Makes a collector without contexts.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Exports a context under `name`, the value of the label `context`. Replaces and returns the context
    /// with the same name, if there is one.
    ///
    /// A context that is dropped is exported with its last figures, until it is [removed](Self::remove).
    pub fn add(&self, name: impl Into<String>, context: Remote) -> Option<Remote> {
        self.contexts().insert(name.into(), context)
    }

    /// Ends the export of a context. Returns it, if there is one with this name.
    pub fn remove(&self, name: &str) -> Option<Remote> {
        self.contexts().remove(name)
    }

    fn contexts(&self) -> MutexGuard<'_, BTreeMap<String, Remote>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the figures of all contexts.
    fn read(&self) -> (Vec<Sample<1, Stats>>, Vec<Sample<2, HandlerStats>>) {
        let (mut contexts, mut handlers) = (Vec::new(), Vec::new());
        for (name, remote) in &*self.contexts() {
            let mut by_name = BTreeMap::<String, HandlerStats>::new();
            for handler in remote.measured_handlers() {
                let sum = by_name.entry(handler.name().to_owned()).or_default();
                add(sum, handler.stats());
            }
            let context = ("context", name.clone());
            handlers.extend(by_name.into_iter().map(|(handler, figures)| Sample {
                labels: [context.clone(), ("handler", handler)],
                figures,
            }));
            contexts.push(Sample {
                labels: [context],
                figures: remote.stats(),
            });
        }
        (contexts, handlers)
    }
}

impl Collector for ContextCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // No lock is held during the write, which may take as long as the writer needs.
        let (contexts, handlers) = self.read();
        for family in &CONTEXT {
            family.encode(&mut encoder, &contexts)?;
        }
        for family in &HANDLER {
            family.encode(&mut encoder, &handlers)?;
        }
        Ok(())
    }
}

fn add(sum: &mut HandlerStats, more: HandlerStats) {
    sum.events += more.events;
    sum.poll_hits += more.poll_hits;
    sum.kicks += more.kicks;
    sum.busy += more.busy;
    sum.slow_callbacks += more.slow_callbacks;
}
