//! Many descriptors, short lists, and what a loop does beside waiting.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::super::disturb::{raise_limit, skip};
use super::super::fixtures::{A, B, IN, Kind, PATIENCE, Source, add, expect, look, need, wait_at_most};
use super::super::oracle::{Oracle, is_readable};
use crate::{Backend, Interest, Peek, ReadyList, Token};

/// Sources of a kind, watched for reading as tokens from `first` on, all of them ready.
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

/// How often everybody was reported in so many looks.
fn turns(backend: &mut dyn Backend, limit: usize, looks: usize) -> BTreeMap<u32, usize> {
    let mut turns = BTreeMap::new();
    for _ in 0..looks {
        for (token, _) in wait_at_most(backend, Some(Duration::ZERO), limit) {
            *turns.entry(token.index()).or_default() += 1;
        }
    }
    turns
}

pub(super) fn five_thousand_descriptors(backend: &mut dyn Backend) {
    const COUNT: u32 = 5_000;
    /// Several backends may be tested at the same time, but not all of them with so many.
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
    expect(backend, &[], "nobody is ready");
    for index in (0..COUNT).step_by(103).chain([COUNT - 1]) {
        let source = &sources[index as usize];
        source.feed();
        expect(backend, &[(Token::new(index, 1), IN)], "one of many is ready");
        source.consume();
    }
    sources.iter().for_each(Source::feed);
    let looks = COUNT as usize / 64 + 1;
    let served = turns(backend, 64, 2 * looks).len();
    assert!(
        served == COUNT as usize,
        "{} of {COUNT} had no turn in {} looks for 64",
        COUNT as usize - served,
        2 * looks
    );
    for index in 0..COUNT {
        // Now and then, whoever is left is served still.
        need(backend.remove(Token::new(index, 1)), "a remove");
        if index % 1_000 == 999 && index + 1 < COUNT {
            let found = wait_at_most(backend, Some(PATIENCE), 64);
            assert!(
                found.iter().all(|(token, _)| token.index() > index) && !found.is_empty(),
                "the first {} were removed, and a wait found {found:?}",
                index + 1
            );
        }
    }
    expect(backend, &[], "all are gone");
    assert!(
        sources.iter().all(|source| source.shares() == 0),
        "a share was kept"
    );
}

pub(super) fn nobody_starves_past_one_batch(backend: &mut dyn Backend) {
    const COUNT: u32 = 150;
    let sources = ready_ones(backend, Kind::Eventfd, 0, COUNT);
    for limit in [64, 16, 7, 1] {
        // Nobody is served, so that all stay ready: so many looks are four turns for everybody.
        let looks = 4 * COUNT as usize / limit;
        let turns = turns(backend, limit, looks);
        assert!(
            turns.values().sum::<usize>() == looks * limit,
            "all are ready, and a look for {limit} did not find so many"
        );
        let (least, most) = (
            (0..COUNT)
                .map(|index| turns.get(&index).copied().unwrap_or_default())
                .min(),
            turns.values().max(),
        );
        assert!(
            least >= Some(2) && most <= Some(&8),
            "in {looks} looks for {limit}, everybody was to have 4 turns; the least had {least:?}, the most {most:?}"
        );
    }
    // Registrations come and go in between, and still nobody starves.
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

pub(super) fn files_and_others_share_a_short_list(backend: &mut dyn Backend) {
    const OTHERS: u32 = 9;
    const FILES: u32 = 5;
    let _others = ready_ones(backend, Kind::Eventfd, 0, OTHERS);
    let _files = ready_ones(backend, Kind::File, OTHERS, FILES);
    for limit in 1..=(OTHERS + FILES + 1) as usize {
        let looks = 8 * (OTHERS + FILES) as usize / limit + 1;
        let turns = turns(backend, limit, looks);
        for index in 0..OTHERS + FILES {
            let had = turns.get(&index).copied().unwrap_or_default();
            let who = if index < OTHERS { "an eventfd" } else { "a file" };
            assert!(
                had >= 2,
                "in {looks} looks for {limit}, {who} was to have 8 turns, or nearly so, and had {had}"
            );
        }
    }
}

pub(super) fn a_list_is_appended_to(backend: &mut dyn Backend) {
    let sources = ready_ones(backend, Kind::Eventfd, 0, 5);
    let stranger = (Token::new(99, 9), crate::Readiness::OUT);
    for room in 0..7 {
        let mut ready = ReadyList::with_limit(room + 1);
        ready.push(stranger.0, stranger.1);
        need(backend.wait(Some(PATIENCE), &mut ready), "a wait");
        let all: Vec<_> = ready.iter().collect();
        assert!(
            all[0] == stranger && all.len() == 1 + room.min(5),
            "five were ready, and a wait turned [{stranger:?}], with room for {room}, into {all:?}"
        );
        assert!(
            all[1..]
                .iter()
                .all(|(token, what)| token.index() < 5 && *what == IN),
            "a wait found {all:?}"
        );
    }
    sources.iter().for_each(Source::consume);
    expect(backend, &[], "nobody is ready any more");
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
        let shares = sources[index as usize].shares();
        assert_eq!(shares, 0, "a share was kept after a remove");
    }
}

pub(super) fn a_peek_is_a_look(backend: &mut dyn Backend) {
    let counter = Source::new(Kind::Eventfd);
    add(backend, &counter, A, Interest::READ);
    look(backend);
    for is_ready in [false, true, true, false] {
        match is_ready {
            true => counter.feed(),
            false => counter.consume(),
        }
        let mut ready = ReadyList::new();
        let peeked = need(backend.peek(&mut ready), "a peek");
        let found: Vec<_> = ready.iter().collect();
        match peeked {
            Peek::Unsupported => assert_eq!(found, [], "a peek that cannot look found something"),
            Peek::Looked if is_ready => assert_eq!(found, [(A, IN)], "a peek was to find it"),
            Peek::Looked => assert_eq!(found, [], "a peek found what is not ready"),
        }
        let expected = if is_ready { vec![(A, IN)] } else { vec![] };
        expect(backend, &expected, "a peek takes nothing away");
    }
}

pub(super) fn what_stands_for_all_tells_of_all(backend: &mut dyn Backend) {
    let (counter, silent) = (Source::new(Kind::Eventfd), Source::new(Kind::Eventfd));
    silent.feed();
    add(backend, &silent, B, Interest::NONE);
    let Some(shown) = need(backend.make_pollable(), "asking for what stands for all") else {
        assert!(!backend.always_ready(), "nothing is ready");
        return;
    };
    let shown = need(shown.try_clone_to_owned(), "one more descriptor");
    let agrees = |backend: &mut dyn Backend, is_ready: bool, why: &str| {
        for _ in 0..2 {
            assert_eq!(
                is_readable(&shown),
                is_ready,
                "{why}: what stands for all is wrong"
            );
            assert!(!backend.always_ready(), "{why}: nothing is always ready here");
            assert_eq!(!look(backend).is_empty(), is_ready, "{why}: a look is wrong");
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
    agrees(backend, true, "it was asked for again");
    // Whatever the backend does to itself, the descriptor that a foreign loop keeps goes on.
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
        "a file is ready, and neither what stands for all nor `always_ready` says so"
    );
    need(backend.modify(A, Interest::NONE), "silencing a file");
    agrees(backend, false, "the file is silent");
}
