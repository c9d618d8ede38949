//! A backend from outside: an epoll set whose entries disarm themselves after each event.
//!
//! The kernel reports a one-shot entry once and then keeps quiet. Whatever was reported is armed again before the next wait,
//! and the kernel looks at it anew: so readiness is level-triggered, as the contract wants it, and who was served goes to
//! the end of the line, so that nobody starves.
//!
//! It has no sub-millisecond tricks: what `epoll_wait` cannot wait for, `ppoll` on the set does.

#![forbid(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use aio_backend::{Backend, Interest, Readiness, ReadyList, Token, Watched};
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

const NOW: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// Waits with an epoll set of one-shot entries.
#[derive(Debug)]
pub struct OneShot {
    set: OwnedFd,
    /// By the index of the token.
    entries: Vec<Option<Entry>>,
    /// Reported by the last wait, so disarmed.
    disarmed: Vec<Token>,
    /// Files, which epoll refuses: always ready.
    files: Vec<Token>,
}

#[derive(Debug)]
struct Entry {
    fd: Watched,
    token: Token,
    interest: Interest,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Nowhere,
    InTheSet,
    AmongFiles,
}

impl OneShot {
    /// A backend that watches nothing yet.
    ///
    /// # Errors
    /// What the system says to one more epoll set.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            set: epoll::create(CreateFlags::CLOEXEC)?,
            entries: Vec::new(),
            disarmed: Vec::new(),
            files: Vec::new(),
        })
    }

    fn entry(&mut self, token: Token) -> io::Result<&mut Entry> {
        let slot = self
            .entries
            .get_mut(token.index() as usize)
            .and_then(Option::as_mut);
        slot.filter(|entry| entry.token == token)
            .ok_or(io::ErrorKind::NotFound.into())
    }

    fn arm(&mut self, fd: &Watched, token: Token, interest: Interest) -> io::Result<Place> {
        if interest == Interest::NONE {
            return Ok(Place::Nowhere);
        }
        match epoll::add(
            &self.set,
            fd,
            EventData::new_u64(token.to_bits()),
            flags(interest),
        ) {
            Ok(()) => Ok(Place::InTheSet),
            Err(Errno::PERM) => {
                self.files.push(token);
                Ok(Place::AmongFiles)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn disarm(&mut self, fd: &Watched, token: Token, place: Place) {
        if place == Place::InTheSet {
            // An error means that it is out already.
            let _ = epoll::delete(&self.set, fd);
        }
        self.files.retain(|file| *file != token);
    }

    fn arm_again(&mut self) -> io::Result<()> {
        for token in std::mem::take(&mut self.disarmed) {
            let Ok(entry) = self.entry(token) else { continue };
            if entry.place == Place::InTheSet {
                let (fd, interest) = (entry.fd.clone(), entry.interest);
                epoll::modify(
                    &self.set,
                    &fd,
                    EventData::new_u64(token.to_bits()),
                    flags(interest),
                )?;
            }
        }
        Ok(())
    }

    /// Waits until something in the set is ready; an interruption ends it.
    fn sleep(&self, timeout: Option<Duration>) -> io::Result<()> {
        let began = Instant::now();
        loop {
            let left = timeout.map(|timeout| timeout.saturating_sub(began.elapsed()));
            let spec = left.map(|left| Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            });
            match poll(&mut [PollFd::new(&self.set, PollFlags::IN)], spec.as_ref()) {
                Ok(0) if left != Some(Duration::ZERO) => {}
                Ok(_) | Err(Errno::INTR) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Backend for OneShot {
    fn name(&self) -> &'static str {
        "one-shot epoll"
    }

    fn add(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()> {
        let place = self.arm(&fd, token, interest)?;
        let index = token.index() as usize;
        if index >= self.entries.len() {
            self.entries.resize_with(index + 1, || None);
        }
        self.entries[index] = Some(Entry {
            fd,
            token,
            interest,
            place,
        });
        Ok(())
    }

    fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        let entry = self.entry(token)?;
        let (fd, place) = (entry.fd.clone(), entry.place);
        self.disarm(&fd, token, place);
        let place = self.arm(&fd, token, interest)?;
        let entry = self.entry(token)?;
        (entry.interest, entry.place) = (interest, place);
        Ok(())
    }

    fn remove(&mut self, token: Token) -> io::Result<()> {
        let entry = self.entry(token)?;
        let (fd, place) = (entry.fd.clone(), entry.place);
        self.disarm(&fd, token, place);
        self.entries[token.index() as usize] = None;
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        if ready.is_full() {
            return Ok(());
        }
        self.arm_again()?;
        let timeout = if self.files.is_empty() {
            timeout
        } else {
            Some(Duration::ZERO)
        };
        if timeout != Some(Duration::ZERO) {
            self.sleep(timeout)?;
        }
        // Half of the room for the set, if there are files.
        let share = if self.files.is_empty() {
            ready.room()
        } else {
            ready.room().div_ceil(2)
        };
        let nothing = Event {
            flags: EventFlags::empty(),
            data: EventData::new_u64(0),
        };
        let mut events = vec![nothing; share.min(1024)];
        let found = match epoll::wait(&self.set, &mut events[..], Some(&NOW)) {
            Ok(found) => found,
            Err(Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in &events[..found] {
            let token = Token::from_bits(event.data.u64());
            ready.push(token, readiness(event.flags));
            self.disarmed.push(token);
        }
        for _ in 0..self.files.len() {
            let token = self.files[0];
            let interest = self.entry(token)?.interest;
            if !ready.push(token, always(interest)) {
                break;
            }
            self.files.rotate_left(1);
        }
        Ok(())
    }

    fn drain(&mut self, each: &mut dyn FnMut(Watched, Token, Interest)) {
        for entry in std::mem::take(&mut self.entries).into_iter().flatten() {
            self.disarm(&entry.fd, entry.token, entry.place);
            each(entry.fd, entry.token, entry.interest);
        }
        self.disarmed.clear();
    }
}

fn flags(interest: Interest) -> EventFlags {
    let mut flags = EventFlags::ONESHOT;
    flags.set(EventFlags::IN, interest.contains(Interest::READ));
    flags.set(EventFlags::OUT, interest.contains(Interest::WRITE));
    flags
}

fn readiness(flags: EventFlags) -> Readiness {
    let mut readiness = Readiness::empty();
    readiness.set(Readiness::IN, flags.contains(EventFlags::IN));
    readiness.set(Readiness::OUT, flags.contains(EventFlags::OUT));
    readiness.set(Readiness::HUP, flags.contains(EventFlags::HUP));
    readiness.set(Readiness::ERR, flags.contains(EventFlags::ERR));
    readiness
}

fn always(interest: Interest) -> Readiness {
    let mut readiness = Readiness::empty();
    readiness.set(Readiness::IN, interest.contains(Interest::READ));
    readiness.set(Readiness::OUT, interest.contains(Interest::WRITE));
    readiness
}
