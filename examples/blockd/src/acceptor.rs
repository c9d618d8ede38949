//! An export's socket: one client at a time, and the next when it has gone.
//!
//! A client that connects while another one is served waits in the socket's backlog, with a line in the log.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::rc::{Rc, Weak};
use std::time::Duration;

use aio_context::{ClockId, Context, Handler, Interest, Registration, Timer};
use anyhow::Context as _;
use rustix::io::Errno;

use crate::backend::Backend;
use crate::connection::Connection;
use crate::descriptor_chain::DescriptorChain;
use crate::limit::{Kind, LineLimit};
use crate::request::Device;
use crate::session::Session;
use crate::socket::Listener;

/// The time from a failure to accept, such as too many open files, to the next attempt.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// An export that accepts clients.
#[derive(Debug)]
pub(crate) struct Acceptor {
    me: Weak<Self>,
    limit: Rc<LineLimit>,
    device: Rc<Device>,
    queues: u16,
    chain: Rc<RefCell<DescriptorChain>>,
    listener: Listener,
    registration: RefCell<Option<Registration>>,
    session: RefCell<Option<Rc<Session>>>,
    retry: RefCell<Option<Timer>>,
}

impl Acceptor {
    /// Accepts clients at `socket` from now on. `name` is the export's name in log lines.
    pub(crate) fn listen(
        cx: &Context,
        (name, socket): (&str, &Path),
        device: Device,
        queues: u16,
        chain: Rc<RefCell<DescriptorChain>>,
    ) -> anyhow::Result<Rc<Self>> {
        let listener = Listener::bind(socket)?;
        let acceptor = Rc::new_cyclic(|me: &Weak<Self>| {
            let for_timer = me.clone();
            let retry = cx
                .timer(ClockId::Monotonic, move |_, _| {
                    if let Some(acceptor) = for_timer.upgrade() {
                        acceptor.listen_again();
                    }
                })
                .disarmed();
            Self {
                me: me.clone(),
                limit: LineLimit::new(name.into(), Some(cx)),
                device: Rc::new(device),
                queues,
                chain,
                listener,
                registration: RefCell::default(),
                session: RefCell::default(),
                retry: RefCell::new(Some(retry)),
            }
        });
        let registration = cx
            .watch(acceptor.clone(), Interest::READ)
            .map_err(io::Error::from)
            .with_context(|| format!("cannot wait for clients of {name}"))?;
        acceptor.registration.replace(Some(registration));
        Ok(acceptor)
    }

    /// Ends the client's session, and accepts no more clients.
    pub(crate) fn close(&self) {
        if let Some(session) = self.session.take() {
            session.close();
        }
        let (registration, timer) = (self.registration.take(), self.retry.take());
        drop((registration, timer));
    }

    /// Accepts the next client: the session has ended.
    fn session_has_ended(&self) {
        let session = self.session.take();
        drop(session);
        self.listen_again();
    }

    fn listen_again(&self) {
        if self.session.borrow().is_none() {
            self.set_interest(Interest::READ);
        }
    }

    fn set_interest(&self, interest: Interest) {
        if let Some(registration) = &*self.registration.borrow()
            && let Err(error) = registration.set_interest(interest)
        {
            tracing::error!(export = self.limit.export(), %error, "this export accepts no more clients; restart the daemon");
        }
    }

    fn accept(&self, cx: &Context) -> io::Result<()> {
        if let Some(session) = &*self.session.borrow() {
            self.leave_waiting(session);
            return Ok(());
        }
        let socket = match self.listener.socket().accept() {
            Ok((socket, _)) => socket,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => return Ok(()),
            Err(error) => return Err(error),
        };
        let connection = Rc::new(Connection::new(self.limit.clone(), socket.try_clone()?));
        let backend = Backend::new(
            cx.downgrade(),
            self.device.clone(),
            self.chain.clone(),
            connection.clone(),
            self.queues,
        );
        let me = self.me.clone();
        let on_end = move || {
            if let Some(acceptor) = me.upgrade() {
                acceptor.session_has_ended();
            }
        };
        let session = Session::start(cx, socket, backend, connection, on_end)?;
        self.limit
            .log(Kind::Clients, format_args!("a client has connected"));
        self.session.replace(Some(session));
        Ok(())
    }

    /// Leaves a client in the socket's backlog until the present session has ended.
    fn leave_waiting(&self, session: &Session) {
        self.set_interest(Interest::NONE);
        // A client that reconnects often arrives before the end of its former connection is handled.
        if !session.has_ended() {
            let line = format_args!(
                "another client waits: a socket serves one client at a time; end the one that is connected, or give \
                 each client an export of its own"
            );
            self.limit.log(Kind::Waiting, line);
        }
    }
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.socket().as_fd()
    }
}

impl Handler for Acceptor {
    fn readable(&self, cx: &Context) {
        if let Err(error) = self.accept(cx) {
            let remedy = match Errno::from_io_error(&error) {
                Some(Errno::MFILE) => {
                    "; raise the limit of open files (ulimit -Hn, or LimitNOFILE of a service)"
                }
                _ => "",
            };
            let line = format_args!("cannot accept a client, retries every {RETRY_AFTER:?}: {error}{remedy}");
            self.limit.log(Kind::NotAccepted, line);
            self.set_interest(Interest::NONE);
            if let Some(timer) = &*self.retry.borrow() {
                timer.arm_after(RETRY_AFTER);
            }
        }
    }

    fn invalidated(&self, _: &Context, error: io::Error) {
        tracing::error!(export = self.limit.export(), %error, "this export accepts no more clients; restart the daemon");
    }
}
