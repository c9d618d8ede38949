//! The costs of operations in steps, and of sources in bytes.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::rc::Rc;

use super::{Other, Probe, busy_rounds, demote, exit, join, round, scene, set_hook, take, token};
use crate::steps::count;

#[test]
fn a1_a_round_costs_the_promoted_sources_and_not_the_others() {
    let (set, probes) = scene(10_000);
    busy_rounds(&set, &probes[0], 5);
    demote(&set, 3);
    assert_eq!(set.promoted(), 1);
    assert!(count(|| drop(round(&set))) <= 3);
    assert!(count(|| set.enter()) <= 5);
    assert!(count(|| drop(exit(&set))) <= 10);
}

#[test]
fn a8_an_operation_on_one_source_costs_the_same_in_a_large_set() {
    let cost = |others: usize| {
        let (set, probes) = scene(others);
        set.enter();
        probes[1].has_work.set(true);
        count(|| {
            let late = Probe::new();
            join(&set, others, &late);
            assert!(!set.suspend(token(others)).is_owed());
            set.resume(token(others));
            set.promote(token(others));
            set.recheck(token(others));
            let _ = set.join(token(others), Other(late));
            drop(set.exclude(token(1)));
            drop(set.leave(token(0)));
            drop(set.leave(token(others)));
        })
    };
    assert_eq!(cost(10), cost(10_000));
}

/// All sources have work when poll mode ends, and are served batch after batch.
fn all_say_yes(sources: usize, room: usize) -> u64 {
    let (set, probes) = scene(sources);
    set.enter();
    probes.iter().for_each(|probe| probe.has_work.set(true));
    let mut served = 0;
    let steps = count(|| {
        loop {
            let mut hits = Vec::new();
            let must_not_sleep = set.exit(|token| {
                if hits.len() == room {
                    return ControlFlow::Break(());
                }
                take(&mut hits, token)
            });
            if !must_not_sleep {
                break;
            }
            for index in hits {
                set.serve(token(index), || probes[index].has_work.set(false))
                    .expect("it was found");
                served += 1;
            }
        }
    });
    assert_eq!(served, sources);
    steps
}

#[test]
fn l17_ten_thousand_sources_that_say_yes_when_poll_mode_ends_cost_ten_times_a_thousand() {
    for room in [usize::MAX, 64] {
        let (small, large) = (all_say_yes(1000, room), all_say_yes(10_000, room));
        assert!(large <= 11 * small, "{room}: {small} steps, {large} steps");
        assert!(large <= 30 * 10_000, "{room}: {large} steps");
    }
}

#[test]
fn l17_ten_thousand_sources_that_are_removed_or_suspended_in_one_walk() {
    let cost = |sources: usize| {
        let (set, probes) = scene(sources);
        set.enter();
        let (weak, once) = (Rc::downgrade(&set), Cell::new(true));
        set_hook(&probes[0].at_poll, move |_| {
            let set = weak.upgrade().unwrap();
            if once.replace(false) {
                for index in 1..sources {
                    drop(if index % 3 == 0 {
                        set.suspend(token(index))
                    } else {
                        set.leave(token(index))
                    });
                }
            }
        });
        count(|| drop(round(&set)))
    };
    let (small, large) = (cost(1000), cost(10_000));
    assert!(large <= 11 * small, "{small} steps, {large} steps");
}

#[test]
fn the_state_of_a_source_takes_24_bytes() {
    assert_eq!(size_of::<crate::slots::Slot>(), 24);
}

#[test]
fn debug_shows_the_state() {
    let (set, _probes) = scene(2);
    let shown = format!("{:?} {:?}", set.exclude(token(0)), set.leave(token(1)));
    assert!(
        shown.contains("sources: 1") && shown.contains("Excluded(Some(Token(0.1)))"),
        "{shown}"
    );
    assert!(set.contains(token(0)) && !set.is_empty());
}
