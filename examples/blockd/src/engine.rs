//! [`Engine`]: who executes the requests of images.

use std::rc::Rc;

use aio_context::Context;
use aio_sources::WorkerPool;

use crate::disk::Source;

/// The most threads of an export. More requests than that wait for a thread.
const MOST_THREADS: usize = 16;

/// Who executes requests for images. The loop itself executes those for disks in memory, which never wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Engine {
    /// The loop, if a read finds all its data in the page cache; else threads
    #[default]
    Auto,
    /// Threads: up to 16 for each export. An image that is slow or hangs delays no other export
    Threads,
    /// The loop: no thread, and each request to an image delays all exports
    Sync,
}

impl Engine {
    /// The threads for a disk, if they execute its requests. None is started yet.
    pub(crate) fn workers(self, cx: &Context, source: &Source) -> Option<Rc<Workers>> {
        let can_wait = matches!(source, Source::File(_));
        let uses_threads = can_wait && self != Self::Sync;
        uses_threads.then(|| {
            Rc::new(Workers {
                pool: WorkerPool::new(cx, "blockd-disk", MOST_THREADS),
                reads_at_once: self == Self::Auto,
            })
        })
    }
}

/// The threads of an export.
#[derive(Debug)]
pub(crate) struct Workers {
    pub(crate) pool: WorkerPool,
    /// The loop executes reads that need not wait for the medium.
    pub(crate) reads_at_once: bool,
}
