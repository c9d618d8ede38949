//! Thousands of descriptors, and short queues and lists.

use std::collections::BTreeMap;
use std::time::Duration;

use aio_backend::conformance::disturb::raise_limit;
use aio_backend::{Backend, Interest, Peek, ReadyList, Token};
use aio_backend_uring::sys::Sys;
use aio_backend_uring::{Config, Uring};

use crate::faults::Failing;
use crate::kit::{A, B, IN, alone, available, check, doorbell, read, ring, wait, watch};

/// More completions at once than any queue holds. None is lost, and none is reported twice.
#[test]
fn d2_an_overflow_of_the_completion_queue_loses_nothing() {
    const COUNT: u32 = 3_000;
    let _alone = alone();
    if raise_limit() < u64::from(COUNT) + 500 {
        eprintln!("skipped: it needs {} descriptors (ulimit -Hn)", COUNT + 500);
        return;
    }
    let bells: Vec<_> = (0..COUNT).map(|_| doorbell()).collect();
    let small = Config::new().submissions(8).completions(8);
    for config in [Config::new(), small, small.plain()] {
        for interest in [Interest::READ, Interest::READ | Interest::EDGE] {
            let Some(mut backend) = available(Uring::with_config(config)) else {
                return;
            };
            for (index, bell) in (0..).zip(&bells) {
                let token = Token::new(index, 1);
                backend.add(bell.clone().into(), token, interest).unwrap();
            }
            assert_eq!(check(&mut backend), []);
            for limit in [100_000, 64] {
                bells.iter().for_each(|bell| ring(bell));
                let mut seen = BTreeMap::<u32, u32>::new();
                while seen.len() < bells.len() {
                    let found = wait(&mut backend, Duration::from_secs(10), limit);
                    assert!(!found.is_empty(), "{} are missing", bells.len() - seen.len());
                    for (token, _) in found {
                        *seen.entry(token.index()).or_default() += 1;
                        read(&bells[token.index() as usize]);
                    }
                }
                assert!(seen.values().all(|&times| times == 1), "{config:?} {interest:?}");
                assert_eq!(check(&mut backend), []);
            }
        }
    }
}

/// A full queue ends multishot requests. The same wait reports their registrations, which are still ready,
/// and does not leave them to the next one.
#[test]
fn d2_what_loses_its_multishot_request_is_reported_by_the_same_wait() {
    let tiny = Config::new().submissions(1).completions(2).multishot_from(1);
    for config in [tiny, tiny.plain()] {
        let Some(mut backend) = available(Uring::with_config(config)) else {
            return;
        };
        let bells: Vec<_> = (0..20).map(|_| doorbell()).collect();
        for (index, bell) in (0..).zip(&bells) {
            watch(&mut backend, bell, Token::new(index, 1));
            ring(bell);
        }
        for round in 0..10 {
            // With so little room, the wait fetches completions before it verifies and arms.
            let found = wait(&mut backend, Duration::ZERO, bells.len() + 2);
            assert_eq!(found.len(), bells.len(), "{config:?}, round {round}: {found:?}");
            // None is read, and each has new activity.
            bells.iter().for_each(|bell| ring(bell));
        }
    }
}

/// Descriptors that stay ready and others that become ready are reported in turn.
#[test]
fn d2_a_ready_descriptor_is_reported_beside_many_that_stay_ready() {
    const STAY: u32 = 200;
    for config in [Config::new(), Config::new().submissions(4).completions(4)] {
        let Some(mut backend) = available(Uring::with_config(config)) else {
            return;
        };
        let bells: Vec<_> = (0..=STAY).map(|_| doorbell()).collect();
        for (index, bell) in (0..).zip(&bells) {
            watch(&mut backend, bell, Token::new(index, 1));
            if index < STAY {
                ring(bell);
            }
        }
        let (late, token) = (&bells[STAY as usize], Token::new(STAY, 1));
        for limit in [1, 7, 64] {
            for _ in 0..3 {
                ring(late);
                let turns = (1..).find(|_| {
                    let found = wait(&mut backend, Duration::ZERO, limit);
                    found.iter().any(|(reported, _)| *reported == token)
                });
                let most = 2 * STAY as usize / limit + 2;
                assert!(turns.is_some_and(|turns| turns <= most), "{turns:?} of {most}");
                read(late);
            }
        }
    }
}

#[test]
fn r5_registrations_that_come_and_go_without_a_wait_leave_nothing() {
    let Some(mut backend) = available(Uring::new()) else {
        return;
    };
    let (bell, other) = (doorbell(), doorbell());
    watch(&mut backend, &other, Token::new(0, 0));
    assert_eq!(check(&mut backend), []);
    let enters = backend.enters();
    ring(&bell);
    for generation in 0..100_000 {
        let token = Token::new(1 + generation % 3, generation);
        watch(&mut backend, &bell, token);
        backend.remove(token).unwrap();
    }
    assert_eq!(backend.enters(), enters, "nothing was armed");
    assert_eq!(check(&mut backend), []);
    ring(&other);
    assert_eq!(check(&mut backend).len(), 1);
}

/// If the same request completes again while a wait reports it, that completion is for the next wait.
#[test]
fn d3_a_wait_reports_an_edge_once_that_has_completed_twice() {
    let Some(mut backend) = available(Uring::new()) else {
        return;
    };
    let (bell, other) = (doorbell(), doorbell());
    let edge = Interest::READ | Interest::EDGE;
    backend.add(bell.clone().into(), A, edge).unwrap();
    watch(&mut backend, &other, B);
    assert_eq!(check(&mut backend), []);
    ring(&bell);
    // The enter that cancels the other request fetches the completion.
    backend.remove(B).unwrap();
    ring(&bell);
    assert_eq!(check(&mut backend), [(A, IN)]);
    assert_eq!(check(&mut backend), [(A, IN)]);
    assert_eq!(check(&mut backend), []);
    // It was verified, so an event whose data has been read is not reported.
    watch(&mut backend, &other, B);
    assert_eq!(check(&mut backend), []);
    ring(&bell);
    backend.remove(B).unwrap();
    ring(&bell);
    assert_eq!(check(&mut backend), [(A, IN)]);
    read(&bell);
    assert_eq!(check(&mut backend), []);
    ring(&bell);
    assert_eq!(check(&mut backend), [(A, IN)]);
}

/// The kernel may queue the first completion of a multishot request as work that it does after the enter. A ring
/// that shows no pending work then looks empty.
#[test]
fn d2_a_check_reports_a_ready_descriptor_whose_multishot_request_completes_after_the_enter() {
    for config in [
        Config::new().plain().multishot_from(1),
        Config::new().multishot_from(1),
    ] {
        let sys = Failing::default();
        let Some(mut backend) = available(Uring::with_sys(sys.clone(), config)) else {
            return;
        };
        let (a, b) = (doorbell(), doorbell());
        watch(&mut backend, &a, A);
        watch(&mut backend, &b, B);
        assert_eq!(check(&mut backend), []);
        sys.is_late.set(!seeing(&mut backend));
        for _ in 0..3 {
            ring(&a);
            // Removed and watched again, so that its request is armed anew.
            backend.remove(A).unwrap();
            watch(&mut backend, &a, A);
            assert_eq!(check(&mut backend), [(A, IN)]);
            assert_eq!(check(&mut backend), [(A, IN)]);
            read(&a);
            assert_eq!(check(&mut backend), []);
        }
    }
}

/// Returns `true` if the ring shows pending work.
fn seeing<S: Sys>(backend: &mut Uring<S>) -> bool {
    backend.peek(&mut ReadyList::new()).unwrap() != Peek::Unsupported
}
