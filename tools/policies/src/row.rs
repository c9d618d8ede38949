//! [`Row`]: a row of the table and of the JSON file.

use serde::Serialize;

/// The results of a policy on a trace.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) trace: String,
    pub(crate) family: &'static str,
    pub(crate) wake_cost_ns: u64,
    pub(crate) policy: &'static str,
    pub(crate) cost_over_clairvoyant: f64,
    pub(crate) spin_ns: f64,
    pub(crate) spin_share: f64,
    pub(crate) waits: u64,
    pub(crate) wakeups: u64,
    pub(crate) p99_added_ns: f64,
}
