//! [`RingEngine`]: the requests of one export that the ring of the loop executes.

mod flush;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

use aio_context::{Completed, Context, NotSubmitted, Operation, Submit, WeakContext};

use crate::ring_flushes::RingFlushes;

/// The most requests of an export that the kernel executes at a time. If an image hangs, each of them can
/// occupy a thread of the kernel, of which the exports share 512.
const MOST_IN_KERNEL: usize = 32;

/// The use of the ring by one export.
pub(crate) struct RingEngine {
    context: WeakContext,
    in_flight: Cell<usize>,
    in_kernel: Cell<usize>,
    /// Functions that start the requests beyond the limit.
    waiting: RefCell<VecDeque<Box<dyn FnOnce()>>>,
    /// Set if the context has lost its ring.
    is_lost: Cell<bool>,
    flushes: RingFlushes,
}

/// The count of a request that has not ended. It lasts for the lifetime of this value.
pub(crate) struct InFlight(Rc<RingEngine>);

impl RingEngine {
    pub(crate) fn new(cx: &Context) -> Rc<Self> {
        Rc::new(Self {
            context: cx.downgrade(),
            in_flight: Cell::default(),
            in_kernel: Cell::default(),
            waiting: RefCell::default(),
            is_lost: Cell::default(),
            flushes: RingFlushes::default(),
        })
    }

    /// Returns the number of requests that have not ended, including those of former clients.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// Counts one more request.
    pub(crate) fn begin(self: &Rc<Self>) -> InFlight {
        self.in_flight.set(self.in_flight.get() + 1);
        InFlight(self.clone())
    }

    /// Calls `start`, which submits an operation, now or once the limit allows it.
    pub(crate) fn start(&self, start: impl FnOnce() + 'static) {
        if self.in_kernel.get() < MOST_IN_KERNEL {
            start();
        } else {
            self.waiting.borrow_mut().push_back(Box::new(start));
        }
    }

    /// Submits an operation. `done` accepts its result.
    ///
    /// # Errors
    /// The errors of [`Submit::submit`].
    pub(crate) fn submit(
        self: &Rc<Self>,
        operation: Operation,
        done: impl FnOnce(Completed) + 'static,
    ) -> Result<(), NotSubmitted> {
        let Some(cx) = self.context.upgrade() else {
            return Ok(());
        };
        let engine = self.clone();
        let ended = move |_: &Context, completed| {
            engine.in_kernel.set(engine.in_kernel.get() - 1);
            done(completed);
            engine.start_waiting();
        };
        cx.submit(operation, ended)?.detach();
        self.in_kernel.set(self.in_kernel.get() + 1);
        Ok(())
    }

    /// Calls `then` in the next iteration.
    pub(crate) fn later(&self, then: impl FnOnce() + 'static) {
        if let Some(cx) = self.context.upgrade() {
            cx.defer(move |_| then());
        }
    }

    /// Starts waiting requests, as far as the limit allows.
    fn start_waiting(&self) {
        while self.in_kernel.get() < MOST_IN_KERNEL {
            let next = self.waiting.borrow_mut().pop_front();
            let Some(start) = next else { return };
            start();
        }
    }

    /// Logs once that the ring executes no operations any more.
    #[cold]
    pub(crate) fn report_loss(&self, why: &dyn fmt::Display) {
        if !self.is_lost.replace(true) {
            tracing::warn!(error = %why, "the ring executes no requests any more; threads take its place");
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}

impl fmt::Debug for RingEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingEngine")
            .field("in_flight", &self.in_flight)
            .field("in_kernel", &self.in_kernel)
            .field("is_lost", &self.is_lost)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InFlight")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use aio_context::{BackendKind, Wait};

    /// At most [`MOST_IN_KERNEL`] requests are in the kernel, and all requests end.
    #[test]
    fn c8_an_export_has_a_limit_in_the_kernel() {
        let cx = Context::builder()
            .backend_kind(BackendKind::Uring)
            .build()
            .unwrap();
        if cx.backend_name() != "uring" {
            eprintln!("skipped: no io_uring");
            return;
        }
        let engine = RingEngine::new(&cx);
        let (reader, mut writer) = std::io::pipe().unwrap();
        let reader = Arc::new(reader);
        let ended = Rc::new(Cell::new(0));
        for _ in 0..100 {
            let (engine_, ended, reader) = (engine.clone(), ended.clone(), reader.clone());
            let counted = engine.begin();
            engine.start(move || {
                let read = Operation::read(reader, None, vec![0; 1]);
                let done = move |completed: Completed| {
                    assert_eq!(completed.into_bytes().unwrap(), b"x");
                    ended.set(ended.get() + 1);
                    drop(counted);
                };
                engine_.submit(read, done).unwrap();
            });
        }
        assert_eq!(
            (engine.in_flight(), engine.in_kernel.get()),
            (100, MOST_IN_KERNEL)
        );
        for left in (0..100).rev() {
            std::io::Write::write_all(&mut writer, b"x").unwrap();
            while engine.in_flight() > left {
                cx.poll(Wait::Block).unwrap();
            }
            assert_eq!(engine.in_kernel.get(), left.min(MOST_IN_KERNEL));
        }
        assert_eq!(ended.get(), 100);
    }
}
