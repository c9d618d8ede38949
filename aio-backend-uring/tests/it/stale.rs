//! Completions that are outdated when they are read.

use aio_backend::{Backend, Interest, Token};

use crate::kit::{A, B, IN, OUT, backends, check, doorbell, read, ring, watch};

#[test]
fn r2_an_event_that_was_consumed_meanwhile_is_not_reported() {
    for mut backend in backends() {
        let bell = doorbell();
        watch(&mut backend, &bell, A);
        for _ in 0..5 {
            assert_eq!(check(&mut backend), []);
            ring(&bell);
            read(&bell);
            assert_eq!(check(&mut backend), [], "{backend:?}");
            ring(&bell);
            assert_eq!(check(&mut backend), [(A, IN)]);
            read(&bell);
        }
    }
}

#[test]
fn r2_a_completion_for_a_removed_registration_is_dropped() {
    let mut late = 0;
    for mut backend in backends() {
        for generation in 0..5 {
            let (token, next) = (Token::new(7, generation), Token::new(7, generation + 1));
            let (bell, silent) = (doorbell(), doorbell());
            watch(&mut backend, &bell, token);
            assert_eq!(check(&mut backend), []);
            ring(&bell);
            let stale = backend.stale_completions();
            backend.remove(token).unwrap();
            // With deferred task work the request has not completed yet, and is cancelled.
            late += backend.stale_completions() - stale;
            // The slot is used again, also for the same token.
            for again in [next, token] {
                watch(&mut backend, &silent, again);
                assert_eq!(check(&mut backend), []);
                ring(&silent);
                assert_eq!(check(&mut backend), [(again, IN)]);
                read(&silent);
                backend.remove(again).unwrap();
            }
        }
    }
    assert!(
        late > 0 || backends().is_empty(),
        "no completion came after a removal"
    );
}

#[test]
fn r2_a_completion_for_a_former_interest_is_dropped() {
    for mut backend in backends() {
        let bell = doorbell();
        watch(&mut backend, &bell, A);
        for interest in [Interest::READ, Interest::READ | Interest::EDGE] {
            assert_eq!(check(&mut backend), []);
            ring(&bell);
            backend.modify(A, Interest::WRITE).unwrap();
            assert_eq!(check(&mut backend), [(A, OUT)]);
            backend.modify(A, Interest::NONE).unwrap();
            assert_eq!(check(&mut backend), []);
            read(&bell);
            backend.modify(A, interest).unwrap();
        }
    }
}

#[test]
fn r14_an_event_that_was_consumed_meanwhile_is_not_the_only_one() {
    let once = Interest::READ | Interest::ONESHOT;
    for mut backend in backends() {
        let bell = doorbell();
        backend.add(bell.clone().into(), A, once).unwrap();
        assert_eq!(check(&mut backend), []);
        ring(&bell);
        read(&bell);
        assert_eq!(check(&mut backend), []);
        ring(&bell);
        assert_eq!(check(&mut backend), [(A, IN)]);
        assert_eq!(check(&mut backend), []);
    }
}

#[test]
fn r13_an_edge_that_was_consumed_meanwhile_is_not_reported_and_the_next_one_is() {
    for mut backend in backends() {
        let (bell, other) = (doorbell(), doorbell());
        let edge = Interest::READ | Interest::EDGE;
        backend.add(bell.clone().into(), A, edge).unwrap();
        watch(&mut backend, &other, B);
        for _ in 0..3 {
            assert_eq!(check(&mut backend), []);
            ring(&bell);
            read(&bell);
            ring(&other);
            assert_eq!(check(&mut backend), [(B, IN)]);
            read(&other);
            ring(&bell);
            ring(&bell);
            assert_eq!(check(&mut backend), [(A, IN)]);
            assert_eq!(check(&mut backend), [], "one event for the activity until then");
            read(&bell);
        }
    }
}
