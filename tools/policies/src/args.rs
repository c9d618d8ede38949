//! [`Args`]: the options of the program.

use std::path::PathBuf;

use aio_replay::WAKE_COSTS_NS;
use clap::Parser;
use clap::builder::PossibleValuesParser;

use crate::grid;

/// Replay polling policies on traces of waits: cost over the clairvoyant optimum, polling, wake-ups, latency
///
/// Without --trace it replays the built-in families. A trace has one wait in nanoseconds a line, `#` starts a
/// comment; `blockd --record-waits FILE` writes one.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask policies", bin_name = "cargo xtask policies", version)]
pub(crate) struct Args {
    /// Replay this file instead of the built-in families; may be given several times
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Vec<PathBuf>,
    /// The cost of a wake-up, in nanoseconds; may be given several times
    #[arg(long, value_name = "N", default_values_t = WAKE_COSTS_NS, value_parser = clap::value_parser!(u64).range(256..=1_000_000_000))]
    pub(crate) wake_cost_ns: Vec<u64>,
    /// Replay only these policies; may be given several times
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(grid::NAMES))]
    pub(crate) policy: Vec<String>,
    /// Write a row for every trace, wake-up cost and policy to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Draw the ranking into this file
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) plot: Option<PathBuf>,
    /// Compare `learned` with its goals, on three seeds, and fail if it misses one
    #[arg(long, conflicts_with_all = ["trace", "policy", "plot"])]
    pub(crate) check: bool,
    /// Instead, simulate clients that wait for their answers and pay for their kicks: depths, think times,
    /// spinning and sleeping
    #[arg(long, conflicts_with_all = ["trace", "check", "plot", "waits"])]
    pub(crate) closed_loop: bool,
    /// Instead, draw the simulator's pictures of docs/polling.md into this directory
    #[arg(long, value_name = "DIRECTORY", conflicts_with_all = ["trace", "policy", "check", "closed_loop", "plot", "waits", "json", "wake_cost_ns"])]
    pub(crate) pictures: Option<PathBuf>,
    /// The seed of the built-in families [default: random with --check, otherwise fixed]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// The number of waits of a built-in trace
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1000..=10_000_000))]
    pub(crate) waits: u64,
}
