//! [`Host`]: the objects with which one loop serves the queues of one export.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use aio_context::{Context, Interest, Polled, Registration};

use crate::adoption;
use crate::connection::Connection;
use crate::descriptor_chain::DescriptorChain;
use crate::dirty_log::DirtyLog;
use crate::engine::Workers;
use crate::inflight::Start;
use crate::limit::LineLimit;
use crate::memory::Memory;
use crate::request::Device;
use crate::ring::Ring;
use crate::stats::ExportStats;
use crate::vring::{Vring, VringConfig};

/// The settings by the client for a queue that can serve, for the loop that is to serve the queue.
#[derive(Debug)]
pub(crate) struct VringSetup {
    pub(crate) index: usize,
    pub(crate) ring: Ring,
    pub(crate) start: Start,
    pub(crate) kick: Arc<File>,
    pub(crate) call: Option<Arc<File>>,
    pub(crate) error: Option<Arc<File>>,
    pub(crate) memory: Arc<Memory>,
    /// The log of pages that the device has written, if the client wants one.
    pub(crate) log: Option<Arc<DirtyLog>>,
    /// The guest address of the used ring in that log.
    pub(crate) used_log: Option<u64>,
    /// Set if the driver does not flush, so each write must be on the medium before it completes.
    pub(crate) write_through: bool,
}

/// An export on one loop. Every loop that serves queues of the export has its own threads, counters and
/// limits of log lines for it.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) device: Arc<Device>,
    /// The executors of the requests of an image.
    pub(crate) workers: Option<Rc<Workers>>,
    /// Shared by all queues of the loop, because only one of them runs at a time.
    pub(crate) chain: Rc<RefCell<DescriptorChain>>,
    pub(crate) stats: Rc<ExportStats>,
    pub(crate) limit: Rc<LineLimit>,
}

/// A queue that this thread's loop serves.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) vring: Rc<Vring>,
    /// `None` if the `floor` serves it.
    _registration: Option<Registration>,
}

impl Host {
    /// Starts to serve a queue.
    ///
    /// # Errors
    /// If the loop cannot wait for its kicks.
    pub(crate) fn serve(
        &self,
        cx: &Context,
        connection: Rc<Connection>,
        setup: VringSetup,
    ) -> io::Result<Serving> {
        let VringSetup {
            index,
            ring,
            start,
            kick,
            call,
            error,
            memory,
            log,
            used_log,
            write_through,
        } = setup;
        let config = VringConfig {
            index,
            kick,
            call: RefCell::new(call),
            error: RefCell::new(error),
            memory,
            device: self.device.clone(),
            workers: self.workers.clone(),
            chain: self.chain.clone(),
            connection,
            stats: self.stats.queue(index),
            log,
            used_log,
            write_through,
            call_price: cx.remote().poll_params().wake_or_assumed().kick,
        };
        let vring = Vring::new(ring, start, config);
        if adoption::adopt(&vring) {
            return Ok(Serving {
                vring,
                _registration: None,
            });
        }
        let registration = cx.watch(Polled(vring.clone()), Interest::READ)?;
        vring.start();
        Ok(Serving {
            vring,
            _registration: Some(registration),
        })
    }

    /// Returns the number of requests that threads or the ring execute, including those of former clients.
    pub(crate) fn in_flight(&self) -> usize {
        self.workers.as_ref().map_or(0, |workers| workers.in_flight())
    }
}
