//! A simulated system for tests of handlers: a script says when a descriptor becomes ready, and time passes at once.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aio_backend::{Backend, Interest, Readiness, ReadyList, Token, Watched};
use aio_timers::{Clock, Moment};

/// A script, and its clock. Clones are the same script.
///
/// Give a context its [`backend`](Self::backend), and the script itself as the monotonic clock.
#[derive(Clone, Debug)]
pub struct Script(Arc<Mutex<World>>);

#[derive(Debug)]
struct World {
    now: Moment,
    /// The future events, by time.
    script: BTreeMap<Moment, Vec<(RawFd, Readiness)>>,
    ready: BTreeMap<RawFd, Readiness>,
}

impl World {
    /// Passes time up to the next change, but not beyond `limit`. False if there is neither.
    fn pass(&mut self, limit: Option<Moment>) -> bool {
        let next = self.script.keys().next().copied();
        let Some(until) = next.into_iter().chain(limit).min() else { return false };
        self.now = self.now.max(until);
        for (fd, readiness) in self.script.remove(&until).unwrap_or_default() {
            *self.ready.entry(fd).or_insert(Readiness::empty()) |= readiness;
        }
        true
    }
}

impl Default for Script {
    /// An empty script, at its beginning.
    fn default() -> Self {
        Self(Arc::new(Mutex::new(World {
            now: Moment::ZERO,
            script: BTreeMap::new(),
            ready: BTreeMap::new(),
        })))
    }
}

impl Script {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A descriptor becomes ready `time` after the beginning, and stays so until it is [cleared](Self::clear).
    pub fn at(&self, time: Duration, fd: impl AsFd, readiness: Readiness) {
        let change = (fd.as_fd().as_raw_fd(), readiness);
        let when = Moment::ZERO.saturating_add(time);
        self.world().script.entry(when).or_default().push(change);
    }

    /// A handler has consumed what made a descriptor ready.
    pub fn clear(&self, fd: impl AsFd, readiness: Readiness) {
        if let Some(ready) = self.world().ready.get_mut(&fd.as_fd().as_raw_fd()) {
            *ready -= readiness;
        }
    }

    /// A backend that reports what the script says.
    pub fn backend(&self) -> Scripted {
        Scripted { script: self.clone(), entries: BTreeMap::new() }
    }
}

impl Clock for Script {
    fn now(&self) -> Moment {
        self.world().now
    }

    fn pass(&self, duration: Duration) -> bool {
        let mut world = self.world();
        let limit = world.now.saturating_add(duration);
        world.pass(Some(limit))
    }
}

/// The backend of a [`Script`]. A wait that nothing can end is an error, where a real one would hang.
#[derive(Debug)]
pub struct Scripted {
    script: Script,
    entries: BTreeMap<Token, (Watched, Interest)>,
}

impl Backend for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn add(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()> {
        if self.entries.contains_key(&token) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        self.entries.insert(token, (fd, interest));
        Ok(())
    }

    fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        self.entries.get_mut(&token).ok_or(ErrorKind::NotFound)?.1 = interest;
        Ok(())
    }

    fn remove(&mut self, token: Token) -> io::Result<()> {
        self.entries.remove(&token).map(drop).ok_or(ErrorKind::NotFound.into())
    }

    fn wait(&mut self, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        let mut world = self.script.world();
        let end = timeout.map(|timeout| world.now.saturating_add(timeout));
        let before = ready.len();
        loop {
            for (token, (fd, interest)) in &mut self.entries {
                let what = world.ready.get(&fd.as_raw_fd()).copied().unwrap_or(Readiness::empty());
                let what = what & interest.mask();
                let is_reported = *interest != Interest::NONE && !what.is_empty() && ready.push(*token, what);
                if is_reported && interest.contains(Interest::ONESHOT) {
                    *interest = Interest::NONE;
                }
            }
            if ready.len() > before || end.is_some_and(|end| world.now >= end) {
                return Ok(());
            }
            if !world.pass(end) {
                return Err(io::Error::new(
                    ErrorKind::TimedOut,
                    "the script is over, and nothing else can end this wait",
                ));
            }
        }
    }

    fn watched(&self) -> usize {
        self.entries.len()
    }

    fn visit(&self, each: &mut dyn FnMut(&Watched, Token, Interest)) {
        self.entries.iter().for_each(|(token, (fd, interest))| each(fd, *token, *interest));
    }

    fn drain(&mut self, each: &mut dyn FnMut(Watched, Token, Interest)) {
        std::mem::take(&mut self.entries)
            .into_iter()
            .for_each(|(token, (fd, interest))| each(fd, token, interest));
    }
}
