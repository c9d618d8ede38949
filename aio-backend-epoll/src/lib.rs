//! A [`Backend`] on `epoll(7)`: level-triggered by default, with timeouts in nanoseconds.
//!
//! It suits many descriptors: the cost of a wait grows with the number of events, not of registrations. In return, each change of
//! an interest is a system call.
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
//! - *A regular file*, or any other file that epoll refuses with `EPERM`, is always ready. The backend keeps it in a list of
//!   unpollable files, and no wait blocks while one of them has an interest. If the ready list is short, the set and the
//!   unpollable files fill it in turn.
//! - *Silence*: the kernel reports hang-ups even without an interest. A silent registration is not in the set.
//! - *A descriptor that was closed without `remove`.* If no other descriptor shares its file, the kernel
//!   removes it silently. Otherwise the kernel keeps reporting the file, and no call can delete it. After the
//!   registration is removed, the backend drops such events by their token, and rebuilds the set without it.
//!
//! # What it does not do
//! It does not report [`Readiness::NVAL`](aio_backend::Readiness::NVAL) at once: it detects a descriptor that was closed without
//! `remove` only when it rebuilds the set.
//!
//! A process that forks without `exec` shares the set with its child. Only one of the two may use it
//! afterwards; dropping the backend leaves the set in the kernel as it is.
//!
//! The descriptor of [`Backend::make_pollable`] counts as one more level of nesting than the set itself; Linux allows five.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

/// The example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

mod doubts;
mod entries;
mod reported;
mod set;
pub mod sys;
mod unpollable;
mod wait;

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use aio_backend::{Backend, Interest, Readiness, ReadyList, Registrations, Token, Watched};
use rustix::event::epoll::Event;
use rustix::io::Errno;

use crate::doubts::Doubts;
use crate::entries::{State, disarm_once, is_armed};
use crate::reported::{NOTHING, reported};
use crate::set::{Set, is};
use crate::sys::{Events, Kernel, Sys};
use crate::unpollable::{Unpollable, always, enlist};
use crate::wait::Limit;

/// The initial capacity for events. A wait for at most this many allocates nothing.
const EVENTS: usize = 64;
/// The largest number of events that one wait reports, even if the list has room for more.
const EVENTS_MAX: usize = 1024;

/// Waits with `epoll_wait(2)`.
///
/// # Examples
/// ```
/// use std::rc::Rc;
/// use std::time::Duration;
/// use aio_backend::{Backend, Interest, Readiness, ReadyList, Token};
/// use aio_backend_epoll::Epoll;
///
/// let (reader, writer) = std::io::pipe()?;
/// let token = Token::new(0, 0);
/// let mut backend = Epoll::new()?;
/// backend.add(Rc::new(reader).into(), token, Interest::READ | Interest::EDGE)?;
/// drop(writer);
///
/// let mut ready = ReadyList::new();
/// backend.wait(None, &mut ready)?;
/// assert_eq!(ready.iter().next(), Some((token, Readiness::HUP)));
/// // The hang-up is reported once.
/// ready.clear();
/// backend.wait(Some(Duration::ZERO), &mut ready)?;
/// assert!(ready.is_empty());
/// # Ok::<(), std::io::Error>(())
/// ```
#[doc(alias = "epoll_create1")]
pub struct Epoll<S = Kernel> {
    set: Set<S>,
    entries: Registrations,
    unpollable: Unpollable,
    /// Set if the next wait reserves room for the unpollable files. Alternates, for lists that are too short.
    reserves_room: bool,
    /// The last removed token that may still be in the set. Without one, the set has only armed entries.
    left_over: Option<Token>,
    doubts: Doubts,
    events: Vec<Event>,
    stale: u64,
    rebuilds: u64,
}

impl Epoll {
    /// Makes a backend without registrations.
    ///
    /// # Errors
    /// The error of the system, such as `EMFILE` if the process may open no more descriptors.
    pub fn new() -> io::Result<Self> {
        Self::with_sys(Kernel)
    }
}

impl<S: Sys> Epoll<S> {
    /// As [`new`](Epoll::new), on another kernel.
    ///
    /// # Errors
    /// The error of `sys`, if it cannot create a set.
    pub fn with_sys(sys: S) -> io::Result<Self> {
        Ok(Self {
            set: Set::new(sys)?,
            entries: Registrations::new(),
            unpollable: Unpollable::default(),
            reserves_room: false,
            left_over: None,
            doubts: Doubts::default(),
            events: vec![NOTHING; EVENTS],
            stale: 0,
            rebuilds: 0,
        })
    }

    /// Returns the number of events that arrived after the removal of their registrations and were dropped.
    #[must_use]
    pub fn stale_events(&self) -> u64 {
        self.stale
    }

    /// Returns the number of times that the set in the kernel was rebuilt.
    #[must_use]
    pub fn rebuilds(&self) -> u64 {
        self.rebuilds
    }

    /// Removes an entry from the set or from the unpollable files. Returns `false` if it may still be in the set.
    #[cold]
    fn disarm(&mut self, fd: &Watched, state: State) -> bool {
        match state {
            State::Silent => {}
            State::Armed | State::Disarmed => return self.set.forget(fd),
            State::ArmedOnce => {
                self.doubts.remove(true);
                return self.set.forget(fd);
            }
            State::Unpollable(place) => self.remove_unpollable(place),
        }
        true
    }

    /// Removes the unpollable file at `place`.
    #[cold]
    fn remove_unpollable(&mut self, place: u32) {
        if let Some(moved) = self.unpollable.swap_remove(place)
            && let Some(entry) = self.entries.get_mut(moved)
        {
            entry.set_mark(State::Unpollable(place).mark());
        }
    }

    /// Reports the unpollable files. One-shot ones are silent afterwards.
    #[cold]
    fn collect_unpollable(&mut self, ready: &mut ReadyList) {
        let first = ready.len();
        self.unpollable.collect(ready);
        for (token, _) in ready.iter_from(first) {
            if let Some(entry) = self.entries.get_mut(token)
                && entry.interest().contains(Interest::ONESHOT)
                && let State::Unpollable(place) = State::of(entry)
            {
                entry.set(Interest::NONE, State::Silent.mark());
                self.remove_unpollable(place);
            }
        }
    }

    /// Rebuilds the set from the entries, without the files that cannot be deleted from the old set.
    ///
    /// If this fails, the next wait tries again.
    #[cold]
    fn rebuild(&mut self) -> io::Result<()> {
        self.doubts.set_to_verify(true);
        self.set.renew()?;
        self.rebuilds += 1;
        let (set, unpollable) = (&self.set, &mut self.unpollable);
        for (token, entry) in self.entries.iter_mut() {
            match State::of(entry) {
                State::Silent | State::Unpollable(_) => continue,
                State::Armed | State::ArmedOnce => {}
                State::Disarmed => {
                    entry.set_mark(State::Silent.mark());
                    continue;
                }
            }
            let state = match set.add(entry.fd(), token, entry.interest()) {
                Ok(()) => continue,
                Err(error) if is(&error, Errno::PERM) => always(entry.interest()),
                Err(error) if is(&error, Errno::NOSPC) || is(&error, Errno::NOMEM) => return Err(error),
                // The number is not open, or now means a file that cannot be watched, such as the new set itself.
                Err(_) => Readiness::NVAL,
            };
            self.doubts.remove(State::of(entry) == State::ArmedOnce);
            entry.set_mark(enlist(unpollable, token, state).mark());
        }
        self.doubts.set_to_verify(false);
        self.doubts.remove(self.left_over.take().is_some());
        tracing::debug!(
            stale = self.stale,
            rebuilds = self.rebuilds,
            "the epoll set was rebuilt"
        );
        Ok(())
    }

    /// Waits for at most `room` events of the set.
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
            if self.doubts.is_to_verify() {
                self.rebuild()?;
            }
            let found = wait::wait(self.set.inner(), &mut Events(&mut self.events[..room]), limit)?;
            if !self.doubts.has_any() {
                ready.extend(&self.events[..found], reported);
                return Ok(());
            }
            if self.report_known(found, ready) > 0 || found == 0 {
                return Ok(());
            }
            limit = limit.rest(self.set.inner().0);
        }
    }
}

impl<S: Sys> Epoll<S> {
    /// Returns whether all registrations are in the set, and each event belongs to one that stays armed.
    #[inline]
    fn is_usual(&self) -> bool {
        self.unpollable.is_empty() && !self.doubts.has_any()
    }

    /// Waits with a timeout, with unpollable files, or on a set that may differ from the registrations or has
    /// one-shot entries.
    #[inline(never)]
    fn wait_unusually(&mut self, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        // If the list is full, the caller must handle its events first.
        let room = ready.room();
        let (timeout, reserved) = if self.unpollable.is_empty() {
            (timeout, 0)
        } else {
            self.reserves_room = !self.reserves_room;
            let reserved = if self.reserves_room {
                self.unpollable.len()
            } else {
                0
            };
            (Some(Duration::ZERO), reserved)
        };
        let for_set = room.saturating_sub(reserved);
        if for_set > 0 {
            match self.wait_for_set(timeout, for_set, ready) {
                Err(error) if !is(&error, Errno::INTR) => return Err(error),
                _ => {}
            }
        }
        if !self.unpollable.is_empty() {
            self.collect_unpollable(ready);
        }
        Ok(())
    }

    /// Reports the events whose registrations are in the set, and requests a rebuild if there are others.
    /// Returns the number of events that it reported.
    fn report_known(&mut self, found: usize, ready: &mut ReadyList) -> usize {
        let mut reports = 0;
        for event in &self.events[..found] {
            let (token, readiness) = reported(event);
            let known = self.entries.get(token);
            if !known.is_some_and(is_armed) {
                if !disarm_once(&mut self.entries, token) {
                    continue;
                }
                self.doubts.remove(true);
            }
            ready.push(token, readiness);
            reports += 1;
        }
        self.stale += (found - reports) as u64;
        self.doubts.verify_if(reports < found);
        reports
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
        let state = arm(&self.set, &mut self.unpollable, &fd, token, interest)?;
        // Events of the left-over entry, which is a doubt, carry the same token.
        if self.doubts.has_any() {
            self.doubts.verify_if(self.left_over == Some(token));
        }
        if state == State::ArmedOnce {
            self.doubts.add(true);
        }
        self.entries.insert(token, fd, interest, state.mark());
        Ok(())
    }

    #[inline(always)]
    fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        let Some(entry) = self.entries.get_mut(token) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let (former, fd) = (State::of(entry), entry.fd());
        // Most changes are between armed interests that are not one-shot, and succeed.
        let is_usual = former == State::Armed && State::armed(interest) == former;
        let is_usual = is_usual && interest != Interest::NONE && interest != entry.interest();
        let modified = is_usual.then(|| self.set.modify(fd, token, interest));
        if matches!(modified, Some(Ok(()))) {
            entry.set(interest, former.mark());
            return Ok(());
        }
        let state = match former {
            // Setting the same interest again arms an edge-triggered or one-shot one.
            _ if entry.interest() == interest && !interest.reports_once() => return Ok(()),
            State::Silent => arm(&self.set, &mut self.unpollable, fd, token, interest)?,
            State::Armed | State::ArmedOnce if interest == Interest::NONE => {
                // A stale event could not be told from a later one of this token: verify the set at once.
                self.doubts.verify_if(!self.set.forget(fd));
                State::Silent
            }
            State::Armed | State::ArmedOnce | State::Disarmed => {
                match modified.unwrap_or_else(|| self.set.modify(fd, token, interest)) {
                    // The number means another file now. The old file may still be in the set, with the same token.
                    Err(error) if is(&error, Errno::NOENT) => {
                        self.doubts.verify_if(true);
                        arm(&self.set, &mut self.unpollable, fd, token, interest)?
                    }
                    modified => modified.map(|()| State::armed(interest))?,
                }
            }
            State::Unpollable(_) if always(interest).is_empty() => State::Silent,
            State::Unpollable(place) => {
                self.unpollable.set(place, always(interest));
                former
            }
        };
        entry.set(interest, state.mark());
        self.doubts.add(state == State::ArmedOnce);
        self.doubts.remove(former == State::ArmedOnce);
        if let (State::Unpollable(place), State::Silent) = (former, state) {
            self.remove_unpollable(place);
        }
        Ok(())
    }

    #[inline(always)]
    fn remove(&mut self, token: Token) -> io::Result<()> {
        let Some(entry) = self.entries.remove(token) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let is_out = if is_armed(&entry) {
            self.set.forget(entry.fd())
        } else {
            self.disarm(entry.fd(), State::of(&entry))
        };
        if !is_out {
            // Its first event, if there is one, reveals it. The token does not return, except at once, when a
            // caller replaces the descriptor of a registration.
            self.doubts.add(self.left_over.replace(token).is_none());
        }
        Ok(())
    }

    // Inlined by force: see `wait.rs`.
    #[inline(always)]
    fn wait(&mut self, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        let (is_usual, room) = (self.is_usual(), ready.room());
        let (sys, set) = self.set.inner();
        let mut events = match self.events.get_mut(..room) {
            Some(events) if is_usual && room > 0 => Events(events),
            // Also if memory must be reserved for more events.
            _ => return self.wait_unusually(timeout, ready),
        };
        // Two calls, so that each is compiled for its timeout.
        let found = match timeout {
            Some(Duration::ZERO) => sys.wait(set, &mut events, Some(Duration::ZERO)),
            None => sys.wait(set, &mut events, None),
            Some(_) => return self.wait_unusually(timeout, ready),
        };
        match found {
            Ok(0) => Ok(()),
            Ok(found) => {
                ready.extend(&self.events[..found], reported);
                Ok(())
            }
            Err(error) if is(&error, Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn reports_edges(&self) -> bool {
        true
    }

    fn make_pollable(&mut self) -> io::Result<Option<BorrowedFd<'_>>> {
        Ok(Some(self.set.pollable()?))
    }

    fn always_ready(&self) -> bool {
        !self.unpollable.is_empty()
    }

    fn watched(&self) -> usize {
        self.entries.len()
    }

    fn visit(&self, each: &mut dyn FnMut(&Watched, Token, Interest)) {
        self.entries.visit(each);
    }

    fn drain(&mut self, each: &mut dyn FnMut(Watched, Token, Interest)) {
        let entries = std::mem::take(&mut self.entries);
        self.unpollable = Unpollable::default();
        for (_, entry) in entries.iter().filter(|(_, entry)| State::of(entry).is_in_set()) {
            self.doubts.remove(State::of(entry) == State::ArmedOnce);
            self.doubts.verify_if(!self.set.forget(entry.fd()));
        }
        entries.drain(each);
    }
}

impl<S: Sys> fmt::Debug for Epoll<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Epoll")
            .field("set", &self.set)
            .field("entries", &self.entries)
            .field("unpollable", &self.unpollable)
            .field("stale", &self.stale)
            .field("rebuilds", &self.rebuilds)
            .finish_non_exhaustive()
    }
}

/// Adds `fd` to the set, or to the unpollable files.
#[inline(always)]
fn arm<S: Sys>(
    set: &Set<S>,
    unpollable: &mut Unpollable,
    fd: &Watched,
    token: Token,
    interest: Interest,
) -> io::Result<State> {
    if interest == Interest::NONE {
        return Ok(State::Silent);
    }
    match set.add(fd, token, interest) {
        Ok(()) => Ok(State::armed(interest)),
        Err(error) if is(&error, Errno::PERM) => Ok(enlist(unpollable, token, always(interest))),
        Err(error) => Err(error),
    }
}
