//! [`Places`]: limits the number of connections, and with it the memory of all clients together.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use aio_context::{Context, GroupId, Paused};

/// The most connections at a time.
pub(super) const MOST_CONNECTIONS: usize = 64;

/// The places of connections. While all are taken, the listeners are paused.
#[derive(Debug)]
pub(super) struct Places {
    taken: Cell<usize>,
    listeners: GroupId,
    paused: RefCell<Option<Paused>>,
}

/// The place of one connection and its requests.
#[derive(Debug)]
pub(super) struct Place(Rc<Places>);

impl Places {
    /// Places for the clients of these listeners.
    pub(super) fn new(listeners: GroupId) -> Rc<Self> {
        Rc::new(Self {
            taken: Cell::default(),
            listeners,
            paused: RefCell::default(),
        })
    }

    /// The number of places that are taken.
    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.taken.get()
    }

    /// Takes a place; the last one pauses the listeners, in which case this returns true.
    pub(super) fn take(self: &Rc<Self>, cx: &Context) -> (Rc<Place>, bool) {
        self.taken.set(self.taken.get() + 1);
        let is_last = self.taken.get() >= MOST_CONNECTIONS;
        if is_last {
            let paused = cx.pause(self.listeners);
            let former = self.paused.replace(Some(paused));
            drop(former);
        }
        (Rc::new(Place(self.clone())), is_last)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.set(self.0.taken.get() - 1);
        let paused = self.0.paused.take();
        drop(paused);
    }
}
