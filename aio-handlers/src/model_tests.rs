//! Random operations on a registry, beside a naive model and with a fake backend.
//!
//! The model keeps no lists: it checks every handler whenever a pause or an exclusion ends. The fake backend is level-triggered and
//! obeys the registry. If masking loses a wake-up, a handler stays ready and is never reported.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::RawFd;

use aio_backend::{Interest, Readiness, Token};

use crate::{GroupId, Recorded, Registry};

/// Returns random numbers whose seed is printed, so that a failure can be repeated with `AIO_SEED`.
pub(crate) fn rng() -> fastrand::Rng {
    let given = std::env::var("AIO_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    println!("AIO_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

#[derive(Debug)]
struct Known {
    fd: Option<RawFd>,
    value: u32,
    interest: Interest,
    group: GroupId,
    pending: Readiness,
    exclusions: u32,
    /// The exclusions that ended when their value was replaced, and were not readmitted yet.
    ended: u32,
    rejected: bool,
}

/// A registry, its model, and the backend that obeys it.
#[derive(Debug, Default)]
struct Pair {
    real: Registry<u32>,
    known: BTreeMap<Token, Known>,
    depth: BTreeMap<GroupId, u32>,
    /// The interests in the backend.
    armed: BTreeMap<Token, Interest>,
    stale: Vec<Token>,
}

impl Pair {
    fn new() -> Self {
        let mut pair = Self::default();
        pair.depth.insert(GroupId::DEFAULT, 0);
        for _ in 0..2 {
            pair.depth.insert(pair.real.new_group(), 0);
        }
        pair
    }

    fn blocked(&self, token: Token) -> bool {
        let known = &self.known[&token];
        known.exclusions != 0 || self.depth[&known.group] != 0
    }

    fn insert(&mut self, fd: Option<RawFd>, value: u32, interest: Interest, group: GroupId) {
        let there = self
            .known
            .iter()
            .find(|(_, known)| fd.is_some() && known.fd == fd)
            .map(|(token, _)| *token);
        match self.real.insert(fd, value, interest, group) {
            Err(occupied) => assert_eq!((Some(occupied.token), occupied.value), (there, value)),
            Ok(token) => {
                assert_eq!(there, None);
                assert!(!self.stale.contains(&token), "a token comes once");
                self.armed.insert(token, interest);
                let known = Known {
                    fd,
                    value,
                    interest,
                    group,
                    pending: Readiness::empty(),
                    exclusions: 0,
                    ended: 0,
                    rejected: false,
                };
                self.known.insert(token, known);
            }
        }
    }

    fn remove(&mut self, token: Token) {
        let known = self.known.remove(&token).unwrap();
        assert_eq!(self.real.remove(token), Some(known.value));
        self.armed.remove(&token);
        self.stale.push(token);
    }

    fn replace(&mut self, token: Token, value: u32) {
        let known = self.known.get_mut(&token).unwrap();
        assert_eq!(self.real.replace(token, value), Some(known.value));
        (known.value, known.pending) = (value, Readiness::empty());
    }

    /// Replaces the present value by another one, which waits for `interest`.
    fn succeed(&mut self, token: Token, value: u32, interest: Interest) {
        let known = self.known.get_mut(&token).unwrap();
        let is_paused = self.depth[&known.group] != 0;
        let was_excluded = known.exclusions != 0;
        let former = std::mem::replace(&mut known.value, value);
        (known.interest, known.pending) = (interest, Readiness::empty());
        known.ended += std::mem::take(&mut known.exclusions);
        let rearm = (was_excluded && !is_paused && known.rejected).then_some(interest);
        known.rejected &= rearm.is_none();
        let replaced = self.real.succeed(token, value, interest, |_, _| false).unwrap();
        assert_eq!(
            (replaced.former, replaced.is_other, replaced.rearm),
            (former, true, rearm)
        );
        self.armed
            .insert(token, self.real.effective_interest(token).unwrap());
    }

    fn set_interest(&mut self, token: Token, interest: Interest) {
        let known = self.known.get_mut(&token).unwrap();
        assert_eq!(self.real.set_interest(token, interest), Some(known.interest));
        known.interest = interest;
        known.pending &= interest.mask();
        self.armed
            .insert(token, self.real.effective_interest(token).unwrap());
    }

    fn record(&mut self, token: Token, readiness: Readiness) {
        let blocked = self.blocked(token);
        let known = self.known.get_mut(&token).unwrap();
        let recorded = self.real.record(token, readiness);
        if blocked {
            assert_eq!(recorded, Recorded::Masked);
            (known.rejected, known.pending) = (true, Readiness::empty());
            self.armed.insert(token, Interest::NONE);
        } else {
            assert_eq!(recorded, Recorded::Live);
            known.pending |= readiness & known.interest.mask();
        }
    }

    fn take(&mut self, token: Token) -> bool {
        let blocked = self.blocked(token);
        let known = self.known.get_mut(&token).unwrap();
        let pending = std::mem::take(&mut known.pending);
        let expected = (!blocked && !pending.is_empty()).then_some((&known.value, pending, known.interest));
        assert_eq!(self.real.take_ready(token), expected);
        expected.is_some()
    }

    fn exclude(&mut self, token: Token) {
        assert!(self.real.exclude(token));
        self.known.get_mut(&token).unwrap().exclusions += 1;
    }

    fn readmit(&mut self, token: Token) {
        let known = self.known.get_mut(&token).unwrap();
        if known.exclusions == 0 {
            known.ended -= 1;
            return assert_eq!(self.real.readmit(token), None);
        }
        known.exclusions -= 1;
        let blocked = self.blocked(token);
        let known = self.known.get_mut(&token).unwrap();
        let expected = (!blocked && known.rejected).then_some(known.interest);
        let rearmed = self.real.readmit(token);
        assert_eq!(rearmed, expected);
        if let Some(interest) = rearmed {
            known.rejected = false;
            self.armed.insert(token, interest);
        }
    }

    fn pause(&mut self, group: GroupId) {
        let depth = self.depth.get_mut(&group).unwrap();
        *depth += 1;
        assert_eq!(self.real.pause(group), *depth);
    }

    fn resume(&mut self, group: GroupId) {
        let depth = self.depth.get_mut(&group).unwrap();
        *depth -= 1;
        let last = *depth == 0;
        let mut expected = BTreeMap::new();
        for (token, known) in self.known.iter_mut().filter(|_| last) {
            if known.group == group && known.exclusions == 0 && std::mem::take(&mut known.rejected) {
                expected.insert(*token, known.interest);
            }
        }
        let mut rearmed = BTreeMap::new();
        let ended = self.real.resume(group, &mut |token, interest| {
            assert_eq!(rearmed.insert(token, interest), None, "each is named once");
        });
        assert_eq!((ended, &rearmed), (last, &expected));
        self.armed.append(&mut rearmed);
    }

    /// One wait: records each handler in `ready` that is not silent in the backend.
    fn wait(&mut self, ready: &BTreeMap<Token, Readiness>) -> Vec<Token> {
        let seen: Vec<(Token, Readiness)> = self
            .armed
            .iter()
            .filter(|(_, armed)| **armed != Interest::NONE)
            .filter_map(|(token, armed)| Some((*token, *ready.get(token)? & armed.mask())))
            .filter(|(_, readiness)| !readiness.is_empty())
            .collect();
        for (token, readiness) in &seen {
            self.record(*token, *readiness);
        }
        seen.into_iter().map(|(token, _)| token).collect()
    }

    fn compare(&self) {
        self.real.check();
        assert_eq!(self.real.len(), self.known.len());
        assert_eq!(self.real.is_empty(), self.known.is_empty());
        let all: BTreeSet<Token> = self.real.tokens().collect();
        assert_eq!(all, self.known.keys().copied().collect());
        for (token, known) in &self.known {
            let token = *token;
            assert_eq!(self.real.get(token), Some(&known.value));
            assert_eq!(self.real.interest(token), Some(known.interest));
            assert_eq!(self.real.group(token), Some(known.group));
            assert_eq!(
                self.real.effective_interest(token),
                self.armed.get(&token).copied()
            );
            if let Some(fd) = known.fd {
                assert_eq!(self.real.token_of(fd), Some(token));
            }
        }
        for (group, depth) in &self.depth {
            assert_eq!(self.real.is_paused(*group), *depth != 0);
        }
    }

    fn stale_tokens_do_nothing(&mut self) {
        let Some(token) = self.stale.last().copied() else {
            return;
        };
        let real = &mut self.real;
        assert_eq!(
            (real.get(token), real.interest(token), real.group(token)),
            (None, None, None)
        );
        assert_eq!(real.effective_interest(token), None);
        assert_eq!(real.record(token, Readiness::all()), Recorded::Stale);
        assert_eq!(real.take_ready(token), None);
        assert_eq!((real.remove(token), real.replace(token, 0)), (None, None));
        assert_eq!(
            (real.set_interest(token, Interest::READ), real.readmit(token)),
            (None, None)
        );
        assert!(!real.exclude(token) && real.get_mut(token).is_none());
        real.give_back([token]);
    }

    fn random_step(&mut self, rng: &mut fastrand::Rng, step: u32) {
        let interest = Interest::from_bits_truncate(rng.u8(..)) - (Interest::EDGE | Interest::ONESHOT);
        let readiness = Readiness::from_bits_truncate(rng.u16(..));
        let group = *self.depth.keys().nth(rng.usize(0..self.depth.len())).unwrap();
        let operation = rng.u32(0..17);
        match operation {
            0..=2 => {
                let fd = rng.bool().then(|| rng.i32(0..6));
                return self.insert(fd, step, interest, group);
            }
            3 => return self.pause(group),
            4 | 5 if self.depth[&group] != 0 => return self.resume(group),
            6 => return self.stale_tokens_do_nothing(),
            _ => {}
        }
        if self.known.is_empty() {
            return;
        }
        let index = rng.usize(0..self.known.len());
        let (&token, known) = self.known.iter_mut().nth(index).unwrap();
        match operation {
            7 => self.remove(token),
            8 => self.replace(token, step),
            9 => self.set_interest(token, interest),
            10 => self.exclude(token),
            11 if known.exclusions + known.ended != 0 => self.readmit(token),
            12 => {
                known.pending = Readiness::empty();
                self.real.give_back([token]);
            }
            13 => {
                self.take(token);
            }
            14 => self.succeed(token, step, interest),
            _ => self.record(token, readiness),
        }
    }

    /// Ends all exclusions and pauses, in random order.
    fn settle(&mut self, rng: &mut fastrand::Rng) {
        let mut todo: Vec<Result<Token, GroupId>> = Vec::new();
        for (token, known) in &self.known {
            todo.extend((0..known.exclusions + known.ended).map(|_| Ok(*token)));
        }
        for (group, depth) in &self.depth {
            todo.extend((0..*depth).map(|_| Err(*group)));
        }
        rng.shuffle(&mut todo);
        for end in todo {
            match end {
                Ok(token) => self.readmit(token),
                Err(group) => self.resume(group),
            }
            self.compare();
        }
    }
}

#[test]
fn r2_r3_r8_r9_d1_b5_a9_random_operations_agree_with_a_naive_model() {
    let mut rng = rng();
    for _ in 0..3_000 {
        let mut pair = Pair::new();
        for step in 0..60 {
            pair.random_step(&mut rng, step);
            pair.compare();
        }
        pair.settle(&mut rng);
    }
}

/// B5, A9: when all pauses and exclusions have ended, the next wait calls each ready handler and no other.
#[test]
fn b5_a9_nothing_is_lost_by_masking() {
    let mut rng = rng();
    for _ in 0..1_000 {
        let mut pair = Pair::new();
        let mut ready: BTreeMap<Token, Readiness> = BTreeMap::new();
        for step in 0..60 {
            pair.random_step(&mut rng, step);
            for token in pair.known.keys() {
                if rng.u8(0..8) == 0 {
                    let bits = rng.u16(0..16);
                    ready.insert(*token, Readiness::from_bits_truncate(bits));
                }
            }
            if rng.bool() {
                for token in pair.wait(&ready) {
                    pair.take(token);
                }
            }
        }
        pair.settle(&mut rng);
        // Drops the readiness recorded by the random steps.
        for token in pair.known.keys().copied().collect::<Vec<_>>() {
            pair.take(token);
        }
        let mut called = BTreeSet::new();
        for token in pair.wait(&ready) {
            if pair.take(token) {
                called.insert(token);
            }
        }
        let due = pair.known.iter().filter(|(token, known)| {
            let ready = ready.get(token).copied().unwrap_or_default();
            known.interest != Interest::NONE && ready.intersects(known.interest.mask())
        });
        assert_eq!(called, due.map(|(token, _)| *token).collect());
    }
}

/// B5: a masked handler is silent, so that a level-triggered backend does not spin on it: each is rejected once per
/// pause.
#[test]
fn b5_a_pause_costs_one_event_for_each_that_is_ready() {
    let mut rng = rng();
    for _ in 0..200 {
        let mut pair = Pair::new();
        let group = *pair.depth.keys().last().unwrap();
        for fd in 0..20 {
            pair.insert(Some(fd), 0, Interest::READ, group);
        }
        let tokens: Vec<Token> = pair.known.keys().copied().collect();
        let is_ready = tokens.iter().filter(|_| rng.bool());
        let ready: BTreeMap<Token, Readiness> = is_ready.map(|token| (*token, Readiness::IN)).collect();
        pair.pause(group);
        assert_eq!(pair.wait(&ready).len(), ready.len());
        assert_eq!(pair.wait(&ready).len(), 0);
        pair.pause(group);
        pair.resume(group);
        assert_eq!(pair.wait(&ready).len(), 0, "one pause is left");
        pair.resume(group);
        assert_eq!(pair.wait(&ready).len(), ready.len());
        pair.compare();
    }
}
