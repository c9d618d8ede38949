//! The epoll set and the table of what is in it.
//!
//! The kernel's set is by open file and number, ours by token. Where they come apart, because a number was closed behind our
//! back, the kernel's is built anew from ours.

use std::io;
use std::os::fd::OwnedFd;

use aio_backend::{Interest, Readiness, ReadyList, Token, Watched};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

#[derive(Debug)]
struct Entry {
    token: Token,
    interest: Interest,
    share: Watched,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// In the kernel's set.
    Watched,
    /// Not in the kernel's set, because nobody wants to hear of it.
    Silent,
    /// Not in the kernel's set, which refuses what is always ready, such as a regular file.
    AlwaysReady,
}

/// The kernel's set and ours.
#[derive(Debug)]
pub(crate) struct Set {
    epoll: OwnedFd,
    /// By the token's index.
    entries: Vec<Option<Entry>>,
    /// The entries that are always ready.
    always_ready: Vec<Token>,
    /// How many of those have an interest.
    wanted: usize,
    /// Whose turn it is among them.
    turn: usize,
    /// Whether they come first in the next report.
    first: bool,
}

impl Set {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            entries: Vec::new(),
            always_ready: Vec::new(),
            wanted: 0,
            turn: 0,
            first: false,
        })
    }

    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.epoll
    }

    pub(crate) fn knows(&self, token: Token) -> bool {
        self.entry(token)
            .is_some_and(|entry| entry.interest != Interest::NONE)
    }

    fn entry(&self, token: Token) -> Option<&Entry> {
        self.entries
            .get(token.index() as usize)?
            .as_ref()
            .filter(|entry| entry.token == token)
    }

    fn entry_mut(&mut self, token: Token) -> Option<&mut Entry> {
        self.entries
            .get_mut(token.index() as usize)?
            .as_mut()
            .filter(|entry| entry.token == token)
    }

    pub(crate) fn add(&mut self, share: Watched, token: Token, interest: Interest) -> io::Result<()> {
        let kind = self.enter(&share, token, interest)?;
        let index = token.index() as usize;
        if self.entries.len() <= index {
            self.entries.resize_with(index + 1, || None);
        }
        self.entries[index] = Some(Entry {
            token,
            interest,
            share,
            kind,
        });
        if kind == Kind::AlwaysReady {
            self.always_ready.push(token);
            self.wanted += 1;
        }
        Ok(())
    }

    /// Puts a descriptor into the kernel's set, if it is to be there.
    fn enter(&mut self, share: &Watched, token: Token, interest: Interest) -> io::Result<Kind> {
        if interest == Interest::NONE {
            return Ok(Kind::Silent);
        }
        let data = EventData::new_u64(token.to_bits());
        match epoll::add(&self.epoll, share, data, flags(interest)) {
            Ok(()) => Ok(Kind::Watched),
            Err(Errno::PERM) => Ok(Kind::AlwaysReady),
            Err(Errno::EXIST) => {
                // A number that was closed behind our back and now is the same file again.
                self.rebuild()?;
                epoll::add(&self.epoll, share, data, flags(interest))?;
                Ok(Kind::Watched)
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        let entry = self.entry(token).ok_or_else(unknown)?;
        let (share, kind, former) = (entry.share.clone(), entry.kind, entry.interest);
        let kind = match kind {
            Kind::AlwaysReady => {
                self.wanted += usize::from(interest != Interest::NONE);
                self.wanted -= usize::from(former != Interest::NONE);
                Kind::AlwaysReady
            }
            Kind::Silent => {
                let kind = self.enter(&share, token, interest)?;
                if kind == Kind::AlwaysReady {
                    self.always_ready.push(token);
                    self.wanted += 1;
                }
                kind
            }
            Kind::Watched if interest == Interest::NONE => {
                self.leave(&share)?;
                Kind::Silent
            }
            Kind::Watched => {
                let data = EventData::new_u64(token.to_bits());
                match epoll::modify(&self.epoll, &share, data, flags(interest)) {
                    // The number is another file by now than the one that is in the set.
                    Err(Errno::NOENT) => self.enter(&share, token, interest)?,
                    changed => changed.map(|()| Kind::Watched)?,
                }
            }
        };
        if let Some(entry) = self.entry_mut(token) {
            (entry.interest, entry.kind) = (interest, kind);
        }
        Ok(())
    }

    pub(crate) fn remove(&mut self, token: Token) -> io::Result<()> {
        self.entry(token).ok_or_else(unknown)?;
        let Some(entry) = self.entries[token.index() as usize].take() else {
            return Err(unknown());
        };
        match entry.kind {
            Kind::Silent => Ok(()),
            Kind::AlwaysReady => {
                self.always_ready.retain(|other| *other != token);
                self.wanted -= usize::from(entry.interest != Interest::NONE);
                Ok(())
            }
            Kind::Watched => self.leave(&entry.share),
        }
    }

    /// Takes a descriptor out of the kernel's set.
    fn leave(&mut self, share: &Watched) -> io::Result<()> {
        match epoll::delete(&self.epoll, share) {
            // The number is another file by now; the former one is gone from the set, or a copy of it keeps it there.
            Err(Errno::BADF | Errno::NOENT) => self.rebuild(),
            result => result.map_err(io::Error::from),
        }
    }

    /// Builds the kernel's set anew from ours, which sheds what only the kernel still has.
    pub(crate) fn rebuild(&mut self) -> io::Result<()> {
        tracing::debug!("building the epoll set anew: it has descriptors that were closed elsewhere");
        let fresh = epoll::create(CreateFlags::CLOEXEC)?;
        for entry in self
            .entries
            .iter()
            .flatten()
            .filter(|entry| entry.kind == Kind::Watched)
        {
            let data = EventData::new_u64(entry.token.to_bits());
            match epoll::add(&fresh, &entry.share, data, flags(entry.interest)) {
                // One that is closed itself: nothing to hear from it.
                Ok(()) | Err(Errno::BADF) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.epoll = fresh;
        Ok(())
    }

    pub(crate) fn has_always_ready(&self) -> bool {
        self.wanted != 0
    }

    /// Every other time, what is always ready comes before what the kernel reports, so that neither side starves.
    pub(crate) fn report_always_ready_if_its_turn(&mut self, ready: &mut ReadyList) {
        if self.wanted == 0 {
            return;
        }
        self.first = !self.first;
        if self.first {
            self.report_always_ready(ready);
        }
    }

    pub(crate) fn report_always_ready(&mut self, ready: &mut ReadyList) {
        let len = self.always_ready.len();
        if self.wanted == 0 || ready.iter().any(|(token, _)| self.always_ready.contains(&token)) {
            return;
        }
        for step in 0..len {
            let place = (self.turn + step) % len;
            let token = self.always_ready[place];
            let interest = self.entry(token).map_or(Interest::NONE, |entry| entry.interest);
            if interest == Interest::NONE {
                continue;
            }
            let mut readiness = Readiness::empty();
            readiness.set(Readiness::IN, interest.contains(Interest::READ));
            readiness.set(Readiness::OUT, interest.contains(Interest::WRITE));
            if !ready.push(token, readiness) {
                self.turn = place;
                return;
            }
        }
        self.turn = 0;
    }

    pub(crate) fn drain(&mut self, each: &mut dyn FnMut(Watched, Token, Interest)) {
        for entry in std::mem::take(&mut self.entries).into_iter().flatten() {
            if entry.kind == Kind::Watched {
                // Ours or not, it is let go.
                let _ = epoll::delete(&self.epoll, &entry.share);
            }
            each(entry.share, entry.token, entry.interest);
        }
        self.always_ready.clear();
        (self.wanted, self.turn) = (0, 0);
    }
}

fn unknown() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "this token is not watched")
}

fn flags(interest: Interest) -> EventFlags {
    let mut flags = EventFlags::empty();
    flags.set(EventFlags::IN, interest.contains(Interest::READ));
    flags.set(EventFlags::OUT, interest.contains(Interest::WRITE));
    flags
}
