//! [`WorkerPool`]: threads for work that blocks, and a callback at home with each result.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::thread;

use aio_context::{BottomHalf, Context, GroupId, WeakContext};

use crate::worker_queue::{Job, WorkerQueue};
use crate::{Bell, DoorbellBoard};

/// Results that are delivered in a row before the loop goes on.
const BATCH: usize = 64;

/// Threads that run blocking work for a context, such as reads from a slow file, and bring each result back to its home thread.
///
/// Threads are started when there is work that no idle one can take, up to a limit, and end after ten seconds without work. Work
/// that waits for a thread is begun in the order in which it was submitted; results come in the order in which the work ends.
///
/// As long as the work is short, in the mean less than 50 us, one thread runs it, because to wake another one would take as long, and
/// results may come together, up to 50 us late. If a piece of work then takes long, the results before it come within 200 us, and other threads
/// take over the rest within 400 us.
///
/// Each pool has threads of its own. Work that hangs occupies a thread of its pool, and delays the work of no other pool and never
/// the loop.
///
/// Dropping the pool drops its callbacks and the work that no thread has begun. Work that has begun goes on, and its result is dropped
/// on the thread that made it.
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
    queue: Arc<WorkerQueue<Finished>>,
    callbacks: Rc<RefCell<HashMap<u64, Callback>>>,
    next_id: Cell<u64>,
    context: WeakContext,
    /// Wakes threads for the work of an iteration.
    wake: BottomHalf,
    _board: DoorbellBoard,
}

/// What became of work: its result, or the payload of its panic.
type Outcome = thread::Result<Box<dyn Any + Send>>;
type Callback = Box<dyn FnOnce(&Context, Outcome)>;

struct Finished {
    id: u64,
    outcome: Outcome,
}

impl WorkerPool {
    /// Makes a pool of at most `most` threads, which are named `name`. No thread is started yet.
    ///
    /// # Panics
    /// If `most` is zero.
    pub fn new(cx: &Context, name: &str, most: usize) -> Self {
        assert!(most > 0, "a pool without a thread never runs its work");
        let bell: Arc<OnceLock<Bell>> = Arc::default();
        let announced = bell.clone();
        let announce = move || announced.get().into_iter().for_each(Bell::ring);
        let queue = Arc::new(WorkerQueue::new(name, most, announce));
        let results = Results {
            queue: queue.clone(),
            callbacks: Rc::default(),
            taken: RefCell::default(),
            bell: bell.clone(),
        };
        let callbacks = results.callbacks.clone();
        let board = DoorbellBoard::new(cx, 1, move |cx, _| results.deliver_batch(cx));
        bell.get_or_init(|| board.bell(0));
        let waking = queue.clone();
        let wake = cx.bottom_half("wake a worker", move |_| waking.call_all());
        Self {
            queue,
            callbacks,
            next_id: Cell::new(0),
            context: cx.downgrade(),
            wake,
            _board: board,
        }
    }

    /// Runs `work` on a thread of the pool, then calls `done` with its result on the home thread, in an iteration of the loop. A panic
    /// of `work` is passed to `done` as by [`thread::JoinHandle::join`].
    ///
    /// Returns at once. Idle threads are woken in the next iteration of the loop, for all work that was submitted until then. So a caller
    /// that waits for the work without polling may wait for ever.
    /// `done` may do anything, also poll and submit more work.
    ///
    /// # Errors
    /// The error of the system if there is no thread and none can be started. `work` and `done` are then dropped.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(&Context, thread::Result<T>) + 'static,
    ) -> io::Result<()> {
        let id = self.next_id.get();
        let job: Job<Finished> = Box::new(move || {
            let result = catch_unwind(AssertUnwindSafe(work));
            let outcome = result.map(|value| Box::new(value) as Box<dyn Any + Send>);
            Finished { id, outcome }
        });
        if self.queue.push(job)? {
            self.wake.schedule();
        }
        if let Some(cx) = self.context.upgrade() {
            // The threads may need the core of this loop.
            cx.skip_spin(true);
        }
        self.next_id.set(id + 1);
        let callback: Callback =
            Box::new(
                move |cx, outcome| match outcome.map(Box::<dyn Any + Send>::downcast::<T>) {
                    Ok(Ok(value)) => done(cx, Ok(*value)),
                    Ok(Err(_)) => unreachable!("the work has returned a value of this type"),
                    Err(panic) => done(cx, Err(panic)),
                },
            );
        self.callbacks.borrow_mut().insert(id, callback);
        Ok(())
    }

    /// Returns how much work was submitted whose callback was not called yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.callbacks.borrow().len()
    }

    /// Returns how many threads there are at the moment, idle ones included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.queue.threads()
    }
}

/// The results of a pool, on their way to the callbacks.
struct Results {
    queue: Arc<WorkerQueue<Finished>>,
    callbacks: Rc<RefCell<HashMap<u64, Callback>>>,
    taken: RefCell<VecDeque<Finished>>,
    bell: Arc<OnceLock<Bell>>,
}

impl Results {
    fn deliver_batch(&self, cx: &Context) {
        // What an earlier panic has left may be there still: the bell that was heard now is about later results.
        self.queue.take_results(&mut self.taken.borrow_mut());
        for _ in 0..BATCH {
            if cx.is_paused(GroupId::DEFAULT) {
                return;
            }
            let Some((Finished { id, outcome }, is_last)) = self.next() else {
                return;
            };
            if !is_last {
                // For polls inside the callback, after a panic, and for more than one batch. Each time: such a poll hears the bell, and what
                // is taken after it may have been announced before, or not yet.
                self.bell.get().into_iter().for_each(Bell::ring);
            }
            let (callback, is_idle) = {
                let mut callbacks = self.callbacks.borrow_mut();
                (callbacks.remove(&id), callbacks.is_empty())
            };
            cx.skip_spin(!is_idle);
            if let Some(callback) = callback {
                callback(cx, outcome);
            }
        }
    }

    /// Takes the next result. Returns it, and whether no other was taken from the queue with it.
    fn next(&self) -> Option<(Finished, bool)> {
        let mut taken = self.taken.borrow_mut();
        if taken.is_empty() {
            self.queue.take_results(&mut taken);
        }
        let next = taken.pop_front()?;
        Some((next, taken.is_empty()))
    }
}

impl Drop for Results {
    /// The context, or the pool, is gone.
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        self.queue.close();
        // A callback that is dropped may use the pool's context, also this very table.
        let callbacks = self.callbacks.take();
        drop(callbacks);
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
