//! [`TaskWaker`]: a wake is a scheduled bottom half.

use std::sync::Arc;
use std::task::Wake;

use aio_context::BottomHalf;

/// Schedules the bottom half that polls a task. Any thread may wake; a wake allocates nothing, and several before the poll are one.
pub(crate) struct TaskWaker(BottomHalf);

impl TaskWaker {
    pub(crate) fn new(polls: BottomHalf) -> Arc<Self> {
        Arc::new(Self(polls))
    }

    /// Whether this thread is the home of the context that polls the task.
    pub(crate) fn is_at_home(&self) -> bool {
        self.0.is_at_home()
    }
}

impl Wake for TaskWaker {
    #[inline]
    fn wake(self: Arc<Self>) {
        self.0.schedule();
    }

    #[inline]
    fn wake_by_ref(self: &Arc<Self>) {
        self.0.schedule();
    }
}
