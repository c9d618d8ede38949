//! What the promises are tried with: descriptors of every kind, and short ways to wait.

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::{Backend, Interest, Readiness, ReadyList, Token, Watched};

/// What one wait found.
pub(crate) type Found = Vec<(Token, Readiness)>;

/// Waits once, for up to `limit` events.
pub(crate) fn wait_at_most(backend: &mut dyn Backend, timeout: Option<Duration>, limit: usize) -> Found {
    let mut ready = ReadyList::with_limit(limit);
    match backend.wait(timeout, &mut ready) {
        Ok(()) => ready.iter().collect(),
        Err(error) => panic!("a wait of {timeout:?} ended with an error: {error}"),
    }
}

/// What is ready now.
pub(crate) fn look(backend: &mut dyn Backend) -> Found {
    wait_at_most(backend, Some(Duration::ZERO), 64)
}

/// Asserts that just one token is ready, and for what; `among` are the bits that matter.
pub(crate) fn expect(
    backend: &mut dyn Backend,
    token: Token,
    readiness: Readiness,
    among: Readiness,
    why: &str,
) {
    let found: Found = look(backend)
        .into_iter()
        .map(|(token, found)| (token, found & among))
        .collect();
    assert_eq!(found, [(token, readiness)], "{why}");
}

/// Asserts that nothing is ready.
pub(crate) fn expect_nothing(backend: &mut dyn Backend, why: &str) {
    assert_eq!(look(backend), [], "{why}");
}

/// Adds, which must work.
pub(crate) fn add(backend: &mut dyn Backend, fd: impl Into<Watched>, token: Token, interest: Interest) {
    if let Err(error) = backend.add(fd.into(), token, interest) {
        panic!("{token:?} could not be added: {error}");
    }
}

/// Unwraps what the test itself needs from the system.
pub(crate) fn need<T, E: std::fmt::Display>(result: Result<T, E>, what: &str) -> T {
    result.unwrap_or_else(|error| panic!("the test needs {what}: {error}"))
}

pub(crate) fn pipe() -> (Rc<PipeReader>, PipeWriter) {
    let (reader, writer) = need(std::io::pipe(), "a pipe");
    (Rc::new(reader), writer)
}

pub(crate) fn fill(writer: &mut PipeWriter) {
    need(writer.write_all(b"x"), "to write to a pipe");
}

pub(crate) fn consume(reader: &PipeReader) {
    need((&mut &*reader).read_exact(&mut [0]), "to read from a pipe");
}

pub(crate) fn sockets() -> (Rc<UnixStream>, UnixStream) {
    let (near, far) = need(UnixStream::pair(), "a pair of sockets");
    need(near.set_nonblocking(true), "a socket that does not block");
    (Rc::new(near), far)
}

pub(crate) fn counter() -> Rc<OwnedFd> {
    Rc::new(need(
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK),
        "an eventfd",
    ))
}

pub(crate) fn ring(counter: impl AsFd) {
    need(
        rustix::io::write(counter, &1u64.to_ne_bytes()),
        "to write to an eventfd",
    );
}

pub(crate) fn silence(counter: impl AsFd) {
    need(rustix::io::read(counter, &mut [0; 8]), "to read from an eventfd");
}

/// The two ends of a pseudo-terminal.
pub(crate) fn terminal() -> (Rc<OwnedFd>, File) {
    let near = need(
        openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY),
        "a pseudo-terminal",
    );
    need(grantpt(&near), "its far end");
    need(unlockpt(&near), "its far end");
    let name = need(ptsname(&near, Vec::new()), "its far end's name");
    let path = std::path::PathBuf::from(name.to_string_lossy().into_owned());
    let far = need(File::options().read(true).write(true).open(path), "its far end");
    (Rc::new(near), far)
}

/// Something that is always ready.
pub(crate) fn regular_file() -> Rc<File> {
    let own = need(std::env::current_exe(), "the program's own file");
    Rc::new(need(File::open(own), "the program's own file"))
}

/// Sees to it that so many descriptors can be open; false, with a line that says so, if the hard limit is lower.
pub(crate) fn descriptors(wanted: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    let allowed = limit.maximum.unwrap_or(u64::MAX);
    if allowed < wanted {
        println!("SKIPPED: {wanted} descriptors are needed, {allowed} are allowed (ulimit -Hn)");
        return false;
    }
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    need(
        setrlimit(Resource::Nofile, raised),
        "a higher limit of descriptors",
    );
    true
}
