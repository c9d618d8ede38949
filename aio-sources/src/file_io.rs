//! [`FileIo`]: operations on files, on the ring of a context if it has one, otherwise on threads (rules S1, S2).

use std::cell::Cell;
use std::fmt;
use std::io;
use std::panic::resume_unwind;
use std::rc::{Rc, Weak};
use std::sync::{self, Arc, Mutex, MutexGuard, PoisonError};

use aio_context::{Completed, Context, NotSubmitted, Operation, Submit, Submitted, WeakContext};
use rustix::io::Errno;

use crate::WorkerPool;
use crate::execute::{execute, is_known, unknown};

/// Executes operations on files without blocking the loop: on the io_uring of its context, or, if there is
/// none, on a pool of threads.
///
/// Both ways have the same results. They differ as follows:
///
/// - The ring cancels an operation that has begun, such as a read from a pipe. A thread does not: the
///   operation occupies its thread until it ends.
/// - The pool has a limit of concurrent operations; further ones wait for a thread. The ring has no limit for
///   pipes and sockets, and the kernel has its own limit for files.
///
/// Dropping it drops the callbacks and the operations that wait for a thread. Operations on the ring go on.
///
/// # Examples
/// ```
/// use std::{cell::Cell, fs::File, rc::Rc, sync::Arc};
/// use aio_context::{Context, Operation, Submit, Wait};
/// use aio_sources::FileIo;
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// let files = FileIo::new(&cx, "files", 4);
/// let file = Arc::new(File::open("/proc/self/stat")?);
/// let bytes = Rc::new(Cell::new(None));
/// let seen = bytes.clone();
/// let read = files.submit(Operation::read(file, 0, vec![0; 4096]), move |_cx, completed| {
///     seen.set(completed.into_bytes().ok());
/// })?;
/// while !read.is_done() {
///     cx.poll(Wait::Block)?;
/// }
/// assert!(bytes.take().is_some_and(|bytes| !bytes.is_empty()));
/// # Ok(()) }
/// ```
#[must_use = "dropped at once, it drops the operations that wait for a thread"]
pub struct FileIo {
    context: WeakContext,
    uses_ring: bool,
    pool: WorkerPool,
}

impl FileIo {
    /// Executes operations on the ring of `cx`, or on at most `threads` threads, which are named `name`. No thread is started yet.
    ///
    /// # Panics
    /// If `threads` is zero.
    pub fn new(cx: &Context, name: &str, threads: usize) -> Self {
        Self {
            context: cx.downgrade(),
            uses_ring: true,
            pool: WorkerPool::new(cx, name, threads),
        }
    }

    /// Executes operations on threads, also if `cx` has a ring.
    ///
    /// # Panics
    /// If `threads` is zero.
    pub fn on_threads(cx: &Context, name: &str, threads: usize) -> Self {
        Self {
            context: cx.downgrade(),
            uses_ring: false,
            pool: WorkerPool::new(cx, name, threads),
        }
    }

    /// Returns the number of operations that threads execute or that wait for a thread.
    #[must_use]
    pub fn on_threads_in_flight(&self) -> usize {
        self.pool.in_flight()
    }

    fn submit_to_pool(&self, operation: Operation, done: Done) -> Result<OnThread, NotSubmitted> {
        if !is_known(&operation) {
            return Err(NotSubmitted::new(operation, unknown()));
        }
        let place = Arc::new(Place(Mutex::new(Some(operation))));
        let (for_handle, callback) = (Arc::downgrade(&place), Rc::downgrade(&done));
        let refused = place.clone();
        let work = move || place.run();
        let run = self.pool.run(work, move |cx, ended| {
            let completed = ended.unwrap_or_else(|panic| resume_unwind(panic));
            // Without a result the operation was cancelled, and the cancellation calls back.
            if let Some(completed) = completed
                && let Some(done) = done.take()
            {
                done(cx, completed);
            }
        });
        if let Err(error) = run
            && let Some(operation) = refused.take()
        {
            return Err(NotSubmitted::new(operation, error));
        }
        Ok(OnThread {
            context: self.context.clone(),
            place: for_handle,
            done: callback,
        })
    }
}

impl Submit for FileIo {
    type Handle = FileOperation;

    fn submit<F>(&self, operation: Operation, done: F) -> Result<FileOperation, NotSubmitted>
    where
        F: FnOnce(&Context, Completed) + 'static,
    {
        let mut operation = operation;
        // Of one type for both ways, because only one of them calls it.
        let done: Done = Rc::new(Cell::new(Some(Box::new(done))));
        if let Some(cx) = self.context.upgrade().filter(|_| self.uses_ring) {
            let for_ring = done.clone();
            let submitted = cx.submit(operation, move |cx, completed| {
                if let Some(done) = for_ring.take() {
                    done(cx, completed);
                }
            });
            match submitted {
                Ok(submitted) => return Ok(FileOperation(Way::Ring(submitted))),
                Err(refused) if refused.kind() == io::ErrorKind::Unsupported => {
                    operation = refused.into_operation();
                }
                Err(refused) => return Err(refused),
            }
        }
        self.submit_to_pool(operation, done)
            .map(|on_thread| FileOperation(Way::Thread(on_thread)))
    }
}

impl fmt::Debug for FileIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileIo")
            .field("uses_ring", &self.uses_ring)
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}

type DoneCell = Cell<Option<Box<dyn FnOnce(&Context, Completed)>>>;
type Done = Rc<DoneCell>;

/// The place in which an operation waits for a thread.
struct Place(Mutex<Option<Operation>>);

impl Place {
    fn lock(&self) -> MutexGuard<'_, Option<Operation>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the operation, unless a thread has begun it, or it was cancelled.
    fn take(&self) -> Option<Operation> {
        self.lock().take()
    }

    fn run(&self) -> Option<Completed> {
        self.take().map(execute)
    }
}

/// Owns an operation that [`FileIo`] executes. Dropping it cancels the operation.
///
/// # Examples
/// ```
/// use std::{fs::File, sync::Arc};
/// use aio_context::{Context, Operation, Submit};
/// use aio_sources::FileIo;
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// let files = FileIo::new(&cx, "files", 4);
/// let file = Arc::new(File::open("/proc/self/stat")?);
/// let read = files.submit(Operation::read(file, 0, vec![0; 16]), |_cx, _completed| ())?;
/// assert!(!read.is_done()); // its callback is called by a poll
/// read.detach();
/// # Ok(()) }
/// ```
#[must_use = "dropped at once, it cancels the operation; keep it or `detach()` it"]
#[derive(Debug)]
pub struct FileOperation(Way);

#[derive(Debug)]
enum Way {
    Ring(Submitted),
    Thread(OnThread),
    /// The operation goes on without its handle.
    Detached,
}

impl FileOperation {
    /// Lets the operation go on without this handle. Its callback is called.
    pub fn detach(mut self) {
        match std::mem::replace(&mut self.0, Way::Detached) {
            Way::Ring(submitted) => submitted.detach(),
            Way::Thread(on_thread) => on_thread.detach(),
            Way::Detached => {}
        }
    }

    /// Cancels the operation, if that is still possible. Its callback is called with its end: `ECANCELED`, or
    /// its result. No effect after the callback was called.
    pub fn cancel(&self) {
        match &self.0 {
            Way::Ring(submitted) => submitted.cancel(),
            Way::Thread(on_thread) => on_thread.cancel(),
            Way::Detached => {}
        }
    }

    /// Returns whether the callback was called, or dropped with its context.
    #[must_use]
    pub fn is_done(&self) -> bool {
        match &self.0 {
            Way::Ring(submitted) => submitted.is_done(),
            Way::Thread(on_thread) => on_thread.is_done(),
            Way::Detached => false,
        }
    }
}

struct OnThread {
    context: WeakContext,
    /// Owned by the work of the pool.
    place: sync::Weak<Place>,
    /// Owned by the pool, which calls it, or drops it at its own end.
    done: Weak<DoneCell>,
}

impl OnThread {
    fn detach(mut self) {
        // The drop of this handle then finds nothing to cancel.
        self.place = sync::Weak::new();
        self.done = Weak::new();
    }

    fn cancel(&self) {
        let Some(cx) = self.context.upgrade() else { return };
        let Some(operation) = self.place.upgrade().and_then(|place| place.take()) else {
            return;
        };
        let Some(done) = self.done.upgrade() else { return };
        cx.defer(move |cx| {
            let result = Err(Errno::CANCELED.into());
            if let Some(done) = done.take() {
                done(cx, Completed { result, operation });
            }
        });
    }

    fn is_done(&self) -> bool {
        self.done.upgrade().is_none_or(|place| {
            let done = place.take();
            let is_done = done.is_none();
            place.set(done);
            is_done
        })
    }
}

impl Drop for OnThread {
    fn drop(&mut self) {
        drop(self.place.upgrade().and_then(|place| place.take()));
        drop(self.done.upgrade().and_then(|done| done.take()));
    }
}

impl fmt::Debug for OnThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnThread")
            .field("is_done", &self.is_done())
            .finish_non_exhaustive()
    }
}
