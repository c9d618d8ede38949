//! Promises about many descriptors, short lists, and the functions beside `wait`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::super::disturb::{raise_limit, skip};
use super::super::fixtures::{A, B, IN, Kind, Source, TIMEOUT, add, check, expect, need, wait_at_most};
use super::super::oracle::{Oracle, is_readable};
use crate::{Backend, Interest, Peek, ReadyList, Token};

/// Adds sources of a kind, watched for reading as tokens from `first` on, and makes all of them ready.
fn ready_ones(backend: &mut dyn Backend, kind: Kind, first: u32, count: u32) -> Vec<Source> {
    let one = |index| {
        let source = Source::new(kind);
        if kind != Kind::File {
            source.feed();
        }
        add(backend, &source, Token::new(index, 1), Interest::READ);
        source
    };
    (first..first + count).map(one).collect()
}

/// Returns the number of reports of each token in this number of checks.
fn turns(backend: &mut dyn Backend, limit: usize, checks: usize) -> BTreeMap<u32, usize> {
    let mut turns = BTreeMap::new();
    for _ in 0..checks {
        for (token, _) in wait_at_most(backend, Some(Duration::ZERO), limit) {
            *turns.entry(token.index()).or_default() += 1;
        }
    }
    turns
}

pub(super) fn five_thousand_descriptors(backend: &mut dyn Backend) {
    const COUNT: u32 = 5_000;
    /// Several backends may be tested at the same time, but only one of them with so many descriptors.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (limit, wanted) = (raise_limit(), u64::from(COUNT) + 1_000);
    if limit < wanted {
        let why = format!("it needs {wanted} descriptors, and {limit} are allowed (ulimit -Hn)");
        return skip("five_thousand_descriptors", &why);
    }

    let mut sources = Vec::new();
    for index in 0..COUNT {
        let source = Source::new(Kind::Eventfd);
        add(backend, &source, Token::new(index, 1), Interest::READ);
        sources.push(source);
    }
    expect(backend, &[], "no descriptor is ready");
    for index in (0..COUNT).step_by(103).chain([COUNT - 1]) {
        let source = &sources[index as usize];
        source.feed();
        expect(backend, &[(Token::new(index, 1), IN)], "one of many is ready");
        source.consume();
    }
    sources.iter().for_each(Source::feed);
    let checks = COUNT as usize / 64 + 1;
    let served = turns(backend, 64, 2 * checks).len();
    assert!(
        served == COUNT as usize,
        "{} of {COUNT} were not reported in {} checks for 64",
        COUNT as usize - served,
        2 * checks
    );
    for index in 0..COUNT {
        // Now and then a check still reports the remaining descriptors.
        need(backend.remove(Token::new(index, 1)), "a remove");
        if index % 1_000 == 999 && index + 1 < COUNT {
            let found = wait_at_most(backend, Some(TIMEOUT), 64);
            assert!(
                found.iter().all(|(token, _)| token.index() > index) && !found.is_empty(),
                "the first {} were removed, and a wait found {found:?}",
                index + 1
            );
        }
    }
    expect(backend, &[], "all are gone");
    assert!(
        sources.iter().all(|source| source.references() == 0),
        "a reference was kept"
    );
}

pub(super) fn no_starvation_past_one_batch(backend: &mut dyn Backend) {
    const COUNT: u32 = 150;
    let sources = ready_ones(backend, Kind::Eventfd, 0, COUNT);
    for limit in [64, 16, 7, 1] {
        // No event is consumed, so all stay ready. This number of checks reports each descriptor four times.
        let checks = 4 * COUNT as usize / limit;
        let turns = turns(backend, limit, checks);
        assert!(
            turns.values().sum::<usize>() == checks * limit,
            "all are ready, and a check for {limit} did not find so many"
        );
        let (least, most) = (
            (0..COUNT)
                .map(|index| turns.get(&index).copied().unwrap_or_default())
                .min(),
            turns.values().max(),
        );
        assert!(
            least >= Some(2) && most <= Some(&8),
            "in {checks} checks for {limit}, each was to be reported 4 times; the least was reported {least:?} times, the most {most:?}"
        );
    }
    // Registrations come and go in between, and still no descriptor starves.
    let mut oracle = Oracle::new(backend);
    oracle.drain_and_adopt();
    for round in 0..400 {
        let coming = Token::new(COUNT + round % 5, round);
        let source = Source::new(Kind::Eventfd);
        source.feed();
        need(oracle.add(source.watched(), coming, Interest::READ), "an add");
        wait_at_most(&mut oracle, Some(Duration::ZERO), 4);
        need(oracle.remove(coming), "a remove");
    }
    drop(sources);
}

pub(super) fn no_starvation_while_reported_ones_are_silenced(backend: &mut dyn Backend) {
    const COUNT: u32 = 17;
    let _sources = ready_ones(backend, Kind::PipeReader, 0, COUNT);
    for limit in [1, 2, 5] {
        let mut waited = [0; COUNT as usize];
        for _ in 0..1_000 {
            let batch = wait_at_most(backend, Some(Duration::ZERO), limit);
            assert_eq!(batch.len(), limit, "all are ready");
            waited.iter_mut().for_each(|waits| *waits += 1);
            for &(token, _) in &batch {
                waited[token.index() as usize] = 0;
                need(backend.modify(token, Interest::NONE), "silencing one");
            }
            for &(token, _) in &batch {
                need(backend.modify(token, Interest::READ), "leaving silence");
            }
            assert!(
                waited.iter().all(|&waits| waits < 10 * COUNT),
                "in checks for {limit}, a ready descriptor was not reported {} times in a row",
                10 * COUNT
            );
        }
    }
}

pub(super) fn files_and_others_share_a_short_list(backend: &mut dyn Backend) {
    const OTHERS: u32 = 9;
    const FILES: u32 = 5;
    let _others = ready_ones(backend, Kind::Eventfd, 0, OTHERS);
    let _files = ready_ones(backend, Kind::File, OTHERS, FILES);
    for limit in 1..=(OTHERS + FILES + 1) as usize {
        let checks = 8 * (OTHERS + FILES) as usize / limit + 1;
        let turns = turns(backend, limit, checks);
        assert_eq!(
            turns.values().sum::<usize>(),
            checks * limit.min((OTHERS + FILES) as usize),
            "all are ready, and {checks} checks for {limit} did not find so many"
        );
        for index in 0..OTHERS + FILES {
            let had = turns.get(&index).copied().unwrap_or_default();
            let kind = if index < OTHERS { "an eventfd" } else { "a file" };
            assert!(
                had >= 2,
                "in {checks} checks for {limit}, {kind} was to be reported about 8 times, and was {had} times"
            );
        }
    }
}

pub(super) fn a_list_is_appended_to(backend: &mut dyn Backend) {
    let sources = ready_ones(backend, Kind::Eventfd, 0, 5);
    let earlier = (Token::new(99, 9), crate::Readiness::OUT);
    for room in 0..7 {
        let mut ready = ReadyList::with_limit(room + 1);
        ready.push(earlier.0, earlier.1);
        need(backend.wait(Some(TIMEOUT), &mut ready), "a wait");
        let all: Vec<_> = ready.iter().collect();
        assert!(
            all[0] == earlier && all.len() == 1 + room.min(5),
            "five were ready, and a wait turned [{earlier:?}], with room for {room}, into {all:?}"
        );
        assert!(
            all[1..]
                .iter()
                .all(|(token, what)| token.index() < 5 && *what == IN),
            "a wait found {all:?}"
        );
    }
    sources.iter().for_each(Source::consume);
    expect(backend, &[], "no descriptor is ready any more");
}

pub(super) fn rebalance_loses_nothing(backend: &mut dyn Backend) {
    const COUNT: u32 = 150;
    let mut oracle = Oracle::new(backend);
    let backend: &mut dyn Backend = &mut oracle;
    let mut sources = Vec::new();
    for index in 0..COUNT {
        backend.rebalance();
        sources.extend(ready_ones(backend, Kind::Eventfd, index, 1));
        let interest = [Interest::READ, Interest::NONE, Interest::BOTH][index as usize % 3];
        need(backend.modify(Token::new(index, 1), interest), "a modify");
        wait_at_most(backend, Some(Duration::ZERO), 1_000);
    }
    for index in (0..COUNT).rev() {
        backend.rebalance();
        need(backend.remove(Token::new(index, 1)), "a remove");
        wait_at_most(backend, Some(Duration::ZERO), 1_000);
        let references = sources[index as usize].references();
        assert_eq!(references, 0, "a reference was kept after a remove");
    }
}

pub(super) fn a_peek_equals_a_check(backend: &mut dyn Backend) {
    let counter = Source::new(Kind::Eventfd);
    add(backend, &counter, A, Interest::READ);
    check(backend);
    for is_ready in [false, true, true, false] {
        match is_ready {
            true => counter.feed(),
            false => counter.consume(),
        }
        let mut ready = ReadyList::new();
        let peeked = need(backend.peek(&mut ready), "a peek");
        let found: Vec<_> = ready.iter().collect();
        match peeked {
            Peek::Unsupported | Peek::Pending => {
                assert_eq!(
                    found,
                    [],
                    "a peek that is unsupported, or pending, found something"
                );
            }
            Peek::Checked if is_ready => assert_eq!(found, [(A, IN)], "a peek missed an event"),
            Peek::Checked => assert_eq!(found, [], "a peek found an event that is not ready"),
        }
        let expected = if is_ready { vec![(A, IN)] } else { vec![] };
        expect(backend, &expected, "a peek consumed an event");
    }
}

pub(super) fn the_pollable_descriptor_covers_all(backend: &mut dyn Backend) {
    let (counter, silent) = (Source::new(Kind::Eventfd), Source::new(Kind::Eventfd));
    silent.feed();
    add(backend, &silent, B, Interest::NONE);
    let Some(shown) = need(backend.make_pollable(), "making the pollable descriptor") else {
        assert!(!backend.always_ready(), "nothing is ready");
        return;
    };
    let shown = need(shown.try_clone_to_owned(), "one more descriptor");
    let agrees = |backend: &mut dyn Backend, is_ready: bool, why: &str| {
        for _ in 0..2 {
            assert_eq!(
                is_readable(&shown),
                is_ready,
                "{why}: the pollable descriptor is wrong"
            );
            assert!(!backend.always_ready(), "{why}: nothing is always ready here");
            assert_eq!(!check(backend).is_empty(), is_ready, "{why}: a check is wrong");
        }
    };
    agrees(backend, false, "nothing is ready");
    add(backend, &counter, A, Interest::READ);
    agrees(backend, false, "nothing is ready still");
    counter.feed();
    agrees(backend, true, "something is ready");
    need(backend.modify(A, Interest::NONE), "a modify");
    agrees(backend, false, "it was silenced");
    need(backend.modify(A, Interest::READ), "a modify");
    agrees(backend, true, "its interest is back");
    // The descriptor stays valid in a foreign loop while the backend restructures itself.
    let crowd = ready_ones(backend, Kind::Eventfd, 100, 150);
    agrees(backend, true, "many are ready");
    for (index, source) in (100..).zip(&crowd) {
        source.consume();
        need(backend.remove(Token::new(index, 1)), "a remove");
    }
    agrees(backend, true, "one is left");
    need(backend.remove(A), "a remove");
    agrees(backend, false, "it was removed");

    let file = Source::new(Kind::File);
    add(backend, &file, A, Interest::READ);
    assert!(
        is_readable(&shown) || backend.always_ready(),
        "a file is ready, and neither the pollable descriptor nor `always_ready` shows it"
    );
    need(backend.modify(A, Interest::NONE), "silencing a file");
    agrees(backend, false, "the file is silent");
}
