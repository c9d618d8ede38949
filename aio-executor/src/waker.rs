//! [`TaskWaker`]: a wake queues the task and schedules the bottom half that polls what is queued.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

use aio_context::BottomHalf;
use aio_notify::{HomeThread, Inbox, Node, Urgency};

use crate::sync::faulty;

/// What the tasks of a context share with their wakers.
pub(crate) struct Door {
    /// The tasks that were woken. Closed when the context is dropped.
    woken: Inbox<TaskId>,
    home: HomeThread,
    /// Polls them.
    bell: BottomHalf,
    /// The home thread has rung the bell, and it has not begun. Only the home thread uses this.
    is_rung: AtomicBool,
}

impl Door {
    /// A door whose bell is `bell`.
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

    /// Has the tasks polled that were woken. The home thread rings once for many.
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

    /// The bell has begun.
    pub(crate) fn begin(&self) {
        self.is_rung.store(false, Ordering::Relaxed);
    }

    /// Rings if there are tasks in the inbox.
    fn ring_for_new(&self) {
        if self.woken.pending() {
            self.ring_at_home();
        }
    }

    /// Takes back the ring for tasks that were polled meanwhile.
    ///
    /// Ordering: a thread that has rung before has queued its task before that. The cancellation, which takes its ring back, acquires
    /// this, so that the task is seen after.
    pub(crate) fn silence(&self) {
        if self.is_rung.load(Ordering::Relaxed) {
            self.is_rung.store(false, Ordering::Relaxed);
            self.bell.cancel();
        }
        faulty!(SilencedForAll, self.ring_for_new());
    }
}

/// Which task a node stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TaskId {
    /// The slot.
    pub(crate) place: u32,
    /// A place has another slot when a waker of a former task is left.
    pub(crate) generation: u32,
}

/// Wakes a task, from any thread. A wake allocates nothing, and several before the poll are one: the node is queued once.
pub(crate) struct TaskWaker {
    node: Node<TaskId>,
    door: Arc<Door>,
}

impl TaskWaker {
    pub(crate) fn new(id: TaskId, door: Arc<Door>) -> Arc<Self> {
        let node = Node::new(id);
        Arc::new(Self { node, door })
    }

    /// Whether the task was woken and is not polled yet.
    pub(crate) fn is_queued(&self) -> bool {
        self.node.is_scheduled()
    }

    /// Whether this thread is the home of the context that polls the task.
    pub(crate) fn is_at_home(&self) -> bool {
        self.door.home.is_here()
    }

    /// The bell is rung also if the node was queued already: the thread that has queued it may not have rung yet.
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
