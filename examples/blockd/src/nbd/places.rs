//! [`Places`]: limits the number of connections, and thereby the memory of all clients together.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aio_context::{Context, GroupId, Paused};
use aio_sources::{Channel, Event, Sender};

/// The most connections at a time, of all loops together.
pub(super) const MOST_CONNECTIONS: usize = 64;

/// The places of connections. While all are taken, the listeners are paused.
#[derive(Debug)]
pub(super) struct Places {
    taken: Arc<AtomicUsize>,
    listeners: GroupId,
    paused: Rc<RefCell<Option<Paused>>>,
    /// Sends when a place is released after all were taken.
    freed: Sender<()>,
    _channel: Channel,
}

/// The place of one connection and its requests, on any thread.
#[derive(Debug)]
pub(super) struct Place {
    taken: Arc<AtomicUsize>,
    freed: Sender<()>,
}

impl Places {
    /// Returns places for the clients of these listeners.
    pub(super) fn new(cx: &Context, listeners: GroupId) -> Self {
        let taken: Arc<AtomicUsize> = Arc::default();
        let paused: Rc<RefCell<Option<Paused>>> = Rc::default();
        let (count, to_resume) = (taken.clone(), paused.clone());
        let (freed, channel) = Channel::new(cx, move |_, event| {
            if event == Event::Value(()) && count.load(Ordering::SeqCst) < MOST_CONNECTIONS {
                let paused = to_resume.take();
                drop(paused);
            }
        });
        Self {
            taken,
            listeners,
            paused,
            freed,
            _channel: channel,
        }
    }

    /// Returns the number of places that are taken.
    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }

    /// Takes a place. Taking the last place pauses the listeners, and returns `true`.
    pub(super) fn take(&self, cx: &Context) -> (Arc<Place>, bool) {
        let before = self.taken.fetch_add(1, Ordering::SeqCst);
        let is_last = before + 1 >= MOST_CONNECTIONS;
        if is_last {
            let paused = cx.pause(self.listeners);
            let former = self.paused.replace(Some(paused));
            drop(former);
        }
        let place = Place {
            taken: self.taken.clone(),
            freed: self.freed.clone(),
        };
        (Arc::new(place), is_last)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.taken.fetch_sub(1, Ordering::SeqCst) >= MOST_CONNECTIONS {
            // If there is no receiver, there are no listeners either.
            self.freed.send(()).unwrap_or_default();
        }
    }
}
