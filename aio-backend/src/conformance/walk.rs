//! A random walk: some thousand changes and waits, with an [`Oracle`] around the backend.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Oracle;
use super::fixtures::{Kind, Source, need, wait_at_most};
use crate::{Backend, Interest, Token};

/// The number of steps.
const STEPS: u32 = 6_000;
/// The timeout of a wait that ends early because a descriptor is ready. It is finite, so that a backend that misses the event fails.
const LONG: Duration = Duration::from_secs(3);
/// The largest number of descriptors.
const MOST: usize = 120;

/// Takes random steps and checks every result with an [`Oracle`]: add, modify, remove, write, read, fill, hang up, reuse numbers and
/// slots, restructure, drain, and wait with lists of every length.
///
/// The seed is printed, and with a failure the last calls; the environment variable `AIO_SEED` sets the seed.
///
/// # Panics
/// If a result of the backend is wrong.
pub fn walk(backend: &mut dyn Backend) {
    let asked = std::env::var("AIO_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = asked.unwrap_or_else(|| fastrand::u64(..));
    println!("promised: the whole contract, in any order of calls");
    println!(
        "if it is broken: repeat it with the seed; the last of the calls below is often the cause, or the first one about its token"
    );
    println!("AIO_SEED={seed}");
    let mut walk = Walk {
        oracle: Oracle::new(backend),
        random: fastrand::Rng::with_seed(seed),
        sources: BTreeMap::new(),
        generations: [0; MOST],
        crowd: 8,
    };
    for step in 0..STEPS {
        if step % 300 == 0 {
            // The number of descriptors rises and falls across 64, where a backend may restructure itself.
            walk.crowd = walk.random.usize(1..MOST);
        }
        walk.step();
    }
}

struct Walk<'a> {
    oracle: Oracle<'a>,
    random: fastrand::Rng,
    sources: BTreeMap<Token, Source>,
    generations: [u32; MOST],
    /// The number of descriptors to approach.
    crowd: usize,
}

impl Walk<'_> {
    fn step(&mut self) {
        let grows = self.sources.len() < self.crowd;
        match self.random.u8(..20) {
            0 | 1 if grows => (0..8).for_each(|_| self.add()),
            2 => self.add(),
            0 | 1 => (0..8).for_each(|_| self.remove()),
            3 => self.remove(),
            4..=6 => self.modify(),
            7 => self.unknown(),
            8 if self.random.u8(..50) == 0 => self.drain(),
            8..=13 => (0..3).for_each(|_| self.disturb()),
            _ => self.wait(),
        }
    }

    /// Chooses a registration.
    fn any(&mut self) -> Option<Token> {
        let place = self.random.usize(..self.sources.len().max(1));
        self.sources.keys().nth(place).copied()
    }

    fn interest(&mut self) -> Interest {
        let mut interest = Interest::from_bits_truncate(self.random.u8(..4));
        interest.set(Interest::PRIORITY, self.random.u8(..8) == 0);
        interest.set(Interest::ONESHOT, self.random.u8(..3) == 0);
        interest.canonical()
    }

    fn add(&mut self) {
        let index = self.random.usize(..MOST);
        let token = Token::new(index as u32, self.generations[index]);
        if self.sources.contains_key(&token) {
            return;
        }
        let kinds = [Kind::PipeReader, Kind::PipeWriter, Kind::Socket, Kind::Eventfd];
        // No wait blocks while a file is watched, so there are few files.
        let kind = match self.random.u8(..40) {
            0 => Kind::File,
            other => kinds[usize::from(other) % kinds.len()],
        };
        let (source, interest) = (Source::new(kind), self.interest());
        need(self.oracle.add(source.watched(), token, interest), "an add");
        self.sources.insert(token, source);
    }

    fn remove(&mut self) {
        let Some(token) = self.any() else { return };
        let Some(source) = self.sources.remove(&token) else {
            return;
        };
        self.generations[token.index() as usize] += 1;
        need(self.oracle.remove(token), "a remove");
        assert_eq!(
            source.references(),
            0,
            "a reference of {token:?} was kept after remove"
        );
    }

    fn modify(&mut self) {
        let Some(token) = self.any() else { return };
        let interest = self.interest();
        need(self.oracle.modify(token, interest), "a modify");
    }

    /// Calls an operation with an unknown token; the oracle checks the result.
    fn unknown(&mut self) {
        let index = self.random.usize(..MOST);
        let stale = Token::new(index as u32, self.generations[index].wrapping_sub(1));
        let _ = self.oracle.modify(stale, Interest::READ);
        let _ = self.oracle.remove(stale);
        if let Some(known) = self.any() {
            let source = Source::new(Kind::Eventfd);
            let refused = self.oracle.add(source.watched(), known, Interest::READ);
            assert!(refused.is_err(), "{known:?} was added twice");
        }
    }

    fn drain(&mut self) {
        let mut all = Vec::new();
        self.oracle
            .drain(&mut |fd, token, interest| all.push((fd, token, interest)));
        wait_at_most(&mut self.oracle, Some(Duration::ZERO), 64);
        for (fd, token, interest) in all {
            need(self.oracle.add(fd, token, interest), "an add after a drain");
        }
    }

    /// Changes the readiness of a descriptor.
    fn disturb(&mut self) {
        let Some(token) = self.any() else { return };
        let what = self.random.u8(..17);
        let Some(source) = self.sources.get_mut(&token) else {
            return;
        };
        let has_mouth = source.kind == Kind::Eventfd || source.peer.is_some();
        match what {
            0..=5 if has_mouth && source.kind != Kind::PipeWriter => source.feed(),
            0..=4 => source.fill(),
            6..=8 => source.consume(),
            9 => source.read(3),
            10 | 11 => source.fill(),
            12..=14 => source.make_room(),
            15 if source.kind == Kind::Socket => source.half_close(),
            _ => source.hang_up(),
        }
    }

    fn wait(&mut self) {
        let limit = [1, 2, 7, 64, 100, 1_000][self.random.usize(..6)];
        if self.random.bool() {
            self.oracle.rebalance();
        }
        let is_ready = !self.oracle.truth().is_empty();
        let timeout = match self.random.u8(..10) {
            0 | 1 if is_ready => LONG,
            0..=3 => Duration::from_micros(self.random.u64(..200)),
            _ => Duration::ZERO,
        };
        let start = Instant::now();
        let found = wait_at_most(&mut self.oracle, Some(timeout), limit);
        let took = start.elapsed();
        match found.is_empty() {
            true => assert!(
                took >= timeout,
                "a wait of {timeout:?} ended with nothing after {took:?}"
            ),
            false => assert!(
                took <= LONG / 2,
                "a wait of {timeout:?} took {took:?}, though something was ready"
            ),
        }
    }
}
