//! [`PollRequests`]: the poll requests of a ring, in the kernel.
//!
//! A request that is woken completes when its ring enters. The completion has the cause of the wake-up, which may be over by then; only a
//! wake-up without a cause makes the kernel check the file again.

use std::collections::VecDeque;
use std::os::fd::RawFd;

use aio_context::Readiness;

use crate::kernel::{FileId, Kernel, Target};

/// The kernel reports these to every request.
const ALWAYS: Readiness = Readiness::HUP.union(Readiness::ERR).union(Readiness::RDHUP);

/// A poll request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PollRequest {
    pub(crate) key: u64,
    pub(crate) raw: RawFd,
    pub(crate) wanted: Readiness,
    pub(crate) is_multishot: bool,
}

#[derive(Debug)]
struct Armed {
    request: PollRequest,
    target: Target,
    /// Why it was woken; its key is in the queue.
    woken: Option<Readiness>,
}

/// All that are armed.
#[derive(Debug, Default)]
pub(crate) struct PollRequests {
    armed: Vec<Armed>,
    /// The keys of the woken ones, in order.
    woken: VecDeque<u64>,
}

/// What comes of a poll request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Polled {
    /// It completes with this readiness, and perhaps goes on.
    Ready(Readiness, bool),
    /// It waits.
    Waits,
    /// Its number is not open.
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

    /// Whether a ring has work that its next enter turns into completions.
    pub(crate) fn has_woken(&self) -> bool {
        !self.woken.is_empty()
    }

    /// Whether a request for this number is armed.
    pub(crate) fn has_number(&self, raw: RawFd) -> bool {
        self.armed.iter().any(|armed| armed.request.raw == raw)
    }

    /// The eventfds that requests wait for.
    pub(crate) fn doorbell(&self) -> Option<RawFd> {
        self.armed.iter().find_map(|armed| match armed.target {
            Target::Doorbell(raw) => Some(raw),
            Target::File(_) => None,
        })
    }
}

impl Kernel {
    fn readiness_of(&self, target: Target, rings: bool) -> Readiness {
        match target {
            Target::File(file) => self.files[file].readiness(),
            Target::Doorbell(_) if rings => Readiness::IN,
            Target::Doorbell(_) => Readiness::empty(),
        }
    }

    /// Arms a request. A one-shot request that is ready is not kept, nor is one for a regular file.
    pub(crate) fn arm(&mut self, request: PollRequest, rings: bool) -> Polled {
        let Some(target) = self.target_of(request.raw) else {
            return Polled::Bad;
        };
        let ready = self.readiness_of(target, rings) & (request.wanted | ALWAYS);
        if let Target::File(file) = target {
            if self.files[file].regular {
                return if ready.is_empty() {
                    Polled::Invalid
                } else {
                    Polled::Ready(ready, false)
                };
            }
            if request.is_multishot || ready.is_empty() {
                self.dup(file);
            }
        }
        if request.is_multishot || ready.is_empty() {
            let woken = None;
            self.requests.armed.push(Armed {
                request,
                target,
                woken,
            });
        }
        if ready.is_empty() {
            Polled::Waits
        } else {
            Polled::Ready(ready, request.is_multishot)
        }
    }

    /// Turns the first wake-up into a completion: the key, the readiness, and whether the request goes on. Wake-ups about nothing are
    /// dropped.
    pub(crate) fn next_woken(&mut self, rings: bool) -> Option<(u64, Readiness, bool)> {
        loop {
            let key = self.requests.woken.pop_front()?;
            let place = self.place_of(key)?;
            let armed = &mut self.requests.armed[place];
            let (cause, wanted) = (armed.woken.take(), armed.request.wanted | ALWAYS);
            let (target, goes_on) = (armed.target, armed.request.is_multishot);
            let ready = match cause.unwrap_or_default() & wanted {
                cause if cause.is_empty() => self.readiness_of(target, rings) & wanted,
                cause => cause,
            };
            if ready.is_empty() {
                continue;
            }
            if !goes_on {
                self.remove_request(place);
            }
            return Some((key, ready, goes_on));
        }
    }

    fn place_of(&self, key: u64) -> Option<usize> {
        self.requests
            .armed
            .iter()
            .position(|armed| armed.request.key == key)
    }

    /// Whether there was such a request.
    pub(crate) fn cancel_request(&mut self, key: u64) -> bool {
        let place = self.place_of(key);
        if let Some(place) = place {
            self.requests.woken.retain(|woken| *woken != key);
            self.remove_request(place);
        }
        place.is_some()
    }

    fn remove_request(&mut self, place: usize) {
        let armed = self.requests.armed.swap_remove(place);
        if let Some(file) = file_of(armed.target) {
            self.release(file);
        }
    }

    /// The ring was closed.
    pub(crate) fn cancel_all_requests(&mut self) {
        self.requests.woken.clear();
        while !self.requests.armed.is_empty() {
            self.remove_request(0);
        }
    }
}

fn file_of(target: Target) -> Option<FileId> {
    match target {
        Target::File(file) => Some(file),
        Target::Doorbell(_) => None,
    }
}
