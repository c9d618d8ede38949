//! Hits that are served without a list (rules A3, A9).

use std::ops::ControlFlow;

use super::{exit, on_purpose, panics, polls, round, scene, set_hook, take, token};
use crate::{Hit, PollSet};

fn only(set: &PollSet) -> Hit<'_> {
    match set.hits() {
        (Some(hit), false) => hit,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a3_the_only_hit_of_a_round_is_returned_wherever_its_source_is() {
    let (set, probes) = scene(5);
    set.enter();
    assert!(matches!(set.hits(), (None, false)));
    assert_eq!(polls(&probes), [1; 5]);
    for index in 0..5 {
        probes[index].has_work.set(true);
        let hit = only(&set);
        assert_eq!((hit.token(), set.has_hit(token(index))), (token(index), true));
        assert_eq!(polls(&probes), [1; 5]);
        let served = hit.serve(|| {
            assert!(!set.has_hit(token(index)));
            assert!(round(&set).is_empty(), "A9: it is not polled while it is served");
            probes[index].has_work.set(false);
        });
        assert_eq!(served, Some(()));
        assert_eq!(polls(&probes).iter().sum::<u32>(), 4);
    }
    assert_eq!(exit(&set), (false, vec![]));
}

#[test]
fn a3_several_hits_are_passed_on_in_the_order_of_a_round() {
    let (set, probes) = scene(6);
    set.enter();
    [0, 1, 4, 5]
        .iter()
        .for_each(|index: &usize| probes[*index].has_work.set(true));
    let expected = round(&set);
    assert_eq!(polls(&probes), [1; 6]);
    let mut hits = Vec::new();
    assert!(matches!(set.hits(), (Some(_), true)), "dropped, they are refused");
    assert_eq!(set.rounds(), 2);
    polls(&probes);
    let mut passed = Vec::new();
    let (first, _) = set.hits();
    passed.extend(first.map(|hit| hit.into_token().index() as usize));
    set.pass_rest(|token| take(&mut passed, token));
    assert_eq!((passed, polls(&probes)), (expected.clone(), vec![1; 6]));
    // With a list for one hit, each source has its turn.
    for _ in 0..8 {
        let mut room = 1;
        set.round(|token| {
            if room == 0 {
                return ControlFlow::Break(());
            }
            room -= 1;
            take(&mut hits, token)
        });
    }
    assert_eq!(hits, [expected.clone(), expected].concat());
}

#[test]
fn d9_a_hit_that_is_dropped_is_refused_and_found_again() {
    let (set, probes) = scene(2);
    set.enter();
    probes[1].has_work.set(true);
    drop(only(&set));
    assert!(!set.has_hit(token(1)));
    assert_eq!(set.serve(token(1), || ()), None);
    // A hit that was taken before and is not served yet stays.
    assert_eq!(only(&set).into_token(), token(1));
    drop(only(&set));
    assert!(set.has_hit(token(1)));
    assert_eq!(set.serve(token(1), || ()), Some(()));
    assert_eq!(round(&set), [1]);
}

#[test]
fn d9_a_panic_after_the_first_hit_refuses_it() {
    let (set, probes) = scene(4);
    set.enter();
    probes[0].has_work.set(true);
    set_hook(&probes[2].at_poll, |_| on_purpose());
    panics(|| drop(set.hits()));
    assert!(!set.has_hit(token(0)) && !set.is_calling());
    set_hook(&probes[2].at_poll, |_| ());
    assert_eq!(round(&set), [0]);
    set.serve(token(0), || ()).expect("it was taken");
    panics(|| _ = only(&set).serve(on_purpose));
    assert!(set.needs_exit());
    assert_eq!(exit(&set), (true, vec![0]), "it is marked for a recheck");
}

#[test]
fn r9_a_hit_of_a_source_that_has_left_is_not_served() {
    let (set, probes) = scene(1);
    probes[0].has_work.set(true);
    let hit = only(&set);
    set.leave(token(0)).finish(on_purpose);
    assert_eq!(hit.serve(on_purpose), None);
    // Its slot belongs to another source.
    let (set, probes) = scene(1);
    probes[0].has_work.set(true);
    let hit = only(&set);
    set.leave(token(0)).finish(on_purpose);
    super::join(&set, 1, &probes[0]);
    drop(hit);
    assert!(!set.has_hit(token(1)));
    let hit = only(&set);
    set.suspend(token(1)).finish(on_purpose);
    assert_eq!(hit.serve(on_purpose), None, "B5: it is suspended");
}
