//! Hostile cases of a ring. Case 27: full queues, requests that the kernel cancels or ends, and calls that
//! fail. Case 28: descriptors that are ready before they are armed again.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use aio_backend::{Backend, Interest, Token};
use aio_backend_uring::{Config, Uring};
use rustix::io::Errno;

use crate::faults::Failing;
use crate::kit::{A, IN, available, backends, check, doorbell, read, ring, wait, watch};

/// Returns configurations with short queues, some of which end multishot requests.
fn configs() -> [Config; 4] {
    let tiny = Config::new().submissions(1).completions(2);
    let multishot = tiny.multishot_from(1);
    [tiny, tiny.plain(), multishot, multishot.plain()]
}

/// The submission queue has room for one request, and one enter in three fails because of a temporary lack.
/// Waits return no error, and report each ready descriptor and no other, also while others are removed,
/// silenced and watched again.
#[test]
fn case_27_full_queues_and_lacks_that_pass_lose_nothing() {
    const COUNT: usize = 100;
    let asked = std::env::var("AIO_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = asked.unwrap_or_else(|| fastrand::u64(..));
    println!("AIO_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for config in configs() {
        let sys = Failing::default();
        let Some(mut backend) = available(Uring::with_sys(sys.clone(), config)) else {
            return;
        };
        sys.room.set(Some(1));
        sys.lacks.set(Some(3));
        let bells: Vec<_> = (0..COUNT).map(|_| doorbell()).collect();
        let mut tokens: Vec<_> = (0..COUNT as u32).map(|index| Token::new(index, 0)).collect();
        for (bell, token) in bells.iter().zip(&tokens) {
            watch(&mut backend, bell, *token);
        }
        for _ in 0..100 {
            let mut ready: BTreeSet<Token> =
                random.choose_multiple(&tokens, 10).into_iter().copied().collect();
            ready
                .iter()
                .for_each(|token| ring(&bells[token.index() as usize]));
            while !ready.is_empty() {
                let index = random.usize(..COUNT);
                let token = tokens[index];
                if random.bool() {
                    backend.modify(token, Interest::NONE).unwrap();
                    backend.modify(token, Interest::READ).unwrap();
                } else {
                    backend.remove(token).unwrap();
                    tokens[index] = Token::new(token.index(), token.generation() + 1);
                    watch(&mut backend, &bells[index], tokens[index]);
                    if ready.remove(&token) {
                        ready.insert(tokens[index]);
                    }
                }
                // A wait that ends because of an interruption may report no event.
                for (token, readiness) in wait(&mut backend, Duration::from_secs(10), 64) {
                    assert!(ready.remove(&token) && readiness == IN, "{token:?}, {config:?}");
                    read(&bells[token.index() as usize]);
                }
            }
        }
        assert!(sys.lacked.get() > 100, "{}", sys.lacked.get());
    }
}

/// The kernel cancels the requests of descriptors that are removed and watched again, and completes some with
/// an error. Each descriptor is still reported, and no completion counts for a later registration.
#[test]
fn case_27_requests_that_are_cancelled_are_armed_again() {
    for config in configs() {
        let sys = Failing::default();
        let Some(mut backend) = available(Uring::with_sys(sys.clone(), config)) else {
            return;
        };
        let bells: Vec<_> = (0..20).map(|_| doorbell()).collect();
        let token = |index: usize, generation| Token::new(index as u32, generation);
        for (index, bell) in bells.iter().enumerate() {
            watch(&mut backend, bell, token(index, 0));
        }
        for round in 0..50_u32 {
            sys.requests.borrow_mut().extend([Errno::CANCELED; 3]);
            for (index, bell) in bells.iter().enumerate().skip(round as usize % 3).step_by(3) {
                ring(bell);
                if index % 2 == 0 {
                    backend.remove(token(index, round)).unwrap();
                    watch(&mut backend, bell, token(index, round));
                }
            }
            let mut seen = Vec::new();
            while seen.len() < (20 - round as usize % 3).div_ceil(3) {
                let found = wait(&mut backend, Duration::from_secs(10), 64);
                assert!(!found.is_empty(), "{config:?}, {round}: {seen:?} alone");
                for (token, readiness) in found {
                    assert_eq!((token.generation(), readiness), (round, IN));
                    read(&bells[token.index() as usize]);
                    seen.push(token.index());
                }
            }
            seen.sort_unstable();
            seen.dedup();
            assert!(seen.iter().all(|index| index % 3 == round % 3), "{seen:?}");
            assert_eq!(seen.len(), (20 - round as usize % 3).div_ceil(3), "twice");
            for (index, bell) in bells.iter().enumerate() {
                backend.remove(token(index, round)).unwrap();
                watch(&mut backend, bell, token(index, round + 1));
            }
        }
        backend.drain(&mut |fd, _, _| drop(fd));
        assert!(bells.iter().all(|bell| Rc::strong_count(bell) == 1));
    }
}

/// A descriptor becomes ready after its event was reported and before the next wait arms it again.
#[test]
fn case_28_what_is_ready_before_it_is_armed_again_is_reported() {
    let once = Interest::READ | Interest::ONESHOT;
    let edge = Interest::READ | Interest::EDGE;
    for mut backend in backends() {
        for interest in [Interest::READ, edge, once] {
            let bell = doorbell();
            backend.add(bell.clone().into(), A, interest).unwrap();
            for consumed in [true, false, true] {
                // It is ready before it is armed for the first time, or again.
                ring(&bell);
                if interest == once {
                    backend.modify(A, once).unwrap();
                }
                assert_eq!(check(&mut backend), [(A, IN)], "{backend:?} {interest:?}");
                if consumed {
                    read(&bell);
                } else if interest == Interest::READ {
                    // It stays ready, without further activity.
                    assert_eq!(check(&mut backend), [(A, IN)], "{backend:?}");
                }
            }
            assert_eq!(check(&mut backend), [], "{backend:?} {interest:?}");
            backend.remove(A).unwrap();
        }
    }
}
