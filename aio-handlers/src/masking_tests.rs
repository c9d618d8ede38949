//! The rules of readiness, pauses and exclusions, one by one.

use std::os::fd::RawFd;

use super::*;
use crate::steps::count;

const READ: Interest = Interest::READ;
const IN: Readiness = Readiness::IN;

fn add(registry: &mut Registry<u32>, fd: RawFd, value: u32) -> Token {
    registry
        .insert(Some(fd), value, READ, GroupId::DEFAULT)
        .expect("the number is free")
}

#[test]
fn r8_d1_readiness_is_taken_once() {
    let mut registry = Registry::new();
    let token = add(&mut registry, 3, 1);
    registry.record(token, IN);
    registry.record(token, Readiness::HUP);
    assert_eq!(
        registry.take_ready(token),
        Some((&1, IN | Readiness::HUP, READ)),
        "the inner one takes all"
    );
    assert!(
        registry.take_ready(token).is_none(),
        "the outer one finds nothing"
    );
}

#[test]
fn d9_forgotten_readiness_is_not_called() {
    let mut registry = Registry::new();
    let token = add(&mut registry, 3, 1);
    registry.record(token, IN);
    registry.give_back([token]);
    assert!(registry.take_ready(token).is_none());
}

#[test]
fn b5_pauses_count_and_the_last_resume_rearms_masked_handlers() {
    let mut registry = Registry::new();
    let group = registry.new_group();
    let token = registry.insert(Some(3), 1, READ, group).unwrap();
    let other = add(&mut registry, 4, 2);
    registry.record(token, IN);
    assert_eq!((registry.pause(group), registry.pause(group)), (1, 2));
    assert!(
        registry.take_ready(token).is_none(),
        "paused since it was recorded"
    );
    assert_eq!(
        (registry.record(token, IN), registry.record(token, IN)),
        (Recorded::Masked, Recorded::Masked)
    );
    assert_eq!(registry.record(other, IN), Recorded::Live);
    assert_eq!(registry.effective_interest(token), Some(Interest::NONE));
    assert_eq!(
        registry.set_interest(token, Interest::BOTH),
        Some(READ),
        "remembered, not effective"
    );
    assert_eq!(registry.effective_interest(token), Some(Interest::NONE));
    let mut rearmed = Vec::new();
    assert!(!registry.resume(group, &mut |token, interest| rearmed.push((token, interest))));
    assert!(rearmed.is_empty() && registry.is_paused(group));
    assert!(registry.resume(group, &mut |token, interest| rearmed.push((token, interest))));
    assert_eq!(
        rearmed,
        [(token, Interest::BOTH)],
        "once, with the interest of now"
    );
    assert_eq!(registry.record(token, IN), Recorded::Live);
    registry.check();
}

#[test]
fn b5_a_handler_removed_while_masked_is_not_rearmed() {
    let mut registry = Registry::new();
    let group = registry.new_group();
    let token = registry.insert(Some(3), 1, READ, group).unwrap();
    registry.pause(group);
    registry.record(token, IN);
    registry.remove(token);
    let again = registry.insert(Some(3), 2, READ, group).unwrap();
    let mut rearmed = 0;
    assert!(registry.resume(group, &mut |_, _| rearmed += 1));
    assert_eq!(rearmed, 0);
    assert_eq!(registry.record(again, IN), Recorded::Live);
}

#[test]
fn a9_a_held_handler_is_not_called_and_is_served_after() {
    let mut registry = Registry::new();
    let token = add(&mut registry, 3, 1);
    assert!(registry.exclude(token) && registry.exclude(token));
    assert_eq!(registry.record(token, IN), Recorded::Masked);
    assert_eq!(registry.readmit(token), None);
    assert_eq!(registry.readmit(token), Some(READ));
    assert_eq!(registry.record(token, IN), Recorded::Live);
    registry.check();
}

#[test]
fn r3_exclusions_can_end_with_the_value_that_they_were_made_for() {
    let mut registry = Registry::new();
    let token = add(&mut registry, 3, 1);
    assert_eq!(registry.end_exclusions(token), None);
    assert!(registry.exclude(token) && registry.exclude(token));
    assert_eq!(registry.record(token, IN), Recorded::Masked);
    assert_eq!(registry.replace(token, 2), Some(1));
    assert_eq!(registry.end_exclusions(token), Some(READ));
    assert_eq!(registry.record(token, IN), Recorded::Live);
    registry.check();
}

#[test]
fn a9_b5_hold_and_pause_overlap_in_either_order() {
    for pause_ends_first in [false, true] {
        let mut registry = Registry::new();
        let group = registry.new_group();
        let token = registry.insert(Some(3), 1, READ, group).unwrap();
        registry.exclude(token);
        registry.record(token, IN);
        registry.pause(group);
        let mut rearmed = 0;
        if pause_ends_first {
            registry.resume(group, &mut |_, _| rearmed += 1);
            assert_eq!((rearmed, registry.readmit(token)), (0, Some(READ)));
        } else {
            assert_eq!(registry.readmit(token), None);
            registry.resume(group, &mut |_, _| rearmed += 1);
            assert_eq!(rearmed, 1);
        }
        assert_eq!(registry.record(token, IN), Recorded::Live);
        registry.check();
    }
}

#[test]
#[should_panic(expected = "resumed more often than paused")]
fn b5_resuming_too_often_is_a_fault() {
    Registry::<()>::new().resume(GroupId::DEFAULT, &mut |_, _| {});
}

#[test]
#[should_panic(expected = "readmitted more often than excluded")]
fn a9_releasing_too_often_is_a_fault() {
    let mut registry = Registry::new();
    let token = add(&mut registry, 3, 1);
    registry.readmit(token);
}

#[test]
#[should_panic(expected = "was not made by this registry")]
fn b5_a_group_of_another_registry_is_a_fault() {
    let stranger = Registry::<()>::new().new_group();
    Registry::<()>::new().pause(stranger);
}

#[test]
fn b5_groups_are_known_and_paused_apart() {
    let mut registry = Registry::<()>::new();
    let stranger = Registry::<()>::new().new_group();
    assert!(registry.has_group(GroupId::DEFAULT) && !registry.has_group(stranger));
    assert!(!registry.is_paused(stranger), "unknown is not paused");
    let (one, two) = (registry.new_group(), registry.new_group());
    registry.pause(one);
    assert!(registry.is_paused(one) && !registry.is_paused(two) && !registry.is_paused(GroupId::DEFAULT));
}

#[test]
fn r5_b5_a_handler_that_joins_a_paused_group_is_paused() {
    let mut registry = Registry::new();
    let group = registry.new_group();
    registry.pause(group);
    let token = registry.insert(Some(3), 1, READ, group).unwrap();
    assert_eq!(
        registry.effective_interest(token),
        Some(READ),
        "until its first event"
    );
    assert_eq!(registry.record(token, IN), Recorded::Masked);
    let mut rearmed = Vec::new();
    assert!(registry.resume(group, &mut |token, interest| rearmed.push((token, interest))));
    assert_eq!(rearmed, [(token, READ)]);
}

#[test]
fn b5_a_pause_without_events_has_nothing_to_rearm() {
    let mut registry = Registry::new();
    let token = add(&mut registry, 3, 1);
    registry.record(token, IN);
    registry.pause(GroupId::DEFAULT);
    assert!(registry.resume(GroupId::DEFAULT, &mut |_, _| panic!(
        "there was no masked handler"
    )));
    assert_eq!(
        registry.take_ready(token),
        Some((&1, IN, READ)),
        "no other handler was inserted"
    );
}

#[test]
fn b5_readiness_recorded_before_a_pause_is_reported_again_after_it() {
    let mut registry = Registry::new();
    let token = add(&mut registry, 3, 1);
    registry.record(token, IN);
    registry.pause(GroupId::DEFAULT);
    registry.record(token, IN);
    let mut rearmed = 0;
    registry.resume(GroupId::DEFAULT, &mut |_, _| rearmed += 1);
    assert_eq!((rearmed, registry.take_ready(token)), (1, None));
}

#[test]
fn b5_an_interest_of_nothing_is_masked_and_rearmed_like_any_other() {
    let mut registry = Registry::new();
    let token = add(&mut registry, 3, 1);
    registry.pause(GroupId::DEFAULT);
    registry.record(token, IN);
    registry.set_interest(token, Interest::NONE);
    let mut rearmed = Vec::new();
    registry.resume(GroupId::DEFAULT, &mut |_, interest| rearmed.push(interest));
    assert_eq!(rearmed, [Interest::NONE]);
}

#[test]
fn b5_those_that_were_masked_leave_the_list_in_any_order() {
    let mut registry = Registry::new();
    let tokens: Vec<Token> = (0..6).map(|fd| add(&mut registry, fd, 0)).collect();
    registry.pause(GroupId::DEFAULT);
    for token in &tokens {
        registry.record(*token, IN);
    }
    for leaver in [0, 5, 2] {
        registry.remove(tokens[leaver]);
        registry.check();
    }
    let mut rearmed = Vec::new();
    registry.resume(GroupId::DEFAULT, &mut |token, _| rearmed.push(token));
    rearmed.sort_unstable();
    assert_eq!(rearmed, [tokens[1], tokens[3], tokens[4]]);
}

#[test]
fn b5_a_pause_that_never_ends_holds_no_memory_for_removed_handlers() {
    let mut registry = Registry::new();
    registry.pause(GroupId::DEFAULT);
    for round in 0..10_000 {
        let token = add(&mut registry, 3, round);
        registry.record(token, IN);
        registry.exclude(token);
        registry.readmit(token);
        registry.remove(token);
    }
    assert_eq!(registry.groups.listed(GroupId::DEFAULT).len(), 0);
    assert_eq!(registry.slots.iter().count(), 0);
}

#[test]
fn d9_a_rearm_that_panics_leaves_no_mask() {
    let mut registry = Registry::new();
    let tokens: Vec<Token> = (0..3).map(|fd| add(&mut registry, fd, 0)).collect();
    registry.pause(GroupId::DEFAULT);
    for token in &tokens {
        registry.record(*token, IN);
    }
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        registry.resume(GroupId::DEFAULT, &mut |_, _| panic!("on purpose"))
    }));
    assert!(unwound.is_err());
    registry.check();
    for token in tokens {
        assert_eq!(registry.effective_interest(token), Some(READ));
        assert_eq!(registry.record(token, IN), Recorded::Live);
    }
}

#[test]
fn a9_readiness_recorded_before_an_exclusion_is_not_delivered_under_it() {
    let mut registry = Registry::new();
    let token = add(&mut registry, 3, 1);
    registry.record(token, IN);
    registry.exclude(token);
    assert!(registry.take_ready(token).is_none());
    assert_eq!(
        registry.readmit(token),
        None,
        "the backend was never silenced and reports it anew"
    );
}

#[test]
fn a9_r3_a_hold_outlives_the_value_but_not_the_registration() {
    let mut registry = Registry::new();
    let token = add(&mut registry, 3, 1);
    registry.exclude(token);
    registry.replace(token, 2);
    assert_eq!(registry.record(token, IN), Recorded::Masked);
    registry.remove(token);
    let next = add(&mut registry, 3, 3);
    assert_eq!(next.index(), token.index(), "the slot is used again");
    assert_eq!(registry.readmit(token), None, "the guard of the former one");
    assert_eq!(registry.record(next, IN), Recorded::Live);
}

#[test]
fn b5_a_resume_costs_o_of_masked_handlers() {
    let cost = |others: i32, masked: i32| {
        let mut registry = Registry::new();
        for fd in 0..others {
            add(&mut registry, fd, 0);
        }
        registry.pause(GroupId::DEFAULT);
        for fd in 0..masked {
            let token = registry.token_of(fd).unwrap();
            registry.record(token, IN);
        }
        count(|| registry.resume(GroupId::DEFAULT, &mut |_, _| {}))
    };
    assert_eq!(cost(100, 3), cost(10_000, 3));
    let (few, more, most) = (cost(1_000, 1), cost(1_000, 2), cost(1_000, 100));
    assert_eq!(most - few, 99 * (more - few), "each costs the same");
}

#[test]
fn b5_the_second_pause_finds_the_memory_of_the_first() {
    let mut registry = Registry::new();
    let tokens: Vec<Token> = (0..100).map(|fd| add(&mut registry, fd, 0)).collect();
    registry.pause(GroupId::DEFAULT);
    for token in &tokens {
        registry.record(*token, IN);
    }
    registry.resume(GroupId::DEFAULT, &mut |_, _| {});
    assert!(
        registry.groups.room(GroupId::DEFAULT) >= tokens.len(),
        "an iteration that pauses and resumes need not allocate"
    );
}
