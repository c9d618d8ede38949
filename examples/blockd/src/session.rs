//! One connection: handles vhost-user messages one at a time, each after its complete arrival.
//!
//! The protocol's library reads and writes a blocking socket. It is called only when the message is complete
//! and there is space for the reply, so that no client makes the loop wait.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use aio_context::{ClockId, Context, Handler, Interest, Moment, Registration, Timer};
use rustix::event::PollFlags;
use vhost::vhost_user::message::FrontendReq;
use vhost::vhost_user::{BackendReqHandler, Error};

use crate::arrived::{Arrived, arrived, only_descriptor, poll_state};
use crate::backend::Backend;
use crate::concerned::Concerned;
use crate::connection::Connection;
use crate::limit::Kind;

/// The time between two checks for the rest of a message. A stream socket is readable while only a part has
/// arrived, so the loop cannot wait for the rest.
const RECHECK_AFTER: Duration = Duration::from_millis(1);
/// The longest time between two checks for outstanding requests of the queues.
const LONGEST_RECHECK: Duration = Duration::from_millis(64);
/// The time limit for the rest of a message after its first byte.
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
    /// The time at which the first byte of an incomplete message was seen.
    incomplete_since: Cell<Option<Moment>>,
    /// The time to the next check for outstanding requests, while they prevent a message from being handled.
    held_for: Cell<Option<Duration>>,
    recheck: RefCell<Option<Timer>>,
    /// Set when no more messages are handled.
    is_finished: Cell<bool>,
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

    /// Stops the queues and stops watching the socket. Does not call `on_end`.
    pub(crate) fn close(&self) {
        self.backend.reset();
        let registration = self.registration.take();
        let recheck = self.recheck.take();
        drop((registration, recheck));
    }

    /// Notifies the client that the configuration has changed, if it has a channel for that.
    pub(crate) fn configuration_has_changed(&self) {
        self.backend.configuration_has_changed();
    }

    /// Returns the number of queues that this loop serves now.
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
                // A message can change everything that outstanding requests use.
                let concerned = Concerned::by(code, &self.socket);
                let is_held = self.backend.hold(concerned);
                if !self.park(cx, concerned) || !is_held {
                    self.wait_for_requests(cx);
                    return;
                }
                self.watch_again();
                if code == FrontendReq::SET_BACKEND_REQ_FD as u32 {
                    self.backend
                        .expect_channel(only_descriptor(&self.socket).map(UnixStream::from));
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

    /// Makes other loops stop the queues that the message can change. Returns `true` if they have.
    fn park(&self, cx: &Context, concerned: Concerned) -> bool {
        if !self.backend.has_others() {
            return true;
        }
        let session = self.me.clone();
        self.backend.park(cx, concerned, move |cx, parked| {
            if let Some(session) = session.upgrade() {
                session.backend.have_parked(parked);
                // The session may have been closed, or take no more messages.
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

    /// Returns `true` if the client has disconnected, even if that was not handled yet.
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

    /// Stops taking requests and handling messages. Outstanding requests are completed.
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
