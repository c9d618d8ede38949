//! Backends from outside. [`Poll`] is the one of docs/writing-a-backend.md. [`Scripted`] simulates the system, for tests of handlers. [`OneShot`] is an epoll set whose entries disarm themselves
//! after each event.
//!
//! The kernel reports a one-shot entry once and then disarms it. The backend arms reported entries again before the next wait, and
//! the kernel then checks them: so readiness is level-triggered, as the contract demands, and a reported entry goes to the end of
//! the kernel's ready list, so no entry starves. An entry whose interest is in one event stays disarmed. An entry that cannot be deleted
//! any more, because its number was closed without `remove`, is reported once at most.
//!
//! A file that epoll refuses, such as a regular file, is always ready. The backend watches an eventfd that is always ready in its
//! place, so all registrations are handled alike.
//!
//! It has no pollable descriptor for all registrations, because a disarmed entry would not make it readable.

#![forbid(unsafe_code)]

mod poll;
mod scripted;

pub use poll::Poll;
pub use scripted::{Script, Scripted};

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use aio_backend::{Backend, Interest, Readiness, ReadyList, Token, Watched};
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

/// How many events one wait reports at the most, whatever the list has room for.
const BATCH: usize = 256;

/// Waits with an epoll set of one-shot entries.
#[derive(Debug)]
pub struct OneShot {
    set: OwnedFd,
    entries: BTreeMap<Token, Entry>,
    /// Reported by the last wait, and therefore disarmed.
    reported: Vec<Token>,
}

#[derive(Debug)]
struct Entry {
    fd: Watched,
    stand_in: Option<OwnedFd>,
    interest: Interest,
    /// It is in the set, armed or not.
    is_member: bool,
}

impl Entry {
    /// Returns the descriptor that is a member of the epoll set, or would be one.
    fn member(&self) -> BorrowedFd<'_> {
        self.stand_in.as_ref().map_or_else(|| self.fd.as_fd(), |it| it.as_fd())
    }
}

impl OneShot {
    /// A backend that watches nothing yet.
    ///
    /// # Errors
    /// The error of the system, if it cannot create an epoll set.
    pub fn new() -> io::Result<Self> {
        Ok(Self { set: epoll::create(CreateFlags::CLOEXEC)?, entries: BTreeMap::new(), reported: Vec::new() })
    }

    /// Brings an entry into the set that is not there. A silent one stays out: the kernel would report its hang-up.
    fn enter(&self, token: Token, entry: &mut Entry) -> Result<(), Errno> {
        if entry.interest == Interest::NONE {
            return Ok(());
        }
        let (data, flags) = (EventData::new_u64(token.to_bits()), flags(entry.interest));
        let entered = match epoll::add(&self.set, entry.member(), data, flags) {
            // A left-over of a number that was closed and means the same file again. It is as good as ours.
            Err(Errno::EXIST) => self.arm(token, entry),
            Err(Errno::PERM) if entry.stand_in.is_none() => {
                entry.stand_in = Some(eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
                return self.enter(token, entry);
            }
            result => result,
        };
        entry.is_member = entered.is_ok();
        entered
    }

    /// Arms an entry that is in the set, with its present interest.
    fn arm(&self, token: Token, entry: &Entry) -> Result<(), Errno> {
        let data = EventData::new_u64(token.to_bits());
        epoll::modify(&self.set, entry.member(), data, flags(entry.interest))
    }

    /// Removes an entry from the set. If that fails, its number was closed; then at most one more event arrives, with an unknown token.
    fn leave(&self, entry: &mut Entry) {
        if std::mem::take(&mut entry.is_member) {
            let _ = epoll::delete(&self.set, entry.member());
        }
    }

    /// Sleeps until something in the set is ready; `false` if nothing is in time, or a signal came.
    fn sleep(&self, left: Option<Duration>) -> io::Result<bool> {
        let left = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        match poll(&mut [PollFd::new(&self.set, PollFlags::IN)], left.as_ref()) {
            Ok(found) => Ok(found > 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for events of the set.
    fn collect(&mut self, ready: &mut ReadyList) -> io::Result<()> {
        let nothing = Event { flags: EventFlags::empty(), data: EventData::new_u64(0) };
        let mut events = [nothing; BATCH];
        let (room, now) = (ready.room().min(BATCH), Timespec { tv_sec: 0, tv_nsec: 0 });
        let found = match epoll::wait(&self.set, &mut events[..room], Some(&now)) {
            Err(Errno::INTR) => 0,
            result => result?,
        };
        for event in &events[..found] {
            let token = Token::from_bits(event.data.u64());
            let Some(entry) = self.entries.get_mut(&token) else { continue };
            let interest = entry.interest;
            if interest == Interest::NONE {
                continue;
            }
            ready.push(token, readiness(event.flags));
            if interest.contains(Interest::ONESHOT) {
                // As the kernel has disarmed it. It stays in the set.
                entry.interest = Interest::NONE;
            } else {
                self.reported.push(token);
            }
        }
        Ok(())
    }
}

impl Backend for OneShot {
    fn name(&self) -> &'static str {
        "one-shot epoll"
    }

    fn add(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()> {
        if self.entries.contains_key(&token) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let mut entry = Entry { fd, stand_in: None, interest, is_member: false };
        self.enter(token, &mut entry)?;
        self.entries.insert(token, entry);
        Ok(())
    }

    fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        let mut entry = self.entries.remove(&token).ok_or(ErrorKind::NotFound)?;
        let former = std::mem::replace(&mut entry.interest, interest);
        let result = match (former, interest) {
            (_, Interest::NONE) => {
                self.leave(&mut entry);
                Ok(())
            }
            _ if !entry.is_member => self.enter(token, &mut entry),
            _ => self.arm(token, &entry),
        };
        if result.is_err() {
            entry.interest = former;
        }
        self.entries.insert(token, entry);
        Ok(result?)
    }

    fn remove(&mut self, token: Token) -> io::Result<()> {
        let mut entry = self.entries.remove(&token).ok_or(ErrorKind::NotFound)?;
        self.leave(&mut entry);
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        for token in std::mem::take(&mut self.reported) {
            if let Some(entry) = self.entries.get(&token)
                && entry.interest != Interest::NONE
            {
                // A number that was closed meanwhile cannot be armed again, and has nothing to say.
                let _ = self.arm(token, entry);
            }
        }
        let (start, before) = (Instant::now(), ready.len());
        // Once is enough, unless all that came was not understood.
        while !ready.is_full() && ready.len() == before {
            let left = timeout.map(|timeout| timeout.saturating_sub(start.elapsed()));
            if left != Some(Duration::ZERO) && !self.sleep(left)? {
                break;
            }
            self.collect(ready)?;
            if left == Some(Duration::ZERO) {
                break;
            }
        }
        Ok(())
    }

    fn watched(&self) -> usize {
        self.entries.len()
    }

    fn visit(&self, each: &mut dyn FnMut(&Watched, Token, Interest)) {
        for (token, entry) in &self.entries {
            each(&entry.fd, *token, entry.interest);
        }
    }

    fn drain(&mut self, each: &mut dyn FnMut(Watched, Token, Interest)) {
        self.reported.clear();
        for (token, mut entry) in std::mem::take(&mut self.entries) {
            self.leave(&mut entry);
            each(entry.fd, token, entry.interest);
        }
    }
}

fn flags(interest: Interest) -> EventFlags {
    let mut flags = EventFlags::ONESHOT;
    flags.set(EventFlags::IN | EventFlags::RDHUP, interest.contains(Interest::READ));
    flags.set(EventFlags::OUT, interest.contains(Interest::WRITE));
    flags.set(EventFlags::PRI, interest.contains(Interest::PRIORITY));
    flags
}

fn readiness(flags: EventFlags) -> Readiness {
    Readiness::from_system(flags.bits())
}
