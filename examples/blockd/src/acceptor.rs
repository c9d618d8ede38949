//! An export's socket: one client at a time, and the next when it has gone.
//!
//! A client that connects while another is served waits in the socket's queue, and the log says so.

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
use crate::chain::Chain;
use crate::limit::{Kind, LineLimit};
use crate::link::Link;
use crate::request::Device;
use crate::session::Session;
use crate::socket::Listener;

/// After a failure to accept, such as too many open files, the next attempt comes so much later.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// What is exported, and to whom.
#[derive(Debug)]
pub(crate) struct Acceptor {
    me: Weak<Self>,
    limit: Rc<LineLimit>,
    device: Rc<Device>,
    queues: u16,
    chain: Rc<RefCell<Chain>>,
    listener: Listener,
    registration: RefCell<Option<Registration>>,
    session: RefCell<Option<Rc<Session>>>,
    try_again: RefCell<Option<Timer>>,
}

impl Acceptor {
    /// Accepts clients at `socket` from now on. Log lines call the export `name`.
    pub(crate) fn listen(
        cx: &Context,
        (name, socket): (&str, &Path),
        device: Device,
        queues: u16,
        chain: Rc<RefCell<Chain>>,
    ) -> anyhow::Result<Rc<Self>> {
        let listener = Listener::bind(socket)?;
        let acceptor = Rc::new_cyclic(|me: &Weak<Self>| {
            let later = me.clone();
            let try_again = cx
                .timer(ClockId::Monotonic, move |_, _| {
                    if let Some(acceptor) = later.upgrade() {
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
                try_again: RefCell::new(Some(try_again)),
            }
        });
        let registration = cx
            .watch(acceptor.clone(), Interest::READ)
            .with_context(|| format!("cannot wait for clients of {name}"))?;
        acceptor.registration.replace(Some(registration));
        Ok(acceptor)
    }

    /// Sends the client away, and accepts no other.
    pub(crate) fn close(&self) {
        if let Some(session) = self.session.take() {
            session.close();
        }
        let (registration, timer) = (self.registration.take(), self.try_again.take());
        drop((registration, timer));
    }

    /// The session is over: the next client may come.
    pub(crate) fn client_is_gone(&self) {
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
            tracing::error!(export = self.limit.export(), %error, "this export will not see another client");
        }
    }

    fn accept(&self, cx: &Context) -> io::Result<()> {
        let Some(me) = self.me.upgrade() else {
            return Ok(());
        };
        if let Some(session) = &*self.session.borrow() {
            self.let_wait(session);
            return Ok(());
        }
        let socket = match self.listener.socket().accept() {
            Ok((socket, _)) => socket,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => return Ok(()),
            Err(error) => return Err(error),
        };
        let link = Rc::new(Link::new(self.limit.clone(), socket.try_clone()?));
        let backend = Backend::new(
            cx.downgrade(),
            self.device.clone(),
            self.chain.clone(),
            link.clone(),
            self.queues,
        );
        let session = Session::start(cx, &me, socket, backend, link)?;
        self.limit.log(Kind::Clients, format_args!("a client has come"));
        self.session.replace(Some(session));
        Ok(())
    }

    /// Leaves a client in the socket's queue until the present one has gone.
    fn let_wait(&self, session: &Session) {
        self.set_interest(Interest::NONE);
        // A client that comes back is often here before the end of its former connection is handled.
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
            let line =
                format_args!("cannot accept a client, tries again every {TRY_AGAIN:?}: {error}{remedy}");
            self.limit.log(Kind::NotAccepted, line);
            self.set_interest(Interest::NONE);
            if let Some(timer) = &*self.try_again.borrow() {
                timer.arm_after(TRY_AGAIN);
            }
        }
    }

    fn broken(&self, _: &Context, error: io::Error) {
        tracing::error!(export = self.limit.export(), %error, "this export will not see another client");
    }
}
