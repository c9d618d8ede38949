//! Requests that the ring of the loop executes. Threads execute the requests for which it has no operation.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aio_context::{Completed, Operation};
use rustix::io::Errno;

use super::job::{Job, Payload};
use super::request::{Kind, Request};
use crate::disk::{
    BUFFER_ALIGN, Clear, Disk, DiskError, Outcome, RingFile, RingProgress, RingStep, STEP, SharedWrites,
};
use crate::guest_buffers::{lend, lent};
use crate::request::{Device, is_for_threads};
use crate::ring_engine::{InFlight, RingEngine};
use crate::ring_flushes::Flushes;

/// The end of a request on the ring.
pub(super) enum Ended {
    Result(Result<Payload, DiskError>),
    /// A thread must execute the request, from its beginning.
    Threads(Job),
}

type Done = Box<dyn FnOnce(Ended)>;

/// A request that the ring executes.
pub(super) struct RingJob {
    engine: Rc<RingEngine>,
    _in_flight: InFlight,
    device: Arc<Device>,
    cancelled: Arc<AtomicBool>,
    request: Request,
    /// The data that are written or were read, from byte `from` on. Empty while an operation owns them.
    data: Cell<Vec<u8>>,
    from: usize,
    progress: Cell<RingProgress>,
    done: Cell<Option<Done>>,
    /// Set while the caller of `start` must not be called back yet.
    is_starting: Cell<bool>,
}

/// The next step of a request.
enum Next {
    Operation(Operation, Outcome, Option<SharedWrites>),
    Flush,
    Nothing(u64),
    Threads,
    Done,
}

impl From<RingStep> for Next {
    fn from(step: RingStep) -> Self {
        match step {
            RingStep::Operation(operation, outcome) => Self::Operation(operation, outcome, None),
            RingStep::Nothing(bytes) => Self::Nothing(bytes),
            RingStep::Threads => Self::Threads,
        }
    }
}

impl RingJob {
    /// Returns `true` if the ring executes requests of this kind.
    pub(super) fn takes(kind: Kind) -> bool {
        !matches!(kind, Kind::BlockStatus { .. } | Kind::Cache)
    }

    /// Executes a request. Calls `done` with the result, but not before this function has returned.
    pub(super) fn start(
        engine: &Rc<RingEngine>,
        device: Arc<Device>,
        cancelled: Arc<AtomicBool>,
        job: Job,
        done: impl FnOnce(Ended) + 'static,
    ) {
        let Job { request, data } = job;
        let (data, from) = buffer(&request, data, device.disk.is_direct());
        let job = Rc::new(Self {
            engine: engine.clone(),
            _in_flight: engine.begin(),
            device,
            cancelled,
            request,
            data: Cell::new(data),
            from,
            progress: Cell::default(),
            done: Cell::new(Some(Box::new(done))),
            is_starting: Cell::new(true),
        });
        let started = job.clone();
        engine.start(move || started.advance());
        job.is_starting.set(false);
    }

    fn next(&self, disk: &Disk) -> Result<Next, DiskError> {
        let (request, progress) = (&self.request, self.progress.get());
        let left = u64::from(request.len) - progress.done;
        let step = match request.kind {
            Kind::Flush => None,
            _ if left == 0 => None,
            Kind::Read | Kind::Write => return self.next_transfer(disk),
            Kind::WriteZeroes { unmap } => Some(Clear::Zeroes { unmap }),
            _ => Some(Clear::Discard),
        };
        let flushes = request.kind == Kind::Flush || request.fua && request.kind != Kind::Read;
        Ok(match step {
            Some(how) => disk
                .next_to_clear(how, request.at + progress.done, left, progress)?
                .into(),
            None if flushes && !progress.is_flushed => Next::Flush,
            None => Next::Done,
        })
    }

    fn next_transfer(&self, disk: &Disk) -> Result<Next, DiskError> {
        let (request, done) = (&self.request, self.progress.get().done);
        let (at, writes) = (request.at + done, request.kind == Kind::Write);
        let len = (u64::from(request.len) - done).min(STEP);
        if writes {
            disk.check_write(at, len)?;
        } else {
            disk.check(at, len)?;
        }
        let data = self.data.take();
        let from = self.from + done as usize;
        let alignment = 1 << ((data.as_ptr().addr() + from) as u64 | len).trailing_zeros();
        let Some(RingFile { file, shared }) = disk.ring_file(writes, at, len, alignment) else {
            self.data.set(data);
            return Ok(Next::Threads);
        };
        let memory = lend(data, from..from + len as usize);
        Ok(match writes {
            true => {
                let outcome = Outcome::Written { end: at + len };
                Next::Operation(Operation::write(file, at, memory), outcome, shared)
            }
            false => Next::Operation(Operation::read(file, at, memory), Outcome::Transferred, shared),
        })
    }

    fn submit(self: &Rc<Self>, operation: Operation, outcome: Outcome, shared: Option<SharedWrites>) {
        let job = self.clone();
        let submitted = self.engine.submit(operation, move |completed| {
            let Completed { result, operation } = completed;
            job.take_back(operation);
            drop(shared);
            job.accept(outcome, result);
        });
        if let Err(refused) = submitted {
            self.engine.report_loss(&refused);
            self.take_back(refused.into_operation());
            self.leave();
        }
    }

    /// Takes back the data that an operation owned.
    fn take_back(&self, operation: Operation) {
        if let Some(data) = lent(operation) {
            self.data.set(data);
        }
    }

    fn accept(self: &Rc<Self>, outcome: Outcome, result: io::Result<usize>) {
        let mut progress = self.progress.get();
        match self.device.disk.accept(&mut progress, outcome, result) {
            Ok(()) => {
                self.progress.set(progress);
                self.advance();
            }
            // The context has lost its ring.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::CANCELED) => {
                self.engine.report_loss(&error);
                self.leave();
            }
            Err(error) if is_for_threads(&self.device, &error) => self.leave(),
            Err(error) => self.end(Ended::Result(Err(error.into()))),
        }
    }

    fn payload(&self) -> Payload {
        if self.request.kind != Kind::Read {
            return Payload::Nothing;
        }
        let mut data = self.data.take();
        data.drain(..self.from);
        data.truncate(self.request.len as usize);
        Payload::Data(data)
    }

    fn end(self: &Rc<Self>, ended: Ended) {
        let Some(done) = self.done.take() else { return };
        if !self.is_starting.get() {
            return done(ended);
        }
        let job = self.clone();
        self.engine.later(move || {
            // The request counts as in flight until now.
            drop(job);
            done(ended);
        });
    }
}

impl Flushes for RingJob {
    fn progress(&self) -> &Cell<RingProgress> {
        &self.progress
    }

    /// Executes the next step, and the steps before it that need no operation.
    fn advance(self: &Rc<Self>) {
        loop {
            if self.cancelled.load(Ordering::Relaxed) {
                return self.end(Ended::Result(Ok(Payload::Nothing)));
            }
            match self.next(&self.device.disk) {
                Ok(Next::Nothing(bytes)) => {
                    let mut progress = self.progress.get();
                    progress.done += bytes;
                    self.progress.set(progress);
                    continue;
                }
                Ok(Next::Operation(operation, outcome, shared)) => self.submit(operation, outcome, shared),
                Ok(Next::Flush) => {
                    let job = self.clone();
                    self.engine
                        .flush(&self.device, move |flushed| job.accept_flush(flushed));
                }
                Ok(Next::Threads) => self.leave(),
                Ok(Next::Done) => self.end(Ended::Result(Ok(self.payload()))),
                Err(error) => self.end(Ended::Result(Err(error))),
            }
            return;
        }
    }

    fn fail(self: &Rc<Self>, error: DiskError) {
        self.end(Ended::Result(Err(error)));
    }

    fn leave(self: &Rc<Self>) {
        let mut data = self.data.take();
        if self.request.kind == Kind::Write {
            data.drain(..self.from);
            data.truncate(self.request.len as usize);
        } else {
            data = Vec::new();
        }
        let request = self.request;
        self.end(Ended::Threads(Job { request, data }));
    }
}

/// Returns the memory of a request, and the position of its first byte there. For access past the page cache,
/// that byte is aligned.
fn buffer(request: &Request, data: Vec<u8>, is_direct: bool) -> (Vec<u8>, usize) {
    let len = request.len as usize;
    match request.kind {
        Kind::Write if !is_direct => (data, 0),
        Kind::Read if !is_direct => (vec![0; len], 0),
        Kind::Read | Kind::Write => {
            let mut aligned = vec![0; len + BUFFER_ALIGN];
            let from = aligned.as_ptr().align_offset(BUFFER_ALIGN);
            aligned[from..from + data.len()].copy_from_slice(&data);
            (aligned, from)
        }
        _ => (Vec::new(), 0),
    }
}

impl fmt::Debug for RingJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingJob")
            .field("request", &self.request)
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}
