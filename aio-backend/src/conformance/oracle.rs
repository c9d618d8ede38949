//! [`Oracle`]: what a backend was told, and whether an answer of it can be true.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::fixtures::need;
use crate::{Interest, Readiness, Token};

/// Knows every registration, asks the kernel one by one what is ready, and compares.
///
/// It has descriptors of its own for the same files, so that it sees what the backend sees.
#[derive(Debug, Default)]
pub struct Oracle {
    registered: BTreeMap<u64, (Token, OwnedFd, Interest)>,
}

impl Oracle {
    /// An oracle that knows of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The backend was told to watch this.
    ///
    /// # Panics
    /// If the descriptor cannot be duplicated.
    pub fn add(&mut self, fd: impl AsFd, token: Token, interest: Interest) {
        let own = need(fd.as_fd().try_clone_to_owned(), "one more descriptor");
        self.registered.insert(token.to_bits(), (token, own, interest));
    }

    /// The backend was told to wait for something else.
    pub fn modify(&mut self, token: Token, interest: Interest) {
        if let Some((_, _, known)) = self.registered.get_mut(&token.to_bits()) {
            *known = interest;
        }
    }

    /// The backend was told to forget it.
    pub fn remove(&mut self, token: Token) {
        self.registered.remove(&token.to_bits());
    }

    /// What is ready now, by token.
    #[must_use]
    pub fn truth(&self) -> BTreeMap<u64, Readiness> {
        let ready = |(token, (_, fd, interest)): (&u64, &(Token, OwnedFd, Interest))| {
            let found = ask(fd, *interest);
            (!found.is_empty()).then_some((*token, found))
        };
        self.registered.iter().filter_map(ready).collect()
    }

    /// Compares the answer of a look, which had room for everything, with the truth.
    ///
    /// # Panics
    /// If something is missing, told twice, told of somebody unknown or silent, or told wrongly.
    pub fn judge(&self, answer: &[(Token, Readiness)]) {
        let mut told = BTreeMap::new();
        for (token, readiness) in answer {
            let known = self.registered.get(&token.to_bits());
            let Some((_, _, interest)) = known else {
                panic!("{token:?} is not registered, and was told {readiness:?}")
            };
            assert_ne!(
                *interest,
                Interest::NONE,
                "{token:?} is silent, and was told {readiness:?}"
            );
            let before = told.insert(token.to_bits(), *readiness);
            assert!(before.is_none(), "{token:?} was told twice in one look");
        }
        assert_eq!(
            told,
            self.truth(),
            "what was told (left) is not what is (right), by the bits of the tokens"
        );
    }
}

/// What the kernel says of one descriptor.
fn ask(fd: &OwnedFd, interest: Interest) -> Readiness {
    if interest == Interest::NONE {
        return Readiness::empty();
    }
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, interest.contains(Interest::READ));
    flags.set(PollFlags::OUT, interest.contains(Interest::WRITE));
    let mut asked = [PollFd::new(fd, flags)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    need(
        rustix::event::poll(&mut asked, Some(&now)),
        "to look at one descriptor",
    );
    let found = asked[0].revents();
    let mut readiness = Readiness::empty();
    readiness.set(Readiness::IN, found.contains(PollFlags::IN));
    readiness.set(Readiness::OUT, found.contains(PollFlags::OUT));
    readiness.set(Readiness::HUP, found.contains(PollFlags::HUP));
    readiness.set(Readiness::ERR, found.contains(PollFlags::ERR));
    readiness
}
