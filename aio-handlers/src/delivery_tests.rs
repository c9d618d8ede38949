use super::*;
use crate::GroupId;

const EDGE: Interest = Interest::READ.union(Interest::EDGE);

/// Registers handlers 0, 1, 2 ... with these interests, all ready to read.
fn ready(interests: &[Interest]) -> (Registry<usize>, Vec<Token>, Box<ReadyList>) {
    let mut registry = Registry::new();
    let mut list = Box::new(ReadyList::new());
    let tokens = interests.iter().enumerate().map(|(number, interest)| {
        let inserted = registry.insert(Some(number as i32), number, *interest, GroupId::DEFAULT);
        inserted.expect("each has a number of its own")
    });
    let tokens: Vec<Token> = tokens.collect();
    for token in &tokens {
        list.push(*token, Readiness::IN);
    }
    (registry, tokens, list)
}

/// Returns the next handler that is called, without masked ones.
fn next(registry: &mut Registry<usize>) -> Option<usize> {
    while let Some((token, readiness, due)) = registry.next_event() {
        if let Some(due) = due {
            return Some(*due.value);
        }
        if let Event::Ready(due) = registry.resolve(token, readiness) {
            return Some(*due.value);
        }
    }
    None
}

fn rest(registry: &mut Registry<usize>) -> Vec<usize> {
    std::iter::from_fn(|| next(registry)).collect()
}

#[test]
fn d3_the_rest_of_an_event_is_due_while_nothing_has_changed_for_its_handler() {
    let once = Interest::BOTH.union(Interest::ONESHOT);
    let (mut registry, tokens, _) = ready(&[Interest::BOTH, Interest::BOTH, once]);
    let writes = |registry: &Registry<usize>, number: usize| {
        let is_wanted = |interest: Interest| interest.contains(Interest::WRITE);
        registry.is_current(tokens[number], 0, is_wanted)
    };
    registry.delivered(tokens[2]);
    assert!((0..3).all(|number| writes(&registry, number)));
    registry.set_interest(tokens[0], Interest::READ);
    assert!(!writes(&registry, 0), "it does not wait to write any more");
    registry.set_interest(tokens[0], Interest::BOTH);
    registry.pause(GroupId::DEFAULT);
    assert!((0..3).all(|number| !writes(&registry, number)));
    registry.resume(GroupId::DEFAULT, &mut |_, _| {});
    assert!(writes(&registry, 2));
    registry.set_interest(tokens[2], once);
    assert!(!writes(&registry, 2), "it is armed for another event");
    registry.replace(tokens[1], 7);
    assert_eq!(
        [0, 1, 2].map(|number| writes(&registry, number)),
        [true, false, false]
    );
    registry.remove(tokens[0]);
    assert!(!writes(&registry, 0));
}

#[test]
fn d2_events_are_delivered_in_the_order_of_the_list() {
    let (mut registry, tokens, list) = ready(&[Interest::READ, EDGE, Interest::BOTH]);
    let outer = registry.start_delivery(list, false);
    assert_eq!(rest(&mut registry), [0, 1, 2]);
    assert_eq!(registry.end_delivery(outer).len(), 3);
    assert!(tokens.iter().all(|token| !registry.has_ready(*token)));
    registry.check();
}

#[test]
fn d1_a_nested_iteration_takes_over_what_the_outer_one_has_not_delivered() {
    for taken in [1, 2] {
        let (mut registry, tokens, list) = ready(&[Interest::READ; 3]);
        let outer = registry.start_delivery(list, false);
        assert_eq!(next(&mut registry), Some(0));
        let mut nested = Box::new(ReadyList::new());
        registry.recall(&mut nested);
        assert!(nested.is_empty(), "levels are reported by the backend");
        nested.push(tokens[taken], Readiness::IN);
        let inner = registry.start_delivery(nested, false);
        assert_eq!(rest(&mut registry), [taken]);
        registry.end_delivery(inner);
        assert_eq!(rest(&mut registry), [3 - taken], "the other one is left");
        registry.end_delivery(outer);
        registry.check();
    }
}

#[test]
fn d1_an_edge_of_the_outer_list_is_recalled_by_a_nested_iteration() {
    let (mut registry, tokens, list) = ready(&[EDGE, EDGE]);
    let outer = registry.start_delivery(list, false);
    assert_eq!(next(&mut registry), Some(0));
    let mut nested = Box::new(ReadyList::new());
    registry.recall(&mut nested);
    assert_eq!(nested.get(0), Some((tokens[1], Readiness::IN)));
    let inner = registry.start_delivery(nested, true);
    assert_eq!(rest(&mut registry), [1]);
    registry.end_delivery(inner);
    assert!(rest(&mut registry).is_empty());
    registry.end_delivery(outer);
}

#[test]
fn r3_r9_a_change_of_another_handler_drops_what_it_was_ready_for() {
    let changes: [fn(&mut Registry<usize>, Token); 4] = [
        |registry, token| {
            registry.remove(token);
        },
        |registry, token| {
            registry.replace(token, 7);
        },
        |registry, token| {
            registry.set_interest(token, Interest::WRITE);
            registry.set_interest(token, Interest::READ);
        },
        |registry, token| {
            registry.exclude(token);
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let (mut registry, tokens, list) = ready(&[Interest::READ; 3]);
        let outer = registry.start_delivery(list, false);
        assert_eq!(next(&mut registry), Some(0));
        change(&mut registry, tokens[1]);
        assert_eq!(rest(&mut registry), [2], "change {number}");
        registry.end_delivery(outer);
        assert_eq!(registry.stale_events(), 0, "it was live when it was reported");
        registry.check();
    }
}

#[test]
fn r9_a_change_of_its_own_handler_leaves_the_others_unrecorded() {
    let (mut registry, tokens, list) = ready(&[Interest::READ; 2]);
    let outer = registry.start_delivery(list, false);
    assert_eq!(next(&mut registry), Some(0));
    registry.set_interest(tokens[0], Interest::WRITE);
    registry.remove(tokens[0]);
    assert!(!registry.has_ready(tokens[1]), "its event needs no record");
    assert_eq!(rest(&mut registry), [1]);
    registry.end_delivery(outer);
}

#[test]
fn b5_a_pause_by_a_callback_rejects_the_rest() {
    let (mut registry, tokens, list) = ready(&[Interest::READ, Interest::READ, EDGE]);
    let outer = registry.start_delivery(list, false);
    assert_eq!(next(&mut registry), Some(0));
    registry.pause(GroupId::DEFAULT);
    assert!(rest(&mut registry).is_empty());
    registry.end_delivery(outer);
    let mut rearmed = Vec::new();
    registry.resume(GroupId::DEFAULT, &mut |token, _| rearmed.push(token));
    assert_eq!(
        rearmed,
        [tokens[2]],
        "the backend reports a level again, an edge it does not"
    );
    registry.check();
}

#[test]
fn d9_a_delivery_that_ends_early_keeps_edges_and_drops_levels() {
    for is_recorded in [false, true] {
        let (mut registry, tokens, list) = ready(&[Interest::READ, Interest::READ, EDGE]);
        if is_recorded {
            for (token, readiness) in list.iter() {
                registry.record(token, readiness);
            }
        }
        let outer = registry.start_delivery(list, is_recorded);
        assert_eq!(next(&mut registry), Some(0));
        let list = registry.end_delivery(outer);
        assert_eq!(list.rest().len(), 2);
        assert!(!registry.has_ready(tokens[1]) && registry.has_ready(tokens[2]));
        let mut recalled = ReadyList::new();
        registry.recall(&mut recalled);
        assert_eq!(
            recalled.iter().map(|(token, _)| token).collect::<Vec<_>>(),
            [tokens[2]]
        );
        registry.check();
    }
}

#[test]
fn r2_a_late_event_is_counted_once_however_it_is_found() {
    for settles in [false, true] {
        let (mut registry, tokens, mut list) = ready(&[Interest::READ; 2]);
        list.push(Token::new(1, 9), Readiness::IN);
        let outer = registry.start_delivery(list, false);
        assert_eq!(next(&mut registry), Some(0));
        if settles {
            registry.set_interest(tokens[1], Interest::BOTH);
        }
        assert_eq!(rest(&mut registry), [1]);
        registry.end_delivery(outer);
        assert_eq!(registry.stale_events(), 1);
    }
}

#[test]
fn d3_the_only_event_of_a_list_is_due_without_a_delivery_if_it_is_plain() {
    let (mut registry, tokens, list) = ready(&[Interest::BOTH]);
    let (token, due) = registry.only_event(&list, false).expect("it is plain");
    assert_eq!((token, *due.value, due.readiness), (tokens[0], 0, Readiness::IN));
    assert!(registry.only_event(&list, true).is_none(), "it was recorded");
    registry.remove(tokens[0]);
    assert!(registry.only_event(&list, false).is_none(), "R9: it was removed");
    let (mut registry, tokens, list) = ready(&[Interest::READ]);
    registry.set_special(tokens[0]);
    assert!(registry.only_event(&list, false).is_none());
    let (registry, _, list) = ready(&[EDGE]);
    assert!(registry.only_event(&list, false).is_none());
    let (registry, _, list) = ready(&[Interest::READ, Interest::READ]);
    assert!(registry.only_event(&list, false).is_none(), "there are two");
    assert!(registry.only_event(&ReadyList::new(), false).is_none());
}

#[test]
fn d1_the_only_event_of_a_nested_iteration_waits_until_the_outer_list_is_recorded() {
    let (mut registry, tokens, list) = ready(&[Interest::READ, Interest::READ]);
    registry.start_delivery(list, false);
    assert_eq!(next(&mut registry), Some(0));
    let mut nested = Box::new(ReadyList::new());
    nested.push(tokens[1], Readiness::IN);
    assert!(registry.only_event(&nested, false).is_none());
    let outer = registry.start_delivery(nested, false);
    assert_eq!(rest(&mut registry), [1], "the outer one has lost it");
    registry.end_delivery(outer);
    assert!(rest(&mut registry).is_empty());
    registry.end_delivery(None);
}
