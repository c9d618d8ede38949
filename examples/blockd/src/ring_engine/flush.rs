//! The flushes of one export on the ring, one at a time. Those that are asked for while one goes on are served together by the next one.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use rustix::io::Errno;

use super::RingEngine;
use crate::disk::{DiskError, FlushStart, Flushing};
use crate::request::Device;
use crate::ring_flushes::{FlushDone, Flushed};

impl RingEngine {
    /// Flushes the disk, with all that was written before. `done` learns of the end, but not before this returns.
    pub(crate) fn flush(self: &Rc<Self>, device: &Arc<Device>, done: impl FnOnce(Flushed) + 'static) {
        self.flushes.waiting.borrow_mut().push(Box::new(done));
        self.flush_next(device);
    }

    /// Begins a flush for all that wait, unless one goes on.
    fn flush_next(self: &Rc<Self>, device: &Arc<Device>) {
        if self.flushes.is_running.get() {
            return;
        }
        let waiting = self.flushes.waiting.take();
        if waiting.is_empty() {
            return;
        }
        let (flushing, operation) = match device.disk.begin_flush() {
            FlushStart::Begun(flushing, operation) => (flushing, operation),
            FlushStart::Unneeded => return self.later(|| end_all(waiting, || Flushed::Ended(Ok(())))),
            FlushStart::Failed => return self.later(|| end_all(waiting, failed_before)),
            FlushStart::Busy => return self.later(|| end_all(waiting, || Flushed::Threads)),
        };
        self.flushes.is_running.set(true);
        let group = Rc::new(Cell::new(Some((flushing, waiting))));
        let (me, device, submitted) = (self.clone(), device.clone(), group.clone());
        let submitted = self.submit(operation, move |completed| {
            me.flushes.is_running.set(false);
            if let Some((flushing, waiting)) = submitted.take() {
                me.end_flush(flushing, waiting, completed.result.map(|_| ()));
            }
            me.flush_next(&device);
        });
        if let Err(refused) = submitted {
            self.flushes.is_running.set(false);
            self.report_loss(&refused);
            if let Some((flushing, waiting)) = group.take() {
                flushing.cancel();
                self.later(|| end_all(waiting, || Flushed::Threads));
            }
        }
    }

    fn end_flush(&self, flushing: Flushing, waiting: Vec<FlushDone>, result: io::Result<()>) {
        match result {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::CANCELED) => {
                self.report_loss(&error);
                flushing.cancel();
                end_all(waiting, || Flushed::Threads);
            }
            result => match flushing.end(result) {
                Ok(()) => end_all(waiting, || Flushed::Ended(Ok(()))),
                Err(error) => {
                    let mut first = Some(error);
                    end_all(waiting, || {
                        first
                            .take()
                            .map_or_else(failed_before, |error| Flushed::Ended(Err(error)))
                    });
                }
            },
        }
    }
}

fn failed_before() -> Flushed {
    Flushed::Ended(Err(DiskError::FlushFailed))
}

fn end_all(waiting: Vec<FlushDone>, mut flushed: impl FnMut() -> Flushed) {
    for done in waiting {
        done(flushed());
    }
}
