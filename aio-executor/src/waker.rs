//! [`TaskWaker`]: a wake queues the task and schedules the bottom half that polls the queued tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

use aio_context::BottomHalf;
use aio_notify::{HomeThread, Inbox, Node, Urgency};

use crate::sync::faulty;

/// The shared state of a context's tasks and their wakers.
pub(crate) struct Door {
    /// The tasks that were woken. Closed when the context is dropped.
    woken: Inbox<TaskId>,
    home: HomeThread,
    /// The bottom half that polls them.
    bell: BottomHalf,
    /// Set if the home thread has scheduled the bottom half, which has not begun. Only the home thread uses
    /// this.
    is_rung: AtomicBool,
}

impl Door {
    /// Makes a door whose bottom half is `bell`.
    pub(crate) fn new(bell: BottomHalf) -> Arc<Self> {
        Arc::new(Self {
            woken: Inbox::new(),
            home: HomeThread::here(),
            bell,
            is_rung: AtomicBool::new(false),
        })
    }

    pub(crate) fn woken(&self) -> &Inbox<TaskId> {
        &self.woken
    }

    /// Schedules the bottom half for the woken tasks. The home thread schedules it once for many.
    #[inline]
    pub(crate) fn ring(&self) {
        if self.home.is_here() {
            self.ring_at_home();
        } else {
            self.bell.schedule();
        }
    }

    /// As [`ring`](Self::ring), for the home thread.
    #[inline]
    pub(crate) fn ring_at_home(&self) {
        if !self.is_rung.load(Ordering::Relaxed) {
            self.is_rung.store(true, Ordering::Relaxed);
            self.bell.schedule();
        }
    }

    /// Records that the bottom half has begun.
    pub(crate) fn begin(&self) {
        self.is_rung.store(false, Ordering::Relaxed);
    }

    /// Schedules the bottom half if there are tasks in the inbox.
    fn ring_for_new(&self) {
        if self.woken.pending() {
            self.ring_at_home();
        }
    }

    /// Cancels the bottom half if its tasks were polled meanwhile.
    ///
    /// Ordering: a thread that has scheduled it before has queued its task before that. The cancellation
    /// acquires this, so that the task is visible afterwards.
    pub(crate) fn silence(&self) {
        if self.is_rung.load(Ordering::Relaxed) {
            self.is_rung.store(false, Ordering::Relaxed);
            self.bell.cancel();
        }
        faulty!(SilencedForAll, self.ring_for_new());
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
    door: Arc<Door>,
}

impl TaskWaker {
    pub(crate) fn new(id: TaskId, door: Arc<Door>) -> Arc<Self> {
        let node = Node::new(id);
        Arc::new(Self { node, door })
    }

    /// Returns whether the task was woken and is not polled yet.
    pub(crate) fn is_queued(&self) -> bool {
        self.node.is_scheduled()
    }

    /// Returns whether this thread is the home of the context that polls the task.
    pub(crate) fn is_at_home(&self) -> bool {
        self.door.home.is_here()
    }

    /// Queues the node. Schedules the bottom half even if the node was queued already, because the thread
    /// that has queued it may not have done so yet.
    #[inline]
    fn queue(&self) {
        let door = &*self.door;
        faulty!(RungBeforeQueued, door.woken.post(&self.node, Urgency::Normal); door.ring());
    }
}

impl Wake for TaskWaker {
    #[inline]
    fn wake(self: Arc<Self>) {
        self.queue();
    }

    #[inline]
    fn wake_by_ref(self: &Arc<Self>) {
        self.queue();
    }
}
