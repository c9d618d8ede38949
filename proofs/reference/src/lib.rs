//! A reference event loop beside the real one.
//!
//! A *sequence* of operations is done to a real context, on real descriptors and a simulated clock, and to a reference
//! that was written from the rules. What they call, in which order, when, and whether a poll made progress must be the
//! same. What the rules leave open is in the text of `model`.
//!
//! # The language
//! Steps are separated by `;`. A step may say which callbacks it makes: `poll -> a.readable x`, in this order, or
//! `poll ~> a.readable b.readable`, in any. A nested poll stands in brackets; a panic that comes out of a poll is `panic`,
//! an operation that the loop refuses is `refused`.
//!
//! | step | does |
//! |---|---|
//! | `watch a rw in g polled` | registers a handler of the same name for descriptor `a`; interest `r`, `w`, `rw` or `-`; group and `polled` optional. Refused if `a` has a handler |
//! | `replace a n w polled` | puts handler `n` in the place of `a`'s; the descriptor is still `a`; interest and `polled` optional |
//! | `remove a`, `interest a w` | about the registration of descriptor `a` |
//! | `pause g`, `resume g` | counted |
//! | `kick a`, `drain a`, `close a` | the far end makes the near one ready; the near end takes all, or fills what has room; the far end is closed |
//! | `work a` | work in memory; kicks, unless the handler was told that the loop polls |
//! | `closeraw a`, `dup a b` | closes `a`'s number behind the loop's back; makes `b` another number of `a`'s file |
//! | `bh x`, `schedule x`, `idle x`, `cancel x`, `delete x` | bottom halves |
//! | `timer t`, `arm t 5`, `anticipate t 5`, `disarm t`, `forget t` | timers, in milliseconds from now |
//! | `polling 50` | polls for up to 50 us; 0: not at all |
//! | `gather`, `scatter` | registers and removes 64 descriptors that are never ready: ladders move |
//! | `on a.readable { drain a, poll }` | what a callback does; otherwise `readable` and `poll_ready` drain, and so does `writable` of what can be full |
//! | `repeat 20 { work a, wait 1 }` | does it all so often |
//! | `advance 5` | lets time pass |
//! | `poll`, `wait 5` | does what is ready; waits until there is progress, or for 5 ms |
//! | `panic` | in a callback |
//!
//! Callbacks: `a.readable`, `a.writable`, `a.broken`, `a.poll` (once), `a.poll_ready`, `a.begin`, `a.end`, `x`, `t`.
//! Descriptors: `a` to `d` are streams, `e` and `f` eventfds, `p` and `q` the ends of pipes that are read from and written
//! to. What makes no sense, such as removing what is not there, does nothing.

#![forbid(unsafe_code)]

mod actor;
mod acts;
mod author;
mod files;
mod foreign;
pub mod fuzz;
mod log;
mod model;
mod numbers;
mod op;
mod plant;
mod real;
mod run;
mod setup;
mod text;

pub use author::{Bytes, Dice, sequence};
pub use log::Tally;
pub use op::{Callback, DEFAULT_GROUP, DESCRIPTORS, Fd, Name, Op, Script, Side};
pub use plant::Plant;
pub use run::{Difference, Summary, USUAL, check, check_and_show, run, run_seed};
pub use setup::{Setup, Waiter};

/// Polls in callbacks are done to this depth; below, they do nothing.
const DEEPEST: u32 = 3;
/// So many polls are done for one step, nested ones counted; all later ones do nothing.
const MOST_POLLS: u32 = 40;
/// So many scripts are run for one step; later ones do nothing. (A handler that is replaced whenever it hears that polling
/// begins would go on for ever.)
const MOST_SCRIPTS: u32 = 100;
/// A peer has at most so much work.
const MOST_WORK: u32 = 4;
/// A wait that takes more iterations than this is given up as `busy`. (It can be: what is always ready lets no time pass,
/// and if a bottom half that is no progress serves it in a poll of its own, the wait has none.)
const PATIENCE: u32 = 20;
