//! Registrations that neither backend accepts any more. They are reported as [`Readiness::NVAL`] until they are removed.
//!
//! A registration is orphaned if the upper backend has failed and the lower one refuses the descriptor, or if a number is closed at a
//! move down.

use std::io;
use std::time::Duration;

use aio_backend::{Backend, Interest, Readiness, ReadyList, Token, Watched};

/// The orphaned registrations, the next one to report first.
#[derive(Debug, Default)]
pub(crate) struct Orphaned {
    all: Vec<(Watched, Token, Interest)>,
    /// Whether the last wait reported one before the events of the backend. It alternates.
    first: bool,
}

impl Orphaned {
    pub(crate) fn insert(&mut self, fd: Watched, token: Token, interest: Interest) {
        self.all.push((fd, token, interest));
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
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

    /// Returns whether one is not silent.
    pub(crate) fn has_any(&self) -> bool {
        self.place().is_some()
    }

    pub(crate) fn visit(&self, each: &mut dyn FnMut(&Watched, Token, Interest)) {
        for (fd, token, interest) in &self.all {
            each(fd, *token, *interest);
        }
    }

    pub(crate) fn drain(self, each: &mut dyn FnMut(Watched, Token, Interest)) {
        for (fd, token, interest) in self.all {
            each(fd, token, interest);
        }
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
        let (_, token, _) = self.all[place];
        self.first = !self.first;
        let mut reported = self.first && ready.push(token, Readiness::NVAL);
        if !ready.is_full() {
            backend.wait(Some(Duration::ZERO), ready)?;
        }
        reported = reported || ready.push(token, Readiness::NVAL);
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
