//! The flushes of one export on the ring, one at a time. Requests for a flush that arrive during a flush are
//! served together by the next one.

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
    /// Flushes all earlier writes to the disk. Calls `done` with the result, but not before this function has
    /// returned.
    pub(crate) fn flush(self: &Rc<Self>, device: &Arc<Device>, done: impl FnOnce(Flushed) + 'static) {
        self.flushes.waiting.borrow_mut().push(Box::new(done));
        self.flush_next(device);
    }

    /// Begins a flush for all waiting requests, unless one is running.
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
        let errno = result.as_ref().err().and_then(Errno::from_io_error);
        match errno {
            // The flush was not executed, or not to its end.
            Some(Errno::CANCELED | Errno::INTR) => {
                if let (Err(error), Some(Errno::CANCELED)) = (&result, errno) {
                    self.report_loss(error);
                }
                flushing.cancel();
                end_all(waiting, || Flushed::Threads);
            }
            _ => match flushing.end(result) {
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use aio_context::{BackendKind, Context, Wait};

    use super::*;
    use crate::disk::{Disk, Source};

    fn device(image: &tempfile::NamedTempFile) -> Arc<Device> {
        image.as_file().set_len(1 << 20).unwrap();
        let source = Source::File(image.path().to_owned());
        Arc::new(Device::new(Disk::open(&source, false).unwrap(), ""))
    }

    /// Returns a context with a ring, or `None` if the system has no ring.
    fn context() -> Option<Context> {
        let cx = Context::builder()
            .backend_kind(BackendKind::Uring)
            .build()
            .unwrap();
        let has_ring = cx.backend_name() == "uring";
        if !has_ring {
            eprintln!("skipped: no io_uring");
        }
        has_ring.then_some(cx)
    }

    /// Calls `flush`, and appends its result to `ended`.
    fn flush(engine: &Rc<RingEngine>, device: &Arc<Device>, ended: &Rc<RefCell<Vec<Flushed>>>) {
        let ended = ended.clone();
        engine.flush(device, move |flushed| ended.borrow_mut().push(flushed));
    }

    #[test]
    fn c4_flushes_that_wait_are_served_together() {
        let Some(cx) = context() else { return };
        let image = tempfile::NamedTempFile::new().unwrap();
        let (device, engine, ended) = (device(&image), RingEngine::new(&cx), Rc::default());
        for _ in 0..10 {
            flush(&engine, &device, &ended);
        }
        assert!(ended.borrow().is_empty() && engine.flushes.waiting.borrow().len() == 9);
        while ended.borrow().is_empty() {
            cx.poll(Wait::Block).unwrap();
        }
        assert_eq!(
            (ended.borrow().len(), engine.flushes.waiting.borrow().len()),
            (1, 0)
        );
        while ended.borrow().len() < 10 {
            cx.poll(Wait::Block).unwrap();
        }
        assert!(
            ended
                .borrow()
                .iter()
                .all(|flushed| matches!(flushed, Flushed::Ended(Ok(()))))
        );
        assert!(!engine.flushes.is_running.get());
    }

    /// A flush cannot begin while another loop flushes, and after a flush has failed.
    #[test]
    fn c4_a_flush_that_cannot_begin_ends_in_the_next_iteration() {
        let Some(cx) = context() else { return };
        let image = tempfile::NamedTempFile::new().unwrap();
        let (device, engine, ended) = (device(&image), RingEngine::new(&cx), Rc::default());
        let FlushStart::Begun(other, _) = device.disk.begin_flush() else {
            panic!("it is free");
        };
        flush(&engine, &device, &ended);
        assert!(ended.borrow().is_empty());
        cx.poll(Wait::Block).unwrap();
        assert!(matches!(ended.borrow()[..], [Flushed::Threads]));
        other.end(Err(Errno::IO.into())).unwrap_err();
        flush(&engine, &device, &ended);
        cx.poll(Wait::Block).unwrap();
        assert!(matches!(
            ended.borrow()[1..],
            [Flushed::Ended(Err(DiskError::FlushFailed))]
        ));
    }

    /// After a cancelled flush, the requests do not fail.
    #[test]
    fn s2_a_flush_that_was_not_executed_is_for_threads() {
        let Some(cx) = context() else { return };
        let image = tempfile::NamedTempFile::new().unwrap();
        let (device, engine) = (device(&image), RingEngine::new(&cx));
        for errno in [Errno::CANCELED, Errno::INTR] {
            let FlushStart::Begun(flushing, _) = device.disk.begin_flush() else {
                panic!("it is free");
            };
            let ended = Rc::new(Cell::new(false));
            let seen = ended.clone();
            let done: FlushDone = Box::new(move |flushed| seen.set(matches!(flushed, Flushed::Threads)));
            engine.end_flush(flushing, vec![done], Err(errno.into()));
            assert!(ended.get(), "{errno}");
            device.disk.flush().unwrap();
        }
    }
}
