//! Stops queues from taking requests while a message is handled, on this loop and on others.

use aio_context::Context;

use super::Backend;
use crate::concerned::Concerned;
use crate::hosted::Parked;
use crate::queue::Queue;

impl Backend {
    /// Stops taking requests from the queue that a message concerns, or from all that this loop serves if the
    /// message does not concern a single one, until [`release`](Self::release). Returns `true` if no request
    /// is outstanding, so that no thread accesses the client's memory for it.
    pub(crate) fn hold(&self, concerned: Concerned) -> bool {
        let queues = self.queues.borrow();
        if let Concerned::One(index) = concerned {
            return queues.get(index).is_none_or(Queue::hold);
        }
        let busy = queues.iter().filter(|queue| !queue.hold());
        busy.count() == 0
    }

    /// Makes other loops stop the queues that a message concerns. Returns `true` if no other loop serves one
    /// of them any more. If not, each loop replies by `deliver`, and the caller must call this again.
    pub(crate) fn park(
        &self,
        cx: &Context,
        concerned: Concerned,
        deliver: impl Fn(&Context, Vec<Parked>) + Clone + 'static,
    ) -> bool {
        if self.parking.get() > 0 {
            return false;
        }
        let mut at: Vec<Vec<usize>> = vec![Vec::new(); self.shared.others.count()];
        for (index, queue) in self.queues.borrow().iter().enumerate() {
            if let Some(other) = queue.served_by()
                && concerned.includes(index)
            {
                at[other].push(index);
            }
        }
        for (other, queues) in at.into_iter().enumerate() {
            if !queues.is_empty() {
                self.parking.set(self.parking.get() + 1);
                let connection = self.shared.connection.clone();
                self.shared
                    .others
                    .park(cx, other, queues, connection, deliver.clone());
            }
        }
        self.parking.get() == 0
    }

    /// Accepts the reply of another loop, which has stopped these queues.
    pub(crate) fn have_parked(&self, all: Vec<Parked>) {
        self.parking.set(self.parking.get() - 1);
        let mut queues = self.queues.borrow_mut();
        for parked in all {
            queues[parked.index].park(parked);
        }
    }

    /// Returns `true` if other loops serve queues of the export.
    pub(crate) fn has_others(&self) -> bool {
        self.shared.others.count() > 0
    }

    /// Takes requests again, and makes the other loops serve their stopped queues again.
    pub(crate) fn release(&self) {
        for (index, queue) in self.queues.borrow_mut().iter_mut().enumerate() {
            let released = queue.release(index, &self.shared);
            self.report(index, released);
        }
    }
}
