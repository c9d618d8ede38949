//! The kernel arms, completes and cancels poll requests.

use aio_context::Readiness;

use crate::kernel::Kernel;
use crate::poll_requests::{ALWAYS, Armed, PollRequest, Polled};
use crate::target::{FileId, Target};

impl Kernel {
    fn readiness_of(&self, target: Target, rings: bool) -> Readiness {
        match target {
            Target::File(file) => self.files[file].readiness(),
            Target::Doorbell(_) if rings => Readiness::IN,
            Target::Doorbell(_) => Readiness::empty(),
        }
    }

    /// Arms a request. It does not keep a one-shot request that is ready, nor a request for a regular file.
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

    /// Turns the first wake-up into a completion: the key, the readiness, and `true` if the request stays
    /// armed. Drops wake-ups without readiness.
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

    /// Cancels a request. Returns `true` if it existed.
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

    /// Cancels all requests, because the ring was closed.
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
