//! Serves the exports over NBD, the protocol of network block devices, to any number of clients at a time.
//!
//! | module | contains |
//! |---|---|
//! | `address`, `listener` | the addresses to which clients connect |
//! | `catalog` | the exports that clients can choose |
//! | `connection`, `places` | the handler of a client's socket; the limit of their number |
//! | `moving` | a connection on its way to the loop of its export |
//! | `input`, `outbox`, `turn` | bytes that were received, bytes to be sent, the limits of a turn |
//! | `negotiation`, `options` | the handshake |
//! | `request`, `transmission`, `job`, `replies` | requests: checked, executed by the loop or by threads, answered |
//! | `stats` | counters of requests |
//! | `wire` | numbers and headers of the protocol |
//! | `writes` | the order of writes of different connections |
//!
//! The first loop listens and executes the handshakes. A client that has chosen an export of another loop is
//! moved there with the bytes that it has sent already.
//!
//! The handshake and the requests are state machines from bytes to bytes; only `connection`, `input` and `outbox` use a socket.
//!
//! # Limits
//! A client can make the daemon reserve 2 MiB of buffers and 32 MiB for the data of requests that threads
//! execute. There are at most 64 connections to all exports together. A handshake must be complete within ten
//! seconds. If a client does not read its replies, its requests are not read any further.

mod address;
mod catalog;
mod connection;
mod input;
mod job;
mod listener;
mod moving;
mod negotiation;
mod on_ring;
mod options;
mod outbox;
mod places;
mod replies;
mod request;
mod stats;
mod transmission;
mod turn;
mod wire;
mod writes;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use aio_context::{ClockId, Context, GroupId};

pub use address::Address;
pub(crate) use catalog::{Catalog, NbdExport};
use connection::Connection;
use listener::Bound;
pub(crate) use moving::{MoveClient, Moved};
use places::{MOST_CONNECTIONS, Places};
pub(crate) use stats::NbdStats;
pub(crate) use writes::Writes;

use crate::limit::{Kind, LineLimit};
use crate::process::PassedSockets;
use crate::request::Device;

/// All NBD clients.
#[derive(Debug)]
pub(crate) struct Nbd {
    me: Weak<Self>,
    catalog: Rc<Catalog>,
    limit: Rc<LineLimit>,
    places: Places,
    listeners: RefCell<Vec<Bound>>,
    /// The group of the listeners.
    group: GroupId,
    connections: RefCell<HashMap<u64, Rc<Connection>>>,
    next_id: Cell<u64>,
    /// The clock that limits the time of a handshake.
    clock: ClockId,
}

impl Nbd {
    /// Returns a server without exports that does not listen yet.
    pub(crate) fn new(cx: &Context) -> Rc<Self> {
        Self::with_clock(cx, Rc::default(), ClockId::Monotonic)
    }

    /// Like [`new`](Self::new), with a clock for the time of handshakes.
    pub(crate) fn with_clock(cx: &Context, catalog: Rc<Catalog>, clock: ClockId) -> Rc<Self> {
        let group = cx.new_group();
        Rc::new_cyclic(|me| Self {
            me: me.clone(),
            catalog,
            limit: LineLimit::new("nbd".into(), Some(cx)),
            places: Places::new(cx, group),
            listeners: RefCell::default(),
            group,
            connections: RefCell::default(),
            next_id: Cell::default(),
            clock,
        })
    }

    /// Returns the exports.
    pub(crate) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Stops offering an export, and begins no more requests of its clients. The requests that have begun are
    /// completed, and then the clients' connections end.
    pub(crate) fn remove(&self, device: &Arc<Device>) {
        self.catalog.remove(device);
        for connection in self.clients_of(device) {
            connection.finish();
        }
    }

    /// Returns the number of requests of an export whose replies are not sent completely.
    pub(crate) fn in_flight_of(&self, device: &Arc<Device>) -> usize {
        let clients = self.clients_of(device);
        clients.iter().map(|connection| connection.in_flight()).sum()
    }

    /// Returns the number of connected clients of an export.
    pub(crate) fn clients(&self, device: &Arc<Device>) -> usize {
        self.clients_of(device).len()
    }

    /// Ends the connections of an export's clients.
    pub(crate) fn close_clients_of(&self, device: &Arc<Device>) {
        let clients = self.clients_of(device);
        for connection in &clients {
            connection.close();
        }
        let is_closed =
            |connection: &Rc<Connection>| clients.iter().any(|client| Rc::ptr_eq(client, connection));
        self.connections
            .borrow_mut()
            .retain(|_, connection| !is_closed(connection));
    }

    fn clients_of(&self, device: &Arc<Device>) -> Vec<Rc<Connection>> {
        let mut clients = self.all();
        clients.retain(|connection| connection.uses(device));
        clients
    }

    /// Starts to accept clients at this address.
    ///
    /// # Errors
    /// If the address cannot be used; with the remedy.
    pub(crate) fn listen(
        &self,
        cx: &Context,
        address: &Address,
        sockets: &PassedSockets,
    ) -> anyhow::Result<()> {
        let me = self.me.clone();
        let bound = Bound::bind((cx, self.group), address, sockets, move |cx, client| {
            if let Some(nbd) = me.upgrade() {
                nbd.accept(cx, client);
            }
        })?;
        self.listeners.borrow_mut().push(bound);
        Ok(())
    }

    /// Serves a client.
    pub(crate) fn accept(&self, cx: &Context, client: OwnedFd) {
        let (place, is_last) = self.places.take(cx);
        if is_last {
            let line = format_args!(
                "{MOST_CONNECTIONS} clients are connected, which is the limit: further ones wait until one disconnects"
            );
            self.limit.log(Kind::Waiting, line);
        }
        let (id, on_end) = self.new_connection();
        let shared = (self.catalog.clone(), self.limit.clone());
        let started = Connection::start((cx, self.clock), client, shared, place, on_end);
        self.insert(id, started);
    }

    /// Serves a client that has chosen an export of this loop on another one.
    pub(crate) fn adopt(&self, cx: &Context, moved: Moved) {
        let Some(export) = self.catalog.of(&moved.device) else {
            // The export was removed meanwhile. The socket is closed.
            return;
        };
        let (id, on_end) = self.new_connection();
        let started = Connection::adopt((cx, self.clock), moved, self.catalog.clone(), export, on_end);
        self.insert(id, started);
    }

    /// Returns an identifier for a connection, and the function to call at its end.
    fn new_connection(&self) -> (u64, impl Fn() + 'static) {
        let id = self.next_id.replace(self.next_id.get() + 1);
        let me = self.me.clone();
        let on_end = move || {
            if let Some(nbd) = me.upgrade() {
                let ended = nbd.connections.borrow_mut().remove(&id);
                drop(ended);
            }
        };
        (id, on_end)
    }

    fn insert(&self, id: u64, started: io::Result<Rc<Connection>>) {
        match started {
            Ok(connection) => {
                self.connections.borrow_mut().insert(id, connection.clone());
                connection.begin();
            }
            Err(error) => self
                .limit
                .log(Kind::NotAccepted, format_args!("cannot serve a client: {error}")),
        }
    }

    /// Stops accepting clients and beginning requests. The requests that have begun are completed while the
    /// loop is polled.
    pub(crate) fn finish(&self) {
        let listeners = self.listeners.take();
        drop(listeners);
        for connection in self.all() {
            connection.finish();
        }
    }

    /// Returns the number of requests whose replies are not sent completely.
    pub(crate) fn in_flight(&self) -> usize {
        self.all().iter().map(|connection| connection.in_flight()).sum()
    }

    /// Ends all connections, and accepts no more clients.
    pub(crate) fn close(&self) {
        let (listeners, connections) = (self.listeners.take(), self.connections.take());
        for connection in connections.values() {
            connection.close();
        }
        drop((listeners, connections));
    }

    fn all(&self) -> Vec<Rc<Connection>> {
        self.connections.borrow().values().cloned().collect()
    }

    /// Returns the number of connections.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn connections(&self) -> usize {
        self.connections.borrow().len()
    }
}

#[cfg(test)]
mod tests;
