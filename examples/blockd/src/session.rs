//! One connection: handles vhost-user messages one at a time, each once it has arrived completely.
//!
//! The protocol's library reads and writes a blocking socket. It is called only when the message is complete and there is
//! room for the reply, so that no client makes the loop wait.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use aio_context::{ClockId, Context, Handler, Interest, Moment, Registration, Timer};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags};
use vhost::vhost_user::message::{FrontendReq, MAX_ATTACHED_FD_ENTRIES, MAX_MSG_SIZE};
use vhost::vhost_user::{BackendReqHandler, Error};

use crate::backend::Backend;
use crate::channel;
use crate::concerned::{Concerned, HEADER_LEN};
use crate::connection::Connection;
use crate::limit::Kind;

/// The time between two checks for the rest of a message. A stream socket is readable while a part is missing, so the loop
/// cannot wait for it.
const RECHECK_AFTER: Duration = Duration::from_millis(1);
/// The longest time between two checks whether the requests of the queues have ended.
const LONGEST_RECHECK: Duration = Duration::from_millis(64);
/// A message must be complete this long after its first byte.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A connected client.
pub(crate) struct Session {
    /// The session itself, for its timer.
    me: Weak<Self>,
    /// Called once the session has ended.
    on_end: Box<dyn Fn()>,
    connection: Rc<Connection>,
    socket: UnixStream,
    backend: Arc<Backend>,
    protocol: RefCell<BackendReqHandler<Backend>>,
    registration: RefCell<Option<Registration>>,
    /// When the first byte of an incomplete message was seen.
    incomplete_since: Cell<Option<Moment>>,
    /// The time to the next check whether a message can be handled, while requests are outstanding.
    held_for: Cell<Option<Duration>>,
    recheck: RefCell<Option<Timer>>,
    /// No message is handled any more.
    is_finished: Cell<bool>,
}

/// The next message in the socket.
#[derive(Debug, PartialEq)]
enum Arrived {
    Nothing,
    Part,
    Message {
        code: u32,
    },
    End,
    /// Not a valid message, or the client does not read replies.
    Malformed(&'static str),
}

impl Session {
    /// Starts the session of a connected client. Calls `on_end` after the session has ended, unless it was [closed](Self::close).
    #[allow(
        clippy::arc_with_non_send_sync,
        reason = "the protocol's library wants an Arc; it stays on this thread"
    )]
    pub(crate) fn start(
        cx: &Context,
        socket: UnixStream,
        backend: Backend,
        connection: Rc<Connection>,
        on_end: impl Fn() + 'static,
    ) -> io::Result<Rc<Self>> {
        let backend = Arc::new(backend);
        let protocol = BackendReqHandler::from_stream(socket.try_clone()?, backend.clone());
        let session = Rc::new_cyclic(|me| Self {
            me: me.clone(),
            on_end: Box::new(on_end),
            connection,
            socket,
            backend,
            protocol: RefCell::new(protocol),
            registration: RefCell::default(),
            incomplete_since: Cell::default(),
            held_for: Cell::default(),
            recheck: RefCell::default(),
            is_finished: Cell::default(),
        });
        let registration = cx.watch(session.clone(), Interest::READ)?;
        session.registration.replace(Some(registration));
        Ok(session)
    }

    /// Stops the queues and watches the socket no longer. Does not call `on_end`.
    pub(crate) fn close(&self) {
        self.backend.reset();
        let registration = self.registration.take();
        let recheck = self.recheck.take();
        drop((registration, recheck));
    }

    /// Tells the client to read the configuration again, if it has a channel for that.
    pub(crate) fn configuration_has_changed(&self) {
        self.backend.configuration_has_changed();
    }

    /// The number of queues that this loop serves now.
    pub(crate) fn serving(&self) -> u16 {
        self.backend.serving()
    }

    fn end(&self) {
        self.close();
        (self.on_end)();
    }

    fn check_socket(&self, cx: &Context) {
        match arrived(&self.socket) {
            Ok(Arrived::Nothing) => self.watch_again(),
            Ok(Arrived::Part) => self.wait_for_rest(cx),
            Ok(Arrived::Message { code }) => {
                // A message can change all that outstanding requests use.
                let concerned = Concerned::by(code, &self.socket);
                let is_held = self.backend.hold(concerned);
                if !self.park(cx, concerned) || !is_held {
                    self.wait_for_requests(cx);
                    return;
                }
                self.watch_again();
                if code == FrontendReq::SET_BACKEND_REQ_FD as u32 {
                    self.backend.expect_channel(channel::peek(&self.socket));
                }
                self.handle_message(code);
                self.backend.expect_channel(None);
                self.backend.release();
            }
            Ok(Arrived::End) => self.client_has_disconnected(),
            Ok(Arrived::Malformed(why)) => {
                self.connection.abort(&why);
                self.end();
            }
            Err(error) => {
                self.connection.abort(&error);
                self.end();
            }
        }
    }

    /// Has other loops stop the queues that the message can change. Returns whether they have.
    fn park(&self, cx: &Context, concerned: Concerned) -> bool {
        if !self.backend.has_others() {
            return true;
        }
        let session = self.me.clone();
        self.backend.park(cx, concerned, move |cx, parked| {
            if let Some(session) = session.upgrade() {
                session.backend.have_parked(parked);
                // Unless it was closed or takes no more messages.
                if session.registration.borrow().is_some() && !session.is_finished.get() {
                    session.check_socket(cx);
                }
            }
        })
    }

    fn handle_message(&self, code: u32) {
        let handled = self.protocol.borrow_mut().handle_request();
        match handled {
            Ok(()) => {}
            Err(Error::Disconnected) => self.client_has_disconnected(),
            Err(_) if self.backend.take_refusal() => {}
            Err(error) => {
                self.connection.abort(&explain(code, error));
                self.end();
            }
        }
    }

    fn client_has_disconnected(&self) {
        self.connection
            .log(Kind::Clients, format_args!("the client has disconnected"));
        self.end();
    }

    /// Whether the client has disconnected, even if that was not handled yet.
    pub(crate) fn has_ended(&self) -> bool {
        poll_state(&self.socket).is_ok_and(|state| state.intersects(PollFlags::RDHUP | PollFlags::HUP))
    }

    /// Watches the socket again after an incomplete message.
    fn watch_again(&self) {
        let was_incomplete = self.incomplete_since.take().is_some();
        if self.held_for.take().is_some() || was_incomplete {
            self.set_interest(Interest::READ);
        }
    }

    fn wait_for_requests(&self, cx: &Context) {
        let longer = |before: Duration| (2 * before).min(LONGEST_RECHECK);
        let time = self.held_for.get().map_or(RECHECK_AFTER, longer);
        self.held_for.set(Some(time));
        self.set_interest(Interest::NONE);
        self.recheck_after(cx, time);
    }

    /// Takes no more requests and handles no more messages. Outstanding requests are completed.
    pub(crate) fn finish(&self) {
        self.is_finished.set(true);
        self.backend.hold(Concerned::All);
        self.set_interest(Interest::NONE);
        let recheck = self.recheck.take();
        drop(recheck);
    }

    fn wait_for_rest(&self, cx: &Context) {
        let now = cx.now(ClockId::Monotonic);
        let since = self.incomplete_since.get().unwrap_or(now);
        if now.since(since) > TIMEOUT {
            self.connection
                .abort(&format_args!("a message was not complete within {TIMEOUT:?}"));
            self.end();
            return;
        }
        self.incomplete_since.set(Some(since));
        self.set_interest(Interest::NONE);
        self.recheck_after(cx, RECHECK_AFTER);
    }

    fn recheck_after(&self, cx: &Context, time: Duration) {
        let mut recheck = self.recheck.borrow_mut();
        let timer = recheck.get_or_insert_with(|| {
            let session = self.me.clone();
            cx.timer(ClockId::Monotonic, move |cx, _| {
                if let Some(session) = session.upgrade() {
                    session.check_socket(cx);
                }
            })
            .disarmed()
        });
        timer.arm_after(time);
    }

    fn set_interest(&self, interest: Interest) {
        let set = self
            .registration
            .borrow()
            .as_ref()
            .map(|registration| registration.set_interest(interest));
        if let Some(Err(error)) = set {
            self.connection.abort(&error);
            self.end();
        }
    }
}

/// Adds the message's name to an error.
fn explain(code: u32, error: Error) -> String {
    let Ok(message) = FrontendReq::try_from(code) else {
        return format!("message type {code} is unknown");
    };
    match error {
        Error::ReqHandlerError(why) => format!("{message:?}: {why}"),
        error => format!("{message:?}: {error}"),
    }
}

/// Peeks at the socket: the data stays in it.
fn arrived(socket: &UnixStream) -> io::Result<Arrived> {
    let mut header = [0; HEADER_LEN];
    // More may arrive at any moment: a peek that ends before these bytes has met descriptors.
    let before = unread(socket)?;
    let peeked = match peek(socket, &mut header) {
        Ok(Peeked { len: 0, .. }) => return Ok(Arrived::End),
        Ok(Peeked {
            dropped: Some(why), ..
        }) => return Ok(Arrived::Malformed(why)),
        Ok(Peeked { len, dropped: None }) => len,
        Err(Errno::AGAIN) => return Ok(Arrived::Nothing),
        Err(Errno::CONNRESET) => return Ok(Arrived::End),
        Err(error) => return Err(error.into()),
    };
    if peeked < HEADER_LEN && before >= HEADER_LEN {
        return Ok(Arrived::Malformed(
            "a message has descriptors that are not attached to its beginning",
        ));
    }
    let code = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
    let body = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]) as usize;
    // Before the bytes are counted: what a client sends before it disconnects counts.
    let state = poll_state(socket)?;
    let complete = peeked == HEADER_LEN && unread(socket)? - HEADER_LEN >= body;
    if peeked == HEADER_LEN && body > MAX_MSG_SIZE {
        return Ok(Arrived::Malformed("a message is longer than the protocol allows"));
    }
    Ok(
        match (
            complete,
            state.contains(PollFlags::RDHUP),
            state.contains(PollFlags::OUT),
        ) {
            (false, true, _) => Arrived::End,
            (false, false, _) => Arrived::Part,
            (true, true, _) | (true, _, true) => Arrived::Message { code },
            (true, false, false) => Arrived::Malformed("the client does not read replies"),
        },
    )
}

/// The number of bytes in a socket, those behind descriptors included, while a peek ends where descriptors are attached.
fn unread(socket: &UnixStream) -> io::Result<usize> {
    let count = rustix::io::ioctl_fionread(socket)?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// The beginning of the data in a socket.
struct Peeked {
    len: usize,
    /// Why a descriptor of the message would be dropped. The protocol's library must not read such a message: it would block
    /// until the next one.
    dropped: Option<&'static str>,
}

/// Peeks at bytes and descriptors. The system duplicates the descriptors, and the duplicates are closed at once.
fn peek(socket: &UnixStream, header: &mut [u8]) -> Result<Peeked, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_ATTACHED_FD_ENTRIES))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = loop {
        let mut bytes = [IoSliceMut::new(header)];
        match rustix::net::recvmsg(socket, &mut bytes, &mut ancillary, flags) {
            Err(Errno::INTR) => {}
            received => break received?,
        }
    };
    let counts = ancillary.drain().map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.count(),
        _ => 0,
    });
    let count: usize = counts.sum();
    // The buffer may have room for one descriptor more than the library's.
    let is_cut = received.flags.contains(ReturnFlags::CTRUNC);
    let dropped = if count > MAX_ATTACHED_FD_ENTRIES || is_cut && count == MAX_ATTACHED_FD_ENTRIES {
        Some("a message has more descriptors than the protocol allows")
    } else if is_cut {
        Some(
            "the process has no descriptors left for those of the client; raise the hard limit of open files \
             (ulimit -Hn, or LimitNOFILE of a service)",
        )
    } else {
        None
    };
    Ok(Peeked {
        len: received.bytes,
        dropped,
    })
}

/// Whether a reply can be sent without blocking, and whether the client has disconnected. A stream socket is writable while
/// most of its buffer is free, which is many times the longest reply.
fn poll_state(socket: &UnixStream) -> io::Result<PollFlags> {
    let mut fds = [PollFd::new(socket, PollFlags::OUT | PollFlags::RDHUP)];
    loop {
        match poll(
            &mut fds,
            Some(&Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            }),
        ) {
            Ok(_) => return Ok(fds[0].revents()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

impl AsFd for Session {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Handler for Session {
    fn readable(&self, cx: &Context) {
        self.check_socket(cx);
    }

    fn invalidated(&self, _: &Context, why: io::Error) {
        self.connection.abort(&why);
        self.end();
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("export", &self.connection.export())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn message(code: u32, body: &[u8]) -> Vec<u8> {
        [
            &code.to_ne_bytes()[..],
            &1u32.to_ne_bytes(),
            &(body.len() as u32).to_ne_bytes(),
            body,
        ]
        .concat()
    }

    /// Bytes that arrive between the peek and the count are no sign of descriptors in the middle of a header.
    #[test]
    fn a_message_may_arrive_byte_by_byte_while_the_socket_is_checked() {
        let (mut client, mut server) = UnixStream::pair().unwrap();
        let (whole, messages) = (message(1, &[]), 10_000);
        let sent = whole.clone();
        let sender = std::thread::spawn(move || {
            for byte in (0..messages).flat_map(|_| &sent) {
                client.write_all(&[*byte]).unwrap();
            }
            client
        });
        for _ in 0..messages {
            loop {
                match arrived(&server).unwrap() {
                    Arrived::Nothing | Arrived::Part => std::thread::yield_now(),
                    found => break assert_eq!(found, Arrived::Message { code: 1 }),
                }
            }
            server.read_exact(&mut whole.clone()).unwrap();
        }
        drop(sender.join().unwrap());
        assert_eq!(arrived(&server).unwrap(), Arrived::End);
    }

    #[test]
    fn a_message_counts_when_it_is_complete() {
        let (mut client, server) = UnixStream::pair().unwrap();
        assert_eq!(arrived(&server).unwrap(), Arrived::Nothing);
        let whole = message(2, &[0; 8]);
        for byte in &whole[..whole.len() - 1] {
            client.write_all(&[*byte]).unwrap();
            assert_eq!(arrived(&server).unwrap(), Arrived::Part);
        }
        client.write_all(&whole[whole.len() - 1..]).unwrap();
        let whole = Arrived::Message { code: 2 };
        assert_eq!(arrived(&server).unwrap(), whole);
        assert_eq!(arrived(&server).unwrap(), whole, "a peek leaves the message");
    }

    #[test]
    fn an_end_is_an_end_even_behind_a_part() {
        let (mut client, mut server) = UnixStream::pair().unwrap();
        client.write_all(&[1, 0]).unwrap();
        drop(client);
        assert_eq!(arrived(&server).unwrap(), Arrived::End);
        server.read_exact(&mut [0; 2]).unwrap();
        assert_eq!(arrived(&server).unwrap(), Arrived::End);
    }

    #[test]
    fn a_message_before_the_end_counts() {
        let (mut client, server) = UnixStream::pair().unwrap();
        client.write_all(&message(3, &[])).unwrap();
        drop(client);
        assert_eq!(arrived(&server).unwrap(), Arrived::Message { code: 3 });
    }

    #[test]
    fn impossible_lengths_are_malformed() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let mut bytes = message(2, &[]);
        bytes[8..12].copy_from_slice(&(MAX_MSG_SIZE as u32 + 1).to_ne_bytes());
        client.write_all(&bytes).unwrap();
        assert!(matches!(arrived(&server).unwrap(), Arrived::Malformed(_)));
    }

    #[test]
    fn a_client_that_does_not_read_is_not_answered() {
        let (mut client, mut server) = UnixStream::pair().unwrap();
        client.write_all(&message(1, &[])).unwrap();
        assert_eq!(arrived(&server).unwrap(), Arrived::Message { code: 1 });
        server.set_nonblocking(true).unwrap();
        while server.write(&[0; 4096]).is_ok() {}
        assert!(matches!(arrived(&server).unwrap(), Arrived::Malformed(_)));
    }
}
