//! The number of times that the backend enters the kernel.

use std::rc::Rc;
use std::time::Duration;

use aio_backend::{Backend, Interest, Peek, ReadyList, Token};
use aio_backend_uring::{Config, Uring};

use crate::kit::{A, B, IN, available, check, doorbell, read, ring, seeing, seeing_with, wait, watch};

#[test]
fn r10_a_peek_that_finds_nothing_makes_no_system_call() {
    let Some(mut backend) = seeing() else { return };
    let bells: Vec<_> = (0..50).map(|_| doorbell()).collect();
    for (index, bell) in (0..).zip(&bells) {
        watch(&mut backend, bell, Token::new(index, 1));
    }
    assert_eq!(check(&mut backend), []);
    let calls = (backend.enters(), backend.verified());
    let mut ready = ReadyList::new();
    for _ in 0..1_000 {
        assert_eq!(backend.peek(&mut ready).unwrap(), Peek::Checked);
        assert_eq!(check(&mut backend), []);
    }
    assert!(ready.is_empty());
    assert_eq!((backend.enters(), backend.verified()), calls, "{backend:?}");
    // The effect of another thread is visible as soon as that thread reports it.
    for (index, bell) in (0..).zip(&bells) {
        let bell = Rc::clone(bell).try_clone().unwrap();
        let rung = std::thread::spawn(move || ring(&bell));
        rung.join().unwrap();
        let enters = backend.enters();
        assert_eq!(backend.peek(&mut ready).unwrap(), Peek::Pending);
        assert_eq!((ready.len(), backend.enters()), (0, enters));
        assert_eq!(check(&mut backend), [(Token::new(index, 1), IN)]);
        read(&bells[index as usize]);
    }
}

#[test]
fn r10_after_an_event_one_check_arms_again_and_the_others_are_free() {
    let Some(mut backend) = seeing() else { return };
    let (bell, other) = (doorbell(), doorbell());
    watch(&mut backend, &bell, A);
    watch(&mut backend, &other, B);
    for _ in 0..5 {
        ring(&bell);
        // Its request is pending. It neither hides new events nor reports outdated ones.
        for _ in 0..2 {
            let peeked = backend.peek(&mut ReadyList::new()).unwrap();
            assert_eq!(peeked, Peek::Pending);
            assert_eq!(check(&mut backend), [(A, IN)]);
        }
        read(&bell);
        let peeked = backend.peek(&mut ReadyList::new()).unwrap();
        assert_eq!(peeked, Peek::Pending);
        assert_eq!(check(&mut backend), []);
        let enters = backend.enters();
        for _ in 0..100 {
            let peeked = backend.peek(&mut ReadyList::new()).unwrap();
            assert_eq!(peeked, Peek::Checked);
        }
        assert_eq!(backend.enters(), enters);
    }
}

#[test]
fn r10_without_a_flag_for_pending_work_a_peek_is_unsupported() {
    let Some(mut backend) = available(Uring::with_config(Config::new().plain())) else {
        return;
    };
    let bell = doorbell();
    watch(&mut backend, &bell, A);
    ring(&bell);
    let mut ready = ReadyList::new();
    assert_eq!(backend.peek(&mut ready).unwrap(), Peek::Unsupported);
    assert!(ready.is_empty());
    assert_eq!(check(&mut backend), [(A, IN)]);
}

/// One enter arms all descriptors that were registered or reported before, waits, and fetches.
#[test]
fn r10_all_that_was_reported_is_armed_by_the_enter_of_the_next_wait() {
    let Some(mut backend) = seeing_with(Config::new().multishot_from(u32::MAX)) else {
        return;
    };
    let bells: Vec<_> = (0..100).map(|_| doorbell()).collect();
    for (index, bell) in (0..).zip(&bells) {
        ring(bell);
        watch(&mut backend, bell, Token::new(index, 1));
    }
    for round in 0..5 {
        let before = (backend.enters(), backend.verified());
        let found = wait(&mut backend, Duration::from_secs(10), 1_000);
        assert_eq!(found.len(), bells.len());
        let now = (backend.enters(), backend.verified());
        assert_eq!(now, (before.0 + 1, before.1), "round {round}");
    }
    bells.iter().for_each(|bell| read(bell));
    let before = backend.enters();
    assert_eq!(check(&mut backend), []);
    assert_eq!(backend.enters(), before + 1);
    assert_eq!(check(&mut backend), []);
    assert_eq!(backend.enters(), before + 1, "all are armed");
}

/// Sixteen descriptors that are armed again together get multishot requests, which no later wait needs to
/// arm. Fewer descriptors do not.
#[test]
fn r10_of_many_that_were_reported_the_next_wait_verifies_which_are_ready_still() {
    for (count, is_multishot) in [(15u32, false), (16, true), (100, true)] {
        let Some(mut backend) = seeing_with(Config::new().multishot_from(16)) else {
            return;
        };
        let bells: Vec<_> = (0..count).map(|_| doorbell()).collect();
        for (index, bell) in (0..).zip(&bells) {
            watch(&mut backend, bell, Token::new(index, 1));
        }
        // They are armed for the first time, one-shot.
        assert_eq!(check(&mut backend), []);
        let all = |backend: &mut Uring| {
            let found = wait(backend, Duration::from_secs(10), 1_000);
            assert_eq!(found.len(), bells.len());
        };
        bells.iter().for_each(|bell| ring(bell));
        all(&mut backend);
        // They are still ready; this wait arms them again.
        let verified = backend.verified();
        all(&mut backend);
        assert_eq!(backend.verified(), verified);
        for round in 0..5 {
            let before = (backend.enters(), backend.verified());
            all(&mut backend);
            let verified = backend.verified() - before.1;
            assert_eq!(
                verified,
                if is_multishot { count.into() } else { 0 },
                "round {round}"
            );
            // There is nothing to submit then. The flag for work may still be set, which costs an enter.
            let enters = backend.enters() - before.0;
            assert!(
                enters <= 1 && (is_multishot || enters == 1),
                "{count}, round {round}"
            );
        }
        bells.iter().for_each(|bell| read(bell));
        assert_eq!(check(&mut backend), []);
        // From here on each activity completes an armed request, and a single one is found as well.
        for bell in &bells {
            ring(bell);
            assert_eq!(check(&mut backend).len(), 1);
            read(bell);
            assert_eq!(check(&mut backend), []);
        }
        let enters = backend.enters();
        assert_eq!(check(&mut backend), []);
        assert_eq!(backend.enters(), enters);
    }
}

/// A wait without an event takes one enter. A wait that an event ends takes at most two.
#[test]
fn b2_a_timeout_is_part_of_the_enter() {
    let Some(mut backend) = seeing() else { return };
    let bell = doorbell();
    watch(&mut backend, &bell, A);
    assert_eq!(check(&mut backend), []);
    for micros in [1, 300, 2_300] {
        let before = backend.enters();
        assert_eq!(wait(&mut backend, Duration::from_micros(micros), 64), []);
        assert_eq!(backend.enters(), before + 1);
    }
    let before = backend.enters();
    assert_eq!(wait(&mut backend, Duration::from_micros(300), 64), []);
    ring(&bell);
    assert_eq!(wait(&mut backend, Duration::from_secs(60), 64), [(A, IN)]);
    assert!(backend.enters() <= before + 3, "{backend:?}");
}

/// Returns once a thread of this process sleeps.
fn until_asleep(thread: rustix::thread::Pid) {
    let path = format!("/proc/self/task/{}/stat", thread.as_raw_nonzero());
    loop {
        let stat = std::fs::read_to_string(&path).unwrap();
        // The name in parentheses before it may contain any character.
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        if state == Some('S') {
            return;
        }
        std::thread::yield_now();
    }
}

/// The event that ends a wait is new, whenever its request was armed. An earlier event may be outdated, so it
/// is verified.
#[test]
fn r10_an_activity_that_ends_a_wait_is_not_verified() {
    for interest in [Interest::READ, Interest::READ | Interest::EDGE] {
        let Some(mut backend) = seeing() else { return };
        let (bell, other) = (doorbell(), doorbell());
        backend.add(bell.clone().into(), A, interest).unwrap();
        watch(&mut backend, &other, B);
        assert_eq!(check(&mut backend), []);
        for round in 0..5 {
            let verified = backend.verified();
            let (home, writer) = (rustix::thread::gettid(), bell.try_clone().unwrap());
            let kick = std::thread::spawn(move || {
                until_asleep(home);
                ring(&writer);
            });
            assert_eq!(wait(&mut backend, Duration::from_secs(10), 10), [(A, IN)]);
            kick.join().unwrap();
            assert_eq!(backend.verified(), verified, "round {round}, {interest:?}");
            read(&bell);
            assert_eq!(check(&mut backend), []);
            // This event arrives between two waits.
            let verified = backend.verified();
            ring(&other);
            assert_eq!(wait(&mut backend, Duration::from_secs(10), 10), [(B, IN)]);
            assert_eq!(backend.verified(), verified + 1);
            read(&other);
            assert_eq!(check(&mut backend), []);
        }
    }
}
