//! Backends and descriptors.

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aio_backend::{Backend, Interest, Readiness, ReadyList, Token};
use aio_backend_uring::sys::Sys;
use aio_backend_uring::{Config, Uring};
use rustix::event::{EventfdFlags, eventfd};

pub(crate) const A: Token = Token::new(0, 3);
pub(crate) const B: Token = Token::new(1, 3);
pub(crate) const IN: Readiness = Readiness::IN;
pub(crate) const OUT: Readiness = Readiness::OUT;

/// Returns the backend, or prints the reason why the test is skipped.
pub(crate) fn available<S: Sys>(made: io::Result<Uring<S>>) -> Option<Uring<S>> {
    made.inspect_err(|error| {
        let remedy = aio_backend::remedy(error);
        let _ = writeln!(io::stderr(), "skipped: no io_uring: {error}; {remedy}");
    })
    .ok()
}

/// Returns the usual ring, one with short queues, both without the features that only some kernels have, and
/// all of them with multishot requests for every descriptor that is armed again.
pub(crate) fn backends() -> Vec<Uring> {
    let usual = Config::new();
    let tiny = Config::new().submissions(4).completions(4);
    let all = [usual, tiny, usual.plain(), tiny.plain()];
    let multishot = all.map(|config| config.multishot_from(1));
    all.into_iter()
        .chain(multishot)
        .filter_map(|config| available(Uring::with_config(config)))
        .collect()
}

/// Returns the usual ring, if the kernel lets it check without a system call.
pub(crate) fn seeing() -> Option<Uring> {
    seeing_with(Config::new())
}

/// Like [`seeing`], with this configuration.
pub(crate) fn seeing_with(config: Config) -> Option<Uring> {
    let mut backend = available(Uring::with_config(config))?;
    let peeked = backend.peek(&mut ReadyList::new()).unwrap();
    if peeked == aio_backend::Peek::Unsupported {
        let _ = writeln!(io::stderr(), "skipped: the kernel is older than Linux 5.19");
        return None;
    }
    Some(backend)
}

pub(crate) fn doorbell() -> Rc<OwnedFd> {
    Rc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap())
}

pub(crate) fn ring(bell: &OwnedFd) {
    rustix::io::write(bell, &1u64.to_ne_bytes()).unwrap();
}

pub(crate) fn read(bell: &OwnedFd) {
    rustix::io::read(bell, &mut [0; 8]).unwrap();
}

pub(crate) fn wait<S: Sys>(
    backend: &mut Uring<S>,
    timeout: Duration,
    limit: usize,
) -> Vec<(Token, Readiness)> {
    let mut ready = ReadyList::with_limit(limit);
    backend.wait(Some(timeout), &mut ready).unwrap();
    ready.iter().collect()
}

pub(crate) fn check<S: Sys>(backend: &mut Uring<S>) -> Vec<(Token, Readiness)> {
    wait(backend, Duration::ZERO, 64)
}

/// Watches a doorbell for reading.
pub(crate) fn watch<S: Sys>(backend: &mut Uring<S>, bell: &Rc<OwnedFd>, token: Token) {
    backend.add(bell.clone().into(), token, Interest::READ).unwrap();
}

/// While a test has closed a number, no other test may open a descriptor.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
