//! [`TaskWaker`]: a wake queues the task and schedules the bottom half that polls the queued tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

use aio_context::BottomHalf;
use aio_notify::{HomeThread, Inbox, Node, Urgency};

use crate::sync::faulty;

/// The tasks of a context that were woken, and the bottom half that polls them. All wakers of the context
/// share it.
pub(crate) struct WakeQueue {
    /// Closed when the context is dropped.
    woken: Inbox<TaskId>,
    home: HomeThread,
    /// The bottom half that polls the tasks.
    poller: BottomHalf,
    /// Set if the home thread has scheduled `poller`, which has not begun. Only the home thread uses this.
    is_scheduled: AtomicBool,
}

impl WakeQueue {
    /// Makes a queue whose tasks `poller` polls.
    pub(crate) fn new(poller: BottomHalf) -> Arc<Self> {
        Arc::new(Self {
            woken: Inbox::new(),
            home: HomeThread::here(),
            poller,
            is_scheduled: AtomicBool::new(false),
        })
    }

    pub(crate) fn woken(&self) -> &Inbox<TaskId> {
        &self.woken
    }

    /// Schedules the poller. The home thread schedules it once for many wakes.
    #[inline]
    pub(crate) fn schedule(&self) {
        if self.home.is_here() {
            self.schedule_at_home();
        } else {
            self.poller.schedule();
        }
    }

    /// As [`schedule`](Self::schedule), for the home thread.
    #[inline]
    pub(crate) fn schedule_at_home(&self) {
        if !self.is_scheduled.load(Ordering::Relaxed) {
            self.is_scheduled.store(true, Ordering::Relaxed);
            self.poller.schedule();
        }
    }

    /// Records that the poller has begun.
    pub(crate) fn begin(&self) {
        self.is_scheduled.store(false, Ordering::Relaxed);
    }

    /// Schedules the poller if there are tasks in the inbox.
    fn schedule_for_new(&self) {
        if self.woken.pending() {
            self.schedule_at_home();
        }
    }

    /// Cancels the poller if the home thread has scheduled it, for tasks that were polled meanwhile.
    ///
    /// Ordering: another thread queues its task before it schedules the poller. The cancellation also revokes
    /// that schedule and acquires it, so the task is visible afterwards.
    pub(crate) fn unschedule(&self) {
        if self.is_scheduled.load(Ordering::Relaxed) {
            self.is_scheduled.store(false, Ordering::Relaxed);
            self.poller.cancel();
        }
        faulty!(UnscheduledForAll, self.schedule_for_new());
    }
}

/// The task of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TaskId {
    /// The slot.
    pub(crate) place: u32,
    /// Raised when the place gets another slot, because a waker of a former task is left over.
    pub(crate) generation: u32,
}

/// Wakes a task, from any thread. A wake allocates nothing, and several before the poll count as one: the
/// node is queued once.
pub(crate) struct TaskWaker {
    node: Node<TaskId>,
    queue: Arc<WakeQueue>,
}

impl TaskWaker {
    pub(crate) fn new(id: TaskId, queue: Arc<WakeQueue>) -> Arc<Self> {
        let node = Node::new(id);
        Arc::new(Self { node, queue })
    }

    /// Returns whether the task was woken and is not polled yet.
    pub(crate) fn is_queued(&self) -> bool {
        self.node.is_scheduled()
    }

    /// Returns whether this thread is the home of the context that polls the task.
    pub(crate) fn is_at_home(&self) -> bool {
        self.queue.home.is_here()
    }

    /// Queues the node. Schedules the poller even if the node was queued already, because the thread that has
    /// queued it may not have done so yet.
    #[inline]
    fn enqueue(&self) {
        let queue = &*self.queue;
        faulty!(ScheduledBeforeQueued, queue.woken.post(&self.node, Urgency::Normal); queue.schedule());
    }
}

impl Wake for TaskWaker {
    #[inline]
    fn wake(self: Arc<Self>) {
        self.enqueue();
    }

    #[inline]
    fn wake_by_ref(self: &Arc<Self>) {
        self.enqueue();
    }
}
