//! A reference event loop beside the real one.
//!
//! A *sequence* of operations runs on a real context, with real descriptors and a simulated clock, and on a
//! reference that was written from the rules. Both must make the same callbacks, in the same order and at the
//! same times, and must agree on the progress of each poll. The module `model` lists the points that the
//! rules leave open.
//!
//! # The language
//! Steps are separated by `;`. A step may state its callbacks: `poll -> a.readable x`, in this order, or
//! `poll ~> a.readable b.readable`, in any order. A nested poll is in brackets; `panic` is a panic that a
//! poll propagates, `refused` an operation that the loop refuses.
//!
//! | step | effect |
//! |---|---|
//! | `watch a rw in g polled` | registers a handler of the same name for descriptor `a`; the interest is `-` or consists of `r`, `w`, `p` (priority), and `1` for one event; group and `polled` are optional. Refused if `a` has a handler |
//! | `replace a n w polled` | replaces `a`'s handler by `n`; if an interest is given, it does so by descriptor number; the descriptor is still `a`; interest and `polled` are optional |
//! | `remove a`, `interest a w1`, `rearm a` | removes the registration of descriptor `a`, changes its interest, or arms it again for one event |
//! | `pause g`, `resume g` | pauses and resumes a group; pauses are counted |
//! | `kick a`, `drain a`, `close a` | the far end makes the near one ready; the near end reads all data, or fills its buffer; the far end is closed |
//! | `work a` | makes work in memory; kicks, unless the handler had its `poll_begin` |
//! | `closeraw a`, `dup a b` | closes `a`'s number without removing the registration; makes `b` another number of `a`'s file |
//! | `bh x`, `schedule x`, `idle x`, `cancel x`, `delete x` | bottom halves |
//! | `timer t`, `arm t 5`, `anticipate t 5`, `disarm t`, `forget t` | timers, in milliseconds from now |
//! | `polling 50` | sets polling for up to 50 us; 0: no polling |
//! | `gather`, `scatter` | registers and removes 64 descriptors that are never ready, so ladders move |
//! | `on a.readable { drain a, poll }` | sets the script of a callback; without one, `readable`, `priority` and `poll_ready` drain, and so does `writable` of an end that can be full |
//! | `repeat 20 { work a, wait 1 }` | repeats the steps 20 times |
//! | `advance 5` | lets time pass |
//! | `poll`, `wait 5` | runs one iteration without waiting; waits until there is progress, or for 5 ms |
//! | `panic` | panics, in a callback |
//!
//! Callbacks: `a.readable`, `a.writable`, `a.priority`, `a.invalidated`, `a.poll` (once), `a.poll_ready`, `a.begin`, `a.end`, `x`, `t`.
//! Descriptors: `a` to `d` are streams, `e` and `f` eventfds, `p` and `q` the ends of pipes that are read from and written
//! to, `o` is a stream whose far end sends urgent data. A step that does not apply, such as the removal of an unknown handler, has no effect.

#![forbid(unsafe_code)]

mod actor;
mod alive;
mod crowd;
mod files;
mod foreign;
pub mod fuzz;
mod generator;
mod log;
mod model;
mod numbers;
mod op;
mod operations;
mod plant;
mod real;
mod run;
mod setup;
mod text;

pub use generator::{Bytes, Dice, sequence};
pub use log::Tally;
pub use op::{Callback, DEFAULT_GROUP, DESCRIPTORS, Fd, Name, Op, Script, Side};
pub use plant::Plant;
pub use run::{Difference, Summary, USUAL, check, check_and_show, run, run_seed};
pub use setup::{Setup, Waiter};

/// The greatest depth of polls in callbacks; deeper ones do nothing.
const DEEPEST: u32 = 3;
/// The most polls of one step, including nested ones; further ones do nothing.
const MOST_POLLS: u32 = 40;
/// The most scripts of one step; further ones do nothing. (A handler that replaces itself in each
/// `poll_begin` would continue for ever.)
const MOST_SCRIPTS: u32 = 100;
/// The most work of a peer.
const MOST_WORK: u32 = 4;
/// The number of iterations after which a wait ends as `busy`. (This is possible: a descriptor that is always
/// ready lets no time pass, and if an idle bottom half serves it in a nested poll, the wait makes no
/// progress.)
const MOST_ITERATIONS: u32 = 20;
