//! What neither backend takes any more: its owner has to hear of it.
//!
//! This happens only when the upper backend has failed and the lower one refuses a descriptor. The registration has come
//! to its end, and [`Readiness::NVAL`] is how a backend says so.

use std::io;
use std::time::Duration;

use aio_backend::{Backend, Interest, Readiness, ReadyList, Token};

use crate::table::Table;

/// The stranded registrations, in the order of their turns.
#[derive(Debug, Default)]
pub(crate) struct Stranded {
    tokens: Vec<Token>,
    /// Whether they come first in the next list.
    first: bool,
}

impl Stranded {
    pub(crate) fn push(&mut self, token: Token) {
        self.tokens.push(token);
    }

    pub(crate) fn contains(&self, token: Token) -> bool {
        self.tokens.contains(&token)
    }

    /// Forgets one, and tells whether it was stranded.
    pub(crate) fn remove(&mut self, token: Token) -> bool {
        let before = self.tokens.len();
        self.tokens.retain(|&other| other != token);
        self.tokens.len() < before
    }

    /// Whether there is one that is not silent.
    pub(crate) fn has_any(&self, table: &Table) -> bool {
        self.place(table).is_some()
    }

    fn place(&self, table: &Table) -> Option<usize> {
        let silent = |token: Token| {
            table
                .interest(token)
                .is_none_or(|interest| interest == Interest::NONE)
        };
        self.tokens.iter().position(|&token| !silent(token))
    }

    /// Waits with `backend`, without blocking if there is a stranded one to report. One is reported at a time, before or
    /// after what the backend has, so that neither keeps the other out of a short list.
    pub(crate) fn wait(
        &mut self,
        backend: &mut dyn Backend,
        table: &Table,
        timeout: Option<Duration>,
        ready: &mut ReadyList,
    ) -> io::Result<()> {
        let Some(place) = self.place(table) else {
            return backend.wait(timeout, ready);
        };
        let token = self.tokens[place];
        self.first = !self.first;
        let mut reported = self.first && ready.push(token, Readiness::NVAL);
        if !ready.is_full() {
            backend.wait(Some(Duration::ZERO), ready)?;
        }
        reported = reported || ready.push(token, Readiness::NVAL);
        if reported {
            self.tokens[place..].rotate_left(1);
        }
        Ok(())
    }
}
