//! Operations as the backend sees them: completions are reported by waits, like the readiness of a descriptor.
//!
//! While there are ended operations that [`Backend::next_completed`] has not returned, the slot of the report
//! token is in a list, like a registration with pending work. So a check finds at no further cost that a wait
//! has completions to report.
//!
//! [`Backend::next_completed`]: aio_backend::Backend::next_completed

use aio_backend::{Completed, Interest, NotSubmitted, Operation, Readiness, ReadyList, Token};

use crate::Uring;
use crate::calls::{Ring, Sys};
use crate::slots::{List, State};

impl<S: Sys> Uring<S> {
    pub(crate) fn submit_operation(
        &mut self,
        report: Token,
        operation: Operation,
    ) -> Result<Token, NotSubmitted> {
        let token = self.ring.submit(operation)?;
        if self.report.token.is_none() {
            self.report.token = Some(report);
            self.slots.reset(report, -1, Interest::NONE);
        }
        self.report.in_flight += 1;
        self.announce();
        Ok(token)
    }

    /// Returns `true` if operations have ended that were not taken.
    #[inline]
    pub(crate) fn has_completed(&self) -> bool {
        self.ring.has_completed()
    }

    /// Reports completions once in each wait.
    #[cold]
    pub(crate) fn report_completed(&mut self, ready: &mut ReadyList) {
        let Some(token) = self.report.token else { return };
        // Marked for the next wait; this one removes marks that are due.
        self.slots.set(token.index(), State::Due, Some(List::Served));
        if self.report.reported_in != Some(self.waits) && ready.push(token, Readiness::IN) {
            self.report.reported_in = Some(self.waits);
        }
    }

    /// Puts the mark into a list if there are completions, or removes it.
    #[cold]
    pub(crate) fn mark_completed(&mut self) {
        let has_completed = self.has_completed();
        let Some(token) = self.report.token else { return };
        let is_marked = self.slots.get(token.index()).state == State::Due;
        match (has_completed, is_marked) {
            (true, false) => self.slots.set(token.index(), State::Due, Some(List::Served)),
            (false, true) => self.slots.set(token.index(), State::Silent, None),
            _ => {}
        }
    }

    pub(crate) fn take_completed(&mut self) -> Option<(Token, Completed)> {
        let taken = self.ring.next_completed();
        self.report.in_flight -= usize::from(taken.is_some());
        self.mark_completed();
        taken
    }

    pub(crate) fn end_all_operations(&mut self) {
        let mut others = Vec::new();
        self.ring
            .end_operations(&mut |completion| others.push(completion));
        others
            .into_iter()
            .for_each(|completion| self.complete(completion));
        self.mark_completed();
    }
}
