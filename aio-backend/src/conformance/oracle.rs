//! [`Oracle`]: a backend around a backend that compares every result with the kernel's state.
//!
//! It reads the state of each single descriptor right before and right after a wait. Only the event that ends the wait may change
//! the state in between.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::fixtures::need;
use super::recent::Recent;
use crate::{Backend, Interest, Peek, Readiness, ReadyList, Token, Watched};

/// A wait that reports this many events may leave others for the next wait.
const BATCH: usize = 64;

/// Forwards all calls to a backend, records the registrations, and panics if a result is wrong:
///
/// - an event for an unknown or silent registration, or a readiness outside the interest or the kernel's state;
/// - a wait that leaves out a ready registration although the list had room;
/// - a registration that stays ready for many waits and is never reported;
/// - a second event for an interest in one event;
/// - an unknown token without an error, or a known token that is added again;
/// - a `drain` that differs from the recorded registrations.
///
/// # Examples
/// An oracle around a backend that reports nothing:
///
/// ```should_panic
/// # use std::{io, rc::Rc, time::Duration};
/// # use aio_backend::{Backend, Interest, ReadyList, Token, Watched};
/// use aio_backend::conformance::Oracle;
/// # #[derive(Debug)]
/// # struct Mute;
/// # impl Backend for Mute {
/// #     fn name(&self) -> &'static str { "mute" }
/// #     fn add(&mut self, _: Watched, _: Token, _: Interest) -> io::Result<()> { Ok(()) }
/// #     fn modify(&mut self, _: Token, _: Interest) -> io::Result<()> { Ok(()) }
/// #     fn remove(&mut self, _: Token) -> io::Result<()> { Ok(()) }
/// #     fn wait(&mut self, _: Option<Duration>, _: &mut ReadyList) -> io::Result<()> { Ok(()) }
/// #     fn watched(&self) -> usize { 1 }
/// #     fn visit(&self, _: &mut dyn FnMut(&Watched, Token, Interest)) {}
/// #     fn drain(&mut self, _: &mut dyn FnMut(Watched, Token, Interest)) {}
/// # }
/// # fn main() -> io::Result<()> {
///
/// let (_reader, writer) = std::io::pipe()?;
/// let mut backend = Mute;
/// let mut oracle = Oracle::new(&mut backend);
/// oracle.add(Rc::new(writer).into(), Token::new(0, 0), Interest::WRITE)?;
/// assert_eq!(oracle.truth().len(), 1);
/// oracle.wait(Some(Duration::ZERO), &mut ReadyList::new())?; // panics: the pipe has room
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Oracle<'a> {
    backend: &'a mut dyn Backend,
    registrations: BTreeMap<Token, Registration>,
    recent: Recent,
}

#[derive(Debug)]
struct Registration {
    fd: Watched,
    interest: Interest,
    /// The number of other events since this registration became ready without being reported.
    passed_over: usize,
}

impl<'a> Oracle<'a> {
    /// Makes an oracle around an empty backend.
    pub fn new(backend: &'a mut dyn Backend) -> Self {
        Self {
            backend,
            registrations: BTreeMap::new(),
            recent: Recent::default(),
        }
    }

    /// Takes over the registrations of a backend: drains it and adds them again.
    pub(super) fn drain_and_adopt(&mut self) {
        let mut all = Vec::new();
        self.backend
            .drain(&mut |fd, token, interest| all.push((fd, token, interest)));
        for (fd, token, interest) in all {
            need(self.add(fd, token, interest), "an add after a drain");
        }
    }

    /// Returns the number of registrations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.registrations.len()
    }

    /// Returns whether there are no registrations.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.registrations.is_empty()
    }

    /// Returns the ready registrations and their readiness, from the kernel's state of each single descriptor.
    ///
    /// # Panics
    /// If the system call fails.
    #[must_use]
    pub fn truth(&self) -> BTreeMap<Token, Readiness> {
        let active = || {
            self.registrations
                .iter()
                .filter(|(_, one)| one.interest != Interest::NONE)
        };
        let mut polled: Vec<PollFd<'_>> = active()
            .map(|(_, one)| PollFd::new(&one.fd, flags(one.interest)))
            .collect();
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        need(poll(&mut polled, Some(&now)), "polling the descriptors");
        active()
            .zip(&polled)
            .map(|((token, _), answer)| (*token, readiness(answer.revents())))
            .filter(|(_, readiness)| !readiness.is_empty())
            .collect()
    }

    /// Records that one-shot interests have ended.
    fn end_interests(&mut self, came: &[(Token, Readiness)]) {
        for (token, _) in came {
            if let Some(one) = self.registrations.get_mut(token)
                && one.interest.contains(Interest::ONESHOT)
            {
                (one.interest, one.passed_over) = (Interest::NONE, 0);
                let events = came.iter().filter(|(other, _)| other == token).count();
                assert_eq!(
                    events, 1,
                    "{token:?} waits for one event, and {events} were reported"
                );
            }
        }
    }

    /// Compares the events in a list with the state before and after.
    fn judge(&mut self, call: &str, before: &BTreeMap<Token, Readiness>, came: &[(Token, Readiness)]) {
        let after = self.truth();
        for &(token, readiness) in came {
            let Some(one) = self.registrations.get(&token) else {
                panic!("{call} reported {readiness:?} for {token:?}, which is not watched");
            };
            assert!(!readiness.is_empty(), "{call} reported {token:?} for nothing");
            assert!(
                one.interest != Interest::NONE,
                "{call} reported {readiness:?} for {token:?}, which is silent"
            );
            let was = before.get(&token).copied().unwrap_or_default();
            let is = after.get(&token).copied().unwrap_or_default();
            assert!(
                (was | is).contains(readiness),
                "{call} reported {readiness:?} for {token:?}, which waits for {:?} and is {is:?}",
                one.interest
            );
        }
    }

    /// Asserts that each ready registration was reported, or is reported in time.
    fn judge_turns(&mut self, before: &BTreeMap<Token, Readiness>, room: usize, came: &[(Token, Readiness)]) {
        let watched = self.registrations.len();
        let is_all = came.len() < room.min(BATCH);
        let mut sums = BTreeMap::<Token, Readiness>::new();
        for &(token, readiness) in came {
            *sums.entry(token).or_default() |= readiness;
        }
        for (token, one) in &mut self.registrations {
            let was = before.get(token).copied().unwrap_or_default();
            let reported = sums.get(token).copied().unwrap_or_default();
            if reported.contains(was) {
                one.passed_over = 0;
                continue;
            }
            assert!(
                !is_all,
                "{token:?} was {was:?}, and a wait with room for {room} reported it as {reported:?}, though only {} came",
                came.len()
            );
            one.passed_over += came.len();
            // Round robin skips each registration at most once; additions and removals may disturb it a little.
            assert!(
                one.passed_over <= 4 * watched + 2 * BATCH,
                "{token:?} starves: {} of {watched} had a turn before it",
                one.passed_over
            );
        }
    }
}

impl Backend for Oracle<'_> {
    fn name(&self) -> &'static str {
        self.backend.name()
    }

    fn add(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()> {
        self.recent.call(format_args!("add {token:?} for {interest:?}"));
        let result = self.backend.add(fd.clone(), token, interest);
        self.recent.result(format_args!("{result:?}"));
        if result.is_ok() {
            let one = Registration {
                fd,
                interest,
                passed_over: 0,
            };
            let before = self.registrations.insert(token, one);
            assert!(before.is_none(), "{token:?} was added twice without an error");
        }
        result
    }

    fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        self.recent.call(format_args!("modify {token:?} to {interest:?}"));
        let result = self.backend.modify(token, interest);
        self.recent.result(format_args!("{result:?}"));
        match self.registrations.get_mut(&token) {
            Some(one) if result.is_ok() => one.interest = interest,
            Some(_) => {}
            None => assert_not_found("modify", token, &result),
        }
        result
    }

    fn remove(&mut self, token: Token) -> io::Result<()> {
        self.recent.call(format_args!("remove {token:?}"));
        let result = self.backend.remove(token);
        self.recent.result(format_args!("{result:?}"));
        if self.registrations.remove(&token).is_none() {
            assert_not_found("remove", token, &result);
        }
        result
    }

    fn wait(&mut self, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        let before = self.truth();
        let (held, room) = (ready.iter().collect::<Vec<_>>(), ready.room());
        self.recent
            .call(format_args!("wait {timeout:?} with room for {room}"));
        let result = self.backend.wait(timeout, ready);
        let all: Vec<_> = ready.iter().collect();
        self.recent
            .result(format_args!("{result:?}, {:?}", all.get(held.len()..)));
        assert!(
            all.starts_with(&held) && all.len() <= held.len() + room,
            "a wait turned {held:?}, with room for {room}, into {all:?}"
        );
        let came = &all[held.len()..];
        self.judge("a wait", &before, came);
        if result.is_ok() && room > 0 {
            self.judge_turns(&before, room, came);
        }
        self.end_interests(came);
        result
    }

    fn peek(&mut self, ready: &mut ReadyList) -> io::Result<Peek> {
        let (before, held) = (self.truth(), ready.len());
        self.recent.call(format_args!("peek"));
        let result = self.backend.peek(ready);
        let came: Vec<_> = ready.iter().skip(held).collect();
        self.recent.result(format_args!("{result:?}, {came:?}"));
        self.judge("a peek", &before, &came);
        self.end_interests(&came);
        assert!(
            came.is_empty() || matches!(result, Ok(Peek::Checked)),
            "a peek that is unsupported reported {came:?}"
        );
        result
    }

    fn rebalance(&mut self) {
        self.recent.call(format_args!("rebalance"));
        self.backend.rebalance();
    }

    fn make_pollable(&mut self) -> io::Result<Option<BorrowedFd<'_>>> {
        self.backend.make_pollable()
    }

    fn always_ready(&self) -> bool {
        self.backend.always_ready()
    }

    fn watched(&self) -> usize {
        let watched = self.backend.watched();
        assert_eq!(
            watched,
            self.registrations.len(),
            "a wrong number of registrations"
        );
        watched
    }

    fn visit(&self, each: &mut dyn FnMut(&Watched, Token, Interest)) {
        let mut seen = BTreeSet::new();
        self.backend.visit(&mut |fd, token, interest| {
            let registered = self
                .registrations
                .get(&token)
                .map(|one| (one.fd.as_raw_fd(), one.interest));
            assert_eq!(
                registered,
                Some((fd.as_raw_fd(), interest)),
                "{token:?} was shown with a wrong descriptor or interest"
            );
            assert!(seen.insert(token), "{token:?} was shown twice");
            each(fd, token, interest);
        });
        assert_eq!(
            seen.len(),
            self.registrations.len(),
            "a registration was not shown"
        );
    }

    fn drain(&mut self, each: &mut dyn FnMut(Watched, Token, Interest)) {
        let mut registrations = std::mem::take(&mut self.registrations);
        self.recent.call(format_args!("drain"));
        self.backend.drain(&mut |fd, token, interest| {
            let Some(one) = registrations.remove(&token) else {
                panic!("a drain handed {token:?} over, which was not watched, or was handed over before");
            };
            assert_eq!(
                (fd.as_raw_fd(), interest),
                (one.fd.as_raw_fd(), one.interest),
                "a drain handed {token:?} over with a wrong descriptor or interest"
            );
            drop(one);
            each(fd, token, interest);
        });
        assert!(
            registrations.is_empty(),
            "a drain kept {:?}",
            registrations.keys()
        );
    }
}

fn assert_not_found(call: &str, token: Token, result: &io::Result<()>) {
    let seen = result.as_ref().map_err(io::Error::kind);
    assert!(
        seen == Err(io::ErrorKind::NotFound),
        "{call} of {token:?}, which is not watched: expected NotFound, got {seen:?}"
    );
}

/// Returns `true` if the kernel reports this descriptor readable.
pub(super) fn is_readable(fd: impl AsFd) -> bool {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let answer = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&now));
    need(answer, "polling the descriptor") == 1
}

fn flags(interest: Interest) -> PollFlags {
    let events = interest.mask() - (Readiness::HUP | Readiness::ERR | Readiness::NVAL);
    PollFlags::from_bits_retain(events.to_system() as _)
}

fn readiness(answer: PollFlags) -> Readiness {
    Readiness::from_system(answer.bits() as u32)
}
