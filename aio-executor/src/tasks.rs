//! [`Tasks`]: the tasks of one context, and the order in which they are polled.
//!
//! The context owns this, and with it the futures: it drops them when it is dropped, on its thread (rule E3). Wakers know only a
//! slot's number. A slot that is free keeps its waker for the next task, so that a spawn allocates the future and what the handle
//! shares with it, and nothing else.
//!
//! # Which tasks are polled
//! The bottom half polls the tasks that were woken, in the order of the wakes, also those that the tasks wake meanwhile, up to
//! [`BUDGET`]; the rest waits for the next iteration. So does a task that is woken while it is polled (rule H2). The bottom half is
//! scheduled while it runs, for polls inside a task, and to go on after a panic. That is taken back when nothing is left.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering as Unshared;
use std::sync::{Arc, PoisonError};
use std::task::{Context as Polling, Poll, Waker};

use aio_context::Context;
use aio_notify::{Dequeued, Item, RunQueue};

use crate::current::{Polls, Request};
use crate::join::JoinError;
use crate::sync::Mutex;
use crate::waker::{Door, TaskId, TaskWaker};
use crate::work::Work;

/// How many tasks are polled in a row.
const BUDGET: u32 = 64;
/// The name of the bottom half, in messages.
const NAME: &str = "tasks";

/// A task as it is kept.
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
    door: Arc<Door>,
    /// Woken, and taken from the door.
    queue: RefCell<RunQueue<TaskId>>,
    /// As `queue`, and before it.
    first: RefCell<VecDeque<Dequeued<TaskId>>>,
    /// Woken while they were polled: for the next run of the bottom half.
    later: RefCell<VecDeque<Dequeued<TaskId>>>,
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<u32>>,
    /// The number of the latest run.
    run: Cell<u64>,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    /// Both `None` while the task is polled, and in a slot that was never used.
    task: Option<Task>,
    waker: Option<SlotWaker>,
    is_polled: bool,
    /// A poll of the context inside the task's own poll came to it.
    is_due_again: bool,
    /// The run in which it was woken while it was polled.
    self_woken_in: u64,
}

/// The waker of a slot, in both shapes.
struct SlotWaker {
    shared: Arc<TaskWaker>,
    waker: Waker,
}

impl SlotWaker {
    fn new(id: TaskId, door: &Arc<Door>) -> Self {
        let shared = TaskWaker::new(id, door.clone());
        let waker = Waker::from(shared.clone());
        Self { shared, waker }
    }

    /// Whether there is no clone beside these two.
    fn is_unique(&self) -> bool {
        Arc::strong_count(&self.shared) == 2
    }
}

/// Has `cx` poll a task, from the next iteration on.
pub(crate) fn install(cx: &Context, task: Task) {
    Tasks::of(cx).add(task);
}

impl Tasks {
    fn of(cx: &Context) -> Rc<Self> {
        cx.extension(|cx| Self {
            door: Door::new(cx.bottom_half(NAME, |cx| Self::of(cx).poll_woken(cx))),
            queue: RefCell::default(),
            first: RefCell::default(),
            later: RefCell::default(),
            slots: RefCell::default(),
            free: RefCell::default(),
            run: Cell::new(0),
        })
    }

    fn add(&self, mut task: Task) {
        let mut slots = self.slots.borrow_mut();
        let place = self.free.borrow_mut().pop().unwrap_or_else(|| {
            slots.push(Slot::default());
            slots.len() as u32 - 1
        });
        let slot = &mut slots[place as usize];
        let id = TaskId {
            slot: place,
            generation: slot.generation,
        };
        let waker = slot.waker.get_or_insert_with(|| SlotWaker::new(id, &self.door));
        task.work().arrive(waker.shared.clone());
        waker.waker.wake_by_ref();
        slot.task = Some(task);
    }

    /// Polls the tasks that were woken.
    fn poll_woken(&self, cx: &Context) {
        self.door.begin();
        let run = self.run.get() + 1;
        self.run.set(run);
        self.first.borrow_mut().append(&mut self.later.borrow_mut());
        let (polls, _end) = (Polls::of(cx), End(self));
        for _ in 0..BUDGET {
            let Some(woken) = self.next() else { break };
            if self.has_queued() {
                self.door.ring(); // for polls inside the task
            }
            if let Some(turn) = self.begin(woken, run) {
                self.poll(turn, &polls);
            }
        }
    }

    fn next(&self) -> Option<Dequeued<TaskId>> {
        let first = self.first.borrow_mut().pop_front();
        first.or_else(|| {
            let mut queue = self.queue.borrow_mut();
            if queue.is_empty() {
                queue.take(self.door.woken());
            }
            queue.pop()
        })
    }

    fn has_queued(&self) -> bool {
        !self.queue.borrow().is_empty() || !self.first.borrow().is_empty()
    }

    /// Takes a task out of its slot, to be polled.
    fn begin(&self, woken: Dequeued<TaskId>, run: u64) -> Option<Turn> {
        let id = *woken.payload()?;
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots[id.slot as usize];
        let is_current = slot.generation == id.generation;
        if is_current && slot.self_woken_in == run && slot.task.is_some() {
            self.later.borrow_mut().push_back(woken);
            return None;
        }
        let is_wanted = matches!(woken.begin(), Item::Normal) && is_current;
        if is_wanted && slot.is_polled {
            slot.is_due_again = true;
        }
        if !is_wanted || slot.task.is_none() {
            return None;
        }
        slot.is_polled = true;
        Some(Turn {
            id,
            run,
            task: slot.task.take()?,
            waker: slot.waker.take()?,
        })
    }

    fn poll(&self, mut turn: Turn, polls: &Polls) {
        if turn.task.work().is_cancelled() {
            return self.fail(turn, JoinError::Cancelled);
        }
        let is_movable = matches!(turn.task, Task::Movable(_));
        if is_movable {
            polls.can_move(true);
        }
        let polled = catch_unwind(AssertUnwindSafe(|| {
            turn.task.work().poll(&mut Polling::from_waker(&turn.waker.waker))
        }));
        let request = is_movable.then(|| polls.can_move(false)).flatten();
        match (polled, request) {
            (Ok(Poll::Pending), None) => self.put_back(turn),
            (Ok(Poll::Pending), Some(request)) => self.move_on(turn, &request),
            (Ok(Poll::Ready(())), _) => self.vacate(turn.id, turn.waker),
            (Err(value), _) => self.fail(turn, JoinError::Panicked(value)),
        }
    }

    /// The task waits for its next wake.
    fn put_back(&self, turn: Turn) {
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots[turn.id.slot as usize];
        slot.is_polled = false;
        if mem::take(&mut slot.is_due_again) {
            turn.waker.waker.wake_by_ref();
        }
        if turn.waker.shared.is_queued() {
            slot.self_woken_in = turn.run;
        }
        slot.task = Some(turn.task);
        slot.waker = Some(turn.waker);
    }

    /// Ends a task without a result of its own.
    fn fail(&self, mut turn: Turn, why: JoinError) {
        let failed = catch_unwind(AssertUnwindSafe(|| turn.task.work().fail(why)));
        let unwanted = failed.unwrap_or_else(|value| turn.task.work().fail(JoinError::Panicked(value)));
        self.vacate(turn.id, turn.waker);
        if let Some(JoinError::Panicked(value)) = unwanted {
            // There is no handle to return it: it ends as the panic of any callback.
            resume_unwind(value);
        }
    }

    /// Sends a task to another context, or has it go on here if that is gone.
    fn move_on(&self, turn: Turn, request: &Request) {
        let Task::Movable(work) = turn.task else { return };
        work.leave(&request.to);
        // A context that is gone drops what it is sent: so what it is sent does not own the task alone.
        let parcel = Arc::new(Mutex::new(Some(work)));
        let arriving = parcel.clone();
        let sent = request.to.run(move |cx| {
            if let Some(work) = take(&arriving) {
                install(cx, Task::Movable(work));
            }
        });
        match (sent, turn.waker) {
            (Ok(()), waker) => self.vacate(turn.id, waker),
            (Err(_), waker) => {
                let Some(work) = take(&parcel) else { return };
                work.arrive(waker.shared.clone());
                request.refused.store(true, Unshared::Relaxed);
                waker.waker.wake_by_ref();
                let task = Task::Movable(work);
                self.put_back(Turn { task, waker, ..turn });
            }
        }
    }

    /// The slot is free. Its waker serves the next task, unless there are clones, which know that they are out of date.
    fn vacate(&self, id: TaskId, waker: SlotWaker) {
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots[id.slot as usize];
        let mut outdated = None;
        if waker.is_unique() {
            slot.waker = Some(waker);
        } else {
            slot.generation = slot.generation.wrapping_add(1);
            outdated = Some(waker);
        }
        slot.is_polled = false;
        slot.is_due_again = false;
        slot.self_woken_in = 0;
        drop(slots);
        self.free.borrow_mut().push(id.slot);
        drop(outdated);
    }

    /// A run of the bottom half ends, perhaps by a panic.
    fn end(&self) {
        if self.has_queued() || !self.later.borrow().is_empty() {
            self.door.ring();
        } else {
            self.door.silence();
        }
    }
}

/// A task that is being polled.
struct Turn {
    id: TaskId,
    run: u64,
    task: Task,
    waker: SlotWaker,
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
    /// The context is dropped. The tasks go with the slots, after this.
    fn drop(&mut self) {
        self.door.woken().close(&mut self.queue.borrow_mut());
    }
}
