//! The rules of the registry, one by one, and a random walk beside a naive model.

use std::collections::BTreeMap;

use super::*;

const READ: Interest = Interest::READ;
const IN: Readiness = Readiness::IN;

fn add(registry: &mut Registry<u32>, fd: RawFd, value: u32) -> Token {
    registry
        .insert(Some(fd), value, READ, GroupId::DEFAULT)
        .expect("the number is free")
}

#[test]
fn r1_a_value_without_descriptor_is_legal_and_found_by_token() {
    let mut registry = Registry::new();
    let token = registry
        .insert(None, 5, Interest::NONE, GroupId::DEFAULT)
        .unwrap();
    assert_eq!(registry.get(token), Some(&5));
    assert_eq!(registry.note(token, IN), Noted::Live);
    assert!(registry.take_ready(token).is_none(), "it never asked for that");
}

#[test]
fn r2_one_live_handler_per_number_and_stale_tokens_find_nothing() {
    let mut registry = Registry::new();
    let first = add(&mut registry, 7, 1);
    let refused = registry.insert(Some(7), 2, READ, GroupId::DEFAULT).unwrap_err();
    assert_eq!((refused.value, refused.token), (2, first));
    assert_eq!(registry.remove(first), Some(1));
    let second = add(&mut registry, 7, 3);
    assert_ne!(first, second);
    assert_eq!(registry.note(first, IN), Noted::Stale);
    assert_eq!(registry.get(first), None);
    assert_eq!(registry.remove(first), None);
    assert_eq!(registry.replace(first, 9), None);
    assert_eq!(registry.take_ready(second), None, "the event was for the old one");
    assert_eq!(registry.token_of(7), Some(second));
}

#[test]
fn r3_replacing_keeps_the_token_and_forgets_the_old_readiness() {
    let mut registry = Registry::new();
    let token = add(&mut registry, 3, 1);
    registry.note(token, IN);
    assert_eq!(registry.replace(token, 2), Some(1));
    assert!(registry.take_ready(token).is_none());
    registry.note(token, IN);
    assert_eq!(registry.take_ready(token), Some((&2, IN, READ)));
}

#[test]
fn r4_only_what_was_asked_for_is_kept() {
    let mut registry = Registry::new();
    let token = add(&mut registry, 3, 1);
    registry.note(token, Readiness::OUT);
    assert!(registry.take_ready(token).is_none());
    registry.note(token, Readiness::OUT | Readiness::HUP);
    assert_eq!(
        registry.take_ready(token).map(|(_, ready, _)| ready),
        Some(Readiness::HUP)
    );
    registry.note(token, IN);
    assert_eq!(registry.set_interest(token, Interest::WRITE), Some(READ));
    assert!(registry.take_ready(token).is_none(), "nobody reads any more");
}

#[test]
fn r9_readiness_is_gone_with_the_removal() {
    let mut registry = Registry::new();
    let token = add(&mut registry, 3, 1);
    registry.note(token, IN);
    assert_eq!(registry.remove(token), Some(1));
    assert!(registry.take_ready(token).is_none());
}

#[test]
fn r8_d1_readiness_is_taken_once() {
    let mut registry = Registry::new();
    let token = add(&mut registry, 3, 1);
    registry.note(token, IN);
    registry.note(token, Readiness::HUP);
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
    registry.note(token, IN);
    registry.forget_ready(token);
    assert!(registry.take_ready(token).is_none());
}

#[test]
fn b5_pauses_count_and_the_last_resume_rearms_what_was_turned_away() {
    let mut registry = Registry::new();
    let group = registry.new_group();
    let token = registry.insert(Some(3), 1, READ, group).unwrap();
    let other = add(&mut registry, 4, 2);
    registry.note(token, IN);
    assert_eq!((registry.pause(group), registry.pause(group)), (1, 2));
    assert!(registry.take_ready(token).is_none(), "paused since it was noted");
    assert_eq!(
        (registry.note(token, IN), registry.note(token, IN)),
        (Noted::Parked, Noted::Parked)
    );
    assert_eq!(registry.note(other, IN), Noted::Live);
    assert_eq!(registry.effective_interest(token), Some(Interest::NONE));
    assert_eq!(
        registry.set_interest(token, Interest::all()),
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
        [(token, Interest::all())],
        "once, with the interest of now"
    );
    assert_eq!(registry.note(token, IN), Noted::Live);
    registry.check();
}

#[test]
fn b5_what_was_removed_while_parked_is_not_rearmed() {
    let mut registry = Registry::new();
    let group = registry.new_group();
    let token = registry.insert(Some(3), 1, READ, group).unwrap();
    registry.pause(group);
    registry.note(token, IN);
    registry.remove(token);
    let again = registry.insert(Some(3), 2, READ, group).unwrap();
    let mut rearmed = 0;
    assert!(registry.resume(group, &mut |_, _| rearmed += 1));
    assert_eq!(rearmed, 0);
    assert_eq!(registry.note(again, IN), Noted::Live);
}

#[test]
fn a9_a_held_handler_is_not_called_and_is_served_after() {
    let mut registry = Registry::new();
    let token = add(&mut registry, 3, 1);
    assert!(registry.hold(token) && registry.hold(token));
    assert_eq!(registry.note(token, IN), Noted::Parked);
    assert_eq!(registry.release(token), None);
    assert_eq!(registry.release(token), Some(READ));
    assert_eq!(registry.note(token, IN), Noted::Live);
    registry.check();
}

#[test]
fn a9_b5_hold_and_pause_overlap_in_either_order() {
    for pause_ends_first in [false, true] {
        let mut registry = Registry::new();
        let group = registry.new_group();
        let token = registry.insert(Some(3), 1, READ, group).unwrap();
        registry.hold(token);
        registry.note(token, IN);
        registry.pause(group);
        let mut rearmed = 0;
        if pause_ends_first {
            registry.resume(group, &mut |_, _| rearmed += 1);
            assert_eq!((rearmed, registry.release(token)), (0, Some(READ)));
        } else {
            assert_eq!(registry.release(token), None);
            registry.resume(group, &mut |_, _| rearmed += 1);
            assert_eq!(rearmed, 1);
        }
        assert_eq!(registry.note(token, IN), Noted::Live);
        registry.check();
    }
}

#[test]
#[should_panic(expected = "resumed more often than paused")]
fn b5_resuming_too_often_is_a_fault() {
    Registry::<()>::new().resume(GroupId::DEFAULT, &mut |_, _| {});
}

#[derive(Debug)]
struct Known {
    token: Token,
    value: u32,
    interest: Interest,
    pending: Readiness,
}

/// A naive model of what the registry should know, by descriptor number, driven by the same random operations.
#[test]
fn r2_r3_r8_d1_random_operations_agree_with_a_naive_model() {
    let seed = std::env::var("AIO_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    println!("AIO_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    for _ in 0..500 {
        let mut registry = Registry::new();
        let mut model: BTreeMap<RawFd, Known> = BTreeMap::new();
        let mut stale: Vec<Token> = Vec::new();
        for step in 0..100 {
            random_step(&mut rng, &mut registry, &mut model, &mut stale, step);
            registry.check();
            assert_eq!(registry.len(), model.len());
            for token in &stale {
                assert!(registry.get(*token).is_none());
            }
        }
    }
}

fn random_step(
    rng: &mut fastrand::Rng,
    registry: &mut Registry<u32>,
    model: &mut BTreeMap<RawFd, Known>,
    stale: &mut Vec<Token>,
    step: u32,
) {
    let fd = rng.i32(0..12);
    let interest = Interest::from_bits_truncate(rng.u8(0..4));
    let readiness = Readiness::from_bits_truncate(rng.u8(0..32));
    let known = model.get_mut(&fd);
    match (rng.u32(0..6), known) {
        (0, known) => match registry.insert(Some(fd), step, interest, GroupId::DEFAULT) {
            Ok(token) => {
                assert!(known.is_none());
                model.insert(
                    fd,
                    Known {
                        token,
                        value: step,
                        interest,
                        pending: Readiness::empty(),
                    },
                );
            }
            Err(occupied) => assert_eq!(Some(occupied.token), known.map(|known| known.token)),
        },
        (1, Some(known)) => {
            assert_eq!(registry.remove(known.token), Some(known.value));
            stale.push(known.token);
            model.remove(&fd);
        }
        (2, Some(known)) => {
            assert_eq!(registry.replace(known.token, step), Some(known.value));
            (known.value, known.pending) = (step, Readiness::empty());
        }
        (3, Some(known)) => {
            assert_eq!(registry.set_interest(known.token, interest), Some(known.interest));
            known.interest = interest;
            known.pending &= interest.mask();
        }
        (4, Some(known)) => {
            assert_eq!(registry.note(known.token, readiness), Noted::Live);
            known.pending |= readiness & known.interest.mask();
        }
        (5, Some(known)) => {
            let taken = registry
                .take_ready(known.token)
                .map(|(value, ready, _)| (*value, ready));
            let pending = std::mem::take(&mut known.pending);
            assert_eq!(taken, (!pending.is_empty()).then_some((known.value, pending)));
        }
        (_, None) => assert_eq!(registry.token_of(fd), None),
        _ => unreachable!("six operations"),
    }
}
