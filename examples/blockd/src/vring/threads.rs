//! Requests that threads execute, and holding the queue until they have ended.

use std::thread;
use std::time::Instant;

use aio_context::{Context, Pollable};

use super::failure::VringError;
use super::{Turn, Vring, VringConfig};
use crate::descriptor_chain::DescriptorChain;
use crate::disk::STEP;
use crate::engine::Workers;
use crate::outstanding::Completion;
use crate::request::{Done, MalformedRequest};
use crate::ring::full_fence;

impl Vring {
    /// Takes no more requests until [`release`](Self::release), but executes those that a former daemon has
    /// left. Returns `true` if no request is outstanding. If the queue has failed, its requests are never
    /// completed, so it only waits for their ends.
    pub(crate) fn hold(&self) -> bool {
        self.held.set(true);
        if self.stopped.get() {
            self.running.is_none()
        } else {
            self.outstanding.borrow().is_empty() && !self.must_redo()
        }
    }

    /// Takes requests again.
    pub(crate) fn release(&self) {
        if self.held.replace(false) && self.poll() {
            self.reschedule();
        }
    }

    /// Executes pending requests at once if they need not wait, and passes the others to threads or to the
    /// ring.
    pub(super) fn pass_on_pending(
        &self,
        pending: u16,
        chain: &mut DescriptorChain,
        workers: &Workers,
        turn: &mut Turn,
    ) -> Result<(), VringError> {
        for _ in 0..pending {
            if turn.is_over() {
                break;
            }
            let next = self.next_available.get();
            let head = self.ring.available_entry(next);
            chain
                .collect(&self.ring, &self.config.memory, head)
                .map_err(MalformedRequest::from)?;
            turn.requests -= 1;
            self.next_available.set(next.wrapping_add(1));
            if let Some(written) = self.serve_now(chain, workers, turn) {
                self.check_memory()?;
                // This completes at once: a driver that polls continues while the next request is read.
                self.complete_served(head, written);
                continue;
            }
            if let Some(tracking) = &self.tracking {
                tracking.mark(head, self.next_used.get());
            }
            self.pass_on(head, chain, workers, turn)?;
            if self.stopped.get() {
                break;
            }
        }
        Ok(())
    }

    /// Executes a request in the loop if it need not wait. In that case, returns the number of bytes written.
    pub(super) fn serve_now(
        &self,
        chain: &DescriptorChain,
        workers: &Workers,
        turn: &mut Turn,
    ) -> Option<u32> {
        if !workers.is_auto {
            return None;
        }
        let done = self.config.device.serve_now(&self.config.memory, chain)?;
        turn.bytes = turn.bytes.saturating_sub(done.written.into());
        self.config.stats.completed_in_turn(done.kind, done.bytes, false);
        Some(done.written)
    }

    /// Completes a request that the loop has executed: with in-flight tracking at once, otherwise when all
    /// requests before it are complete.
    fn complete_served(&self, head: u16, written: u32) {
        let Some(tracking) = &self.tracking else {
            let mut outstanding = self.outstanding.borrow_mut();
            let number = outstanding.push(head);
            outstanding.end(number, written);
            drop(outstanding);
            self.use_completed();
            return;
        };
        tracking.complete_unmarked(head, || self.publish_one(head, written));
    }

    /// Passes a request to threads or to the ring.
    pub(super) fn pass_on(
        &self,
        head: u16,
        chain: &mut DescriptorChain,
        workers: &Workers,
        turn: &mut Turn,
    ) -> Result<(), VringError> {
        let number = self.outstanding.borrow_mut().push(head);
        let now = *turn.passed_on_at.get_or_insert_with(Instant::now);
        let is_buffered_write =
            || !self.config.write_through && self.config.device.is_buffered_write(&self.config.memory, chain);
        let Some(engine) = workers.ring_for(is_buffered_write) else {
            return self.pass_to_thread(number, now, chain, workers);
        };
        // The kernel copies data that are in memory already when it takes the request.
        let len = chain
            .readable
            .iter()
            .chain(&chain.writable)
            .map(|buffer| u64::from(buffer.len));
        turn.bytes = turn.bytes.saturating_sub(len.sum::<u64>().min(STEP));
        self.pass_to_ring(number, now, chain, engine);
        Ok(())
    }

    /// Passes a request to a thread.
    pub(super) fn pass_to_thread(
        &self,
        number: u64,
        now: Instant,
        chain: &mut DescriptorChain,
        workers: &Workers,
    ) -> Result<(), VringError> {
        let VringConfig {
            memory,
            device,
            write_through,
            ..
        } = &self.config;
        let chain = std::mem::take(chain);
        let (memory, device, write_through) = (memory.clone(), device.clone(), *write_through);
        let cancelled = self.cancelled.clone();
        let (me, running) = (self.me.clone(), self.running.begin());
        let execute = move || device.serve_all(&memory, &chain, write_through, &cancelled);
        let done = move |_: &Context, result| {
            drop(running);
            if let Some(vring) = me.upgrade() {
                vring.end(number, now, result);
            }
        };
        workers.pool.run(execute, done).map_err(VringError::NoThread)
    }

    /// Handles the end of a request on a thread or the ring. The request was taken at `taken_at`.
    pub(super) fn end(
        &self,
        number: u64,
        taken_at: Instant,
        result: thread::Result<Result<Option<Done>, MalformedRequest>>,
    ) {
        if self.stopped.get() {
            return;
        }
        let result = match result {
            Ok(Ok(Some(done))) => {
                let stats = &self.config.stats;
                stats.completed(done.kind, done.bytes, done.error.is_some());
                stats.took(taken_at.elapsed(), 1);
                if let Some(error) = &done.error {
                    self.log_error(error);
                }
                self.outstanding.borrow_mut().end(number, done.written);
                self.check_memory()
            }
            // The request was cancelled, so the queue has stopped.
            Ok(Ok(None)) => Ok(()),
            Ok(Err(malformed)) => Err(malformed.into()),
            Err(_) => Err(VringError::Panic),
        };
        if let Err(error) = result {
            self.fail(&error);
            return;
        }
        self.complete();
    }

    /// Completes the requests that have ended, as far as their order allows, and calls the driver if it wants
    /// a call.
    fn complete(&self) {
        if self.use_completed() {
            full_fence();
            self.call_if_wanted();
        }
    }

    /// Moves the requests that have ended to the used ring, as far as their order allows. Returns `true` if
    /// there was one.
    fn use_completed(&self) -> bool {
        let before = self.next_used.get();
        while let Some(Completion { head, written }) = self.outstanding.borrow_mut().next_completion() {
            if self.tracking.is_some() {
                self.complete_marked(head, written);
                continue;
            }
            self.use_next_entry(head, written);
        }
        let used = self.next_used.get();
        if used != before && self.tracking.is_none() {
            self.publish(used);
        }
        used != before
    }
}
