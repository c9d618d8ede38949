//! An export's socket: it serves one client at a time, and accepts the next after the session of the former.
//!
//! A client that connects while another one is served waits in the socket's backlog, with a line in the log.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use aio_context::{ClockId, Context, Handler, Interest, Registration, Timer};
use anyhow::Context as _;
use rustix::io::Errno;

use crate::backend::Backend;
use crate::connection::Connection;
use crate::disk::ResizeError;
use crate::host::Host;
use crate::limit::{Kind, LineLimit};
use crate::remote_hosts::RemoteHosts;
use crate::session::Session;
use crate::socket::Listener;
use crate::stats::ExportStats;

/// The time from a failure to accept, such as too many open files, to the next attempt.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// The time between two checks for requests of a former client that have not ended.
const RECHECK_AFTER: Duration = Duration::from_millis(5);
/// The number of these checks during which other loops may still be stopping queues without requests.
const MOMENT: u32 = 20;

/// An export that accepts clients.
#[derive(Debug)]
pub(crate) struct Acceptor {
    me: Weak<Self>,
    limit: Rc<LineLimit>,
    host: Rc<Host>,
    others: Rc<RemoteHosts>,
    queues: u16,
    /// Shared with a thread that removes the socket's path.
    listener: Arc<Listener>,
    registration: RefCell<Option<Registration>>,
    session: RefCell<Option<Rc<Session>>>,
    retry: RefCell<Option<Timer>>,
    /// The number of checks that found a client waiting for the requests of the former one.
    held: Cell<u32>,
    /// Set once that wait was logged.
    is_reported: Cell<bool>,
    /// Set when the disk has the size of its image, for the client that waits to be accepted.
    has_size: Cell<bool>,
    /// Set when no more clients are accepted.
    is_finished: Cell<bool>,
}

impl Acceptor {
    /// Starts to accept clients, each of which may use up to `queues` queues. `others` serve some of them.
    pub(crate) fn listen(
        cx: &Context,
        listener: Arc<Listener>,
        host: Host,
        others: Rc<RemoteHosts>,
        queues: u16,
    ) -> anyhow::Result<Rc<Self>> {
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
                limit: host.limit.clone(),
                host: Rc::new(host),
                others,
                queues,
                listener,
                registration: RefCell::default(),
                session: RefCell::default(),
                retry: RefCell::new(Some(retry)),
                held: Cell::default(),
                is_reported: Cell::default(),
                has_size: Cell::default(),
                is_finished: Cell::default(),
            }
        });
        let registration = cx
            .watch(acceptor.clone(), Interest::READ)
            .map_err(io::Error::from)
            .with_context(|| format!("cannot wait for clients of {}", acceptor.export()))?;
        acceptor.registration.replace(Some(registration));
        let me = Rc::downgrade(&acceptor);
        acceptor.others.on_end(move || {
            if let Some(acceptor) = me.upgrade() {
                acceptor.listen_again();
            }
        });
        Ok(acceptor)
    }

    /// Ends the client's session, and stops accepting clients.
    pub(crate) fn close(&self) {
        if let Some(session) = self.session.take() {
            session.close();
        }
        let (registration, timer) = (self.registration.take(), self.retry.take());
        drop((registration, timer));
    }

    /// Handles the end of the session: accepts the next client.
    fn session_has_ended(&self) {
        let session = self.session.take();
        drop(session);
        self.listen_again();
    }

    fn listen_again(&self) {
        if self.session.borrow().is_none() && !self.is_finished.get() {
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
        if self.in_flight() > 0 || self.others.is_ending() {
            self.wait_for_requests();
            return Ok(());
        }
        self.held.set(0);
        self.is_reported.set(false);
        if !self.has_size.take() && self.adopt_size() {
            return Ok(());
        }
        let socket = match self.listener.socket().accept() {
            Ok((socket, _)) => socket,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => return Ok(()),
            Err(error) => return Err(error),
        };
        let for_queues = Arc::new(socket.try_clone()?);
        let connection = Rc::new(Connection::new(self.limit.clone(), for_queues));
        let backend = Backend::new(
            cx.downgrade(),
            (self.host.clone(), self.others.clone()),
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
        self.host.stats.has_client();
        self.limit
            .log(Kind::Clients, format_args!("a client has connected"));
        self.session.replace(Some(session));
        Ok(())
    }

    /// Adopts the present size of the image for the client that is about to be accepted. A thread requests
    /// the size, because a file server may be slow. Returns `true` if the client has to wait until then.
    fn adopt_size(&self) -> bool {
        if !self.host.device.disk.is_image() {
            return false;
        }
        let Some(workers) = &self.host.workers else {
            self.report_size(self.host.device.disk.adopt_size());
            return false;
        };
        let (device, me) = (self.host.device.clone(), self.me.clone());
        let adopt = move || device.disk.adopt_size();
        let started = workers.pool.run(adopt, move |_, adopted| {
            if let Some(acceptor) = me.upgrade() {
                acceptor.report_size(adopted.unwrap_or(Ok(false)));
                acceptor.has_size.set(true);
                acceptor.listen_again();
            }
        });
        if let Err(error) = started {
            self.report_size(Err(error.into()));
            return false;
        }
        self.set_interest(Interest::NONE);
        true
    }

    fn report_size(&self, adopted: Result<bool, ResizeError>) {
        match adopted {
            Ok(false) => {}
            Ok(true) => {
                let size = self.host.device.disk.size();
                self.limit
                    .log(Kind::Clients, format_args!("the image has {size} bytes now"));
            }
            Err(error) => self.limit.log(
                Kind::NotAccepted,
                format_args!("the size of the image is unknown, so the disk keeps its own: {error}"),
            ),
        }
    }

    /// Notifies the client that the size of the disk may have changed, if it has a channel for that.
    pub(crate) fn size_may_have_changed(&self) {
        if let Some(session) = &*self.session.borrow() {
            session.configuration_has_changed();
        }
    }

    /// Returns the statistics of its queues.
    pub(crate) fn stats(&self) -> &ExportStats {
        &self.host.stats
    }

    /// Returns `true` if a client is connected.
    pub(crate) fn is_connected(&self) -> bool {
        self.session.borrow().is_some()
    }

    /// Returns the number of queues that this loop serves now.
    pub(crate) fn serving(&self) -> u16 {
        self.session
            .borrow()
            .as_ref()
            .map_or(0, |session| session.serving())
    }

    /// Returns the number of requests that threads or the ring execute for this loop, including those of
    /// former clients.
    pub(crate) fn in_flight(&self) -> usize {
        self.host.in_flight()
    }

    /// Returns the name of the export in log lines.
    pub(crate) fn export(&self) -> &str {
        self.limit.export()
    }

    /// Stops taking requests. The requests taken before are completed while the loop is polled.
    pub(crate) fn finish(&self) {
        self.is_finished.set(true);
        self.set_interest(Interest::NONE);
        if let Some(session) = &*self.session.borrow() {
            session.finish();
        }
    }

    /// Leaves a client in the socket's backlog until no thread executes a request of the former one.
    /// Otherwise the writes of the former client could follow those of the next.
    fn wait_for_requests(&self) {
        self.set_interest(Interest::NONE);
        if let Some(timer) = &*self.retry.borrow() {
            timer.arm_after(RECHECK_AFTER);
        }
        self.held.set(self.held.get() + 1);
        let count = self.in_flight();
        // Other loops take some time to stop their queues, even those without requests.
        if (count > 0 || self.held.get() > MOMENT) && !self.is_reported.replace(true) {
            let line = format_args!(
                "a client waits until the image has completed the requests of the former client; this loop has {count} of them"
            );
            self.limit.log(Kind::Waiting, line);
        }
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
