//! [`Writes`]: the incomplete writes of an export's clients, in an order in which no write replaces newer data.
//!
//! A client whose connection breaks connects again and repeats the unanswered requests. A write of its former connection that
//! the image has not completed by then could replace newer data. Therefore:
//! - A new client begins no request until the writes of the clients that have disconnected are complete.
//! - A write waits for the overlapping writes of other connections, because a client with several connections repeats the requests of
//!   a broken one on the others.
//! - When a client connects, disconnected clients begin no further request, even if their connections have not handled the end yet.
//!
//! All of this is used only by the loop of the export.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Range;
use std::rc::{Rc, Weak};

/// A connection, as the other connections of its export use it.
pub(super) trait Writer {
    /// Begins another turn, after a write of another connection was completed.
    fn wake(&self);

    /// Ends the connection after its begun requests if the client has disconnected.
    fn leave_if_gone(&self);
}

/// The clients of an export, and their incomplete writes.
#[derive(Default)]
pub(crate) struct Writes {
    clients: RefCell<Vec<(u64, Weak<dyn Writer>)>>,
    underway: RefCell<Vec<Write>>,
    waiting: RefCell<Vec<Weak<dyn Writer>>>,
    /// The number of the next client or write.
    next: Cell<u64>,
}

struct Write {
    id: u64,
    client: u64,
    range: Range<u64>,
}

/// A client of an export. Dropping it disconnects the client.
#[derive(Debug)]
pub(super) struct Client {
    writes: Rc<Writes>,
    id: u64,
    /// Set while writes of former clients may be incomplete.
    is_new: Cell<bool>,
}

/// An incomplete write. Dropping this completes it.
#[derive(Debug)]
#[must_use = "dropping it completes the write"]
pub(super) struct Underway {
    writes: Rc<Writes>,
    id: u64,
}

impl Writes {
    /// Returns the number of incomplete writes, including those of disconnected clients.
    pub(crate) fn count(&self) -> usize {
        self.underway.borrow().len()
    }

    fn next_id(&self) -> u64 {
        self.next.replace(self.next.get() + 1)
    }

    /// Returns `true` if a disconnected client has an incomplete write that began before this client connected.
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

    /// Records that the client has connected, with this connection.
    pub(super) fn enter(&self, writer: Weak<dyn Writer>) {
        let others: Vec<_> = self.writes.clients.borrow().clone();
        for other in others.iter().filter_map(|(_, other)| other.upgrade()) {
            other.leave_if_gone();
        }
        self.writes.clients.borrow_mut().push((self.id, writer));
    }

    /// Records that the client has disconnected or begins no further request. Its begun requests continue.
    pub(super) fn leave(&self) {
        self.writes.clients.borrow_mut().retain(|(id, _)| *id != self.id);
    }

    /// Returns `true` if the client must begin no request, because writes of former clients are incomplete.
    pub(super) fn waits_for_former(&self) -> bool {
        if self.is_new.get() {
            self.is_new.set(self.writes.has_former(self.id));
        }
        self.is_new.get()
    }

    /// Returns `true` if an incomplete write of another client overlaps this range.
    #[inline]
    pub(super) fn is_overlapped(&self, range: Option<Range<u64>>) -> bool {
        let Some(range) = range else { return false };
        let underway = self.writes.underway.borrow();
        underway.iter().any(|write| {
            write.client != self.id && write.range.start < range.end && range.start < write.range.end
        })
    }

    /// Makes the completion of the next write wake the connection.
    pub(super) fn wait(&self) {
        let clients = self.writes.clients.borrow();
        if let Some((_, writer)) = clients.iter().find(|(id, _)| *id == self.id) {
            self.writes.waiting.borrow_mut().push(writer.clone());
        }
    }

    /// Records that a write of this range has begun.
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
