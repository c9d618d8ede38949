//! [`Background`]: threads for work that may block, such as on a file server, while the loop serves its
//! clients.

use std::cell::Cell;
use std::rc::Rc;

use aio_context::Context;
use aio_sources::WorkerPool;
use anyhow::anyhow;

/// The most threads. Further work waits for a thread.
const MOST_THREADS: usize = 4;

/// Threads that are started on demand. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Background(Rc<WorkerPool>);

impl Background {
    pub(crate) fn new(cx: &Context) -> Self {
        Self(Rc::new(WorkerPool::new(cx, "blockd-control", MOST_THREADS)))
    }

    /// Runs `work` on a thread, and then `done` with its result on the loop. If no thread can be started,
    /// `done` gets the error at once.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        cx: &Context,
        work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
        done: impl FnOnce(&Context, anyhow::Result<T>) + 'static,
    ) {
        // `done` is called in one of two places.
        let done = Rc::new(Cell::new(Some(done)));
        let deferred = done.clone();
        let submitted = self.0.run(work, move |cx, result| {
            if let Some(done) = deferred.take() {
                let failed = |_| Err(anyhow!("a thread has failed; this is an error of the daemon"));
                done(cx, result.unwrap_or_else(failed));
            }
        });
        if let Err(error) = submitted
            && let Some(done) = done.take()
        {
            let error = anyhow::Error::new(error).context(
                "cannot start a thread; raise the limit of processes (ulimit -u, or TasksMax of a service)",
            );
            done(cx, Err(error));
        }
    }
}
