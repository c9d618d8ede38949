//! [`Tasks`]: the tasks of one context, and the order in which they are polled.
//!
//! The context owns this, and with it the futures: it drops them when it is dropped, on its thread (rule E3).
//! Wakers hold only a slot's number. A free slot keeps its waker for the next task, so a spawn allocates only
//! the future and the state that it shares with the handle.
//!
//! # Which tasks are polled
//! The bottom half polls the woken tasks, in the order of the wakes, including those that are woken
//! meanwhile, up to [`BUDGET`]; the others wait for the next iteration. So does a task that is woken while it
//! is polled (rule H2). The bottom half is scheduled while it runs, for polls inside a task, and to go on
//! after a panic. It is cancelled when no task is left.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering as Unshared;
use std::sync::{Arc, PoisonError};
use std::task::{Context as Polling, Poll, Waker};

use aio_context::Context;
use aio_notify::{Dequeued, Item, RunQueue};

use crate::current::{Polls, Request};
use crate::join::{JoinError, PanicValue};
use crate::sync::Mutex;
use crate::waker::{TaskId, TaskWaker, WakeQueue};
use crate::work::Work;

/// The number of tasks that are polled in a row.
const BUDGET: u32 = 64;
/// The name of the bottom half, in messages.
const NAME: &str = "tasks";

/// A stored task.
pub(crate) enum Task {
    /// It stays on its thread.
    Here(Pin<Box<dyn Work>>),
    /// It can be moved to another context.
    Movable(Pin<Box<dyn Work + Send>>),
}

impl Task {
    fn work(&mut self) -> Pin<&mut (dyn Work + '_)> {
        match self {
            Self::Here(work) => work.as_mut(),
            Self::Movable(work) => work.as_mut(),
        }
    }
}

/// The tasks of one context.
pub(crate) struct Tasks {
    wakes: Arc<WakeQueue>,
    /// Tasks that were woken while they were polled in an earlier run of the bottom half. They are polled
    /// before those of `queue`.
    first: RefCell<VecDeque<Dequeued<TaskId>>>,
    /// Tasks that were woken, and taken from `wakes`.
    queue: RefCell<RunQueue<TaskId>>,
    /// Tasks that were woken while they were polled in this run, for the next run.
    later: RefCell<VecDeque<Dequeued<TaskId>>>,
    slots: RefCell<Vec<Rc<Slot>>>,
    /// Slots without a task.
    free: RefCell<Vec<u32>>,
    /// The number of the latest run.
    run: Cell<u64>,
}

/// A place for one task after the other, until a former task's waker is left over.
struct Slot {
    id: TaskId,
    shared: Arc<TaskWaker>,
    /// The same as a waker of futures.
    waker: Waker,
    /// Borrowed while the task is polled.
    task: RefCell<Option<Task>>,
    /// Set if a poll of the context inside the task's own poll came to it.
    is_due_again: Cell<bool>,
    /// The run in which it was woken while it was polled.
    self_woken_in: Cell<u64>,
}

impl Slot {
    fn new(id: TaskId, wakes: &Arc<WakeQueue>) -> Rc<Self> {
        let shared = TaskWaker::new(id, wakes.clone());
        Rc::new(Self {
            id,
            waker: Waker::from(shared.clone()),
            shared,
            task: RefCell::new(None),
            is_due_again: Cell::new(false),
            self_woken_in: Cell::new(0),
        })
    }

    /// Returns `true` if no future keeps a clone of the waker.
    fn is_unshared(&self) -> bool {
        Arc::strong_count(&self.shared) == 2
    }

    fn wake(&self) {
        self.waker.wake_by_ref();
    }
}

/// Makes `cx` poll a task, from the next iteration on. `make` gets the task's waker.
#[inline]
pub(crate) fn install<R>(cx: &Context, make: impl FnOnce(&Arc<TaskWaker>) -> (Task, R)) -> R {
    let slot = Tasks::of(cx).vacant();
    let (task, result) = make(&slot.shared);
    slot.task.replace(Some(task));
    slot.wake();
    result
}

/// As [`install`], for a task that has a handle elsewhere.
pub(crate) fn arrive(cx: &Context, mut task: Task) {
    install(cx, |waker| {
        task.work().arrive(waker.clone());
        (task, ())
    });
}

impl Tasks {
    #[inline]
    fn of(cx: &Context) -> Rc<Self> {
        cx.extension(|cx| Self {
            wakes: WakeQueue::new(cx.bottom_half(NAME, |cx| Self::of(cx).poll_woken(cx))),
            first: RefCell::default(),
            queue: RefCell::default(),
            later: RefCell::default(),
            slots: RefCell::default(),
            free: RefCell::default(),
            run: Cell::new(0),
        })
    }

    /// Returns a slot without a task.
    #[inline]
    fn vacant(&self) -> Rc<Slot> {
        let free = self.free.borrow_mut().pop();
        let mut slots = self.slots.borrow_mut();
        let Some(place) = free else {
            let place = slots.len() as u32;
            let id = TaskId { place, generation: 0 };
            slots.push(Slot::new(id, &self.wakes));
            return slots[place as usize].clone();
        };
        let slot = &mut slots[place as usize];
        if !slot.is_unshared() {
            // A waker of a former task is left.
            let generation = slot.id.generation.wrapping_add(1);
            *slot = Slot::new(TaskId { place, generation }, &self.wakes);
        }
        slot.clone()
    }

    /// Polls the woken tasks.
    fn poll_woken(&self, cx: &Context) {
        self.wakes.begin();
        let run = self.run.get() + 1;
        self.run.set(run);
        self.first.borrow_mut().append(&mut self.later.borrow_mut());
        let (polls, _end) = (Polls::of(cx), End(self));
        for _ in 0..BUDGET {
            let Some(woken) = self.next() else { break };
            if self.has_queued() {
                self.wakes.schedule_at_home(); // for polls inside the task
            }
            if let Some(slot) = self.begin(woken, run) {
                self.poll(&slot, run, &polls);
            }
        }
    }

    #[inline]
    fn next(&self) -> Option<Dequeued<TaskId>> {
        if !self.first.borrow().is_empty() {
            return self.first.borrow_mut().pop_front();
        }
        let mut queue = self.queue.borrow_mut();
        if queue.is_empty() {
            queue.take(self.wakes.woken());
        }
        queue.pop()
    }

    #[inline]
    fn has_queued(&self) -> bool {
        !self.queue.borrow().is_empty() || !self.first.borrow().is_empty()
    }

    /// Returns the slot of a woken task, if the task is to be polled in this run.
    #[inline]
    fn begin(&self, woken: Dequeued<TaskId>, run: u64) -> Option<Rc<Slot>> {
        let id = *woken.payload()?;
        let slot = self.slots.borrow()[id.place as usize].clone();
        let is_current = slot.id == id;
        if is_current && slot.self_woken_in.get() == run {
            self.later.borrow_mut().push_back(woken);
            return None;
        }
        let is_wanted = matches!(woken.begin(), Item::Normal);
        (is_wanted && is_current).then_some(slot)
    }

    #[inline]
    fn poll(&self, slot: &Slot, run: u64, polls: &Polls) {
        let Ok(mut task) = slot.task.try_borrow_mut() else {
            return slot.is_due_again.set(true);
        };
        let Some(polled) = task.as_mut() else { return };
        if polled.work().is_cancelled() {
            return self.fail(slot, task, JoinError::Cancelled);
        }
        let is_movable = matches!(polled, Task::Movable(_));
        if is_movable {
            polls.can_move(true);
        }
        let mut polling = Polling::from_waker(&slot.waker);
        let outcome = catch_unwind(AssertUnwindSafe(|| polled.work().poll(&mut polling)));
        let request = is_movable.then(|| polls.can_move(false)).flatten();
        match outcome {
            Ok(Poll::Pending) => {}
            Ok(Poll::Ready(())) => return self.vacate(slot, task),
            Err(value) => return self.fail(slot, task, JoinError::Panicked(PanicValue::new(value))),
        }
        if let Some(request) = request {
            return self.move_on(slot, task, &request);
        }
        if slot.is_due_again.get() {
            slot.is_due_again.set(false);
            slot.wake();
        }
        if slot.shared.is_queued() {
            slot.self_woken_in.set(run);
        }
    }

    /// Ends a task without a result of its own.
    #[cold]
    fn fail(&self, slot: &Slot, mut task: RefMut<'_, Option<Task>>, why: JoinError) {
        let mut unwanted = None;
        if let Some(failed) = task.as_mut() {
            let fail = catch_unwind(AssertUnwindSafe(|| failed.work().fail(why)));
            unwanted =
                fail.unwrap_or_else(|value| failed.work().fail(JoinError::Panicked(PanicValue::new(value))));
        }
        self.vacate(slot, task);
        if let Some(JoinError::Panicked(value)) = unwanted {
            // There is no handle to return it, so it ends like the panic of any callback.
            resume_unwind(value.into_inner());
        }
    }

    /// Sends a task to another context, or keeps it here if that is gone.
    fn move_on(&self, slot: &Slot, mut task: RefMut<'_, Option<Task>>, request: &Request) {
        let Some(Task::Movable(work)) = task.take() else {
            return;
        };
        work.leave(&request.to);
        // A context that is gone drops the messages that it gets, so the message does not own the task alone.
        let shared = Arc::new(Mutex::new(Some(work)));
        let arriving = shared.clone();
        let sent = request.to.run(move |cx| {
            if let Some(work) = take(&arriving) {
                arrive(cx, Task::Movable(work));
            }
        });
        if sent.is_ok() {
            return self.vacate(slot, task);
        }
        if let Some(work) = take(&shared) {
            work.arrive(slot.shared.clone());
            request.refused.store(true, Unshared::Relaxed);
            *task = Some(Task::Movable(work));
            slot.wake();
        }
    }

    /// Frees the slot.
    #[inline]
    fn vacate(&self, slot: &Slot, mut task: RefMut<'_, Option<Task>>) {
        let ended = task.take();
        drop(task);
        drop(ended);
        slot.is_due_again.set(false);
        slot.self_woken_in.set(0);
        self.free.borrow_mut().push(slot.id.place);
    }

    /// Ends a run of the bottom half, perhaps by a panic.
    fn end(&self) {
        if self.has_queued() || !self.later.borrow().is_empty() {
            self.wakes.schedule_at_home();
        } else {
            self.wakes.unschedule();
        }
    }
}

/// Ends a run when it is dropped.
struct End<'a>(&'a Tasks);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

fn take<T>(shared: &Mutex<Option<T>>) -> Option<T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner).take()
}

impl Drop for Tasks {
    /// Closes the inbox when the context is dropped. The tasks are dropped with the slots, after this.
    fn drop(&mut self) {
        self.wakes.woken().close(&mut self.queue.borrow_mut());
    }
}
