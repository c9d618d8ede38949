//! A running virtqueue. It is a handler of the event loop: the loop calls it when its kick eventfd is
//! readable, or when polling finds a new available index.
//!
//! A queue serves a bounded number of requests in a turn and never waits for the driver. After it has
//! stopped, it does not access the client's memory, except for requests that threads or the kernel had begun.
//!
//! # Threads and the ring
//! With [`Workers`] the queue passes its requests to threads or to the ring of the loop. With in-flight
//! tracking it completes each request when that has ended ([`redo`]), otherwise when all requests before it
//! are complete, too ([`Outstanding`]). While it is [held](Vring::hold), it takes no new requests.

mod failure;
mod logging;
mod on_ring;
mod redo;
#[cfg(test)]
mod tests;
mod threads;
mod waiting;

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aio_context::Pollable as _;

use crate::call_pacer::CallPacer;
use crate::connection::Connection;
use crate::descriptor_chain::DescriptorChain;
use crate::dirty_log::DirtyLog;
use crate::disk::STEP;
use crate::engine::Workers;
use crate::eventfd::signal;
use crate::inflight::{Start, Tracking};
use crate::limit::Kind;
use crate::memory::Memory;
use crate::outstanding::{Outstanding, Running};
use crate::request::{Device, MalformedRequest, Progress};
use crate::ring::{Ring, full_fence};
use crate::sigbus;
use crate::stats::QueueStats;
use failure::VringError;

/// The most requests that one turn serves.
const REQUESTS_PER_TURN: u32 = 128;
/// The number of bytes after which a turn ends. The last step may exceed it, so a turn moves less than twice
/// as many.
const BYTES_PER_TURN: u64 = STEP;
/// The most completions that are published together. Each publication moves a cache line that a polling driver reads.
const PUBLISH_EVERY: u16 = 8;

/// The parts that a queue needs besides its ring.
#[derive(Debug)]
pub(crate) struct VringConfig {
    pub(crate) index: usize,
    pub(crate) kick: Arc<File>,
    /// The call descriptor. The client can replace this and the next one while the queue runs.
    pub(crate) call: RefCell<Option<Arc<File>>>,
    pub(crate) error: RefCell<Option<Arc<File>>>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) device: Arc<Device>,
    /// The threads that execute requests. Without them the loop executes requests.
    pub(crate) workers: Option<Rc<Workers>>,
    /// Shared by all queues, because only one of them runs at a time.
    pub(crate) chain: Rc<RefCell<DescriptorChain>>,
    pub(crate) connection: Rc<Connection>,
    pub(crate) stats: Rc<QueueStats>,
    /// The log of pages that the device has written, if the client wants one.
    pub(crate) log: Option<Arc<DirtyLog>>,
    /// The guest address of the used ring in that log.
    pub(crate) used_log: Option<u64>,
    /// Set if the driver does not flush, so each write must be on the medium before it completes.
    pub(crate) write_through: bool,
    /// The duration of a call that wakes the driver.
    pub(crate) call_price: Duration,
}

/// A running virtqueue.
#[derive(Debug)]
pub(crate) struct Vring {
    /// A reference to the queue itself, for completions.
    me: Weak<Self>,
    ring: Ring,
    /// The next entry of the available ring to serve.
    next_available: Cell<u16>,
    /// Set while the loop polls. Kicks are suppressed then.
    polled: Cell<bool>,
    /// Set if the queue failed or was stopped. The ring must then not be accessed.
    stopped: Cell<bool>,
    /// Set while no new request is taken.
    held: Cell<bool>,
    /// The number of kicks by the queue itself that were not received yet.
    own_kicks: Cell<u64>,
    /// The requests that threads or the ring execute.
    outstanding: RefCell<Outstanding>,
    /// The region in which the next daemon finds the outstanding requests, if the client wants one.
    tracking: Option<Box<Tracking>>,
    /// The requests that may access the client's memory, even after the queue has stopped.
    running: Running,
    /// Set when threads are to abandon the rest of the outstanding requests.
    cancelled: Arc<AtomicBool>,
    /// The progress of the request at `next_available`, if it takes more than one step.
    progress: Cell<Progress>,
    /// The next entry of the used ring to fill.
    next_used: Cell<u16>,
    /// The used index at the last check whether the driver wants a call.
    called_up_to: Cell<u16>,
    /// Decides when to call the driver within a batch.
    calls: Cell<CallPacer>,
    /// The value of [`sigbus::losses`] at the last check of this queue's memory.
    losses: Cell<u32>,
    publish_every: u16,
    config: VringConfig,
}

impl Vring {
    /// Makes a queue. Call [`start`](Self::start) once the loop watches it.
    pub(crate) fn new(ring: Ring, start: Start, config: VringConfig) -> Rc<Self> {
        let next_used = ring.used_index();
        let Start {
            next_available,
            tracking,
        } = start;
        let publish_every = if config.device.disk.is_slow() {
            1
        } else {
            PUBLISH_EVERY
        };
        Rc::new_cyclic(|me| Self {
            me: me.clone(),
            ring,
            next_available: Cell::new(next_available),
            polled: Cell::new(false),
            stopped: Cell::new(false),
            held: Cell::new(false),
            own_kicks: Cell::new(0),
            outstanding: RefCell::new(match tracking {
                None => Outstanding::in_order(),
                Some(_) => Outstanding::in_any_order(),
            }),
            tracking: tracking.map(Box::new),
            running: Running::default(),
            cancelled: Arc::default(),
            progress: Cell::default(),
            next_used: Cell::new(next_used),
            called_up_to: Cell::new(next_used),
            calls: Cell::new(CallPacer::new(config.call_price)),
            // This differs from the current value, so that the first check finds memory that was lost before.
            losses: Cell::new(sigbus::losses().wrapping_sub(1)),
            publish_every,
            config,
        })
    }

    /// Calls the driver, enables kicks, and schedules the requests that are pending already.
    ///
    /// The call announces completions that were published without one: by an earlier daemon, or while no descriptor for
    /// calls was set. Drivers tolerate calls without a completion.
    pub(crate) fn start(&self) {
        self.call();
        self.ring.ask_for_kicks(self.next_available.get());
        full_fence();
        if self.poll() || self.must_redo() {
            self.reschedule();
        }
    }

    /// Stops the queue. Returns the available entry at which to continue, which is the used index.
    /// Outstanding requests are not completed. There are none if the queue was [held](Self::hold) until their
    /// end.
    pub(crate) fn stop(&self) -> u16 {
        self.stopped.set(true);
        self.cancelled.store(true, Ordering::Relaxed);
        self.first_incomplete()
    }

    /// Returns the number of completed requests, as a position.
    fn first_incomplete(&self) -> u16 {
        let left = self.tracking.as_ref().map_or(0, |tracking| tracking.count_left());
        let incomplete = self.outstanding.borrow().len().wrapping_add(left);
        self.next_available.get().wrapping_sub(incomplete)
    }

    /// Returns `true` if the queue has failed or was stopped.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.get()
    }

    /// Returns the first available entry that is not completed, and the next entry of the used ring.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn positions(&self) -> (u16, u16) {
        (self.first_incomplete(), self.next_used.get())
    }

    /// Replaces the descriptor for calls, and calls the driver, because an earlier call may have gone to the
    /// former descriptor.
    pub(crate) fn set_call(&self, call: Option<Arc<File>>) {
        self.config.call.replace(call);
        self.call();
    }

    /// Replaces the descriptor for errors.
    pub(crate) fn set_error(&self, error: Option<Arc<File>>) {
        self.config.error.replace(error);
    }

    /// Calls the driver, even if it wants no call.
    fn call(&self) {
        if let Some(call) = &*self.config.call.borrow() {
            self.config.stats.called();
            signal(call);
        }
    }

    /// Serves the pending requests, up to the limits of a turn.
    pub(crate) fn run(&self) {
        if self.stopped.get() || (self.held.get() && !self.must_redo()) {
            return;
        }
        let timed = self.config.stats.begin_turn();
        self.run_turn();
        self.pace_calls(CallPacer::turn_ended);
        if let Some(timed) = timed {
            let (took, requests) = self.config.stats.end_turn(timed);
            self.pace_calls(|calls| calls.took(took, requests));
        }
    }

    fn pace_calls(&self, step: impl FnOnce(&mut CallPacer)) {
        let mut calls = self.calls.get();
        step(&mut calls);
        self.calls.set(calls);
    }

    fn run_turn(&self) {
        let polled = self.polled.get();
        let mut turn = Turn {
            requests: REQUESTS_PER_TURN,
            bytes: BYTES_PER_TURN,
            passed_on_at: None,
        };
        loop {
            if !polled && !self.ring.has_event_idx() {
                // With event indexes this is not needed: the driver does not kick until the event index
                // moves.
                self.ring.suppress_kicks(self.next_available.get());
            }
            let served = self.serve_pending(&mut turn);
            // Lost memory is reported first, because it reads as zeroes, which can look malformed.
            if let Err(error) = self.check_memory().and(served) {
                self.fail(&error);
                return;
            }
            if self.stopped.get() {
                return;
            }
            if !polled && !turn.is_over() {
                self.ring.ask_for_kicks(self.next_available.get());
            }
            // One fence serves both checks: whether the driver wants a call, and whether there are more
            // requests.
            full_fence();
            self.call_if_wanted();
            if polled {
                if self.must_redo() {
                    self.reschedule();
                }
                return;
            }
            if turn.is_over() {
                self.reschedule();
                return;
            }
            if !self.poll() {
                return;
            }
        }
    }

    fn serve_pending(&self, turn: &mut Turn) -> Result<(), VringError> {
        let mut chain = self.config.chain.borrow_mut();
        if self.must_redo() {
            self.redo_left(&mut chain, turn)?;
            if self.held.get() || self.stopped.get() {
                return Ok(());
            }
        }
        let mut published = self.next_used.get();
        let served = loop {
            let next = self.next_available.get();
            let pending = self.ring.available_index().wrapping_sub(next);
            if pending == 0 || turn.is_over() {
                break Ok(());
            }
            let unfinished = pending.saturating_add(self.outstanding.borrow().len());
            if unfinished > self.ring.size() {
                break Err(VringError::Index {
                    pending: unfinished,
                    size: self.ring.size(),
                });
            }
            if let Some(workers) = &self.config.workers {
                self.pass_on_pending(pending, &mut chain, workers, turn)?;
                continue;
            }
            let mut used = self.next_used.get();
            for ahead in 0..pending {
                let next = next.wrapping_add(ahead);
                let head = self.ring.available_entry(next);
                match self.serve_one(&mut chain, head, turn) {
                    Ok(Some(written)) => self.use_entry(used, head, written),
                    // The next turn begins with the next step of this request.
                    Ok(None) => break,
                    Err(error) => {
                        self.publish(used);
                        return Err(error);
                    }
                }
                used = used.wrapping_add(1);
                self.next_available.set(next.wrapping_add(1));
                self.next_used.set(used);
                if used.wrapping_sub(published) >= self.publish_every {
                    self.publish(used);
                    published = used;
                    if self.calls.get().is_due(pending - ahead - 1) {
                        full_fence();
                        self.call_if_wanted();
                    }
                }
                if turn.is_over() {
                    break;
                }
            }
        };
        if self.next_used.get() != published {
            self.publish(self.next_used.get());
        }
        served
    }

    /// Executes one step of a request. Returns the number of bytes written once the request has ended.
    #[inline(always)]
    fn serve_one(
        &self,
        chain: &mut DescriptorChain,
        head: u16,
        turn: &mut Turn,
    ) -> Result<Option<u32>, VringError> {
        let VringConfig {
            memory,
            device,
            write_through,
            ..
        } = &self.config;
        chain
            .collect(&self.ring, memory, head)
            .map_err(MalformedRequest::from)?;
        let mut progress = self.progress.take();
        let step = device.serve(memory, chain, *write_through, &mut progress)?;
        self.check_memory()?;
        turn.requests -= 1;
        turn.bytes = turn.bytes.saturating_sub(step.moved);
        let Some(done) = step.done else {
            self.progress.set(progress);
            return Ok(None);
        };
        self.config
            .stats
            .completed_in_turn(done.kind, done.bytes, done.error.is_some());
        if let Some(error) = done.error {
            self.log_error(&error);
        }
        Ok(Some(done.written))
    }

    /// Fails if the client's memory has lost pages: data read from it since then are not the client's.
    #[inline]
    fn check_memory(&self) -> Result<(), VringError> {
        let losses = sigbus::losses();
        if losses == self.losses.get() {
            return Ok(());
        }
        let is_log_lost = self.config.log.as_ref().is_some_and(|log| log.is_lost());
        let is_region_lost = self.tracking.as_ref().is_some_and(|tracking| tracking.is_lost());
        if self.config.memory.is_lost() || is_log_lost || is_region_lost {
            return Err(VringError::MemoryLost);
        }
        self.losses.set(losses);
        Ok(())
    }

    /// Calls the driver if it wants a call. Must be called after a full fence that follows the last
    /// publication.
    fn call_if_wanted(&self) {
        let used = self.next_used.get();
        if self.ring.wants_call(self.called_up_to.replace(used), used) {
            self.pace_calls(CallPacer::called);
            self.call();
        }
    }

    #[cold]
    fn log_error(&self, error: &dyn std::error::Error) {
        let queue = self.config.index;
        let line = format_args!("queue {queue}: a request ends with an error: {error}");
        self.config.connection.log(Kind::Requests, line);
    }

    /// Stops the queue after an error, and signals the error to the client. An error that concerns more than
    /// this queue ends the connection.
    #[cold]
    fn fail(&self, why: &VringError) {
        self.stopped.set(true);
        self.cancelled.store(true, Ordering::Relaxed);
        if let Some(error) = &*self.config.error.borrow() {
            signal(error);
        }
        let (connection, index) = (&self.config.connection, self.config.index);
        if why.is_of_queue() {
            let line = format_args!("queue {index} has stopped until the client sets it up again: {why}");
            connection.log(Kind::Queues, line);
        } else {
            connection.abort(&format_args!("queue {index}: {why}"));
        }
    }
}

/// The remaining limits of a turn.
struct Turn {
    requests: u32,
    bytes: u64,
    /// The time at which its first request was passed to a thread.
    passed_on_at: Option<Instant>,
}

impl Turn {
    fn is_over(&self) -> bool {
        self.requests == 0 || self.bytes == 0
    }
}
