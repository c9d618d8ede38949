//! Requests that the ring of the loop executes. They end as those that threads execute: see [`super::threads`].

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::mem;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use aio_context::{Completed, Context, NotSubmitted, WeakContext};
use rustix::io::Errno;

use super::{Vring, VringConfig, VringError};
use crate::descriptor_chain::DescriptorChain;
use crate::memory::Memory;
use crate::request::{Done, MalformedRequest, OnRing, Progress};

/// The most requests of an export that the kernel executes at a time. If an image hangs, each of them can occupy a thread of the kernel, of
/// which the exports share 512.
const MOST_IN_KERNEL: usize = 32;

/// The requests of an export on the ring.
#[derive(Debug)]
pub(crate) struct RingEngine {
    context: WeakContext,
    in_flight: Cell<usize>,
    in_kernel: Cell<usize>,
    /// Those beyond the limit.
    waiting: RefCell<VecDeque<Rc<RingRequest>>>,
    /// The context has lost its ring.
    is_lost: Cell<bool>,
}

impl RingEngine {
    pub(crate) fn new(cx: &Context) -> Rc<Self> {
        Rc::new(Self {
            context: cx.downgrade(),
            in_flight: Cell::default(),
            in_kernel: Cell::default(),
            waiting: RefCell::default(),
            is_lost: Cell::default(),
        })
    }

    /// The number of requests that have not ended, those of former clients included.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// Starts requests that wait, as far as the limit allows.
    fn start_waiting(&self) {
        while self.in_kernel.get() < MOST_IN_KERNEL {
            let next = self.waiting.borrow_mut().pop_front();
            let Some(request) = next else { return };
            request.advance();
        }
    }
}

/// A request that the ring executes.
#[derive(Debug)]
struct RingRequest {
    engine: Rc<RingEngine>,
    vring: Weak<Vring>,
    /// Its number in [`Outstanding`](crate::outstanding::Outstanding).
    number: u64,
    memory: Arc<Memory>,
    chain: RefCell<DescriptorChain>,
    progress: Cell<Progress>,
}

impl Drop for RingRequest {
    fn drop(&mut self) {
        self.engine.in_flight.set(self.engine.in_flight.get() - 1);
    }
}

impl Vring {
    /// Executes a request on the ring, or passes it to a thread if the ring cannot execute it.
    pub(super) fn pass_to_ring(&self, number: u64, chain: &mut DescriptorChain, engine: &Rc<RingEngine>) {
        engine.in_flight.set(engine.in_flight.get() + 1);
        let request = Rc::new(RingRequest {
            engine: engine.clone(),
            vring: self.me.clone(),
            number,
            memory: self.config.memory.clone(),
            chain: RefCell::new(mem::take(chain)),
            progress: Cell::default(),
        });
        if engine.in_kernel.get() < MOST_IN_KERNEL {
            request.advance();
        } else {
            engine.waiting.borrow_mut().push_back(request);
        }
    }
}

impl RingRequest {
    /// Does the next step.
    fn advance(self: &Rc<Self>) {
        let Some(vring) = self.vring.upgrade().filter(|vring| !vring.stopped.get()) else {
            return;
        };
        let VringConfig {
            device,
            write_through,
            ..
        } = &vring.config;
        let next = device.next_on_ring(
            &self.memory,
            &self.chain.borrow(),
            *write_through,
            self.progress.get(),
        );
        match next {
            Ok(OnRing::Operation(operation)) => {
                if let Err(refused) = self.submit(operation) {
                    self.leave_ring(&vring, &refused);
                }
            }
            Ok(OnRing::Threads) => self.pass_to_thread(&vring),
            Ok(OnRing::Done(done)) => self.end(&vring, Ok(done)),
            Err(malformed) => self.end(&vring, Err(malformed)),
        }
    }

    fn submit(self: &Rc<Self>, operation: aio_context::Operation) -> Result<(), NotSubmitted> {
        let Some(cx) = self.engine.context.upgrade() else {
            return Ok(());
        };
        let request = self.clone();
        let done = move |_: &Context, completed: Completed| request.completed(completed);
        cx.submit(operation, done)?.detach();
        self.engine.in_kernel.set(self.engine.in_kernel.get() + 1);
        Ok(())
    }

    fn completed(self: Rc<Self>, completed: Completed) {
        let Completed { result, operation } = completed;
        drop(operation);
        self.engine.in_kernel.set(self.engine.in_kernel.get() - 1);
        self.accept(result);
        self.engine.start_waiting();
    }

    /// Accepts the result of an operation.
    fn accept(self: &Rc<Self>, result: io::Result<usize>) {
        let Some(vring) = self.vring.upgrade().filter(|vring| !vring.stopped.get()) else {
            return;
        };
        let mut progress = self.progress.get();
        match progress.transferred(result) {
            Ok(()) => {
                self.progress.set(progress);
                self.advance();
            }
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::FAULT) => vring.fail(&VringError::MemoryLost),
                // The context has lost its ring.
                Some(Errno::CANCELED) => self.leave_ring(&vring, &error),
                _ => {
                    let device = &vring.config.device;
                    let done = device.fail_on_ring(&self.memory, &self.chain.borrow(), error);
                    self.end(&vring, done);
                }
            },
        }
    }

    fn end(&self, vring: &Vring, done: Result<Done, MalformedRequest>) {
        vring.end(self.number, Ok(done.map(Some)));
    }

    /// Passes the request to a thread, which begins it anew, because the ring executes nothing any more.
    #[cold]
    fn leave_ring(&self, vring: &Vring, why: &dyn fmt::Display) {
        if !self.engine.is_lost.replace(true) {
            tracing::warn!(
                error = %why,
                "the ring executes no requests any more; threads take its place"
            );
        }
        self.pass_to_thread(vring);
    }

    fn pass_to_thread(&self, vring: &Vring) {
        let Some(workers) = &vring.config.workers else {
            return;
        };
        let mut chain = self.chain.take();
        if let Err(error) = vring.pass_to_thread(self.number, &mut chain, workers) {
            vring.fail(&error);
        }
    }
}
