//! The set-up of a replay: a backend, or a foreign loop, and a polling policy.

use std::fmt;
use std::io::{self, Write as _};
use std::sync::Once;

use aio_backend_epoll::Epoll;
use aio_backend_ladder::Ladder;
use aio_backend_ppoll::Ppoll;
use aio_backend_uring::Uring;
use aio_context::{Backend, Policy};

/// The way in which a context waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiter {
    /// ppoll alone.
    Ppoll,
    /// epoll alone.
    Epoll,
    /// A ladder that is always at its upper level.
    LadderAt0,
    /// A ladder that moves with nearly every registration.
    LadderAt4,
    /// A ladder with the usual threshold.
    LadderAt64,
    /// io_uring alone.
    Uring,
    /// In a foreign loop, which prepares, checks and dispatches.
    Foreign,
}

impl Waiter {
    /// All ways of waiting.
    pub const ALL: [Self; 7] = [
        Self::Ppoll,
        Self::Epoll,
        Self::LadderAt0,
        Self::LadderAt4,
        Self::LadderAt64,
        Self::Uring,
        Self::Foreign,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Ppoll => "ppoll",
            Self::Epoll => "epoll",
            Self::LadderAt0 => "ladder-at-0",
            Self::LadderAt4 => "ladder-at-4",
            Self::LadderAt64 => "ladder-at-64",
            Self::Uring => "uring",
            Self::Foreign => "foreign",
        }
    }

    /// Returns `true` if the next check detects a number that was closed without a removal. ppoll passes the
    /// number to the kernel, but an epoll set has dropped it.
    pub(crate) fn detects_closes(self) -> bool {
        self == Self::Ppoll
    }

    pub(crate) fn backend(self) -> Box<dyn Backend> {
        let epoll = || Epoll::new().expect("there is a descriptor left");
        let ladder = |at| Box::new(Ladder::new(Ppoll::new(), Epoll::new, at));
        match self {
            Self::Ppoll => Box::new(Ppoll::new()),
            Self::Epoll => Box::new(epoll()),
            Self::LadderAt0 => ladder(0),
            Self::LadderAt4 => ladder(4),
            Self::LadderAt64 | Self::Foreign => ladder(64),
            Self::Uring => match Uring::new() {
                Ok(uring) => Box::new(uring),
                Err(error) => {
                    report_once(&error);
                    Box::new(epoll())
                }
            },
        }
    }
}

/// Reports once that io_uring is not available, and that epoll replaces it.
fn report_once(error: &io::Error) {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        let _ = writeln!(io::stderr(), "skipped: no io_uring, epoll in its place: {error}");
    });
}

/// A way of waiting and a polling policy; written `epoll/learned`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// The way of waiting.
    pub waiter: Waiter,
    /// One of [`Policy::NAMES`].
    pub policy: &'static str,
}

impl Setup {
    /// Returns a set-up with this way of waiting, and with the policy of that number, modulo the number of
    /// policies.
    #[must_use]
    pub fn new(waiter: Waiter, policy: usize) -> Self {
        Self {
            waiter,
            policy: Policy::NAMES[policy % Policy::NAMES.len()],
        }
    }

    /// Returns the set-up with this spelling.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        let (waiter, policy) = name.split_once('/')?;
        Some(Self {
            waiter: Waiter::ALL.into_iter().find(|known| known.name() == waiter)?,
            policy: Policy::NAMES.iter().find(|known| **known == policy)?,
        })
    }
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.waiter.name(), self.policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        for waiter in Waiter::ALL {
            for policy in 0..Policy::NAMES.len() {
                let setup = Setup::new(waiter, policy);
                assert_eq!(Setup::by_name(&setup.to_string()), Some(setup));
            }
        }
        assert_eq!(Setup::by_name("epoll/clairvoyant"), None);
    }
}
