use super::*;
use crate::{Due, Event, GroupId, Recorded};

const READ: Interest = Interest::READ;
const IN: Readiness = Readiness::IN;
const ONCE: Interest = Interest::READ.union(Interest::ONESHOT);

fn registry(interest: Interest) -> (Registry<u32>, Token) {
    let mut registry = Registry::new();
    let token = registry.insert(Some(3), 1, interest, GroupId::DEFAULT).unwrap();
    (registry, token)
}

#[test]
fn r9_a_change_tells_what_the_backend_has_and_what_it_needs() {
    let (mut registry, token) = registry(Interest::NONE);
    let change = |registry: &Registry<u32>, interest| registry.change(token, Some(interest)).unwrap();
    assert!(!change(&registry, Interest::NONE).is_needed());
    let first = change(&registry, ONCE);
    assert!(first.is_needed() && !first.is_watched && !registry.is_watched(token));
    registry.set_interest(token, ONCE);
    assert!(registry.is_watched(token));
    let again = change(&registry, ONCE);
    assert!(again.is_needed() && again.is_watched, "it is armed again");
    registry.delivered(token);
    let woken = change(&registry, READ);
    assert_eq!((woken.former, woken.from, woken.to), (ONCE, Interest::NONE, READ));
    registry.set_interest(token, Interest::NONE);
    assert!(
        registry.is_watched(token),
        "the backend keeps a silent descriptor"
    );
    assert_eq!(registry.remove_watched(token), Some((1, true)));
    assert!(!registry.is_watched(token) && registry.version(token).is_none());
    assert_eq!(registry.change(token, None), Err(ChangeError::Stale));
    assert_eq!(registry.replacement(token, 3, None), Err(ChangeError::Stale));
}

#[test]
fn r9_without_a_descriptor_number_there_is_nothing_to_wait_for() {
    let mut registry = Registry::new();
    let source = registry
        .insert(None, 1, Interest::NONE, GroupId::DEFAULT)
        .unwrap();
    assert_eq!(
        registry.change(source, Some(READ)),
        Err(ChangeError::NoDescriptor)
    );
    assert!(!registry.change(source, Some(Interest::NONE)).unwrap().is_needed());
    assert_eq!((registry.fd(source), registry.is_watched(source)), (None, false));
    // A registration without a number counts as watched if it is inserted with an interest.
    let events = registry.insert(None, 2, READ, GroupId::DEFAULT).unwrap();
    assert!(registry.change(events, Some(Interest::NONE)).unwrap().is_watched);
    assert_eq!(registry.remove_watched(source), Some((1, false)));
}

#[test]
fn r3_only_a_value_with_the_same_descriptor_takes_the_place_of_another() {
    let (mut registry, token) = registry(READ);
    let other = registry.insert(Some(4), 2, READ, GroupId::DEFAULT).unwrap();
    assert_eq!(
        registry.replacement(token, 4, None),
        Err(ChangeError::OtherDescriptor)
    );
    assert_eq!(registry.fd(other), Some(4));
    let change = registry.replacement(token, 3, Some(Interest::BOTH)).unwrap();
    assert_eq!((change.from, change.to), (READ, Interest::BOTH));
    let replaced = registry
        .succeed(token, 7, change.interest, |former, new| former == new)
        .unwrap();
    assert_eq!(
        (replaced.former, replaced.is_other, replaced.rearm),
        (1, true, None)
    );
    assert_eq!(
        (registry.get(token), registry.interest(token)),
        (Some(&7), Some(Interest::BOTH))
    );
    assert_eq!(
        (registry.version(token), registry.version(other)),
        (Some(1), Some(0))
    );
    registry.remove(token);
    assert_eq!(registry.succeed(token, 8, READ, |_, _| false), None);
    registry.check();
}

#[test]
fn r3_a_successor_is_called_although_the_former_value_still_runs() {
    for is_same in [false, true] {
        let (mut registry, token) = registry(READ);
        assert!(registry.exclude(token));
        assert_eq!(registry.record(token, IN), Recorded::Masked);
        let replaced = registry.succeed(token, 2, READ, |_, _| is_same).unwrap();
        assert_eq!(replaced.is_other, !is_same);
        assert_eq!(replaced.rearm, (!is_same).then_some(READ));
        if is_same {
            assert_eq!(registry.record(token, IN), Recorded::Masked);
            assert_eq!(registry.readmit(token), Some(READ));
        } else {
            // The successor runs inside the former one, and is masked by an event of its own.
            assert!(registry.exclude(token));
            assert_eq!(registry.record(token, IN), Recorded::Masked);
            assert_eq!(registry.readmit(token), Some(READ));
            assert_eq!(registry.readmit(token), None, "the former one has returned");
        }
        assert_eq!(registry.record(token, IN), Recorded::Live);
        registry.check();
    }
}

#[test]
#[should_panic(expected = "readmitted more often than excluded")]
fn a9_exclusions_that_have_ended_are_readmitted_once() {
    let (mut registry, token) = registry(READ);
    registry.exclude(token);
    registry.end_exclusions(token);
    assert_eq!(registry.readmit(token), None);
    registry.readmit(token);
}

#[test]
fn d1_events_of_a_special_value_are_resolved_until_it_is_replaced() {
    let (mut registry, token) = registry(READ);
    registry.set_special(token);
    let deliver = |registry: &mut Registry<u32>| {
        let mut list = Box::new(aio_backend::ReadyList::new());
        list.push(token, IN);
        let outer = registry.start_delivery(list, false);
        let (token, readiness, plain) = registry.next_event().unwrap();
        let plain = plain.map(|due| *due.value);
        let resolved = match registry.resolve(token, readiness) {
            Event::Ready(Due {
                value,
                is_special,
                version,
                ..
            }) => Some((*value, is_special, version)),
            Event::Masked | Event::Dropped => None,
        };
        registry.end_delivery(outer);
        (plain, resolved)
    };
    assert_eq!(deliver(&mut registry), (None, Some((1, true, 0))));
    registry.set_interest(token, Interest::BOTH);
    assert_eq!(deliver(&mut registry), (None, Some((1, true, 0))));
    registry.replace(token, 2);
    assert_eq!(deliver(&mut registry), (Some(2), Some((2, false, 1))));
    registry.remove(token);
    registry.set_special(token);
    registry.check();
}

/// A backend that is armed again reports the remaining readiness; earlier readiness may be gone.
#[test]
fn r14_recorded_readiness_is_dropped_when_the_backend_is_armed_in_another_way() {
    let edge = READ | Interest::EDGE;
    for (former, next, is_kept) in [
        (READ, Interest::BOTH, true),
        (edge, Interest::BOTH | Interest::EDGE, true),
        (ONCE, READ, false),
        (ONCE, edge, false),
        (edge, READ, false),
        (READ, edge, false),
        (READ, ONCE, false),
        (ONCE, ONCE, false),
    ] {
        let (mut registry, token) = registry(former);
        registry.record(token, IN);
        registry.set_interest(token, next);
        assert_eq!(registry.has_ready(token), is_kept, "{former:?} to {next:?}");
    }
}
