//! [`WallChanges`]: ends a wait when the wall clock was changed (rule T6).
//!
//! A wait for a deadline of the wall clock has a timeout, which the kernel measures on the monotonic clock. When the wall clock is
//! set, or a suspended machine resumes, that timeout is wrong, and the timer would fire hours late. So before a loop waits for a
//! wall timer, its backend watches a descriptor that becomes readable at such a change ([`ClockChanges`]).
//!
//! The alternative is to cap such waits. It costs a wake-up each second for as long as a wall timer is armed, and the
//! timer is up to a second late. It is the fallback: where the descriptor cannot be created, or the backend refuses it.
//!
//! # Cost
//! A loop without wall timers makes no system call for this. The first wait with one makes three: two for the timerfd, one to watch
//! it. Later waits and arms make none. The descriptor stays watched ([`OnDemand`]) when the last wall timer is cancelled, since programs
//! that arm a timer for each request and cancel it would otherwise add and remove it all the time. The first change of the clock
//! that finds no wall timer armed closes it; so does the drop of the context.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use aio_backend::{Interest, OnDemand, Readiness, Token};
use aio_notify::ClockChanges;

use crate::any_backend::LoopBackend;

/// A context reserves this many tokens for its own descriptors: that of the notifier, and that of these changes.
pub(crate) const OWN_TOKENS: u32 = 2;

/// Whether `token` is one of a context's own descriptors, which have no handler. They are the first of its registry.
#[inline]
pub(crate) const fn is_own(token: Token) -> bool {
    token.index() < OWN_TOKENS
}

/// The longest wait for a wall timer while changes of the clock are not reported.
const LONGEST_UNREPORTED: Duration = Duration::from_secs(1);

/// Opens a descriptor that becomes readable when the wall clock is changed, until eight bytes are read from it.
pub(crate) type OpenChanges = Box<dyn Fn() -> io::Result<ClockChanges>>;

/// Whether and how a context learns of changes of its wall clock.
pub(crate) struct WallChanges {
    /// Once it has failed, waits are capped until no wall timer is armed.
    changes: OnDemand<ClockChanges>,
    has_warned: Cell<bool>,
}

impl WallChanges {
    pub(crate) fn new(open: OpenChanges, token: Token) -> Self {
        Self {
            changes: OnDemand::new(token, open),
            has_warned: Cell::new(false),
        }
    }

    /// Has `backend` watch for changes, if it does not yet. Returns the longest wait allowed for a wall timer.
    pub(crate) fn watch(&self, backend: &LoopBackend) -> Duration {
        let add = |fd, token| backend.borrow_mut().add(fd, token, Interest::READ);
        match self.changes.watch(add) {
            Ok(true) => return Duration::MAX,
            Ok(false) => {}
            Err(why) => self.warn(&why),
        }
        LONGEST_UNREPORTED
    }

    /// Reads the event, so that it is not reported again. Stops watching if no wall timer is armed, or if reading fails.
    pub(crate) fn accept(&self, readiness: Readiness, is_armed: bool, backend: &LoopBackend) {
        let remove = |token| {
            if let Err(error) = backend.borrow_mut().remove(token) {
                tracing::debug!(%error, "the backend complained about a removal");
            }
        };
        let accepted = self
            .changes
            .accept(readiness, is_armed, ClockChanges::accept, remove);
        if let Err(why) = accepted {
            self.warn(&why);
        }
    }

    fn warn(&self, why: &io::Error) {
        if !self.has_warned.replace(true) {
            tracing::warn!(
                error = %why,
                "changes of the wall clock cannot be watched; waits for its timers are limited to one second"
            );
        }
    }

    /// No wall timer is armed: the next one tries again to have changes reported.
    pub(crate) fn forget_failure(&self) {
        self.changes.forget_failure();
    }
}
