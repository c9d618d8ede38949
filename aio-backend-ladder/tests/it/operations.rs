//! Operations on a ladder. They keep it at its level, and outlive a level that fails.

use std::sync::Arc;
use std::time::Duration;

use aio_backend::{Backend, Completed, Interest, Operation, Readiness, ReadyList, Token};
use aio_backend_ladder::{Ladder, Level};
use aio_backend_ppoll::Ppoll;
use rustix::io::Errno;

use crate::faulty::Plan;
use crate::world::World;

const REPORT: Token = Token::new(1_000, 5);

fn operation() -> Operation {
    Operation::sync_all(Arc::new(std::fs::File::open("/proc/self/stat").unwrap()))
}

fn check(backend: &mut dyn Backend, limit: usize) -> Vec<(Token, Readiness)> {
    let mut ready = ReadyList::with_limit(limit);
    backend.wait(Some(Duration::ZERO), &mut ready).unwrap();
    ready.iter().collect()
}

fn errno((token, completed): (Token, Completed)) -> (Token, Option<Errno>) {
    let error = completed.result.err();
    (token, error.and_then(|error| Errno::from_io_error(&error)))
}

#[test]
fn s1_the_level_in_use_executes_operations_if_it_can() {
    let plan = Plan::new();
    let mut backend = Ladder::new(Ppoll::new(), plan.maker(), 2);
    let refused = backend.submit(REPORT, operation()).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::Unsupported);
    let mut world = World::default();
    let tokens = [(); 2].map(|()| world.add(&mut backend, Interest::READ));
    backend.rebalance();
    let id = backend.submit(REPORT, refused.into_operation()).unwrap();
    assert_eq!(backend.in_flight(), 1);
    for token in tokens {
        backend.remove(token).unwrap();
    }
    backend.rebalance();
    assert_eq!(backend.level(), Level::Upper, "an operation is in flight");
    backend.cancel(id);
    assert_eq!(
        backend.next_completed().map(errno),
        Some((id, Some(Errno::CANCELED)))
    );
    assert_eq!(backend.in_flight(), 0);
    backend.rebalance();
    assert_eq!(backend.level(), Level::Lower);
}

#[test]
fn s1_operations_of_a_level_that_fails_end_and_are_reported() {
    for call in ["wait", "add"] {
        let plan = Plan::new();
        let mut backend = Ladder::new(Ppoll::new(), plan.maker(), 0);
        let mut world = World::default();
        let bell = world.add(&mut backend, Interest::READ);
        let ids = [(); 3].map(|()| backend.submit(REPORT, operation()).unwrap());
        plan.fail_next(call, Errno::NOMEM);
        match call {
            "wait" => assert!(check(&mut backend, 8).iter().all(|(token, _)| *token == REPORT)),
            _ => drop(world.add(&mut backend, Interest::READ)),
        }
        assert_eq!(
            (backend.level(), backend.in_flight()),
            (Level::Lower, 3),
            "{call}"
        );
        // Completions are reported until they are taken, together with the events of descriptors, and without
        // blocking.
        world.kick(bell);
        for _ in 0..3 {
            let mut seen: Vec<_> = check(&mut backend, 1);
            seen.extend(check(&mut backend, 1));
            seen.sort_by_key(|(token, _)| *token);
            assert_eq!(seen, [(bell, Readiness::IN), (REPORT, Readiness::IN)]);
        }
        world.consume(bell);
        let mut ready = ReadyList::new();
        backend.wait(None, &mut ready).unwrap();
        assert_eq!(ready.iter().collect::<Vec<_>>(), [(REPORT, Readiness::IN)]);
        assert!(backend.always_ready());
        // Operations are no registrations. Their token is in use until they are taken.
        assert_eq!(backend.watched(), world.len());
        backend.visit(&mut |_, token, _| assert_ne!(token, REPORT));
        assert!(backend.submit(REPORT, operation()).is_err());
        for id in ids {
            assert_eq!(
                backend.next_completed().map(errno),
                Some((id, Some(Errno::CANCELED)))
            );
        }
        assert_eq!(check(&mut backend, 8), []);
        assert!(backend.next_completed().is_none() && !backend.always_ready());
    }
}

#[test]
fn s1_drained_registrations_leave_the_operations() {
    let plan = Plan::new();
    let mut backend = Ladder::new(Ppoll::new(), plan.maker(), 0);
    let mut world = World::default();
    world.add(&mut backend, Interest::READ);
    let id = backend.submit(REPORT, operation()).unwrap();
    plan.fail_next("wait", Errno::NOMEM);
    check(&mut backend, 8);
    let mut drained = 0;
    backend.drain(&mut |_, _, _| drained += 1);
    assert_eq!((drained, backend.watched()), (1, 0));
    assert_eq!(check(&mut backend, 8), [(REPORT, Readiness::IN)]);
    assert_eq!(backend.next_completed().map(errno).map(|(id, _)| id), Some(id));
}
