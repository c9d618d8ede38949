//! [`PollRequests`]: the poll requests of a ring, in the kernel.
//!
//! A request that is woken completes when its ring enters. The completion has the cause of the wake-up, which
//! may be outdated by then. The kernel checks the file again only after a wake-up without a cause.

use std::collections::VecDeque;
use std::os::fd::RawFd;

use aio_context::Readiness;

use crate::target::Target;

/// The readiness that the kernel reports to every request.
pub(crate) const ALWAYS: Readiness = Readiness::HUP.union(Readiness::ERR).union(Readiness::RDHUP);

/// A poll request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PollRequest {
    pub(crate) key: u64,
    pub(crate) raw: RawFd,
    pub(crate) wanted: Readiness,
    pub(crate) is_multishot: bool,
}

#[derive(Debug)]
pub(crate) struct Armed {
    pub(crate) request: PollRequest,
    pub(crate) target: Target,
    /// The cause of its wake-up; its key is in the queue.
    pub(crate) woken: Option<Readiness>,
}

/// The armed requests.
#[derive(Debug, Default)]
pub(crate) struct PollRequests {
    pub(crate) armed: Vec<Armed>,
    /// The keys of the woken requests, in order.
    pub(crate) woken: VecDeque<u64>,
}

/// The result of arming a poll request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Polled {
    /// The request completes with this readiness. The flag is `true` if it stays armed.
    Ready(Readiness, bool),
    /// The request waits.
    Waits,
    /// The number is not open.
    Bad,
    /// The file has no queue of waiters, and is not ready.
    Invalid,
}

impl PollRequests {
    pub(crate) fn wake(&mut self, target: Target, cause: Readiness) {
        for armed in self.armed.iter_mut().filter(|armed| armed.target == target) {
            if !cause.is_empty() && !cause.intersects(armed.request.wanted | ALWAYS) {
                continue;
            }
            match &mut armed.woken {
                Some(woken) => *woken |= cause,
                None => {
                    armed.woken = Some(cause);
                    self.woken.push_back(armed.request.key);
                }
            }
        }
    }

    /// Returns `true` if a ring has work that its next enter turns into completions.
    pub(crate) fn has_woken(&self) -> bool {
        !self.woken.is_empty()
    }

    /// Returns `true` if a request for this number is armed.
    pub(crate) fn has_number(&self, raw: RawFd) -> bool {
        self.armed.iter().any(|armed| armed.request.raw == raw)
    }

    /// Returns an eventfd that a request waits for.
    pub(crate) fn doorbell(&self) -> Option<RawFd> {
        self.armed.iter().find_map(|armed| match armed.target {
            Target::Doorbell(raw) => Some(raw),
            Target::File(_) => None,
        })
    }
}
