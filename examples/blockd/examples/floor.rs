//! The queues of blockd on a hand-written loop, for comparison with the daemon: `floor spin|epoll` and the
//! options of `blockd`. A signal ends it.
//!
//! ```sh
//! cargo run --release -p blockd --example floor -- epoll --export ram=1M,socket=/tmp/floor.sock
//! ```

use std::io::Write as _;

use blockd::{Args, FloorLoop, serve_on_floor};
use clap::Parser as _;

fn main() -> anyhow::Result<()> {
    let mut words = std::env::args();
    let program = words.next().unwrap_or_default();
    let how = match words.next().as_deref() {
        Some("spin") => FloorLoop::Spin,
        Some("epoll") => FloorLoop::Epoll,
        other => anyhow::bail!("{other:?}: the first argument is `spin` or `epoll`"),
    };
    let args = Args::parse_from(std::iter::once(program).chain(words));
    serve_on_floor(&args, how, |_| {
        let mut out = std::io::stdout();
        // A reader that has closed the pipe does not need the line.
        let _ = writeln!(out, "ready").and_then(|()| out.flush());
    })
}
