//! [`Peers`]: clients that send requests as bytes and get replies, such as those of the control socket. A
//! client that does not read, sends half a request or disappears costs a bounded amount of memory, and does
//! not delay other clients.
//!
//! Each client has one request at a time. While its request is executed or its reply is not sent, the daemon
//! reads nothing from it, so further requests wait in the system's buffers and then in the client.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::time::Duration;

use aio_context::{ClockId, Context, Handler, Interest, Registration, Timer};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

/// The most bytes of one read.
const READ_AT_ONCE: usize = 4096;

/// The protocol between clients and the daemon.
pub(crate) trait Protocol: 'static {
    /// Returns the most clients at a time. A further client replaces the one that has been silent for
    /// longest.
    fn most_peers(&self) -> usize;

    /// Returns the most bytes of a request.
    fn most_request(&self) -> usize;

    /// Returns the time limit for the rest of a request after its first byte; `None` is no limit.
    fn request_timeout(&self) -> Option<Duration>;

    /// Returns the time limit for a client to read a reply.
    fn reply_timeout(&self) -> Duration;

    /// Returns the bytes that end a request.
    fn end_of_request(&self) -> &'static [u8];

    /// Executes a request, and replies at once or later.
    fn handle(&self, cx: &Context, request: &[u8], reply: Reply);

    /// Returns the reply to a request of more bytes than [`most_request`](Self::most_request). The connection
    /// ends after it.
    fn too_long(&self) -> Vec<u8>;
}

/// The connected clients of one listener.
pub(crate) struct Peers {
    me: Weak<Self>,
    protocol: Box<dyn Protocol>,
    connected: RefCell<Vec<Rc<Peer>>>,
    /// A counter that grows with every request.
    now: Cell<u64>,
}

impl Peers {
    pub(crate) fn new(protocol: impl Protocol) -> Rc<Self> {
        Rc::new_cyclic(|me| Self {
            me: me.clone(),
            protocol: Box::new(protocol),
            connected: RefCell::default(),
            now: Cell::default(),
        })
    }

    /// Serves a client whose socket is non-blocking.
    ///
    /// # Errors
    /// If the loop cannot wait for it.
    pub(crate) fn join(&self, cx: &Context, socket: OwnedFd) -> io::Result<()> {
        self.make_room();
        let peer = Rc::new_cyclic(|me: &Weak<Peer>| {
            let for_timer = me.clone();
            let timer = cx.timer(ClockId::Monotonic, move |_, _| {
                if let Some(peer) = for_timer.upgrade() {
                    peer.leave();
                }
            });
            Peer {
                me: me.clone(),
                peers: self.me.clone(),
                socket,
                input: RefCell::default(),
                searched: Cell::default(),
                output: RefCell::default(),
                state: Cell::new(State::Reads),
                is_last: Cell::default(),
                has_ended: Cell::default(),
                last_request: Cell::new(self.tick()),
                timer: RefCell::new(Some(timer.disarmed())),
                registration: RefCell::default(),
            }
        });
        let registration = cx.watch(peer.clone(), Interest::READ)?;
        peer.registration.replace(Some(registration));
        self.connected.borrow_mut().push(peer);
        Ok(())
    }

    /// Ends all connections.
    pub(crate) fn close(&self) {
        let peers = self.connected.take();
        for peer in peers {
            peer.forget();
        }
    }

    fn tick(&self) -> u64 {
        self.now.set(self.now.get() + 1);
        self.now.get()
    }

    fn make_room(&self) {
        let oldest = {
            let connected = self.connected.borrow();
            if connected.len() < self.protocol.most_peers() {
                return;
            }
            // A client whose request is executed has not been silent.
            let key = |peer: &&Rc<Peer>| (peer.state.get() == State::Executes, peer.last_request.get());
            connected.iter().min_by_key(key).cloned()
        };
        if let Some(peer) = oldest {
            peer.leave();
        }
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers")
            .field("connected", &self.connected.borrow().len())
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The client may send a request.
    Reads,
    /// A request is executed.
    Executes,
    /// A reply is sent.
    Replies,
}

/// A connected client.
struct Peer {
    me: Weak<Self>,
    peers: Weak<Peers>,
    socket: OwnedFd,
    /// Bytes of requests that were not taken yet.
    input: RefCell<Vec<u8>>,
    /// The number of bytes of the input that contain no end of a request, so that a request that arrives byte
    /// by byte is searched once.
    searched: Cell<usize>,
    /// The rest of a reply.
    output: RefCell<Vec<u8>>,
    state: Cell<State>,
    /// Set if the connection ends after this reply.
    is_last: Cell<bool>,
    /// Set if the client sends no more bytes.
    has_ended: Cell<bool>,
    last_request: Cell<u64>,
    /// Ends the connection when the client is too slow.
    timer: RefCell<Option<Timer>>,
    registration: RefCell<Option<Registration>>,
}

/// The destination of the reply to one request. Dropping it without a reply ends the connection.
pub(crate) struct Reply(Weak<Peer>);

impl Reply {
    /// Sends the reply. With `is_last` the connection ends after it.
    pub(crate) fn send(mut self, cx: &Context, bytes: Vec<u8>, is_last: bool) {
        if let Some(peer) = std::mem::take(&mut self.0).upgrade() {
            peer.reply(cx, bytes, is_last);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(peer) = self.0.upgrade() {
            peer.leave();
        }
    }
}

impl Peer {
    /// Ends the connection.
    fn leave(&self) {
        if let Some(peers) = self.peers.upgrade() {
            let mut connected = peers.connected.borrow_mut();
            let at = connected.iter().position(|peer| std::ptr::eq(&**peer, self));
            let left = at.map(|at| connected.swap_remove(at));
            drop(connected);
            if let Some(peer) = left {
                peer.forget();
            }
        }
    }

    fn forget(&self) {
        let both = (self.registration.take(), self.timer.take());
        drop(both);
    }

    fn reply(&self, cx: &Context, bytes: Vec<u8>, is_last: bool) {
        self.output.replace(bytes);
        self.state.set(State::Replies);
        self.is_last.set(is_last);
        self.send_rest(cx);
    }

    fn send_rest(&self, cx: &Context) {
        match self.try_send() {
            Ok(true) if self.is_last.get() => self.leave(),
            Ok(true) => {
                self.state.set(State::Reads);
                self.set_timer(None);
                // The next request is executed after the other handlers have had their turns.
                let me = self.me.clone();
                cx.defer(move |cx| {
                    if let Some(peer) = me.upgrade() {
                        peer.take_request(cx);
                    }
                });
            }
            Ok(false) => {
                self.set_interest(Interest::WRITE);
                if let Some(peers) = self.peers.upgrade() {
                    self.set_timer(Some(peers.protocol.reply_timeout()));
                }
            }
            Err(_) => self.leave(),
        }
    }

    /// Sends as much as possible. Returns `true` if everything was sent.
    fn try_send(&self) -> Result<bool, Errno> {
        let mut output = self.output.borrow_mut();
        let mut sent = 0;
        let result = loop {
            if sent == output.len() {
                break Ok(true);
            }
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(&self.socket, &output[sent..], flags) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break Ok(false),
                Err(error) => break Err(error),
            }
        };
        output.drain(..sent);
        result
    }

    /// Executes the first request that is complete, if there is one.
    fn take_request(&self, cx: &Context) {
        let Some(peers) = self.peers.upgrade() else { return };
        if self.state.get() != State::Reads || self.registration.borrow().is_none() {
            return;
        }
        let protocol = &peers.protocol;
        let most = protocol.most_request();
        let request: Option<Vec<u8>> = {
            let mut input = self.input.borrow_mut();
            let len = self.search(&input, protocol.end_of_request());
            let len = len.filter(|len| *len <= most);
            len.map(|len| {
                self.searched.set(0);
                input.drain(..len).collect()
            })
        };
        if let Some(request) = request {
            self.state.set(State::Executes);
            self.last_request.set(peers.tick());
            self.set_timer(None);
            self.set_interest(Interest::NONE);
            protocol.handle(cx, &request, Reply(self.me.clone()));
            return;
        }
        let waiting = self.input.borrow().len();
        if waiting > most {
            self.reply(cx, protocol.too_long(), true);
        } else if self.has_ended.get() {
            self.leave();
        } else {
            self.set_interest(Interest::READ);
            self.set_timer(protocol.request_timeout().filter(|_| waiting > 0));
        }
    }

    /// Returns the number of bytes of the first request in `input`, if it is complete.
    fn search(&self, input: &[u8], end: &[u8]) -> Option<usize> {
        let from = self.searched.get();
        let found = input[from..].windows(end.len()).position(|bytes| bytes == end);
        if found.is_none() {
            // A part of the end may have arrived.
            self.searched
                .set(from.max((input.len() + 1).saturating_sub(end.len())));
        }
        Some(from + found? + end.len())
    }

    fn read(&self) -> Result<(), Errno> {
        let Some(peers) = self.peers.upgrade() else {
            return Ok(());
        };
        let most = peers.protocol.most_request();
        let mut part = [0; READ_AT_ONCE];
        let mut input = self.input.borrow_mut();
        while input.len() <= most {
            match rustix::net::recv(&self.socket, &mut part, RecvFlags::DONTWAIT) {
                Ok((0, _)) => {
                    self.has_ended.set(true);
                    return Ok(());
                }
                Ok((count, _)) => input.extend_from_slice(&part[..count]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn set_timer(&self, after: Option<Duration>) {
        if let Some(timer) = &*self.timer.borrow() {
            match after {
                // The time counts from the first byte.
                Some(after) if timer.deadline().is_none() => timer.arm_after(after),
                Some(_) => {}
                None => timer.cancel(),
            }
        }
    }

    fn set_interest(&self, interest: Interest) {
        let set = self
            .registration
            .borrow()
            .as_ref()
            .map(|registration| registration.set_interest(interest));
        if let Some(Err(_)) = set {
            self.leave();
        }
    }
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Handler for Peer {
    fn readable(&self, cx: &Context) {
        if self.state.get() != State::Reads {
            return;
        }
        match self.read() {
            Ok(()) => self.take_request(cx),
            Err(_) => self.leave(),
        }
    }

    fn writable(&self, cx: &Context) {
        if self.state.get() == State::Replies {
            self.send_rest(cx);
        }
    }

    fn invalidated(&self, _: &Context, _: io::Error) {
        self.leave();
    }
}

#[cfg(test)]
mod tests;
