//! Registrations that neither backend accepts any more, which are reported as [`Readiness::NVAL`] until they
//! are removed. Also the operations of an upper backend that has failed, until the caller has taken them.
//!
//! A registration is orphaned if the upper backend has failed and the lower one refuses the descriptor, or if a number is closed at a
//! move down.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use aio_backend::{Backend, Completed, Interest, Readiness, ReadyList, Token, Watched};

/// The orphaned registrations and operations. The first is the next to be reported.
#[derive(Debug, Default)]
pub(crate) struct Orphaned {
    /// A registration without a descriptor stands for the operations.
    all: Vec<(Option<Watched>, Token, Interest)>,
    /// Set if the last wait reported one before the events of the backend. It alternates.
    first: bool,
    /// The operations, with the names that the upper backend gave them.
    ended: VecDeque<(Token, Completed)>,
}

impl Orphaned {
    pub(crate) fn insert(&mut self, fd: Watched, token: Token, interest: Interest) {
        self.all.push((Some(fd), token, interest));
    }

    /// Takes all operations of `backend`, which report under `token`.
    pub(crate) fn take_operations(&mut self, backend: &mut dyn Backend, token: Option<Token>) {
        let Some(token) = token else { return };
        backend.end_operations();
        self.ended.extend(std::iter::from_fn(|| backend.next_completed()));
        if !self.ended.is_empty() && !self.is_taken(token) {
            self.all.push((None, token, Interest::READ));
        }
    }

    pub(crate) fn next_completed(&mut self) -> Option<(Token, Completed)> {
        let next = self.ended.pop_front();
        if self.ended.is_empty() {
            self.all.retain(|(fd, _, _)| fd.is_some());
        }
        next
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.ended.len()
    }

    pub(crate) fn len(&self) -> usize {
        self.all.iter().filter(|(fd, _, _)| fd.is_some()).count()
    }

    /// Returns whether the slot of `token` is in use, by any generation.
    pub(crate) fn is_taken(&self, token: Token) -> bool {
        self.all
            .iter()
            .any(|(_, other, _)| other.index() == token.index())
    }

    /// Changes the interest of an orphaned registration. Returns `false` if there is none with this token.
    pub(crate) fn set_interest(&mut self, token: Token, interest: Interest) -> bool {
        let one = self.all.iter_mut().find(|(_, other, _)| *other == token);
        one.map(|(_, _, now)| *now = interest).is_some()
    }

    /// Removes an orphaned registration. Returns `false` if there is none with this token.
    pub(crate) fn remove(&mut self, token: Token) -> bool {
        let before = self.all.len();
        self.all.retain(|(_, other, _)| *other != token);
        self.all.len() < before
    }

    /// Returns whether any registration is not silent.
    pub(crate) fn has_any(&self) -> bool {
        self.place().is_some()
    }

    pub(crate) fn visit(&self, each: &mut dyn FnMut(&Watched, Token, Interest)) {
        for (fd, token, interest) in &self.all {
            if let Some(fd) = fd {
                each(fd, *token, *interest);
            }
        }
    }

    /// Removes all registrations and passes them to `each`. The operations stay.
    pub(crate) fn drain(&mut self, each: &mut dyn FnMut(Watched, Token, Interest)) {
        let operations = |(fd, _, _): &(Option<Watched>, Token, Interest)| fd.is_none();
        let place = self.all.iter().position(operations);
        let operations = place.map(|place| self.all.swap_remove(place));
        for (fd, token, interest) in std::mem::take(&mut self.all) {
            if let Some(fd) = fd {
                each(fd, token, interest);
            }
        }
        self.all.extend(operations);
    }

    fn place(&self) -> Option<usize> {
        self.all
            .iter()
            .position(|(_, _, interest)| *interest != Interest::NONE)
    }

    /// Waits with `backend`, without blocking if there is an orphaned registration to report. Reports one at a time, alternately
    /// before and after the events of the backend, so neither displaces the other in a short list.
    pub(crate) fn wait(
        &mut self,
        backend: &mut dyn Backend,
        timeout: Option<Duration>,
        ready: &mut ReadyList,
    ) -> io::Result<()> {
        let Some(place) = self.place() else {
            return backend.wait(timeout, ready);
        };
        let (fd, token, _) = &self.all[place];
        let (token, readiness) = match fd {
            Some(_) => (*token, Readiness::NVAL),
            None => (*token, Readiness::IN),
        };
        self.first = !self.first;
        let mut reported = self.first && ready.push(token, readiness);
        if !ready.is_full() {
            backend.wait(Some(Duration::ZERO), ready)?;
        }
        reported = reported || ready.push(token, readiness);
        if reported {
            let (_, _, interest) = &mut self.all[place];
            if interest.contains(Interest::ONESHOT) {
                *interest = Interest::NONE;
            }
            self.all[place..].rotate_left(1);
        }
        Ok(())
    }
}
