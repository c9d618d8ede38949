//! [`Fake`]: a backend whose waits are visible to the checker.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use aio_checker::kernel::Kernel;
use aio_context::{Backend, Builder, Context, Interest, ManualClock, Readiness, ReadyList, Token, Watched};

use crate::Ticking;

/// A backend that waits for eventfds of the checkers' kernel. A wait without a limit blocks, and never spins.
/// A wait with a limit lets that time pass at once.
pub struct Fake {
    kernel: Arc<Kernel>,
    clock: Arc<Ticking>,
    watched: Vec<(Watched, Token, Interest)>,
    /// The position where the next check begins, so that no registration starves.
    next: usize,
}

impl Fake {
    /// Returns a backend without descriptors that lets time pass on `clock`.
    #[must_use]
    pub fn new(clock: Arc<Ticking>) -> Self {
        Self {
            kernel: Kernel::of_this_run(),
            clock,
            watched: Vec::new(),
            next: 0,
        }
    }

    /// Returns a context on such a backend. Its own clock stands still until the loop lets time pass.
    ///
    /// # Panics
    /// If there are no descriptors left.
    #[must_use]
    pub fn context() -> Context {
        let builder = Context::builder().monotonic(Arc::new(ManualClock::new()));
        Self::build(builder, Arc::default())
    }

    /// Returns a context on such a backend. Its own clock advances with each reading, so a search for work
    /// takes time.
    ///
    /// # Panics
    /// If there are no descriptors left.
    #[must_use]
    pub fn ticking(builder: Builder) -> Context {
        let clock = Arc::new(Ticking::default());
        Self::build(builder.monotonic(clock.clone()), clock)
    }

    fn build(builder: Builder, clock: Arc<Ticking>) -> Context {
        let built = builder.backend(Box::new(Self::new(clock))).build();
        built.expect("there are descriptors left")
    }

    fn place(&self, token: Token) -> io::Result<usize> {
        let place = self.watched.iter().position(|(_, other, _)| *other == token);
        place.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn check(&mut self, block: bool, ready: &mut ReadyList) {
        let (watched, next) = (&self.watched, &mut self.next);
        let before = ready.len();
        self.kernel.wait(block, |counts| {
            for step in 0..watched.len() {
                let place = (*next + step) % watched.len();
                let (owner, token, interest) = &watched[place];
                if is_ready(counts, owner.as_raw_fd(), *interest) && !ready.push(*token, Readiness::IN) {
                    *next = place;
                    break;
                }
            }
            ready.len() > before
        });
    }
}

fn is_ready(counts: &BTreeMap<RawFd, u64>, number: RawFd, interest: Interest) -> bool {
    interest.contains(Interest::READ) && counts.get(&number).is_some_and(|count| *count > 0)
}

impl Backend for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn add(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()> {
        self.watched.push((fd, token, interest));
        Ok(())
    }

    fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        let place = self.place(token)?;
        self.watched[place].2 = interest;
        Ok(())
    }

    fn remove(&mut self, token: Token) -> io::Result<()> {
        let place = self.place(token)?;
        self.watched.remove(place);
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        let before = ready.len();
        self.check(timeout.is_none(), ready);
        if let Some(timeout) = timeout.filter(|timeout| !timeout.is_zero() && ready.len() == before) {
            self.clock.advance(timeout);
            self.check(false, ready);
        }
        Ok(())
    }

    /// The loop's own eventfd is the pollable descriptor, as long as it is the only registration.
    fn make_pollable(&mut self) -> io::Result<Option<BorrowedFd<'_>>> {
        Ok(match &self.watched[..] {
            [(only, ..)] => Some(only.as_fd()),
            _ => None,
        })
    }

    fn watched(&self) -> usize {
        self.watched.len()
    }

    fn visit(&self, each: &mut dyn FnMut(&Watched, Token, Interest)) {
        for (fd, token, interest) in &self.watched {
            each(fd, *token, *interest);
        }
    }

    fn drain(&mut self, each: &mut dyn FnMut(Watched, Token, Interest)) {
        for (fd, token, interest) in self.watched.drain(..) {
            each(fd, token, interest);
        }
    }
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fake").field(&self.watched).finish()
    }
}
