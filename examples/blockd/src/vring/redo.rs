//! Requests of a queue with in-flight tracking. Requests that a former daemon has left are executed before
//! any new one, and each completion is published by itself.

use super::failure::VringError;
use super::{Turn, Vring};
use crate::descriptor_chain::DescriptorChain;
use crate::inflight::Tracking;
use crate::request::MalformedRequest;

impl Vring {
    /// Returns `true` if a request that a former daemon has left has not begun.
    #[inline]
    pub(super) fn must_redo(&self) -> bool {
        self.tracking
            .as_ref()
            .is_some_and(|tracking| tracking.first_left().is_some())
    }

    /// Executes all requests that a former daemon has left, for a loop that does not watch kicks.
    pub(crate) fn redo_all(&self) {
        while self.must_redo() && !self.stopped.get() {
            self.run();
        }
    }

    /// Executes requests that a former daemon has left, or passes them on, up to the limits of the turn.
    #[cold]
    pub(super) fn redo_left(&self, chain: &mut DescriptorChain, turn: &mut Turn) -> Result<(), VringError> {
        let Some(tracking) = &self.tracking else {
            return Ok(());
        };
        while !turn.is_over()
            && !self.stopped.get()
            && let Some(head) = tracking.first_left()
        {
            self.redo(tracking, head, chain, turn)?;
        }
        Ok(())
    }

    /// Executes the next step of a request that a former daemon has left.
    fn redo(
        &self,
        tracking: &Tracking,
        head: u16,
        chain: &mut DescriptorChain,
        turn: &mut Turn,
    ) -> Result<(), VringError> {
        let Some(workers) = &self.config.workers else {
            if let Some(written) = self.serve_one(chain, head, turn)? {
                tracking.forget_first_left();
                self.complete_marked(head, written);
            }
            return Ok(());
        };
        chain
            .collect(&self.ring, &self.config.memory, head)
            .map_err(MalformedRequest::from)?;
        turn.requests -= 1;
        tracking.forget_first_left();
        if let Some(written) = self.serve_now(chain, workers, turn) {
            self.check_memory()?;
            self.complete_marked(head, written);
            return Ok(());
        }
        self.pass_on(head, chain, workers, turn)
    }

    /// Completes a request that is marked as in flight.
    pub(super) fn complete_marked(&self, head: u16, written: u32) {
        if let Some(tracking) = &self.tracking {
            tracking.complete(head, || self.publish_one(head, written));
        }
    }

    /// Publishes one completion. Returns the used index.
    pub(super) fn publish_one(&self, head: u16, written: u32) -> u16 {
        let used = self.use_next_entry(head, written);
        self.publish(used);
        used
    }

    /// Fills the next entry of the used ring. Returns the index that makes it visible.
    pub(super) fn use_next_entry(&self, head: u16, written: u32) -> u16 {
        let at = self.next_used.get();
        self.use_entry(at, head, written);
        let used = at.wrapping_add(1);
        self.next_used.set(used);
        used
    }
}
