//! Requests that the ring of the loop executes. They end like those that threads execute: see
//! [`super::threads`].

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::mem;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Instant;

use aio_context::{Completed, NotSubmitted, Operation};
use rustix::io::Errno;

use super::failure::VringError;
use super::{Vring, VringConfig};
use crate::descriptor_chain::DescriptorChain;
use crate::disk::{DiskError, Outcome, RingProgress, SharedWrites};
use crate::memory::Memory;
use crate::outstanding::Running;
use crate::request::{Done, MalformedRequest, OnRing, is_for_threads};
use crate::ring_engine::{InFlight, RingEngine};
use crate::ring_flushes::Flushes;

/// A request that the ring executes.
#[derive(Debug)]
struct RingRequest {
    engine: Rc<RingEngine>,
    _in_flight: InFlight,
    _running: Running,
    vring: Weak<Vring>,
    /// The number of the request in [`Outstanding`](crate::outstanding::Outstanding).
    number: u64,
    taken_at: Instant,
    memory: Arc<Memory>,
    chain: RefCell<DescriptorChain>,
    progress: Cell<RingProgress>,
}

impl Vring {
    /// Executes a request on the ring, or passes it to a thread if the ring cannot execute it.
    pub(super) fn pass_to_ring(
        &self,
        number: u64,
        now: Instant,
        chain: &mut DescriptorChain,
        engine: &Rc<RingEngine>,
    ) {
        let request = Rc::new(RingRequest {
            engine: engine.clone(),
            _in_flight: engine.begin(),
            _running: self.running.begin(),
            vring: self.me.clone(),
            number,
            taken_at: now,
            memory: self.config.memory.clone(),
            chain: RefCell::new(mem::take(chain)),
            progress: Cell::default(),
        });
        engine.start(move || request.advance());
    }
}

impl RingRequest {
    /// Returns the queue, unless it has stopped.
    fn vring(&self) -> Option<Rc<Vring>> {
        self.vring.upgrade().filter(|vring| !vring.stopped.get())
    }

    fn submit(
        self: &Rc<Self>,
        operation: Operation,
        outcome: Outcome,
        shared: Option<SharedWrites>,
    ) -> Result<(), NotSubmitted> {
        let request = self.clone();
        self.engine.submit(operation, move |completed| {
            let Completed { result, operation } = completed;
            drop((operation, shared));
            request.accept(outcome, result);
        })
    }

    /// Accepts the result of an operation.
    fn accept(self: &Rc<Self>, outcome: Outcome, result: io::Result<usize>) {
        let Some(vring) = self.vring() else { return };
        let device = &vring.config.device;
        let mut progress = self.progress.get();
        match device.disk.accept(&mut progress, outcome, result) {
            Ok(()) => {
                self.progress.set(progress);
                self.advance();
            }
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::FAULT) => vring.fail(&VringError::MemoryLost),
                // The context has lost its ring.
                Some(Errno::CANCELED) => self.leave_ring(&vring, &error),
                _ if is_for_threads(device, &error) => self.pass_to_thread(&vring),
                _ => self.end_with_error(&vring, error.into()),
            },
        }
    }

    fn end_with_error(&self, vring: &Vring, error: DiskError) {
        let done = vring
            .config
            .device
            .fail_on_ring(&self.memory, &self.chain.borrow(), error);
        self.end(vring, done);
    }

    fn end(&self, vring: &Vring, done: Result<Done, MalformedRequest>) {
        vring.end(self.number, self.taken_at, Ok(done.map(Some)));
    }

    /// Passes the request to a thread, which begins it again, because the ring executes no more operations.
    #[cold]
    fn leave_ring(&self, vring: &Vring, why: &dyn fmt::Display) {
        self.engine.report_loss(why);
        self.pass_to_thread(vring);
    }

    fn pass_to_thread(&self, vring: &Vring) {
        let Some(workers) = &vring.config.workers else {
            return;
        };
        let mut chain = self.chain.take();
        if let Err(error) = vring.pass_to_thread(self.number, self.taken_at, &mut chain, workers) {
            vring.fail(&error);
        }
    }
}

impl Flushes for RingRequest {
    fn progress(&self) -> &Cell<RingProgress> {
        &self.progress
    }

    /// Executes the next step, and the steps before it that need no operation.
    fn advance(self: &Rc<Self>) {
        let Some(vring) = self.vring() else { return };
        let VringConfig {
            device,
            write_through,
            ..
        } = &vring.config;
        loop {
            let mut progress = self.progress.get();
            let next = device.next_on_ring(&self.memory, &self.chain.borrow(), *write_through, progress);
            match next {
                Ok(OnRing::Nothing(bytes)) => {
                    progress.done += bytes;
                    self.progress.set(progress);
                    continue;
                }
                Ok(OnRing::Operation(operation, outcome, shared)) => {
                    if let Err(refused) = self.submit(operation, outcome, shared) {
                        self.leave_ring(&vring, &refused);
                    }
                }
                Ok(OnRing::Flush) => {
                    let request = self.clone();
                    self.engine
                        .flush(device, move |flushed| request.accept_flush(flushed));
                }
                Ok(OnRing::Threads) => self.pass_to_thread(&vring),
                Ok(OnRing::Done(done)) => self.end(&vring, Ok(done)),
                Err(malformed) => self.end(&vring, Err(malformed)),
            }
            return;
        }
    }

    fn fail(self: &Rc<Self>, error: DiskError) {
        if let Some(vring) = self.vring() {
            self.end_with_error(&vring, error);
        }
    }

    fn leave(self: &Rc<Self>) {
        if let Some(vring) = self.vring() {
            self.pass_to_thread(&vring);
        }
    }
}
