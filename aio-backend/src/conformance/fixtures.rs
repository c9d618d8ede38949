//! Descriptors of every kind, and ways to wait, for the tests of promises.
//!
//! This module tests no promises. Its assertions concern only the system calls that the kit itself needs.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::MemfdFlags;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;
use rustix::pty::OpenptFlags;
use rustix::termios::OptionalActions;

use crate::{Backend, Interest, Readiness, ReadyList, Token, Watched};

/// The events of one wait, by token.
pub(super) type Found = Vec<(Token, Readiness)>;

pub(super) const A: Token = Token::new(0, 3);
pub(super) const B: Token = Token::new(1, 3);
pub(super) const IN: Readiness = Readiness::IN;
pub(super) const OUT: Readiness = Readiness::OUT;
pub(super) const HUP: Readiness = Readiness::HUP;
pub(super) const ERR: Readiness = Readiness::ERR;
pub(super) const PRI: Readiness = Readiness::PRI;
pub(super) const RDHUP: Readiness = Readiness::RDHUP;

/// The longest time to wait for an asynchronous event, on a busy machine.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// Unwraps the result of an operation that must succeed.
#[track_caller]
pub(super) fn need<T, E: fmt::Display>(result: Result<T, E>, what: &str) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what} failed: {error}"),
    }
}

/// The kind of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    PipeReader,
    PipeWriter,
    Socket,
    Eventfd,
    Terminal,
    File,
}

/// A descriptor to watch, with operations that change its readiness. No operation blocks.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) kind: Kind,
    pub(super) fd: Rc<OwnedFd>,
    /// The other end, if there is one and it has not hung up.
    pub(super) peer: Option<OwnedFd>,
}

impl Source {
    pub(super) fn new(kind: Kind) -> Self {
        let (near, far) = match kind {
            Kind::PipeReader | Kind::PipeWriter => {
                let pipe = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK);
                let (reader, writer) = need(pipe, "making a pipe");
                match kind {
                    Kind::PipeReader => (reader, Some(writer)),
                    _ => (writer, Some(reader)),
                }
            }
            Kind::Socket => {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                let pair = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None);
                let (near, far) = need(pair, "making a pair of sockets");
                (near, Some(far))
            }
            Kind::Eventfd => {
                let made = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
                (need(made, "making an eventfd"), None)
            }
            Kind::Terminal => {
                let (near, far) = need(terminal(), "making a pseudo-terminal");
                (near, Some(far))
            }
            Kind::File => {
                let made = rustix::fs::memfd_create("aio-conformance", MemfdFlags::CLOEXEC);
                (need(made, "making a file"), None)
            }
        };
        Self {
            kind,
            fd: Rc::new(near),
            peer: far,
        }
    }

    /// Makes a [`Watched`] for a backend.
    pub(super) fn watched(&self) -> Watched {
        Rc::clone(&self.fd).into()
    }

    /// Returns the number of other owners.
    pub(super) fn references(&self) -> usize {
        Rc::strong_count(&self.fd) - 1
    }

    /// Returns the descriptor to which data are written to make this one readable.
    pub(super) fn mouth(&self) -> BorrowedFd<'_> {
        match (&self.peer, self.kind) {
            (_, Kind::Eventfd) => self.fd.as_fd(),
            (Some(peer), _) => peer.as_fd(),
            (None, kind) => panic!("nothing feeds this {kind:?}"),
        }
    }

    /// Makes data available to read.
    pub(super) fn feed(&self) {
        feed(self.mouth());
    }

    /// Reads up to `most` bytes.
    pub(super) fn read(&self, most: usize) {
        let _ = rustix::io::read(&*self.fd, &mut vec![0; most]);
    }

    /// Reads all data.
    pub(super) fn consume(&self) {
        read_all(&*self.fd);
    }

    /// Writes until the descriptor has no more room.
    pub(super) fn fill(&self) {
        match self.kind {
            Kind::Eventfd => {
                self.consume();
                let _ = rustix::io::write(&*self.fd, &(u64::MAX - 1).to_ne_bytes());
            }
            Kind::PipeWriter | Kind::Socket => while rustix::io::write(&*self.fd, &[0; 65_536]).is_ok() {},
            Kind::PipeReader | Kind::Terminal | Kind::File => {}
        }
    }

    /// Makes room to write again.
    pub(super) fn make_room(&self) {
        match &self.peer {
            Some(peer) => read_all(peer),
            None if self.kind == Kind::Eventfd => self.consume(),
            None => {}
        }
    }

    /// Shuts down the writing half of the other end of a socket.
    pub(super) fn half_close(&self) {
        if let Some(peer) = &self.peer {
            need(rustix::net::shutdown(peer, Shutdown::Write), "a half close");
        }
    }

    /// Closes the other end.
    pub(super) fn hang_up(&mut self) {
        self.peer = None;
    }
}

/// Writes data that every kind of descriptor accepts.
pub(super) fn feed(mouth: impl AsFd) {
    match rustix::io::write(mouth, &1u64.to_ne_bytes()) {
        // There is no room, or the end has shut down its writing half.
        Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::PIPE) => {}
        Err(error) => panic!("writing to the other end failed: {error}"),
    }
}

fn read_all(fd: impl AsFd) {
    while rustix::io::read(&fd, &mut [0; 65_536]).is_ok_and(|count| count > 0) {}
}

/// A terminal without line editing and its other end, neither of which blocks.
fn terminal() -> io::Result<(OwnedFd, OwnedFd)> {
    let far = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::pty::grantpt(&far)?;
    rustix::pty::unlockpt(&far)?;
    let name = rustix::pty::ptsname(&far, Vec::new())?;
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let near = rustix::fs::open(name, flags, rustix::fs::Mode::empty())?;
    let mut settings = rustix::termios::tcgetattr(&near)?;
    settings.make_raw();
    rustix::termios::tcsetattr(&near, OptionalActions::Now, &settings)?;
    for fd in [&near, &far] {
        rustix::io::ioctl_fionbio(fd, true)?;
    }
    Ok((near, far))
}

/// Adds a registration, which must succeed.
#[track_caller]
pub(super) fn add(backend: &mut dyn Backend, source: &Source, token: Token, interest: Interest) {
    if let Err(error) = backend.add(source.watched(), token, interest) {
        panic!("a {:?} was refused as {token:?}: {error}", source.kind);
    }
}

/// Waits once for up to `limit` events, as a loop does. Several events of one token become one.
#[track_caller]
pub(super) fn wait_at_most(backend: &mut dyn Backend, timeout: Option<Duration>, limit: usize) -> Found {
    let mut ready = ReadyList::with_limit(limit);
    backend.rebalance();
    if let Err(error) = backend.wait(timeout, &mut ready) {
        panic!("a wait of {timeout:?} ended with an error: {error}");
    }
    let mut found: Found = ready.iter().collect();
    found.sort_by_key(|(token, _)| *token);
    found.dedup_by(|(token, more), (kept, readiness)| {
        let same = token == kept;
        if same {
            *readiness |= *more;
        }
        same
    });
    found
}

/// Checks without waiting, and returns the events.
#[track_caller]
pub(super) fn check(backend: &mut dyn Backend) -> Found {
    wait_at_most(backend, Some(Duration::ZERO), 64)
}

/// Asserts the events of a check.
#[track_caller]
pub(super) fn expect(backend: &mut dyn Backend, expected: &[(Token, Readiness)], why: &str) {
    let seen = check(backend);
    assert!(
        seen == expected,
        "{why}: expected {expected:?}, but a check found {seen:?}"
    );
}

/// Waits until a wait reports `expected`, because the event is asynchronous.
#[track_caller]
pub(super) fn expect_soon(backend: &mut dyn Backend, expected: &[(Token, Readiness)], why: &str) {
    let start = Instant::now();
    loop {
        let seen = wait_at_most(backend, Some(Duration::from_millis(20)), 64);
        if seen == expected {
            return;
        }
        assert!(
            start.elapsed() < TIMEOUT,
            "{why}: expected {expected:?}, but after {TIMEOUT:?} a wait found {seen:?}"
        );
    }
}
