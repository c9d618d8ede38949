//! The set of sources that an event loop busy-polls.
//!
//! A loop that polls its sources in user space before it sleeps has three tasks besides the polling itself:
//! to notify each source when polling begins and ends, so that its peer can suppress notifications; to miss
//! no work that arrives while polling stops; and to avoid the cost of idle sources. [`PollSet`] does these.
//!
//! ```
//! use std::cell::Cell;
//! use std::ops::ControlFlow;
//! use std::rc::Rc;
//! use aio_backend::Token;
//! use aio_pollset::{PollSet, Source};
//!
//! struct Ring {
//!     filled: Cell<u32>,
//!     is_polled: Cell<bool>,
//! }
//!
//! impl Source for Ring {
//!     fn poll(&self) -> bool {
//!         self.filled.get() > 0
//!     }
//!     fn poll_begin(&self) {
//!         self.is_polled.set(true);
//!     }
//!     fn poll_end(&self) {
//!         self.is_polled.set(false);
//!     }
//! }
//!
//! let set = PollSet::new();
//! let ring = Rc::new(Ring { filled: Cell::new(0), is_polled: Cell::new(false) });
//! let token = Token::new(0, 0);
//! let _ = set.join(token, ring.clone());
//!
//! set.enter(); // `poll_begin`: peers need not notify
//! assert!(ring.is_polled.get());
//! ring.filled.set(2); // and do not
//!
//! // The loop is about to sleep: `poll_end`, then one last `poll`, which finds work without a notification.
//! let mut hits = Vec::new();
//! let must_not_sleep = set.exit(|token| {
//!     hits.push(token);
//!     ControlFlow::Continue(())
//! });
//! assert!(must_not_sleep && !ring.is_polled.get() && hits == [token]);
//!
//! // Until it has been served, every `exit` polls it again.
//! assert!(set.needs_exit());
//! set.serve(token, || ring.filled.set(0));
//! assert!(!set.needs_exit());
//! # set.leave(token).finish(|| ring.poll_end());
//! ```
//!
//! The example `hand_written_loop` is a complete loop.
//!
//! # An iteration
//! 1. [`enter`](PollSet::enter), then [`round`](PollSet::round) after round, until a hit or until polling does not pay any
//!    longer.
//! 2. Without a hit, right before the sleep: [`exit`](PollSet::exit), unless [`needs_exit`](PollSet::needs_exit) returns
//!    `false`. If `exit` returns `true`, do not sleep.
//! 3. [`serve`](PollSet::serve) each hit. Report events that were found otherwise with [`promote`](PollSet::promote), and
//!    [`exclude`](PollSet::exclude) their source while their handler runs.
//! 4. Every few hundred [`rounds`](PollSet::rounds): [`demote_idle`](PollSet::demote_idle).
//!
//! Poll mode stays on from hit to hit, because a source that was just served often has new work soon.
//!
//! # What it ensures
//! - `poll_begin` and `poll_end` of a source alternate, beginning with `poll_begin`, in all cases: if a
//!   source joins in poll mode, is replaced, removed, suspended, demoted or excluded, or panics. If the
//!   caller has to make the call, the method returns [`EndOwed`].
//! - In poll mode no source is polled before its `poll_begin`. (Exception: a source that replaces another one
//!   during a `poll_begin` may be polled first, if it may have work without a notification.)
//! - After its `poll_end`, a source is polled until its `poll` returns `false` or it is served, before
//!   [`exit`](PollSet::exit) lets the loop sleep. This also holds if it is suspended, replaced or excluded,
//!   if the list of hits is full, or if a callback panics.
//! - A source that is suspended, demoted, excluded or removed is not polled, not even by the walk in progress.
//! - Hits are taken once. A nested iteration may take those of an outer one.
//! - A hit for which the callback returned `Break` is refused, and its source is the first one of the next round, so no source starves.
//! - The set is not borrowed while a source runs: the source may call any method of the set.
//!
//! # Cost
//! A round costs one indirect call for each *type* of sources; the loop over the sources of one type has
//! their `poll` inlined. An operation on one source costs O(1). Entering and leaving poll mode costs
//! O(promoted sources), even if all have work. Rounds allocate nothing. A source takes 24 bytes for its
//! state, 4 for its token's index, and an entry of 4 bytes beside the source itself (16 in all for one that
//! is a pointer).
//!
//! # What it does not do
//! It does not decide how long to poll, reads no clock, never waits and makes no system call. It has no
//! descriptors and no handlers: a hit is a token. It belongs to one thread; other threads reach it through
//! the memory that its sources poll.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod arrays;
#[cfg(test)]
mod check;
mod due;
mod ends;
mod hit;
mod idle;
mod mode;
mod round;
mod serving;
mod set;
mod slots;
mod source;
mod state;
mod steps;
mod walk;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;

pub use ends::EndOwed;
pub use hit::Hit;
pub use serving::Excluded;
pub use set::PollSet;
pub use source::Source;

/// The README's example is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
