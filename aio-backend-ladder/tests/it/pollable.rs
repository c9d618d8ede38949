//! A backend is replaced by one that a foreign loop can wait for.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use aio_backend::conformance::disturb::once_asleep;
use aio_backend::{Backend, Interest, Operation, Readiness, ReadyList, Token};
use aio_backend_epoll::Epoll;
use aio_backend_ladder::make_pollable;
use aio_backend_ppoll::Ppoll;
use aio_backend_uring::Uring;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use crate::faulty::Plan;
use crate::world::World;

fn is_readable(fd: &impl AsFd) -> bool {
    poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&Timespec::default())).unwrap() == 1
}

const REPORT: Token = Token::new(1_000, 5);

fn read() -> (Operation, io::PipeWriter) {
    let (reader, writer) = io::pipe().unwrap();
    (Operation::read(Arc::new(reader), None, vec![0; 8]), writer)
}

#[test]
fn g1_registrations_move_to_a_backend_with_a_descriptor() {
    let (mut world, mut backend) = (World::default(), Box::new(Ppoll::new()) as Box<dyn Backend>);
    let tokens = [Interest::READ, Interest::NONE, Interest::READ].map(|one| world.add(&mut *backend, one));
    let (fd, successor) = make_pollable(&mut *backend, Epoll::new, None).unwrap();
    let mut ended = Vec::new();
    let mut backend = successor.unwrap().replace(backend, &mut ended);
    assert_eq!((backend.name(), backend.watched(), ended.len()), ("epoll", 3, 0));
    assert!(!is_readable(&fd));
    world.kick(tokens[2]);
    assert!(is_readable(&fd));
    world.expect(&mut *backend);
    // The backend has a descriptor now, so this returns a duplicate of it.
    let (again, successor) = make_pollable(&mut *backend, Epoll::new, None).unwrap();
    assert!(successor.is_none() && is_readable(&again));
}

#[test]
fn g1_if_the_successor_is_refused_nothing_has_changed() {
    for (refuses, works) in [("create", 0), ("add", 0), ("add", 1)] {
        let plan = Plan::new();
        plan.fail_next_after(refuses, works, Errno::MFILE);
        let (mut world, mut backend) = (World::default(), Ppoll::new());
        let tokens = [Interest::READ; 2].map(|one| world.add(&mut backend, one));
        let refused = make_pollable(&mut backend, plan.maker(), None).unwrap_err();
        assert_eq!(Errno::from_io_error(&refused), Some(Errno::MFILE), "{refuses}");
        assert_eq!((plan.failed(), plan.made_and_alive().1), (vec![refuses], 0));
        world.kick(tokens[1]);
        world.expect(&mut backend);
    }
    // A backend without a descriptor cannot be a successor.
    let refused = make_pollable(&mut Ppoll::new(), Plan::new().maker(), None).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
}

#[test]
fn s1_operations_that_cannot_be_shown_are_cancelled_and_come_back() {
    let mut backend: Box<dyn Backend> = Box::new(Plan::new().maker()().unwrap());
    let (operation, _writer) = read();
    let id = backend.submit(REPORT, operation).unwrap();
    let (_fd, successor) = make_pollable(&mut *backend, Epoll::new, Some(REPORT)).unwrap();
    assert_eq!(backend.in_flight(), 1, "not before it is replaced");
    let mut ended = Vec::new();
    let backend = successor.unwrap().replace(backend, &mut ended);
    assert_eq!((backend.name(), backend.in_flight()), ("epoll", 0));
    let (ended_id, completed) = ended.pop().unwrap();
    assert_eq!((ended_id, ended.len()), (id, 0));
    assert_eq!(
        Errno::from_io_error(&completed.result.unwrap_err()),
        Some(Errno::CANCELED)
    );
}

/// As if no descriptor were left for the eventfd of a ring.
#[test]
fn g1_s1_if_operations_cannot_be_shown_for_now_nothing_has_changed() {
    let plan = Plan::new();
    let mut backend: Box<dyn Backend> = Box::new(plan.maker()().unwrap());
    let mut world = World::default();
    let token = world.add(&mut *backend, Interest::READ);
    let (operation, _writer) = read();
    let id = backend.submit(REPORT, operation).unwrap();
    plan.fail_next("show", Errno::MFILE);
    let refused = make_pollable(&mut *backend, Epoll::new, Some(REPORT)).unwrap_err();
    assert_eq!(Errno::from_io_error(&refused), Some(Errno::MFILE));
    assert_eq!(
        (backend.name(), backend.watched(), backend.in_flight()),
        ("faulty", 1, 1)
    );
    world.kick(token);
    world.expect(&mut *backend);
    // Nothing was cancelled, and the next attempt succeeds.
    assert!(backend.next_completed().is_none());
    let (_fd, successor) = make_pollable(&mut *backend, Epoll::new, Some(REPORT)).unwrap();
    let mut ended = Vec::new();
    let backend = successor.unwrap().replace(backend, &mut ended);
    assert_eq!((backend.name(), ended[0].0, ended.len()), ("epoll", id, 1));
}

#[test]
fn s1_a_ring_goes_on_executing_operations_below_its_successor() {
    let Ok(ring) = Uring::new() else {
        return println!("skipped: no io_uring");
    };
    let (mut world, mut backend) = (World::default(), Box::new(ring) as Box<dyn Backend>);
    let token = world.add(&mut *backend, Interest::READ);
    let (operation, mut writer) = read();
    let id = backend.submit(REPORT, operation).unwrap();
    let (fd, successor) = make_pollable(&mut *backend, Epoll::new, Some(REPORT)).unwrap();
    let mut ended = Vec::new();
    let mut backend = successor.unwrap().replace(backend, &mut ended);
    assert_eq!((ended.len(), backend.in_flight()), (0, 1));
    world.kick(token);
    assert!(is_readable(&fd));
    world.expect(&mut *backend);
    writer.write_all(b"x").unwrap();
    let mut ready = ReadyList::new();
    while !ready.iter().any(|(token, _)| token == REPORT) {
        ready.clear();
        backend.wait(Some(Duration::from_secs(10)), &mut ready).unwrap();
    }
    let (completed_id, completed) = backend.next_completed().unwrap();
    assert_eq!((completed_id, completed.result.unwrap()), (id, 1));
}

/// The kernel writes to the eventfd of a ring only for the first of these operations, so a wait that blocks
/// must not rely on it.
#[test]
fn s1_a_wait_that_blocks_returns_for_operations_that_read_from_an_eventfd() {
    let Ok(ring) = Uring::new() else {
        return println!("skipped: no io_uring");
    };
    let (mut world, mut backend) = (World::default(), Box::new(ring) as Box<dyn Backend>);
    let token = world.add(&mut *backend, Interest::READ);
    let (_fd, successor) = make_pollable(&mut *backend, Epoll::new, None).unwrap();
    let mut backend = successor.unwrap().replace(backend, &mut Vec::new());
    let mut ready = ReadyList::new();
    for round in 0..20 {
        let events = Arc::new(File::from(eventfd(0, EventfdFlags::CLOEXEC).unwrap()));
        let read = Operation::read(events.clone(), None, vec![0; 8]);
        let id = backend.submit(REPORT, read).unwrap();
        ready.clear();
        let write = || (&*events).write_all(&1_u64.to_ne_bytes()).unwrap();
        once_asleep(write, || {
            backend.wait(Some(Duration::from_secs(10)), &mut ready).unwrap();
        });
        assert_eq!(
            ready.iter().collect::<Vec<_>>(),
            [(REPORT, Readiness::IN)],
            "round {round}"
        );
        let (completed_id, completed) = backend.next_completed().unwrap();
        assert_eq!((completed_id, completed.result.unwrap()), (id, 8));
        // A descriptor ends such a wait as well.
        let (never, _writer) = self::read();
        let id = backend.submit(REPORT, never).unwrap();
        world.kick(token);
        ready.clear();
        backend.wait(None, &mut ready).unwrap();
        assert_eq!(ready.iter().collect::<Vec<_>>(), [(token, Readiness::IN)]);
        world.consume(token);
        world.expect(&mut *backend);
        backend.cancel(id);
        while backend.in_flight() > 0 {
            ready.clear();
            backend.wait(None, &mut ready).unwrap();
            backend.next_completed();
        }
        if round % 5 == 0 {
            backend.make_pollable().unwrap();
        }
    }
}
