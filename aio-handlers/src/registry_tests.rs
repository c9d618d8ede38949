//! The rules of the registry, one by one.

use super::*;
use crate::Recorded;
use crate::steps::count;

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
    assert_eq!(registry.record(token, IN), Recorded::Live);
    assert!(registry.take_ready(token).is_none(), "it is outside the interest");
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
    assert_eq!(registry.record(first, IN), Recorded::Stale);
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
    registry.record(token, IN);
    assert_eq!(registry.replace(token, 2), Some(1));
    assert!(registry.take_ready(token).is_none());
    registry.record(token, IN);
    assert_eq!(registry.take_ready(token), Some((&2, IN, READ)));
}

#[test]
fn r4_only_readiness_within_the_interest_is_kept() {
    let mut registry = Registry::new();
    let token = add(&mut registry, 3, 1);
    registry.record(token, Readiness::OUT);
    assert!(registry.take_ready(token).is_none());
    registry.record(token, Readiness::OUT | Readiness::HUP);
    assert_eq!(
        registry.take_ready(token).map(|(_, ready, _)| ready),
        Some(Readiness::HUP)
    );
    registry.record(token, IN);
    assert_eq!(registry.set_interest(token, Interest::WRITE), Some(READ));
    assert!(
        registry.take_ready(token).is_none(),
        "the interest no longer covers it"
    );
}

#[test]
fn r9_readiness_is_gone_with_the_removal() {
    let mut registry = Registry::new();
    let token = add(&mut registry, 3, 1);
    registry.record(token, IN);
    assert_eq!(registry.remove(token), Some(1));
    assert!(registry.take_ready(token).is_none());
}

/// R8: the caller drops a removed value. The registry never does, because it could not be used during the
/// drop.
#[test]
fn r8_values_leave_by_return_value() {
    use std::rc::Rc;
    let mut registry = Registry::new();
    let value = Rc::new(());
    let token = registry
        .insert(Some(3), value.clone(), READ, GroupId::DEFAULT)
        .unwrap();
    let refused = registry.insert(Some(3), value.clone(), READ, GroupId::DEFAULT);
    let former = registry.replace(token, value.clone());
    let unused = registry.replace(Token::new(9, 9), value.clone());
    assert!(unused.is_none());
    let removed = registry.remove(token);
    assert_eq!(Rc::strong_count(&value), 4, "refused, former, removed, and ours");
    drop((refused, former, removed));
    assert_eq!(Rc::strong_count(&value), 1);
}

/// Rule R2: the slot is retired, and its descriptor number is not.
#[test]
fn case_98_a_slot_that_has_used_up_its_generations() {
    let mut registry = Registry::with_first_generation(u32::MAX);
    let mut tokens = Vec::new();
    for value in 0..100 {
        let token = add(&mut registry, 3, value);
        assert!(!tokens.contains(&token));
        assert!(
            tokens
                .iter()
                .all(|old| registry.record(*old, IN) == Recorded::Stale)
        );
        assert_eq!(registry.take_ready(token), None);
        assert_eq!(registry.remove(token), Some(value));
        tokens.push(token);
        registry.check();
    }
    assert_eq!(registry.token_of(3), None);
}

#[test]
fn occupied_names_the_existing_registration() {
    let mut registry = Registry::new();
    let token = add(&mut registry, 3, 1);
    let refused: Box<dyn std::error::Error> = registry
        .insert(Some(3), 2, READ, GroupId::DEFAULT)
        .unwrap_err()
        .into();
    assert!(refused.to_string().contains(&format!("{token:?}")));
    let refused = registry.insert(Some(3), 2, READ, GroupId::DEFAULT).unwrap_err();
    let error = std::io::Error::from(refused);
    assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
    assert!(
        error
            .to_string()
            .starts_with("descriptor 3 has a handler already"),
        "{error}"
    );
}

/// Returns the cost of every operation on one handler, beside this many others, each with recorded readiness.
fn cost_among(others: i32) -> u64 {
    let mut registry = Registry::new();
    let group = registry.new_group();
    for fd in 0..others {
        let token = add(&mut registry, fd, 0);
        registry.record(token, IN);
    }
    let masked = registry.insert(Some(others), 0, READ, group).unwrap();
    let count_one = |registry: &mut Registry<u32>| {
        count(|| {
            let fd = others / 2;
            let old = registry.token_of(fd).unwrap();
            registry.remove(old);
            registry.record(old, IN);
            let token = registry.insert(Some(fd), 1, READ, GroupId::DEFAULT).unwrap();
            registry.insert(Some(fd), 1, READ, GroupId::DEFAULT).unwrap_err();
            registry.replace(token, 2);
            registry.set_interest(token, Interest::BOTH);
            registry.record(token, IN);
            registry.take_ready(token);
            registry.exclude(token);
            registry.record(token, IN);
            registry.readmit(token);
            registry.pause(group);
            registry.record(masked, IN);
            registry.resume(group, &mut |_, _| {});
            registry.give_back([token]);
            (registry.len(), registry.effective_interest(token))
        })
    };
    count_one(&mut registry)
}

#[test]
fn the_cost_of_an_operation_does_not_depend_on_how_many_are_registered() {
    assert_eq!(cost_among(10), cost_among(50_000));
}

#[test]
fn walks_over_all_slots_count_their_steps() {
    let mut registry = Registry::new();
    for fd in 0..1_000 {
        add(&mut registry, fd, 0);
    }
    assert_eq!(count(|| registry.tokens().count()), 1_000);
    assert!(count(|| registry.check()) >= 1_000);
}

#[test]
fn a_handler_costs_few_bytes_beside_its_value() {
    let indexed_and_vacant = 2 * size_of::<u32>();
    let beside = Slots::<Slot<()>>::CELL_BYTES + indexed_and_vacant;
    assert_eq!(beside, 40, "as on the crate's page");
    // A value may add padding, never more than its alignment.
    let beside = Slots::<Slot<[u64; 4]>>::CELL_BYTES + indexed_and_vacant - size_of::<[u64; 4]>();
    assert!(beside <= 40, "{beside}");
    let polled = size_of::<(Token, ())>() + size_of::<u32>();
    assert_eq!(polled, 12, "as on the crate's page");
}
