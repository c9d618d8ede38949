//! One connection: vhost-user messages, one at a time, each only when it has arrived as a whole.
//!
//! The protocol's library reads and writes a blocking socket. It is let at it only when the message is complete and the
//! reply will fit, so that no client, however slow or broken, makes the loop wait.

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

use crate::acceptor::Acceptor;
use crate::backend::Backend;
use crate::limit::Kind;
use crate::link::Link;

/// Bytes before the body of a message: request, flags, and the length of the body.
const HEADER_LEN: usize = 12;
/// How often to look for the rest of a message. A stream socket is readable whatever is missing, so the loop cannot wait
/// for that.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// A message that has been begun must be complete after this.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A connected client.
pub(crate) struct Session {
    /// Itself, for its timer.
    me: Weak<Self>,
    acceptor: Weak<Acceptor>,
    link: Rc<Link>,
    socket: UnixStream,
    backend: Arc<Backend>,
    protocol: RefCell<BackendReqHandler<Backend>>,
    registration: RefCell<Option<Registration>>,
    /// When the message began that is not complete yet.
    waiting_since: Cell<Option<Moment>>,
    look_again: RefCell<Option<Timer>>,
}

/// What lies in the socket.
#[derive(Debug, PartialEq)]
enum Arrived {
    Nothing,
    Part,
    Message {
        code: u32,
    },
    End,
    /// Something that is no message, or a client that does not read replies.
    Malformed(&'static str),
}

impl Session {
    /// Begins to talk to a client.
    #[allow(
        clippy::arc_with_non_send_sync,
        reason = "the protocol's library wants an Arc; it stays on this thread"
    )]
    pub(crate) fn start(
        cx: &Context,
        acceptor: &Rc<Acceptor>,
        socket: UnixStream,
        backend: Backend,
        link: Rc<Link>,
    ) -> io::Result<Rc<Self>> {
        let backend = Arc::new(backend);
        let protocol = BackendReqHandler::from_stream(socket.try_clone()?, backend.clone());
        let session = Rc::new_cyclic(|me| Self {
            me: me.clone(),
            acceptor: Rc::downgrade(acceptor),
            link,
            socket,
            backend,
            protocol: RefCell::new(protocol),
            registration: RefCell::default(),
            waiting_since: Cell::default(),
            look_again: RefCell::default(),
        });
        let registration = cx.watch(session.clone(), Interest::READ)?;
        session.registration.replace(Some(registration));
        Ok(session)
    }

    /// Stops the queues and hears no more of the client. Does not tell the acceptor.
    pub(crate) fn close(&self) {
        self.backend.reset();
        let registration = self.registration.take();
        let look_again = self.look_again.take();
        drop((registration, look_again));
    }

    fn end(&self) {
        self.close();
        if let Some(acceptor) = self.acceptor.upgrade() {
            acceptor.client_is_gone();
        }
    }

    fn look(&self, cx: &Context) {
        match arrived(&self.socket) {
            Ok(Arrived::Nothing) => self.go_on(),
            Ok(Arrived::Part) => self.wait_for_rest(cx),
            Ok(Arrived::Message { code }) => {
                self.go_on();
                self.handle_message(code);
            }
            Ok(Arrived::End) => self.client_is_gone(),
            Ok(Arrived::Malformed(why)) => {
                self.link.cut(&why);
                self.end();
            }
            Err(error) => {
                self.link.cut(&error);
                self.end();
            }
        }
    }

    fn handle_message(&self, code: u32) {
        let handled = self.protocol.borrow_mut().handle_request();
        match handled {
            Ok(()) => {}
            Err(Error::Disconnected) => self.client_is_gone(),
            Err(error) => {
                self.link.cut(&explain(code, error));
                self.end();
            }
        }
    }

    fn client_is_gone(&self) {
        self.link.log(Kind::Clients, format_args!("the client is gone"));
        self.end();
    }

    /// Whether the client has hung up, though that may not have been handled yet.
    pub(crate) fn has_ended(&self) -> bool {
        state(&self.socket).is_ok_and(|state| state.intersects(PollFlags::RDHUP | PollFlags::HUP))
    }

    /// Hears the socket again, if it waited for the rest of a message.
    fn go_on(&self) {
        if self.waiting_since.take().is_some() {
            self.set_interest(Interest::READ);
        }
    }

    fn wait_for_rest(&self, cx: &Context) {
        let now = cx.now(ClockId::Monotonic);
        let since = self.waiting_since.get().unwrap_or(now);
        if now.since(since) > TIMEOUT {
            self.link.cut(&format_args!(
                "a message was begun and not completed within {TIMEOUT:?}"
            ));
            self.end();
            return;
        }
        self.waiting_since.set(Some(since));
        self.set_interest(Interest::NONE);
        let mut look_again = self.look_again.borrow_mut();
        let timer = look_again.get_or_insert_with(|| {
            let session = self.me.clone();
            cx.timer(ClockId::Monotonic, move |cx, _| {
                if let Some(session) = session.upgrade() {
                    session.look(cx);
                }
            })
            .disarmed()
        });
        timer.arm_after(LOOK_AGAIN);
    }

    fn set_interest(&self, interest: Interest) {
        let set = self
            .registration
            .borrow()
            .as_ref()
            .map(|registration| registration.set_interest(interest));
        if let Some(Err(error)) = set {
            self.link.cut(&error);
            self.end();
        }
    }
}

/// A message's error, with the message's name.
fn explain(code: u32, error: Error) -> String {
    let Ok(message) = FrontendReq::try_from(code) else {
        return format!("message {code} is none of the vhost-user protocol");
    };
    match error {
        Error::ReqHandlerError(why) => format!("{message:?}: {why}"),
        error => format!("{message:?}: {error}"),
    }
}

/// Looks into the socket without taking anything out.
fn arrived(socket: &UnixStream) -> io::Result<Arrived> {
    let mut header = [0; HEADER_LEN];
    let peeked = match peek(socket, &mut header) {
        Ok(Peeked { len: 0, .. }) => return Ok(Arrived::End),
        Ok(Peeked {
            left_out: Some(why), ..
        }) => return Ok(Arrived::Malformed(why)),
        Ok(Peeked { len, left_out: None }) => len,
        Err(Errno::AGAIN) => return Ok(Arrived::Nothing),
        Err(Errno::CONNRESET) => return Ok(Arrived::End),
        Err(error) => return Err(error.into()),
    };
    // All that has arrived, while a peek ends where descriptors were attached.
    let unread = usize::try_from(rustix::io::ioctl_fionread(socket)?).unwrap_or(usize::MAX);
    if peeked < HEADER_LEN && unread >= HEADER_LEN {
        return Ok(Arrived::Malformed("a message with descriptors in its middle"));
    }
    let code = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
    let body = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]) as usize;
    let complete = peeked == HEADER_LEN && unread - HEADER_LEN >= body;
    if peeked == HEADER_LEN && body > MAX_MSG_SIZE {
        return Ok(Arrived::Malformed("a message longer than any may be"));
    }
    let state = state(socket)?;
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

/// The beginning of what lies in a socket.
struct Peeked {
    len: usize,
    /// Why descriptors that came with it would be left out. The protocol's library must not read such a message: it would
    /// wait for another one in its place, and the whole daemon with it.
    left_out: Option<&'static str>,
}

/// Looks at bytes and descriptors. The system makes copies of the descriptors, which are closed at once.
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
    // There may be room for one more than the library has.
    let is_cut = received.flags.contains(ReturnFlags::CTRUNC);
    let left_out = if count > MAX_ATTACHED_FD_ENTRIES || is_cut && count == MAX_ATTACHED_FD_ENTRIES {
        Some("a message with more descriptors than any may have")
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
        left_out,
    })
}

/// Whether a reply can be sent without waiting, and whether the client has hung up. A stream socket is writable while
/// most of its buffer is free, which is many times the longest reply.
fn state(socket: &UnixStream) -> io::Result<PollFlags> {
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
        self.look(cx);
    }

    fn broken(&self, _: &Context, why: io::Error) {
        self.link.cut(&why);
        self.end();
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("export", &self.link.export())
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
        assert_eq!(arrived(&server).unwrap(), whole, "looking takes nothing out");
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
    fn what_was_said_before_hanging_up_counts() {
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
    fn a_client_that_does_not_listen_is_not_answered() {
        let (mut client, mut server) = UnixStream::pair().unwrap();
        client.write_all(&message(1, &[])).unwrap();
        assert_eq!(arrived(&server).unwrap(), Arrived::Message { code: 1 });
        server.set_nonblocking(true).unwrap();
        while server.write(&[0; 4096]).is_ok() {}
        assert!(matches!(arrived(&server).unwrap(), Arrived::Malformed(_)));
    }
}
