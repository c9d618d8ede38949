//! Requests of a client, from bytes to bytes: parsed, executed by the loop or passed to the ring or to
//! threads, answered.
//!
//! The loop executes requests for disks in memory in the order of their arrival, and long ones in steps. The
//! ring or threads execute requests for images, several at a time, and reply in the order in which the
//! requests end.

mod by_loop;

use std::rc::Weak;

use super::catalog::NbdExport;
use super::input::Input;
use super::job::{Job, Payload, clear, extents};
use super::negotiation::Agreement;
use super::outbox::Outbox;
use super::replies::Format;
use super::request::{Asked, Kind, Refusal, Request};
use super::stats::NbdStats;
use super::turn::{Failure, Stop, Turn};
use super::wire::RequestHeader;
use super::writes::{Client, Underway, Writer};
use crate::disk::DiskError;
use crate::limit::Kind as Line;

/// The most requests that the ring and threads execute for a connection.
const MOST_JOBS: usize = 64;
/// The most bytes of such requests and of replies. A longer request is executed alone.
const MOST_JOB_BYTES: usize = 32 * 1024 * 1024;
/// The bytes of unsent replies above which no further request begins.
const MOST_UNSENT: usize = 256 * 1024;
/// The most bytes of one read by the loop.
const READ_STEP: u32 = 256 * 1024;
/// The number of bytes after whose arrival the loop writes. The rest of a request can be shorter.
const WRITE_STEP: u32 = 64 * 1024;
/// The length up to which data of threads are copied, which costs less than a buffer of their own in a system
/// call.
const COPIED: usize = 32 * 1024;

/// A request that takes more than one step.
#[derive(Debug)]
enum Current {
    /// The data of a request that fails are dropped.
    Skip {
        left: u32,
        cookie: u64,
        refusal: Refusal,
    },
    /// The loop writes data on their arrival. After an error the rest is dropped.
    Write {
        request: Request,
        done: u32,
        error: Option<DiskError>,
    },
    /// The data are collected for a thread.
    Collect { job: Job, filled: usize },
    /// The loop reads. After an error zeroes replace the rest.
    Read {
        request: Request,
        done: u32,
        error: Option<DiskError>,
    },
    /// The loop trims or zeroes.
    Clear {
        request: Request,
        done: u64,
        write: Option<Underway>,
    },
}

/// Passes a job to the ring or to a thread.
pub(super) type Submit<'a> = &'a dyn Fn(&NbdExport, Job, Option<Underway>) -> Result<(), Failure>;

/// The requests of a connection.
#[derive(Debug)]
pub(super) struct Transmission {
    agreement: Agreement,
    client: Client,
    format: Format,
    current: Option<Current>,
    jobs: usize,
    job_bytes: usize,
    /// Set when no more requests begin.
    is_ending: bool,
}

impl Transmission {
    pub(super) fn new(agreement: Agreement) -> Self {
        Self {
            format: Format {
                structured: agreement.structured,
            },
            client: Client::new(&agreement.export.writes),
            agreement,
            current: None,
            jobs: 0,
            job_bytes: 0,
            is_ending: false,
        }
    }

    /// Records that the client has connected, with this connection.
    pub(super) fn enter(&self, writer: Weak<dyn Writer>) {
        self.client.enter(writer);
    }

    /// Makes the completion of the next write wake the connection. Returns `true` if it waits for writes of
    /// disconnected clients.
    pub(super) fn wait_for_writes(&self) -> bool {
        self.client.wait();
        self.client.waits_for_former()
    }

    pub(super) fn agreement(&self) -> &Agreement {
        &self.agreement
    }

    /// Returns the number of requests that have begun and whose replies are not complete, without those whose
    /// data are still arriving.
    pub(super) fn in_flight(&self) -> usize {
        let is_executed = matches!(self.current, Some(Current::Read { .. } | Current::Clear { .. }));
        self.jobs + usize::from(is_executed)
    }

    /// Begins no more requests, and drops one whose data are incomplete.
    pub(super) fn end(&mut self) {
        self.is_ending = true;
        self.client.leave();
        let is_incomplete = |current: &mut Current| {
            matches!(
                current,
                Current::Skip { .. } | Current::Write { .. } | Current::Collect { .. }
            )
        };
        drop(self.current.take_if(is_incomplete));
    }

    /// Returns the memory for the next bytes of the client, if they need not pass through the input.
    pub(super) fn direct(&mut self) -> &mut [u8] {
        match &mut self.current {
            Some(Current::Collect { job, filled }) => &mut job.data[*filled..],
            _ => &mut [],
        }
    }

    /// Records that bytes were received into [`direct`](Self::direct).
    pub(super) fn received(&mut self, count: usize) {
        if let Some(Current::Collect { filled, .. }) = &mut self.current {
            *filled += count;
        }
    }

    /// Executes requests until it must stop.
    ///
    /// # Errors
    /// [`Failure`] if the connection must end.
    pub(super) fn process(
        &mut self,
        input: &mut Input,
        out: &mut Outbox,
        turn: &mut Turn,
        submit: Submit<'_>,
    ) -> Result<Stop, Failure> {
        let timed = self.stats().requests.begin_turn();
        let stop = self.process_requests(input, out, turn, submit);
        if let Some(timed) = timed {
            self.stats().requests.end_turn(timed);
        }
        stop
    }

    fn stats(&self) -> &NbdStats {
        &self.agreement.export.stats
    }

    fn process_requests(
        &mut self,
        input: &mut Input,
        out: &mut Outbox,
        turn: &mut Turn,
        submit: Submit<'_>,
    ) -> Result<Stop, Failure> {
        loop {
            if out.len() >= MOST_UNSENT {
                return Ok(Stop::Output);
            }
            if turn.is_over() {
                return Ok(Stop::Turn);
            }
            let stop = match self.current.take() {
                Some(current) => self.go_on(current, input, out, turn, submit)?,
                None if self.is_ending => Some(Stop::Disconnect),
                None => self.begin(input, out, turn, submit)?,
            };
            if let Some(stop) = stop {
                return Ok(stop);
            }
        }
    }

    /// Begins the next request.
    #[inline]
    fn begin(
        &mut self,
        input: &mut Input,
        out: &mut Outbox,
        turn: &mut Turn,
        submit: Submit<'_>,
    ) -> Result<Option<Stop>, Failure> {
        let Some(header) = RequestHeader::parse(input.data())? else {
            return Ok(Some(Stop::Input));
        };
        if self.client.waits_for_former() {
            return Ok(Some(Stop::Writes));
        }
        match Asked::check(&header, &self.agreement) {
            Asked::Execute(request) => {
                if self.must_wait(&request, out) {
                    return Ok(Some(Stop::Jobs));
                }
                if self.client.is_overlapped(request.written()) {
                    return Ok(Some(Stop::Writes));
                }
                input.consume(RequestHeader::LEN);
                self.execute(request, out, turn, submit)?;
            }
            Asked::Refuse { refusal, payload } => {
                input.consume(RequestHeader::LEN);
                self.current = Some(Current::Skip {
                    left: payload,
                    cookie: header.cookie,
                    refusal,
                });
            }
            Asked::Disconnect => {
                self.end();
                return Ok(Some(Stop::Disconnect));
            }
        }
        turn.begin_request();
        Ok(None)
    }

    /// Returns `true` if threads must end requests before this one can begin.
    fn must_wait(&self, request: &Request, out: &Outbox) -> bool {
        let bytes = self.job_bytes + out.len() + job_bytes(request);
        self.jobs >= MOST_JOBS || self.jobs > 0 && bytes > MOST_JOB_BYTES
    }

    #[inline]
    fn execute(
        &mut self,
        request: Request,
        out: &mut Outbox,
        turn: &mut Turn,
        submit: Submit<'_>,
    ) -> Result<(), Failure> {
        let export = self.agreement.export.clone();
        let disk = &export.device.disk;
        if request.len == 0 && request.kind != Kind::Flush {
            self.reply(out, &request, Ok(()));
            return Ok(());
        }
        if let Some(workers) = &export.workers {
            if workers.is_auto && self.read_at_once(disk, &request, out, turn) {
                return Ok(());
            }
            let mut job = Job {
                request,
                data: Vec::new(),
            };
            if request.kind == Kind::Write {
                job.data.resize(request.len as usize, 0);
                self.current = Some(Current::Collect { job, filled: 0 });
                return Ok(());
            }
            return self.submit(job, submit);
        }
        let (done, error) = (0, None);
        match request.kind {
            Kind::Read if request.len <= READ_STEP => {
                turn.spend(request.len.into());
                let read = self.read(&request, out, |at, into| disk.read_into(at, into));
                if let Err(error) = read {
                    self.fail(out, &request, error);
                }
            }
            Kind::Read => {
                let header = out.space(self.format.data_header_len());
                self.format.begin_data(header, &request, false);
                self.current = Some(Current::Read { request, done, error });
            }
            Kind::Write => self.current = Some(Current::Write { request, done, error }),
            Kind::Flush => self.reply(out, &request, disk.flush()),
            Kind::Trim | Kind::WriteZeroes { .. } => {
                let write = self.client.begin(request.written());
                self.current = Some(Current::Clear {
                    request,
                    done: 0,
                    write,
                });
            }
            Kind::BlockStatus { .. } => match extents(disk, &request) {
                Ok(extents) => {
                    self.stats().executed(request.figures(false), false);
                    self.format.extents(out, &request, &extents);
                }
                Err(error) => self.fail(out, &request, error),
            },
            Kind::Cache => self.reply(out, &request, disk.prefetch(request.at, request.len.into())),
        }
        Ok(())
    }

    /// Executes the next step of the current request.
    fn go_on(
        &mut self,
        current: Current,
        input: &mut Input,
        out: &mut Outbox,
        turn: &mut Turn,
        submit: Submit<'_>,
    ) -> Result<Option<Stop>, Failure> {
        match current {
            Current::Skip {
                left,
                cookie,
                refusal,
            } => {
                let part = (left as usize).min(input.data().len());
                input.consume(part);
                turn.spend(part as u64);
                let left = left - part as u32;
                if left > 0 {
                    self.current = Some(Current::Skip {
                        left,
                        cookie,
                        refusal,
                    });
                    return Ok(Some(Stop::Input));
                }
                self.stats().refused();
                self.refuse(out, cookie, &refusal);
            }
            Current::Write { request, done, error } => {
                return Ok(self.write(request, done, error, input, out, turn));
            }
            Current::Collect { mut job, mut filled } => {
                let part = (job.data.len() - filled).min(input.data().len());
                job.data[filled..filled + part].copy_from_slice(&input.data()[..part]);
                input.consume(part);
                turn.spend(part as u64);
                filled += part;
                if filled < job.data.len() {
                    self.current = Some(Current::Collect { job, filled });
                    return Ok(Some(Stop::Input));
                }
                // Another client may have begun a write since.
                if self.client.is_overlapped(job.request.written()) {
                    self.current = Some(Current::Collect { job, filled });
                    return Ok(Some(Stop::Writes));
                }
                self.submit(job, submit)?;
            }
            Current::Read { request, done, error } => self.read_on(request, done, error, out, turn)?,
            Current::Clear { request, done, write } => {
                match clear(&self.agreement.export.device.disk, &request, done) {
                    Ok((cleared, cost)) if done + cleared < request.len.into() => {
                        turn.spend(cost);
                        let done = done + cleared;
                        self.current = Some(Current::Clear { request, done, write });
                    }
                    Ok((_, cost)) => {
                        turn.spend(cost);
                        self.written(out, &request);
                    }
                    Err(error) => self.fail(out, &request, error),
                }
            }
        }
        Ok(None)
    }

    fn submit(&mut self, job: Job, submit: Submit<'_>) -> Result<(), Failure> {
        let bytes = job_bytes(&job.request);
        let write = self.client.begin(job.request.written());
        submit(&self.agreement.export, job, write)?;
        self.jobs += 1;
        self.job_bytes += bytes;
        Ok(())
    }

    /// Handles the end of a request on a thread.
    pub(super) fn end_job(
        &mut self,
        request: &Request,
        result: Result<Payload, DiskError>,
        out: &mut Outbox,
    ) {
        self.jobs -= 1;
        self.job_bytes -= job_bytes(request);
        let failed = result.is_err();
        self.stats().completed(request.figures(failed), failed);
        match result {
            Ok(Payload::Nothing) => self.format.succeed(out, request),
            Ok(Payload::Data(data)) => {
                let header = out.space(self.format.data_header_len());
                self.format.begin_data(header, request, true);
                if data.len() <= COPIED {
                    out.put(&data);
                } else {
                    out.push(data);
                }
            }
            Ok(Payload::Extents(extents)) => self.format.extents(out, request, &extents),
            Err(error) => self.refuse(out, request.cookie, &Refusal::of(request.kind, error)),
        }
    }

    #[inline]
    fn reply(&self, out: &mut Outbox, request: &Request, result: Result<(), DiskError>) {
        match result {
            Ok(()) => {
                self.stats().executed(request.figures(false), false);
                self.format.succeed(out, request);
            }
            Err(error) => self.fail(out, request, error),
        }
    }

    #[cold]
    fn fail(&self, out: &mut Outbox, request: &Request, error: DiskError) {
        self.stats().executed(request.figures(true), true);
        self.refuse(out, request.cookie, &Refusal::of(request.kind, error));
    }

    #[cold]
    fn refuse(&self, out: &mut Outbox, cookie: u64, refusal: &Refusal) {
        let line = format_args!("NBD: a request ends with an error: {refusal}");
        self.agreement.export.limit.log(Line::Requests, line);
        self.format.fail(out, cookie, refusal);
    }
}

/// Returns the number of bytes that a thread needs for a request.
fn job_bytes(request: &Request) -> usize {
    match request.kind {
        Kind::Read | Kind::Write => request.len as usize,
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
