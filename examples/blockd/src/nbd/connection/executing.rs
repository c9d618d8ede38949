//! Requests for images: they are passed to the ring or to threads, and answered when they have ended.

use std::rc::Rc;
use std::thread;
use std::time::Instant;

use aio_context::Context;

use super::{Connection, End, Phase, State};
use crate::disk::DiskError;
use crate::engine::Workers;
use crate::nbd::catalog::NbdExport;
use crate::nbd::job::{Job, Payload};
use crate::nbd::on_ring::{Ended, RingJob};
use crate::nbd::request::{Kind, Request};
use crate::nbd::turn::Failure;
use crate::nbd::writes::Underway;

impl Connection {
    /// Passes a request to the ring, or to a thread. The request does not end before this function returns.
    pub(super) fn submit(
        &self,
        export: &NbdExport,
        job: Job,
        write: Option<Underway>,
    ) -> Result<(), Failure> {
        let Some(workers) = &export.workers else {
            return Ok(());
        };
        let begun = Instant::now();
        let is_direct = export.device.disk.is_direct();
        let is_buffered_write = || job.request.kind == Kind::Write && !job.request.fua && !is_direct;
        let engine = workers
            .ring_for(is_buffered_write)
            .filter(|_| RingJob::takes(job.request.kind));
        let Some(engine) = engine else {
            return self.pass_to_thread((export, workers), begun, job, write);
        };
        let (me, place, request) = (self.me.clone(), self.place.clone(), job.request);
        let (device, cancelled) = (export.device.clone(), self.cancelled.clone());
        RingJob::start(engine, device, cancelled, job, move |ended| {
            // The place is released once the request needs no memory any more.
            let _place = place;
            let Some(connection) = me.upgrade() else { return };
            match ended {
                Ended::Result(result) => {
                    drop(write);
                    connection.end_job(&request, begun, Ok(result));
                }
                Ended::Threads(job) => connection.leave_ring(begun, job, write),
            }
        });
        Ok(())
    }

    /// Passes a request to a thread after the ring could not execute it.
    fn leave_ring(&self, begun: Instant, job: Job, write: Option<Underway>) {
        let export = match &self.state.borrow().phase {
            Phase::Requests(transmission) => transmission.agreement().export.clone(),
            Phase::Handshake(_) => return,
        };
        let Some(workers) = &export.workers else { return };
        if let Err(failure) = self.pass_to_thread((&export, workers), begun, job, write) {
            self.end(&End::Requests(failure));
        }
    }

    fn pass_to_thread(
        &self,
        (export, workers): (&NbdExport, &Rc<Workers>),
        begun: Instant,
        job: Job,
        write: Option<Underway>,
    ) -> Result<(), Failure> {
        let (device, cancelled, request) = (export.device.clone(), self.cancelled.clone(), job.request);
        let (me, place) = (self.me.clone(), self.place.clone());
        let execute = move || job.execute(&device.disk, &cancelled);
        let done = move |_: &Context, result| {
            // The place is released once the thread needs no memory for the request any more.
            let _place = place;
            drop(write);
            if let Some(connection) = me.upgrade() {
                connection.end_job(&request, begun, result);
            }
        };
        workers.pool.run(execute, done).map_err(Failure::NoThread)
    }

    /// Handles the end of a request on a thread or the ring.
    fn end_job(&self, request: &Request, begun: Instant, result: thread::Result<Result<Payload, DiskError>>) {
        if self.has_ended.get() {
            return;
        }
        let Ok(result) = result else {
            self.end(&End::Requests(Failure::Panic));
            return;
        };
        let is_last = {
            let State { phase, out, .. } = &mut *self.state.borrow_mut();
            let Phase::Requests(transmission) = phase else {
                return;
            };
            transmission.end_job(request, result, out);
            let stats = &transmission.agreement().export.stats;
            stats.requests.took(begun.elapsed(), 1);
            transmission.in_flight() == 0
        };
        if is_last {
            self.take_turn(false);
        } else {
            // The next iteration sends the reply, together with those of other requests that have ended
            // meanwhile.
            self.schedule();
        }
    }
}
