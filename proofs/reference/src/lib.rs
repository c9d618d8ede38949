//! A reference event loop beside the real one.
//!
//! A *sequence* of operations runs on a real context, with real descriptors and a simulated clock, and on a reference that was
//! written from the rules. Both must make the same callbacks, in the same order and at the same times, and must agree on whether a
//! poll made progress. The module `model` lists the points that the rules leave open.
//!
//! # The language
//! Steps are separated by `;`. A step may say which callbacks it makes: `poll -> a.readable x`, in this order, or
//! `poll ~> a.readable b.readable`, in any. A nested poll stands in brackets; a panic that comes out of a poll is `panic`,
//! an operation that the loop refuses is `refused`.
//!
//! | step | does |
//! |---|---|
//! | `watch a rw in g polled` | registers a handler of the same name for descriptor `a`; interest `-`, or of `r`, `w`, `p` (priority), and `1` for one event; group and `polled` optional. Refused if `a` has a handler |
//! | `replace a n w polled` | replaces `a`'s handler by `n`, with an interest by number; the descriptor is still `a`; interest and `polled` optional |
//! | `remove a`, `interest a w1`, `rearm a` | removes the registration of descriptor `a`, changes its interest, or arms it again for one event |
//! | `pause g`, `resume g` | counted |
//! | `kick a`, `drain a`, `close a` | the far end makes the near one ready; the near end reads all data, or fills its buffer; the far end is closed |
//! | `work a` | work in memory; kicks, unless the handler had its `poll_begin` |
//! | `closeraw a`, `dup a b` | closes `a`'s number without removing the registration; makes `b` another number of `a`'s file |
//! | `bh x`, `schedule x`, `idle x`, `cancel x`, `delete x` | bottom halves |
//! | `timer t`, `arm t 5`, `anticipate t 5`, `disarm t`, `forget t` | timers, in milliseconds from now |
//! | `polling 50` | polls for up to 50 us; 0: not at all |
//! | `gather`, `scatter` | registers and removes 64 descriptors that are never ready: ladders move |
//! | `on a.readable { drain a, poll }` | sets the script of a callback; without one, `readable`, `priority` and `poll_ready` drain, and so does `writable` of an end that can be full |
//! | `repeat 20 { work a, wait 1 }` | does it all so often |
//! | `advance 5` | lets time pass |
//! | `poll`, `wait 5` | runs one iteration without waiting; waits until there is progress, or for 5 ms |
//! | `panic` | in a callback |
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

/// Polls in callbacks are done to this depth; below, they do nothing.
const DEEPEST: u32 = 3;
/// So many polls are done for one step, nested ones counted; all later ones do nothing.
const MOST_POLLS: u32 = 40;
/// So many scripts are run for one step; later ones do nothing. (A handler that replaces itself in each `poll_begin`
/// would go on for ever.)
const MOST_SCRIPTS: u32 = 100;
/// A peer has at most so much work.
const MOST_WORK: u32 = 4;
/// A wait that takes more iterations than this ends as `busy`. (This is possible: a descriptor that is
/// always ready lets no time pass, and if an idle bottom half serves it in a nested poll, the wait makes no progress.)
const MOST_ITERATIONS: u32 = 20;
