//! Requests that threads execute, and how the queue is held until they have ended.

use std::thread;
use std::time::Instant;

use aio_context::{Context, Pollable};

use super::failure::VringError;
use super::{Turn, Vring, VringConfig};
use crate::descriptor_chain::DescriptorChain;
use crate::disk::STEP;
use crate::engine::Workers;
use crate::request::{Done, MalformedRequest};
use crate::ring::full_fence;

impl Vring {
    /// Takes no more requests until [`release`](Self::release). Returns whether none is outstanding. Those of a queue that has failed
    /// are never completed, so it only waits until they have ended.
    pub(crate) fn hold(&self) -> bool {
        self.held.set(true);
        if self.stopped.get() {
            self.running.is_none()
        } else {
            self.outstanding.borrow().is_empty()
        }
    }

    /// Takes requests again.
    pub(crate) fn release(&self) {
        if self.held.replace(false) && self.poll() {
            self.reschedule();
        }
    }

    /// Executes pending requests at once that need not wait, and passes the others to threads or to the ring.
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
            let number = self.outstanding.borrow_mut().push(head);
            if workers.is_auto
                && let Some(done) = self.config.device.serve_now(&self.config.memory, chain)
            {
                turn.bytes = turn.bytes.saturating_sub(done.written.into());
                self.config.stats.completed_in_turn(done.kind, done.bytes, false);
                self.outstanding.borrow_mut().end(number, done.written);
                self.check_memory()?;
                // At once: a driver that polls goes on while the next one is read.
                self.use_completed();
                continue;
            }
            let now = *turn.passed_on_at.get_or_insert_with(Instant::now);
            let is_buffered_write = || {
                !self.config.write_through && self.config.device.is_buffered_write(&self.config.memory, chain)
            };
            if let Some(engine) = workers.ring_for(is_buffered_write) {
                // The kernel copies what is in memory already when it takes the request.
                let len = chain
                    .readable
                    .iter()
                    .chain(&chain.writable)
                    .map(|buffer| u64::from(buffer.len));
                turn.bytes = turn.bytes.saturating_sub(len.sum::<u64>().min(STEP));
                self.pass_to_ring(number, now, chain, engine);
                if self.stopped.get() {
                    break;
                }
            } else {
                self.pass_to_thread(number, now, chain, workers)?;
            }
        }
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

    /// A thread or the ring has ended a request, which was taken at `taken_at`.
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
            // It was cancelled, so the queue has stopped.
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

    /// Completes the requests that have ended, in their order, and calls the driver if it wants that.
    fn complete(&self) {
        if self.use_completed() {
            full_fence();
            self.call_if_wanted();
        }
    }

    /// Moves the requests that have ended to the used ring, in their order. Returns whether there was one.
    fn use_completed(&self) -> bool {
        let before = self.next_used.get();
        let mut used = before;
        while let Some(completion) = self.outstanding.borrow_mut().next_completion() {
            self.use_entry(used, completion.head, completion.written);
            used = used.wrapping_add(1);
        }
        if used == before {
            return false;
        }
        self.next_used.set(used);
        self.publish(used);
        true
    }
}
