//! [`WorkerPool`]: threads for work that blocks, and a callback at home with each result.

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::thread;

use aio_context::{BottomHalf, Context, Gone, WeakContext};

use crate::worker_queue::{Job, WorkerQueue};
use crate::{Channel, Event, Sender};

/// Threads that run blocking work for a context, such as reads from a slow file, and bring each result back to its home thread.
///
/// Threads are started when there is work that no idle one can take, up to a limit, and end after ten seconds
/// without work. Work that waits for a thread is begun in the order in which it was submitted; results arrive
/// in the order in which the work ends.
///
/// While the work is short, on average less than 50 us, one thread runs it, because waking another one would
/// take as long, and results may arrive together, up to 50 us late. If one item then takes long, the results
/// before it arrive within 200 us, and other threads take over the remaining work within 400 us.
///
/// Each pool has its own threads. Work that hangs occupies a thread of its pool. It never delays the work of
/// another pool or the loop.
///
/// Dropping the pool or its context drops the callbacks and the work that no thread has begun. Work that has
/// begun continues, and its result is dropped on the thread that made it.
///
/// # Examples
/// ```
/// use std::{cell::Cell, rc::Rc};
/// use aio_context::{Context, Wait};
/// use aio_sources::WorkerPool;
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// let pool = WorkerPool::new(&cx, "disk", 4);
/// let len = Rc::new(Cell::new(None));
/// let result = len.clone();
/// pool.run(
///     || std::fs::read("/proc/self/stat"),
///     move |_cx, read| result.set(read.ok().and_then(|read| read.ok()).map(|bytes| bytes.len())),
/// )?;
/// while pool.in_flight() > 0 {
///     cx.poll(Wait::Block)?;
/// }
/// assert!(len.get().unwrap() > 0);
/// # Ok(()) }
/// ```
#[must_use = "dropped at once, it drops the work that was not begun"]
pub struct WorkerPool {
    queue: Arc<WorkerQueue>,
    /// The callbacks, which the context owns.
    callbacks: Weak<Callbacks>,
    next_id: Cell<u64>,
    context: WeakContext,
    /// Wakes threads for the work of an iteration.
    wake: BottomHalf,
    sender: Sender<Finished>,
    _channel: Channel,
}

/// The end of work: its result, or the payload of its panic.
type Outcome = thread::Result<Box<dyn Any + Send>>;
type Callback = Box<dyn FnOnce(&Context, Outcome)>;

/// The callbacks of work whose result is outstanding.
#[derive(Default)]
struct Callbacks {
    by_id: RefCell<HashMap<u64, Callback>>,
    queue: OnceCell<Arc<WorkerQueue>>,
}

struct Finished {
    id: u64,
    outcome: Outcome,
}

impl Callbacks {
    /// Calls the callback that waits for this result.
    fn deliver(&self, cx: &Context, Finished { id, outcome }: Finished) {
        let callback = self.by_id.borrow_mut().remove(&id);
        cx.skip_spin(!self.by_id.borrow().is_empty());
        if let Some(callback) = callback {
            callback(cx, outcome);
        }
    }

    fn len(&self) -> usize {
        self.by_id.borrow().len()
    }

    /// Drops the work that no thread has begun, and all callbacks.
    fn close(&self) {
        if let Some(queue) = self.queue.get() {
            queue.close();
        }
        // Dropping a callback may run any code, including code that uses this table.
        let callbacks = self.by_id.take();
        drop(callbacks);
    }
}

impl Drop for Callbacks {
    fn drop(&mut self) {
        self.close();
    }
}

impl WorkerPool {
    /// Makes a pool of at most `most` threads, which are named `name`. No thread is started yet.
    ///
    /// # Panics
    /// If `most` is zero.
    pub fn new(cx: &Context, name: &str, most: usize) -> Self {
        assert!(most > 0, "a pool without a thread never runs its work");
        let callbacks = Rc::new(Callbacks::default());
        let at_home = Rc::downgrade(&callbacks);
        let (sender, channel) = Channel::new(cx, move |cx, event| {
            if let Event::Value(finished) = event {
                callbacks.deliver(cx, finished);
            }
        });
        let results = sender.clone();
        let queue = Arc::new(WorkerQueue::new(name, most, move || results.ring()));
        if let Some(callbacks) = at_home.upgrade() {
            let _ = callbacks.queue.set(queue.clone());
        }
        let waking = queue.clone();
        let wake = cx.bottom_half("wake a worker", move |_| waking.call_all());
        Self {
            queue,
            callbacks: at_home,
            next_id: Cell::new(0),
            context: cx.downgrade(),
            wake,
            sender,
            _channel: channel,
        }
    }

    /// Runs `work` on a thread of the pool, then calls `done` with its result on the home thread, in an iteration of the loop. A panic
    /// of `work` is passed to `done` as by [`thread::JoinHandle::join`].
    ///
    /// Returns at once. Idle threads are woken in the next iteration of the loop, for all work that was
    /// submitted until then. A caller that waits for the work without polling may therefore wait for ever.
    /// `done` may do anything, including to poll and to submit more work.
    ///
    /// # Errors
    /// The error of the system if there is no thread and none can be started; [`Gone`] if the context was
    /// dropped. `work` and `done` are then dropped.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(&Context, thread::Result<T>) + 'static,
    ) -> io::Result<()> {
        let (Some(cx), Some(callbacks)) = (self.context.upgrade(), self.callbacks.upgrade()) else {
            return Err(io::Error::other(Gone::Dropped));
        };
        let id = self.next_id.get();
        let sender = self.sender.clone();
        let job: Job = Box::new(move || {
            let result = catch_unwind(AssertUnwindSafe(work));
            let outcome = result.map(|value| Box::new(value) as Box<dyn Any + Send>);
            // The queue announces it. Fails if the pool or the context is gone: the outcome is dropped here.
            let _ = sender.push(Finished { id, outcome });
        });
        if self.queue.push(job)? {
            self.wake.schedule();
        }
        // The threads may need the core of this loop.
        cx.skip_spin(true);
        self.next_id.set(id + 1);
        let callback: Callback =
            Box::new(
                move |cx, outcome| match outcome.map(Box::<dyn Any + Send>::downcast::<T>) {
                    Ok(Ok(value)) => done(cx, Ok(*value)),
                    Ok(Err(_)) => unreachable!("the work has returned a value of this type"),
                    Err(panic) => done(cx, Err(panic)),
                },
            );
        callbacks.by_id.borrow_mut().insert(id, callback);
        Ok(())
    }

    /// Returns the number of submitted items whose callback was not called yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.callbacks.upgrade().map_or(0, |callbacks| callbacks.len())
    }

    /// Returns the present number of threads, including idle ones.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.queue.threads()
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        if let Some(callbacks) = self.callbacks.upgrade() {
            callbacks.close();
        }
        if let Some(cx) = self.context.upgrade() {
            cx.skip_spin(false);
        }
    }
}

impl fmt::Debug for WorkerPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerPool")
            .field("in_flight", &self.in_flight())
            .field("threads", &self.threads())
            .finish_non_exhaustive()
    }
}
