//! [`Args`]: the options of the demo.

use std::path::PathBuf;

use clap::Parser;

use crate::client::DEEPEST;

/// Measure disks with and without idle queues, and compare requests per second, latency and CPU
///
/// Builds blockd and drives it with an embedded vhost-user client that checks every byte it reads. If
/// qemu-storage-daemon is installed, the same client measures it in turns with blockd. Takes three to four
/// minutes after the build.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask demo", bin_name = "cargo xtask demo", version)]
pub(crate) struct Args {
    /// Take at most a minute: two short rounds instead of five
    #[arg(long)]
    pub(crate) quick: bool,
    /// Write a row for every run to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// File for the plot of requests per second over idle queues, with --grid for the heat map [default:
    /// demo.svg or grid.svg in the target directory]
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) plot: Option<PathBuf>,
    /// Numbers of idle queues connected beside the busy one; rounded up to whole connections of 32
    #[arg(
        long,
        value_name = "N,N,...",
        value_delimiter = ',',
        default_value = "0,64,320,3200"
    )]
    pub(crate) idle: Vec<usize>,
    /// Numbers of requests under way; runs with idle queues use only the first
    #[arg(long, value_name = "N,N,...", value_delimiter = ',', default_value = "1,4,32", value_parser = depth)]
    pub(crate) depth: Vec<usize>,
    /// Times that the client computes before each request, in microseconds; runs with idle queues use only
    /// the first [default: 0,2.5, with --grid 0,1,2.5,5,10]
    #[arg(long, value_name = "N,N,...", value_delimiter = ',', value_parser = microseconds)]
    pub(crate) think_us: Option<Vec<f64>>,
    /// Instead, measure each depth with each think time and client, without idle queues: polling off,
    /// adaptive and always, beside qemu-storage-daemon. Prints the cost of a request, and draws a heat map.
    /// Takes seven minutes, with --quick one
    #[arg(long, conflicts_with_all = ["files", "idle"])]
    pub(crate) grid: bool,
    /// Measure only runs whose description has all of these, as in "adaptive,spin,depth 1", with --files as
    /// in "write 4 KiB,depth 1", with --neighbour as in "blockd auto,busy", with --contended as in "one
    /// core,depth 4,learned"
    #[arg(long, value_name = "WORD,WORD,...", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Instead, read and write images in this directory, with each engine; takes two minutes, and 2.5 GiB of
    /// the directory
    #[arg(long, value_name = "DIRECTORY", conflicts_with_all = ["plot"])]
    pub(crate) files: Option<PathBuf>,
    /// With --files: instead, measure a disk in memory alone, and beside an image in this directory that
    /// flushes, is busy, waits 10 ms for each write (cgroups, as root), or hangs on a frozen file system (as
    /// root). Takes a minute
    #[arg(long, requires = "files")]
    pub(crate) neighbour: bool,
    /// Instead, measure the latency of each polling policy against polling off, under a quota of processor
    /// time (cgroups, as root), and on one core with the client. Takes three minutes
    #[arg(long, conflicts_with_all = ["files", "grid", "plot", "idle", "depth", "think_us"])]
    pub(crate) contended: bool,
    /// Instead, compare two I/O threads with one, for two clients and for one client with two queues; needs
    /// four cores for a verdict. Takes a minute
    #[arg(long, conflicts_with_all = ["files", "grid", "contended", "plot", "only", "idle", "depth", "think_us"])]
    pub(crate) iothreads: bool,
    /// Instead, measure NBD over a Unix socket, beside qemu-nbd and qemu-storage-daemon. Takes a minute
    #[arg(long, conflicts_with_all = ["files", "grid", "contended", "iothreads", "plot", "only", "idle", "depth", "think_us"])]
    pub(crate) nbd: bool,
    /// Number of rounds, without a limit of time
    #[arg(long, value_name = "N")]
    pub(crate) rounds: Option<usize>,
    /// Measure nothing: start this program as blockd, write and read for some seconds, check every byte, and
    /// stop it
    #[arg(long, value_name = "BLOCKD", hide = true)]
    pub(crate) drive: Option<PathBuf>,
    /// Like --drive, with qemu-storage-daemon
    #[arg(long, hide = true, conflicts_with = "drive")]
    pub(crate) drive_peer: bool,
    #[arg(long, value_name = "N", hide = true, default_value_t = 5)]
    pub(crate) seconds: u64,
}

impl Args {
    /// Returns the times that the client computes before each request.
    pub(crate) fn think_us(&self) -> &[f64] {
        match &self.think_us {
            Some(given) => given,
            None if self.grid && !self.quick => &[0.0, 1.0, 2.5, 5.0, 10.0],
            None => &[0.0, 2.5],
        }
    }
}

/// Returns `true` if a description contains all words of `--only`.
pub(crate) fn has_all(description: &str, only: &[String]) -> bool {
    only.iter().all(|word| description.contains(word.trim()))
}

fn depth(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(depth @ 1..=DEEPEST) => Ok(depth),
        _ => Err(format!("a depth is a number from 1 to {}", DEEPEST)),
    }
}

fn microseconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(micros) if (0.0..=1e6).contains(&micros) => Ok(micros),
        _ => Err("microseconds are a number from 0 to 1000000".to_owned()),
    }
}
