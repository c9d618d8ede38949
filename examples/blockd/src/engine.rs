//! [`Engine`]: the executor of the requests of images.

use std::rc::Rc;

use aio_context::{BackendKind, Context};
use aio_sources::WorkerPool;

use crate::disk::Source;
use crate::ring_engine::RingEngine;

/// The most threads of an export. Further requests wait for a thread.
const MOST_THREADS: usize = 16;

/// The number of requests in flight from which a write counts as one of several.
const FEW: usize = 2;

/// The executor of requests for images. The loop itself executes those for disks in memory, which never wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Engine {
    /// The loop, if a read finds all its data in the page cache; threads for writes to the page cache that come together; else the loop's
    /// io_uring, or threads where the system has none
    #[default]
    Auto,
    /// The loop's io_uring, which moves data between images and the memory of clients without a copy. Implies --backend uring
    Uring,
    /// Threads: up to 16 for each export. An image that is slow or hangs delays no other export
    Threads,
    /// The loop: no thread, and each request to an image delays all exports
    Sync,
}

impl Engine {
    /// Returns the backend of the loop for this engine, if `wanted` does not name one.
    pub(crate) fn backend(self, wanted: BackendKind, has_images: bool) -> BackendKind {
        let prefers_ring = match self {
            Self::Uring => true,
            Self::Auto => has_images && is_available(),
            Self::Threads | Self::Sync => false,
        };
        match wanted {
            BackendKind::Auto if prefers_ring => BackendKind::Uring,
            _ => wanted,
        }
    }

    /// Returns the threads for a disk, or the ring, if they execute its requests. No thread is started yet.
    pub(crate) fn workers(self, cx: &Context, source: &Source) -> Option<Rc<Workers>> {
        let can_wait = matches!(source, Source::File(_));
        let leaves_loop = can_wait && self != Self::Sync;
        leaves_loop.then(|| {
            let uses_ring = matches!(self, Self::Auto | Self::Uring) && has_ring(cx);
            Rc::new(Workers {
                pool: WorkerPool::new(cx, "blockd-disk", MOST_THREADS),
                is_auto: self == Self::Auto,
                ring: uses_ring.then(|| RingEngine::new(cx)),
            })
        })
    }

    /// Returns a description of the executor of image requests on this loop, for the log.
    pub(crate) fn description(self, cx: &Context) -> &'static str {
        match self {
            Self::Auto if has_ring(cx) => {
                "the loop, for reads of the page cache, threads, for writes to it that come together, and the loop's io_uring"
            }
            Self::Auto => "the loop, for reads of the page cache, and threads",
            Self::Uring if has_ring(cx) => "the io_uring of the loop",
            Self::Uring | Self::Threads => "threads",
            Self::Sync => "the loop",
        }
    }

    /// Returns a warning if the loop lacks a facility that the engine needs.
    pub(crate) fn warning(self, cx: &Context) -> Option<String> {
        (self == Self::Uring && !has_ring(cx)).then(|| {
            format!(
                "--engine uring: the loop uses {}, so threads execute the requests of images; use --backend uring, where the \
                 system allows it, or --engine threads",
                cx.backend_name()
            )
        })
    }
}

/// Returns `true` if the system has io_uring. Its absence is worth a warning only if the engine was named, so
/// it is logged as information.
fn is_available() -> bool {
    let available = BackendKind::Uring.check();
    if let Err(error) = &available {
        tracing::info!(%error, "io_uring is not available, so threads execute the requests of images");
    }
    available.is_ok()
}

fn has_ring(cx: &Context) -> bool {
    cx.backend_name() == "uring"
}

/// The executors of the requests of an export.
#[derive(Debug)]
pub(crate) struct Workers {
    pub(crate) pool: WorkerPool,
    /// Set if the loop executes reads that need not wait for the medium, and threads execute writes that come
    /// together.
    pub(crate) is_auto: bool,
    /// Executes the operations that a ring supports. The pool executes the rest.
    ring: Option<Rc<RingEngine>>,
}

impl Workers {
    /// Returns the ring, if it is to execute a request. `is_buffered_write` returns `true` for a write to the
    /// page cache.
    ///
    /// Few file systems can write to their page cache without waiting. For the others the kernel passes each
    /// write to a thread of its own, and the end of each write wakes the loop. For a single write, this is
    /// cheapest. Several writes are cheaper on a thread of the pool, which executes them one after the other,
    /// and wakes the loop once for many.
    pub(crate) fn ring_for(&self, is_buffered_write: impl FnOnce() -> bool) -> Option<&Rc<RingEngine>> {
        // A thread of the kernel and one of the pool would wait for each other.
        let comes_with_others = || self.pool.in_flight() > 0 || self.in_flight() >= FEW;
        // If the system starts no thread, the ring executes the write.
        let has_thread = || self.pool.threads() > 0 || self.pool.run(|| (), |_, _| ()).is_ok();
        let uses_thread = || self.is_auto && comes_with_others() && is_buffered_write() && has_thread();
        self.ring.as_ref().filter(|_| !uses_thread())
    }

    /// Returns the number of requests that have not ended, including those of former clients.
    pub(crate) fn in_flight(&self) -> usize {
        self.pool.in_flight() + self.ring.as_ref().map_or(0, |ring| ring.in_flight())
    }
}

#[cfg(test)]
mod tests {
    use aio_context::Wait;

    use super::*;

    fn workers(engine: Engine) -> Option<(Context, Rc<Workers>)> {
        let cx = Context::builder()
            .backend_kind(BackendKind::Uring)
            .build()
            .expect("there is a descriptor left");
        if !has_ring(&cx) {
            eprintln!("skipped: no io_uring");
            return None;
        }
        let source = Source::File(Default::default());
        let workers = engine.workers(&cx, &source)?;
        Some((cx, workers))
    }

    #[test]
    fn s2_auto_passes_writes_that_come_together_to_threads_and_all_else_to_the_ring() {
        let Some((cx, workers)) = workers(Engine::Auto) else {
            return;
        };
        let ring = workers.ring_for(|| true).expect("a single write").clone();
        let first = ring.begin();
        assert!(workers.ring_for(|| true).is_some());
        let second = ring.begin();
        assert!(workers.ring_for(|| true).is_none(), "{FEW} are in flight");
        assert!(workers.ring_for(|| false).is_some(), "no write to the page cache");
        drop((first, second));
        assert!(workers.ring_for(|| true).is_none(), "a thread is at work");
        while workers.pool.in_flight() > 0 {
            cx.poll(Wait::Block).expect("the ring works");
        }
        assert!(workers.ring_for(|| true).is_some());
    }

    #[test]
    fn s1_the_engine_uring_passes_everything_to_the_ring() {
        let Some((_cx, workers)) = workers(Engine::Uring) else {
            return;
        };
        let ring = workers.ring_for(|| true).expect("a single write").clone();
        let _others = [ring.begin(), ring.begin(), ring.begin()];
        assert!(workers.ring_for(|| true).is_some());
    }
}
