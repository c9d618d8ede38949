//! Serving hits, and the exclusion of their sources meanwhile (rule A9).

use std::cell::Cell;
use std::ops::ControlFlow;
use std::rc::Rc;

use super::{Probe, exit, join, log, on_purpose, panics, polls, round, scene, take, token};
use crate::PollSet;

#[test]
fn a5_a_yes_is_polled_again_until_it_is_served() {
    let (set, probes) = scene(3);
    set.enter();
    probes[1].has_work.set(true);
    assert_eq!(exit(&set), (true, vec![1]));
    assert!(set.needs_exit() && !set.is_on());
    // A panic has ended the iteration.
    set.forget_hit(token(1));
    assert_eq!(set.serve(token(1), || ()), None);
    assert_eq!(exit(&set), (true, vec![1]));
    assert_eq!(polls(&probes), [1, 2, 1], "no other source is polled again");
    assert_eq!(set.serve(token(1), || ()), Some(()));
    assert_eq!(exit(&set), (false, vec![]));
    assert!(!set.needs_exit());
}

#[test]
fn a5_hits_that_no_iteration_serves_let_others_have_their_turn() {
    let (set, probes) = scene(5);
    set.enter();
    probes.iter().for_each(|probe| probe.has_work.set(true));
    let mut seen = Vec::new();
    for _ in 0..6 {
        let mut taken = false;
        set.exit(|token| {
            if std::mem::replace(&mut taken, true) {
                return ControlFlow::Break(());
            }
            take(&mut seen, token)
        });
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 5);
}

#[test]
fn d9_a_panic_while_a_hit_is_served_marks_it_again() {
    let (set, probes) = scene(2);
    set.enter();
    probes[0].has_work.set(true);
    assert_eq!(exit(&set), (true, vec![0]));
    panics(|| assert!(set.serve(token(0), on_purpose).is_none()));
    assert!(set.needs_exit());
    assert_eq!(exit(&set), (true, vec![0]));
    assert_eq!(set.serve(token(0), || ()), Some(()));
    assert!(!set.needs_exit());
}

#[test]
fn a9_an_excluded_source_is_not_polled_until_the_last_guard_is_gone() {
    let (set, probes) = scene(2);
    set.enter();
    let (first, second) = (set.exclude(token(0)), set.exclude(token(0)));
    round(&set);
    drop(first);
    round(&set);
    assert_eq!(polls(&probes), [0, 2]);
    drop(second);
    round(&set);
    assert_eq!(polls(&probes), [1, 1]);
}

#[test]
fn a9_a_source_is_not_polled_while_it_is_served() {
    let (set, probes) = scene(2);
    set.enter();
    probes[0].has_work.set(true);
    assert_eq!(round(&set), [0]);
    polls(&probes);
    set.serve(token(0), || {
        assert!(round(&set).is_empty());
        assert_eq!(
            exit(&set),
            (false, vec![]),
            "it does not keep a nested loop awake"
        );
        assert_eq!(set.serve(token(0), || ()), None, "a hit is taken once");
    })
    .unwrap();
    assert_eq!(polls(&probes), [0, 2]);
    assert_eq!(log(&probes[0]), ["begin", "end"]);
}

#[test]
fn a5_a9_a_source_that_is_excluded_when_poll_mode_is_left_is_polled_afterwards() {
    let (set, probes) = scene(2);
    set.enter();
    let excluded = set.exclude(token(0));
    assert_eq!(exit(&set), (false, vec![]));
    probes[0].has_work.set(true);
    assert!(!set.needs_exit());
    drop(excluded);
    assert!(set.needs_exit());
    assert_eq!(exit(&set), (true, vec![0]));
    assert_eq!(log(&probes[0]), ["begin", "end"]);
}

#[test]
fn r3_exclusions_that_have_ended_do_no_harm_to_later_ones() {
    let (set, probes) = scene(1);
    let former = (set.exclude(token(0)), set.exclude(token(0)));
    set.end_exclusions(token(0));
    round(&set);
    assert_eq!(polls(&probes), [1]);
    let own = set.exclude(token(0));
    round(&set);
    drop(own);
    drop(former);
    set.end_exclusions(token(0));
    assert_eq!(polls(&probes), [0]);
    round(&set);
    assert_eq!(polls(&probes), [1]);
}

#[test]
fn a9_an_exclusion_outlives_a_replacement_and_does_no_harm_after_a_removal() {
    let (set, _probes) = scene(1);
    let excluded = set.exclude(token(0));
    let new = Probe::new();
    let _ = set.join(token(0), new.clone());
    round(&set);
    assert_eq!(new.polls.get(), 0);
    let _ = set.leave(token(0));
    // Another source has its slot.
    let next = Probe::new();
    join(&set, 3, &next);
    let third = set.exclude(token(3));
    drop(excluded);
    round(&set);
    assert_eq!(next.polls.get(), 0, "only its own guard counts");
    drop(third);
    round(&set);
    assert_eq!(next.polls.get(), 1);
}

#[test]
fn a9_a_source_that_nests_is_polled_while_it_is_served() {
    let set = PollSet::new();
    let board = Rc::new(Probe {
        nests: true,
        ..Probe::default()
    });
    board.has_work.set(true);
    let _ = set.join(token(0), board.clone());
    assert_eq!(round(&set), [0]);
    let depth = Cell::new(0);
    fn nest(set: &PollSet, depth: &Cell<u32>) {
        set.serve(token(0), || {
            depth.set(depth.get() + 1);
            if depth.get() < 5 {
                assert_eq!(round(set), [0]);
                nest(set, depth);
            }
        })
        .expect("the nested round has found it");
    }
    nest(&set, &depth);
    assert_eq!(depth.get(), 5);
    drop(set.exclude(token(0)));
    assert_eq!(round(&set), [0]);
}

#[test]
fn d1_a_hit_that_a_nested_round_refuses_stays_with_the_outer_one() {
    let (set, probes) = scene(1);
    probes[0].has_work.set(true);
    assert_eq!(round(&set), [0]);
    assert!(set.round(|_| ControlFlow::Break(())));
    assert_eq!(set.serve(token(0), || ()), Some(()));
    assert!(set.round(|_| ControlFlow::Break(())));
    assert_eq!(set.serve(token(0), || ()), None, "the hit was not taken");
}

#[test]
fn n1_a_woken_source_is_served_without_a_hit() {
    let (set, _probes) = scene(2);
    assert_eq!(set.serve_woken(token(1), || 7), Some(7));
    assert_eq!(set.serve_woken(token(7), || 7), None, "there is none");
    assert_eq!(exit(&set), (false, vec![]), "it is not polled for that");
}

#[test]
fn n1_a_woken_source_that_has_a_hit_is_served_once() {
    let (set, probes) = scene(2);
    set.enter();
    probes[0].has_work.set(true);
    assert_eq!(exit(&set), (true, vec![0]));
    assert_eq!(set.serve_woken(token(0), || ()), Some(()));
    assert_eq!(set.serve(token(0), || ()), None);
    assert!(!set.needs_exit());
}

#[test]
fn a9_a_woken_source_that_is_excluded_is_polled_afterwards() {
    let (set, probes) = scene(2);
    probes[1].has_work.set(true);
    let excluded = set.exclude(token(1));
    assert_eq!(set.serve_woken(token(1), || ()), None);
    assert_eq!(exit(&set), (false, vec![]));
    drop(excluded);
    assert_eq!(exit(&set), (true, vec![1]));
    let nested = set.serve(token(1), || set.serve_woken(token(1), || ()));
    assert_eq!(nested, Some(None), "it is being served");
    assert_eq!(exit(&set), (true, vec![1]));
}

#[test]
fn b5_a_woken_source_that_is_suspended_is_polled_afterwards() {
    let (set, probes) = scene(2);
    set.suspend(token(1)).finish(|| ());
    probes[1].has_work.set(true);
    assert_eq!(set.serve_woken(token(1), || ()), None);
    assert_eq!(exit(&set), (false, vec![]));
    set.resume(token(1));
    assert_eq!(exit(&set), (true, vec![1]));
}

#[test]
fn d9_a_panic_while_a_woken_source_is_served_marks_it() {
    let (set, probes) = scene(2);
    probes[0].has_work.set(true);
    panics(|| assert!(set.serve_woken(token(0), on_purpose).is_none()));
    assert_eq!(exit(&set), (true, vec![0]));
}

#[test]
fn a8_a_woken_source_is_promoted() {
    let (set, _probes) = scene(2);
    set.enter();
    for _ in 0..300 {
        round(&set);
    }
    set.promote(token(0)); // an event of another source: age counts from there
    set.demote_idle(10, |_| true, |_, idle| idle, |_| ControlFlow::Continue(()));
    assert!(!set.is_promoted(token(1)));
    assert_eq!(set.serve_woken(token(1), || ()), Some(()));
    assert!(set.is_promoted(token(1)));
}
