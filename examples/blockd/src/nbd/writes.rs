//! [`Writes`]: the writes of an export's clients that are not complete, so that none of them comes after a later one.
//!
//! A client whose connection breaks connects again, sends again what was not answered, and goes on. A write of its former connection that
//! the image has not completed would then replace newer data. So
//! - a client whose predecessors have left begins no request until the writes that they have left are complete;
//! - a write waits for those of other connections that overlap it. A client with several connections sends the requests of a broken
//!   one on the others;
//! - when a client comes, those that have left, which their connections may not have noticed, begin no further request.
//!
//! All of it belongs to the loop of the export.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Range;
use std::rc::{Rc, Weak};

/// A connection, for the other connections of its export.
pub(super) trait Writer {
    /// Begins another turn: a write of another connection is complete.
    fn wake(&self);

    /// Begins no further request if the client has left.
    fn leave_if_gone(&self);
}

/// The clients of an export, and their writes that are not complete.
#[derive(Default)]
pub(crate) struct Writes {
    clients: RefCell<Vec<(u64, Weak<dyn Writer>)>>,
    underway: RefCell<Vec<Write>>,
    waiting: RefCell<Vec<Weak<dyn Writer>>>,
    /// Identifies the next client or write.
    next: Cell<u64>,
}

struct Write {
    id: u64,
    client: u64,
    range: Range<u64>,
}

/// A client of an export. Once it is dropped, it has left.
#[derive(Debug)]
pub(super) struct Client {
    writes: Rc<Writes>,
    id: u64,
    /// Writes of former clients may not be complete.
    is_new: Cell<bool>,
}

/// A write that is not complete. It is once this is dropped.
#[derive(Debug)]
#[must_use = "dropping it completes the write"]
pub(super) struct Underway {
    writes: Rc<Writes>,
    id: u64,
}

impl Writes {
    /// The number of writes that are not complete, those of clients that have left included.
    pub(crate) fn count(&self) -> usize {
        self.underway.borrow().len()
    }

    fn next_id(&self) -> u64 {
        self.next.replace(self.next.get() + 1)
    }

    /// Whether a client that has left before this one came has left a write.
    fn has_former(&self, client: u64) -> bool {
        let clients = self.clients.borrow();
        let has_left = |write: &Write| clients.iter().all(|(id, _)| *id != write.client);
        let writes = self.underway.borrow();
        writes.iter().any(|write| write.id < client && has_left(write))
    }
}

impl Client {
    pub(super) fn new(writes: &Rc<Writes>) -> Self {
        Self {
            writes: writes.clone(),
            id: writes.next_id(),
            is_new: Cell::new(true),
        }
    }

    /// The client has come, and has this connection.
    pub(super) fn enter(&self, writer: Weak<dyn Writer>) {
        let others: Vec<_> = self.writes.clients.borrow().clone();
        for other in others.iter().filter_map(|(_, other)| other.upgrade()) {
            other.leave_if_gone();
        }
        self.writes.clients.borrow_mut().push((self.id, writer));
    }

    /// The client has left, or begins no further request. What it has begun goes on.
    pub(super) fn leave(&self) {
        self.writes.clients.borrow_mut().retain(|(id, _)| *id != self.id);
    }

    /// Whether the client must begin no request, because of writes that former clients have left.
    pub(super) fn waits_for_former(&self) -> bool {
        if self.is_new.get() {
            self.is_new.set(self.writes.has_former(self.id));
        }
        self.is_new.get()
    }

    /// Whether a write of another client must be complete before one of this range.
    #[inline]
    pub(super) fn is_overlapped(&self, range: Option<Range<u64>>) -> bool {
        let Some(range) = range else { return false };
        let underway = self.writes.underway.borrow();
        underway.iter().any(|write| {
            write.client != self.id && write.range.start < range.end && range.start < write.range.end
        })
    }

    /// Wakes the connection once a write is complete.
    pub(super) fn wait(&self) {
        let clients = self.writes.clients.borrow();
        if let Some((_, writer)) = clients.iter().find(|(id, _)| *id == self.id) {
            self.writes.waiting.borrow_mut().push(writer.clone());
        }
    }

    /// A write of this range has begun.
    pub(super) fn begin(&self, range: Option<Range<u64>>) -> Option<Underway> {
        let range = range?;
        let id = self.writes.next_id();
        self.writes.underway.borrow_mut().push(Write {
            id,
            client: self.id,
            range,
        });
        Some(Underway {
            writes: self.writes.clone(),
            id,
        })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        let mut underway = self.writes.underway.borrow_mut();
        if let Some(at) = underway.iter().position(|write| write.id == self.id) {
            underway.swap_remove(at);
        }
        drop(underway);
        let waiting = self.writes.waiting.take();
        for writer in waiting.iter().filter_map(Weak::upgrade) {
            writer.wake();
        }
    }
}

impl fmt::Debug for Writes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writes")
            .field("clients", &self.clients.borrow().len())
            .field("underway", &self.count())
            .finish_non_exhaustive()
    }
}
