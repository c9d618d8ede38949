//! An export's socket: one client at a time, and the next when it has gone.
//!
//! A client that connects while another is served waits in the socket's queue; nobody is sent away.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::time::Duration;

use aio_context::{ClockId, Context, Handler, Interest, Registration, Timer};
use anyhow::{Context as _, bail};

use crate::backend::Backend;
use crate::chain::Chain;
use crate::link::Link;
use crate::request::Device;
use crate::session::Session;

/// After a failure to accept, such as too many open files, the next attempt comes so much later.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// What is exported, and to whom.
#[derive(Debug)]
pub(crate) struct Acceptor {
    me: Weak<Self>,
    export: Rc<str>,
    device: Rc<Device>,
    queues: u16,
    chain: Rc<RefCell<Chain>>,
    listener: Listener,
    registration: RefCell<Option<Registration>>,
    session: RefCell<Option<Rc<Session>>>,
    try_again: RefCell<Option<Timer>>,
}

impl Acceptor {
    /// Accepts clients at `socket` from now on.
    pub(crate) fn listen(
        cx: &Context,
        socket: &Path,
        device: Device,
        queues: u16,
        chain: Rc<RefCell<Chain>>,
    ) -> anyhow::Result<Rc<Self>> {
        let listener = Listener::bind(socket)?;
        let acceptor = Rc::new_cyclic(|me: &Weak<Self>| {
            let later = me.clone();
            let try_again = cx.timer(ClockId::Monotonic, move |_, _| {
                if let Some(acceptor) = later.upgrade() {
                    acceptor.listen_again();
                }
            });
            Self {
                me: me.clone(),
                export: socket.display().to_string().into(),
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
            .map_err(io::Error::from)
            .with_context(|| format!("cannot wait for clients of {}", acceptor.export))?;
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
            tracing::error!(export = %self.export, %error, "this export will not see another client");
        }
    }

    fn accept(&self, cx: &Context) -> io::Result<()> {
        let Some(me) = self.me.upgrade() else {
            return Ok(());
        };
        if self.session.borrow().is_some() {
            return Ok(());
        }
        let socket = match self.listener.socket.accept() {
            Ok((socket, _)) => socket,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => return Ok(()),
            Err(error) => return Err(error),
        };
        let link = Rc::new(Link::new(self.export.clone(), socket.try_clone()?));
        let backend = Backend::new(
            cx.downgrade(),
            self.device.clone(),
            self.chain.clone(),
            link.clone(),
            self.queues,
        );
        let session = Session::start(cx, &me, socket, backend, link)?;
        tracing::info!(export = %self.export, "a client has come");
        self.session.replace(Some(session));
        // Whoever comes now waits in the socket's queue until this client has gone.
        self.set_interest(Interest::NONE);
        Ok(())
    }
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.socket.as_fd()
    }
}

impl Handler for Acceptor {
    fn readable(&self, cx: &Context) {
        if let Err(error) = self.accept(cx) {
            tracing::warn!(export = %self.export, %error, "cannot take a client; trying again in {TRY_AGAIN:?}");
            self.set_interest(Interest::NONE);
            if let Some(timer) = &*self.try_again.borrow() {
                timer.arm_after(TRY_AGAIN);
            }
        }
    }

    fn broken(&self, _: &Context, error: io::Error) {
        tracing::error!(export = %self.export, %error, "this export will not see another client");
    }
}

/// A listening socket that takes its name with it when it goes.
#[derive(Debug)]
struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    fn bind(path: &Path) -> anyhow::Result<Self> {
        make_room(path)?;
        let socket = UnixListener::bind(path).map_err(|error| {
            let remedy = match error.kind() {
                io::ErrorKind::NotFound => "its directory does not exist; make it, or name another path",
                io::ErrorKind::PermissionDenied => {
                    "you may not write to its directory; change that, or name another path"
                }
                io::ErrorKind::InvalidInput => {
                    "a socket's path has at most 107 bytes; name a shorter one, or change to its directory and \
                     name the last part"
                }
                _ => "name another path",
            };
            let what = format!("cannot listen at {}: {remedy}", path.display());
            anyhow::Error::new(error).context(what)
        })?;
        let listener = Self {
            socket,
            path: path.to_owned(),
        };
        listener
            .socket
            .set_nonblocking(true)
            .context("cannot make a socket non-blocking")?;
        Ok(listener)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "the socket's name was gone already");
        }
    }
}

/// Removes a socket that nobody listens at any more, such as one of a daemon that was killed.
fn make_room(path: &Path) -> anyhow::Result<()> {
    let Ok(about) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !about.file_type().is_socket() {
        bail!("{} exists and is no socket; name another path", path.display());
    }
    if UnixStream::connect(path).is_ok() {
        bail!(
            "somebody listens at {} already; stop that process or name another path",
            path.display()
        );
    }
    std::fs::remove_file(path).with_context(|| format!("cannot remove the stale socket {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_makes_room_and_a_live_one_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let listener = Listener::bind(&path).unwrap();
        assert!(Listener::bind(&path).unwrap_err().to_string().contains("already"));
        assert!(path.exists());
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_is_never_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("precious");
        std::fs::write(&path, "data").unwrap();
        assert!(Listener::bind(&path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"data");
    }
}
