//! Simulated operations for a backend without operations: all end at once, and do nothing.

use std::collections::VecDeque;

use aio_backend::{Completed, Operation, Readiness, ReadyList, Token};

/// The fault of the operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// The first operation is never returned.
    LosesOne,
    /// Completions are reported by only one wait.
    ReportsOnce,
}

/// The operations that were submitted.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    report: Option<Token>,
    submitted: u32,
    ended: VecDeque<(Token, Operation)>,
    was_reported: bool,
}

impl Operations {
    pub(crate) fn submit(&mut self, mistake: Mistake, report: Token, operation: Operation) -> Token {
        let id = Token::new(self.submitted, 0);
        self.submitted += 1;
        self.report = Some(report);
        self.was_reported = false;
        if mistake != Mistake::LosesOne || id.index() > 0 {
            self.ended.push_back((id, operation));
        }
        id
    }

    pub(crate) fn next(&mut self) -> Option<(Token, Completed)> {
        let (id, operation) = self.ended.pop_front()?;
        Some((
            id,
            Completed {
                result: Ok(0),
                operation,
            },
        ))
    }

    pub(crate) fn len(&self) -> usize {
        self.ended.len()
    }

    /// Reports completions. Returns `true` if the wait must not block.
    pub(crate) fn report(&mut self, mistake: Option<Mistake>, ready: &mut ReadyList) -> bool {
        let Some(report) = self.report.filter(|_| !self.ended.is_empty()) else {
            return false;
        };
        if mistake == Some(Mistake::ReportsOnce) && self.was_reported {
            return false;
        }
        self.was_reported = ready.push(report, Readiness::IN);
        true
    }
}
