//! A [`Backend`] on `epoll(7)`: level-triggered unless asked otherwise, with timeouts in nanoseconds.
//!
//! Good for many descriptors: a wait costs time for what is ready, not for what is watched. Each change of an interest
//! is a system call, though.
//!
//! ```
//! use std::io::Write;
//! use std::rc::Rc;
//! use aio_backend::{Backend, Interest, ReadyList, Readiness, Token};
//! use aio_backend_epoll::Epoll;
//!
//! let (reader, mut writer) = std::io::pipe()?;
//! let mut backend = Epoll::new()?;
//! backend.add(Rc::new(reader).into(), Token::new(0, 0), Interest::READ)?;
//!
//! writer.write_all(b"x")?;
//! let mut ready = ReadyList::new();
//! backend.wait(None, &mut ready)?;
//! assert_eq!(ready.iter().next(), Some((Token::new(0, 0), Readiness::IN)));
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # What an epoll set cannot represent
//! - *A regular file*, or whatever else epoll refuses with `EPERM`, is always ready. It is kept beside the set, and while
//!   it is waited for, no wait blocks. The set and what is beside it take turns when the list is short.
//! - *Silence*: the kernel reports hang-ups even where nothing is asked for. A silent registration is not in the set.
//! - *A descriptor that was closed behind the backend's back.* If nothing else shares its file, the kernel forgets it
//!   without a word. If something does, the kernel goes on reporting it and nobody can delete it any more. Its events
//!   are recognised by their token once it is removed; they are dropped, and the set is built anew without it.
//!
//! # What it does not do
//! It reports no [`Readiness::NVAL`](aio_backend::Readiness::NVAL) at once: a descriptor that was closed behind its back
//! is reported so when it is found out, which is when the set is built anew.
//!
//! A process that forks without `exec` shares the set with its child. Neither should use it afterwards but one.
//!
//! The descriptor of [`Backend::make_pollable`] counts as one more level of nesting than the set itself; Linux allows five.

#![forbid(unsafe_code)]

mod entries;
mod set;
mod side;
pub mod sys;
mod wait;

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use aio_backend::{Backend, Interest, Readiness, ReadyList, Registrations, Token, Watched};
use rustix::event::epoll::{Event, EventData, EventFlags};
use rustix::io::Errno;

use crate::entries::{State, is_armed};
use crate::set::Set;
use crate::side::Side;
use crate::sys::{Events, Kernel, Sys};
use crate::wait::Limit;

/// How many events there is room for from the start, so that a wait for no more than these allocates nothing.
const EVENTS: usize = 64;
/// How many events one wait reports at most, whatever the list has room for.
const EVENTS_MAX: usize = 1024;

/// Waits with `epoll_wait(2)`.
#[doc(alias = "epoll_create1")]
pub struct Epoll<S = Kernel> {
    set: Set<S>,
    entries: Registrations,
    side: Side,
    /// Whose turn it is when the list is too short for the set and for what is beside it.
    side_turn: bool,
    /// Whether something may be in the set that does not belong there, or the other way round.
    suspect: bool,
    /// What was removed last and may still be in the set.
    left_over: Option<Token>,
    events: Vec<Event>,
    stale: u64,
    rebuilds: u64,
}

impl Epoll {
    /// A backend that watches nothing yet.
    ///
    /// # Errors
    /// What the system says, such as `EMFILE` when the process may open no more descriptors.
    pub fn new() -> io::Result<Self> {
        Self::with_sys(Kernel)
    }
}

impl<S: Sys> Epoll<S> {
    /// As [`new`](Epoll::new), on another kernel.
    ///
    /// # Errors
    /// What `sys` says to making a set.
    pub fn with_sys(sys: S) -> io::Result<Self> {
        Ok(Self {
            set: Set::new(sys)?,
            entries: Registrations::new(),
            side: Side::default(),
            side_turn: false,
            suspect: false,
            left_over: None,
            events: vec![NOTHING; EVENTS],
            stale: 0,
            rebuilds: 0,
        })
    }

    /// How many events came for registrations that were gone, and were dropped.
    #[must_use]
    pub fn stale_events(&self) -> u64 {
        self.stale
    }

    /// How often the set in the kernel was built anew.
    #[must_use]
    pub fn rebuilds(&self) -> u64 {
        self.rebuilds
    }

    /// Takes an entry that is gone out of the set, or from beside it; `false` if it may still be in the set.
    #[inline(always)]
    fn disarm(&mut self, fd: &Watched, state: State) -> bool {
        match state {
            State::Silent => {}
            State::Armed => return self.set.forget(fd),
            State::Side(place) => self.leave_side(place),
        }
        true
    }

    /// Takes the one at `place` beside the set away.
    #[cold]
    fn leave_side(&mut self, place: u32) {
        if let Some(moved) = self.side.swap_remove(place)
            && let Some(entry) = self.entries.get_mut(moved)
        {
            entry.set_mark(State::Side(place).mark());
        }
    }

    /// Builds the set anew from the entries, without what nobody can delete from the old one.
    ///
    /// If it fails, it is tried again by the next wait.
    #[cold]
    fn rebuild(&mut self) -> io::Result<()> {
        self.suspect = true;
        self.set.renew()?;
        self.rebuilds += 1;
        let (set, side) = (&self.set, &mut self.side);
        for (token, entry) in self.entries.iter_mut().filter(|(_, entry)| is_armed(entry)) {
            let beside = match set.add(entry.fd(), token, entry.interest()) {
                Ok(()) => continue,
                Err(error) if is(&error, Errno::PERM) => always(entry.interest()),
                Err(error) if is(&error, Errno::NOSPC) || is(&error, Errno::NOMEM) => return Err(error),
                // The number is not open, or means something by now that cannot be watched, such as the new set itself.
                Err(_) => Readiness::NVAL,
            };
            entry.set_mark(State::Side(side.push(token, beside)).mark());
        }
        self.suspect = false;
        tracing::debug!(
            stale = self.stale,
            rebuilds = self.rebuilds,
            "the epoll set was built anew"
        );
        Ok(())
    }

    /// Asks the kernel, for at most `room` events.
    #[inline(always)]
    fn wait_for_set(
        &mut self,
        timeout: Option<Duration>,
        room: usize,
        ready: &mut ReadyList,
    ) -> io::Result<()> {
        let room = room.min(EVENTS_MAX);
        if room > self.events.len() {
            self.events.resize(room, NOTHING);
        }
        let mut limit = Limit::after(self.set.inner().0, timeout);
        loop {
            if self.suspect {
                self.rebuild()?;
            }
            let found = wait::wait(self.set.inner(), &mut Events(&mut self.events[..room]), limit)?;
            let mut stale = 0;
            for event in &self.events[..found] {
                let token = Token::from_bits(event.data.u64());
                let known = self.entries.get(token);
                if known.is_some_and(is_armed) {
                    ready.push(token, readiness(event.flags));
                } else {
                    stale += 1;
                }
            }
            if stale == 0 {
                return Ok(());
            }
            self.stale += stale;
            self.suspect = true;
            if stale < found as u64 {
                return Ok(());
            }
            limit = limit.rest(self.set.inner().0);
        }
    }
}

impl<S: Sys> Backend for Epoll<S> {
    fn name(&self) -> &'static str {
        "epoll"
    }

    #[inline(always)]
    fn add(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()> {
        if self.entries.is_taken(token) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let state = arm(&self.set, &mut self.side, &fd, token, interest)?;
        // The events of what was left over would be taken for this one's.
        self.suspect |= self.left_over == Some(token);
        self.entries.insert(token, fd, interest, state.mark());
        Ok(())
    }

    #[inline(always)]
    fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        let Some(entry) = self.entries.get_mut(token) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let (former, fd) = (State::of(entry), entry.fd());
        let state = match former {
            _ if entry.interest() == interest => return Ok(()),
            State::Silent => arm(&self.set, &mut self.side, fd, token, interest)?,
            State::Armed if interest == Interest::NONE => {
                // Later events of this token must be its own: there is no time to wait for stale ones.
                self.suspect |= !self.set.forget(fd);
                State::Silent
            }
            State::Armed => match self.set.modify(fd, token, interest) {
                // The number means another file now. The old one may still be in the set, under this very token.
                Err(error) if is(&error, Errno::NOENT) => {
                    self.suspect = true;
                    arm(&self.set, &mut self.side, fd, token, interest)?
                }
                modified => modified.map(|()| State::Armed)?,
            },
            State::Side(_) if interest == Interest::NONE => State::Silent,
            State::Side(place) => {
                self.side.set(place, always(interest));
                former
            }
        };
        entry.set(interest, state.mark());
        if let (State::Side(place), State::Silent) = (former, state) {
            self.leave_side(place);
        }
        Ok(())
    }

    #[inline(always)]
    fn remove(&mut self, token: Token) -> io::Result<()> {
        let Some(entry) = self.entries.remove(token) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if !self.disarm(entry.fd(), State::of(&entry)) {
            // It is found out by its first event, if there ever is one. The token does not come back, unless at once,
            // when somebody exchanges the share.
            self.left_over = Some(token);
        }
        Ok(())
    }

    // By force: see `wait.rs`.
    #[inline(always)]
    fn wait(&mut self, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        // A full list has to be served first; there is nothing to wait for.
        let room = ready.room();
        let (timeout, reserved) = if self.side.is_empty() {
            (timeout, 0)
        } else {
            self.side_turn = !self.side_turn;
            let reserved = if self.side_turn { self.side.len() } else { 0 };
            (Some(Duration::ZERO), reserved)
        };
        let for_set = room.saturating_sub(reserved);
        if for_set > 0 {
            match self.wait_for_set(timeout, for_set, ready) {
                Err(error) if !is(&error, Errno::INTR) => return Err(error),
                _ => {}
            }
        }
        if !self.side.is_empty() {
            self.side.collect(ready);
        }
        Ok(())
    }

    fn reports_edges(&self) -> bool {
        true
    }

    fn make_pollable(&mut self) -> io::Result<Option<BorrowedFd<'_>>> {
        Ok(Some(self.set.pollable()?))
    }

    fn always_ready(&self) -> bool {
        !self.side.is_empty()
    }

    fn watched(&self) -> usize {
        self.entries.len()
    }

    fn visit(&self, each: &mut dyn FnMut(&Watched, Token, Interest)) {
        self.entries.visit(each);
    }

    fn drain(&mut self, each: &mut dyn FnMut(Watched, Token, Interest)) {
        let mut entries = std::mem::take(&mut self.entries);
        self.side = Side::default();
        for (_, entry) in entries.iter_mut().filter(|(_, entry)| is_armed(entry)) {
            self.suspect |= !self.set.forget(entry.fd());
        }
        entries.drain(each);
    }
}

impl<S: Sys> fmt::Debug for Epoll<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Epoll")
            .field("set", &self.set)
            .field("entries", &self.entries)
            .field("side", &self.side)
            .field("stale", &self.stale)
            .field("rebuilds", &self.rebuilds)
            .finish_non_exhaustive()
    }
}

/// Has the kernel watch `fd`, or puts it beside the set.
#[inline(always)]
fn arm<S: Sys>(
    set: &Set<S>,
    side: &mut Side,
    fd: &Watched,
    token: Token,
    interest: Interest,
) -> io::Result<State> {
    if interest == Interest::NONE {
        return Ok(State::Silent);
    }
    match set.add(fd, token, interest) {
        Ok(()) => Ok(State::Armed),
        Err(error) if is(&error, Errno::PERM) => Ok(State::Side(side.push(token, always(interest)))),
        Err(error) => Err(error),
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    Errno::from_io_error(error) == Some(errno)
}

/// An event that the kernel has not written yet.
const NOTHING: Event = Event {
    flags: EventFlags::empty(),
    data: EventData::new_u64(0),
};

/// The events that the kernel reports.
const REPORTED: Readiness = Readiness::IN
    .union(Readiness::OUT)
    .union(Readiness::HUP)
    .union(Readiness::ERR);
const _: () = assert!(
    Readiness::IN.bits() as u32 == EventFlags::IN.bits()
        && Readiness::OUT.bits() as u32 == EventFlags::OUT.bits()
        && Readiness::HUP.bits() as u32 == EventFlags::HUP.bits()
        && Readiness::ERR.bits() as u32 == EventFlags::ERR.bits()
);

/// Converts what the kernel reports. The bits are the same.
#[inline]
fn readiness(flags: EventFlags) -> Readiness {
    Readiness::from_bits_retain(flags.bits() as u8).intersection(REPORTED)
}

/// What a descriptor is ready for that is always ready.
fn always(interest: Interest) -> Readiness {
    let mut readiness = Readiness::empty();
    readiness.set(Readiness::IN, interest.contains(Interest::READ));
    readiness.set(Readiness::OUT, interest.contains(Interest::WRITE));
    readiness
}
