//! What neither backend takes any more: its owner has to hear of it.
//!
//! This happens when the upper backend has failed and the lower one refuses a descriptor, or when a number turns out to be closed
//! on the way down. The registration has come
//! to its end, and [`Readiness::NVAL`] is how a backend says so.

use std::io;
use std::time::Duration;

use aio_backend::{Backend, Interest, Readiness, ReadyList, Token, Watched};

/// The stranded registrations, in the order of their turns.
#[derive(Debug, Default)]
pub(crate) struct Stranded {
    all: Vec<(Watched, Token, Interest)>,
    /// Whether they come first in the next list.
    first: bool,
}

impl Stranded {
    pub(crate) fn insert(&mut self, fd: Watched, token: Token, interest: Interest) {
        self.all.push((fd, token, interest));
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether the slot of `token` is in use, by this generation or another one.
    pub(crate) fn is_taken(&self, token: Token) -> bool {
        self.all
            .iter()
            .any(|(_, other, _)| other.index() == token.index())
    }

    /// Notes what a stranded one waits for; false if it is not stranded.
    pub(crate) fn set_interest(&mut self, token: Token, interest: Interest) -> bool {
        let one = self.all.iter_mut().find(|(_, other, _)| *other == token);
        one.map(|(_, _, now)| *now = interest).is_some()
    }

    /// Forgets one, and tells whether it was stranded.
    pub(crate) fn remove(&mut self, token: Token) -> bool {
        let before = self.all.len();
        self.all.retain(|(_, other, _)| *other != token);
        self.all.len() < before
    }

    /// Whether there is one that is not silent.
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

    /// Waits with `backend`, without blocking if there is a stranded one to report. One is reported at a time, before or
    /// after what the backend has, so that neither keeps the other out of a short list.
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
            self.all[place..].rotate_left(1);
        }
        Ok(())
    }
}
