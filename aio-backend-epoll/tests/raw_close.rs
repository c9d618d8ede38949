//! Descriptors that are closed without `remove`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::io::{PipeReader, Write};
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use aio_backend::conformance::disturb::Number;
use aio_backend::{Backend, Interest, Readiness, ReadyList, Token};
use aio_backend_epoll::Epoll;

/// While a test has closed a number, no other test may open a descriptor.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Makes a pipe with data to read: a number for the backend, and both ends, which keep its file alive.
fn full_pipe() -> (Rc<Number>, PipeReader, impl Write) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"x").unwrap();
    (Number::of(&reader), reader, writer)
}

fn check(backend: &mut Epoll) -> Vec<(Token, Readiness)> {
    let mut ready = ReadyList::new();
    backend.wait(Some(Duration::ZERO), &mut ready).unwrap();
    ready.iter().collect()
}

const GHOST: Token = Token::new(0, 0);
const OTHER: Token = Token::new(1, 0);

#[test]
fn r2_a_closed_number_whose_file_lives_on_is_not_reported_again() {
    let _alone = alone();
    let mut backend = Epoll::new().unwrap();
    let (number, _file, _writer) = full_pipe();
    let (other, mut other_writer) = std::io::pipe().unwrap();
    backend.add(number.clone().into(), GHOST, Interest::READ).unwrap();
    backend.add(Rc::new(other).into(), OTHER, Interest::READ).unwrap();
    let shown = backend
        .make_pollable()
        .unwrap()
        .unwrap()
        .try_clone_to_owned()
        .unwrap();
    number.close();
    backend.remove(GHOST).unwrap();

    // The kernel reports the event for ever, and no call can delete it. The wait must not end early because
    // of it.
    let timeout = Duration::from_millis(3);
    let start = Instant::now();
    let mut ready = ReadyList::with_limit(1);
    backend.wait(Some(timeout), &mut ready).unwrap();
    assert!(ready.is_empty() && start.elapsed() >= timeout, "{ready:?}");
    assert_eq!((backend.stale_events(), backend.rebuilds()), (1, 1));

    // The other registration is still watched, through the same descriptor.
    let mut foreign = Epoll::new().unwrap();
    foreign.add(Rc::new(shown).into(), GHOST, Interest::READ).unwrap();
    assert_eq!(check(&mut foreign), []);
    other_writer.write_all(b"x").unwrap();
    assert_eq!(check(&mut foreign), [(GHOST, Readiness::IN)]);
    assert_eq!(check(&mut backend), [(OTHER, Readiness::IN)]);
    assert_eq!(backend.rebuilds(), 1);
}

#[test]
fn r2_live_events_beside_a_stale_one_are_reported() {
    let _alone = alone();
    let mut backend = Epoll::new().unwrap();
    let (number, _file, _writer) = full_pipe();
    let (other, _other_file, _other_writer) = full_pipe();
    backend.add(number.clone().into(), GHOST, Interest::READ).unwrap();
    backend.add(other.clone().into(), OTHER, Interest::READ).unwrap();
    number.close();
    backend.remove(GHOST).unwrap();
    for _ in 0..3 {
        assert_eq!(check(&mut backend), [(OTHER, Readiness::IN)]);
    }
    assert_eq!((backend.stale_events(), backend.rebuilds()), (1, 1));
    other.close();
}

/// A loop that replaces a handler exchanges the reference: remove, and add of the same token.
#[test]
fn r2_a_token_that_comes_back_at_once_does_not_get_the_events_of_its_former_file() {
    let _alone = alone();
    let mut backend = Epoll::new().unwrap();
    let (number, _file, _writer) = full_pipe();
    backend.add(number.clone().into(), GHOST, Interest::READ).unwrap();
    let (silent, mut silent_writer) = std::io::pipe().unwrap();
    number.becomes(&silent);
    backend.remove(GHOST).unwrap();
    backend.add(number.clone().into(), GHOST, Interest::READ).unwrap();
    assert_eq!(
        check(&mut backend),
        [],
        "there is nothing to read in the new file"
    );
    silent_writer.write_all(b"x").unwrap();
    assert_eq!(check(&mut backend), [(GHOST, Readiness::IN)]);
    number.close();
}

#[test]
fn b4_a_left_over_in_the_way_of_an_add_is_taken_over() {
    let _alone = alone();
    let mut backend = Epoll::new().unwrap();
    let (number, file, _writer) = full_pipe();
    backend.add(number.clone().into(), GHOST, Interest::READ).unwrap();
    number.becomes(File::open("/dev/null").unwrap());
    backend.remove(GHOST).unwrap();
    number.becomes(&file);
    // The kernel returns EEXIST here.
    backend.add(number.clone().into(), OTHER, Interest::READ).unwrap();
    assert_eq!(check(&mut backend), [(OTHER, Readiness::IN)]);
    assert_eq!((backend.stale_events(), backend.rebuilds()), (0, 0));
    number.close();
}

#[test]
fn b4_a_number_that_means_another_file_by_now_is_watched_anew() {
    let _alone = alone();
    let mut backend = Epoll::new().unwrap();
    let (number, file, _writer) = full_pipe();
    backend.add(number.clone().into(), OTHER, Interest::READ).unwrap();
    let (silent, _silent_writer) = std::io::pipe().unwrap();
    number.becomes(&silent);
    // The kernel returns ENOENT here, and the old file is still in the set.
    backend.modify(OTHER, Interest::BOTH).unwrap();
    assert_eq!(check(&mut backend), []);
    assert_eq!(backend.rebuilds(), 1);

    number.becomes(&file);
    backend.modify(OTHER, Interest::NONE).unwrap();
    backend.modify(OTHER, Interest::READ).unwrap();
    assert_eq!(check(&mut backend), [(OTHER, Readiness::IN)]);
    number.close();
}

#[test]
fn r4_a_number_that_is_not_open_is_reported_when_it_is_found_out() {
    let _alone = alone();
    let mut backend = Epoll::new().unwrap();
    let (number, _file, _writer) = full_pipe();
    let (closed, ..) = full_pipe();
    let silenced = Token::new(2, 0);
    let (third, _third_file, _third_writer) = full_pipe();
    backend.add(number.clone().into(), GHOST, Interest::READ).unwrap();
    backend.add(closed.clone().into(), OTHER, Interest::READ).unwrap();
    backend
        .add(third.clone().into(), silenced, Interest::READ)
        .unwrap();
    for number in [&number, &closed, &third] {
        number.close();
    }
    assert!(
        backend
            .modify(OTHER, Interest::WRITE)
            .unwrap_err()
            .raw_os_error()
            .is_some()
    );
    backend.modify(silenced, Interest::NONE).unwrap();
    backend.remove(GHOST).unwrap();

    assert_eq!(check(&mut backend), [(OTHER, Readiness::NVAL)]);
    assert!(backend.always_ready());
    backend.modify(OTHER, Interest::BOTH).unwrap();
    assert_eq!(check(&mut backend), [(OTHER, Readiness::NVAL)]);
    backend.modify(OTHER, Interest::NONE).unwrap();
    assert_eq!(check(&mut backend), []);
    backend.remove(OTHER).unwrap();
    backend.remove(silenced).unwrap();
}

#[test]
fn a_descriptor_that_epoll_refuses_changes_nothing() {
    let _alone = alone();
    let mut backend = Epoll::new().unwrap();
    let (number, ..) = full_pipe();
    number.close();
    let error = backend
        .add(number.clone().into(), OTHER, Interest::READ)
        .unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::BADF.raw_os_error()));
    assert_eq!(Rc::strong_count(&number), 1);
    let (reader, _writer) = std::io::pipe().unwrap();
    backend
        .add(Rc::new(reader).into(), OTHER, Interest::READ)
        .unwrap();
}

#[test]
fn r14_a_rebuilt_set_does_not_arm_what_had_its_only_event() {
    let _alone = alone();
    let mut backend = Epoll::new().unwrap();
    let (once, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"x").unwrap();
    let interest = Interest::READ | Interest::ONESHOT;
    backend.add(Rc::new(once).into(), OTHER, interest).unwrap();
    assert_eq!(check(&mut backend), [(OTHER, Readiness::IN)]);
    let (number, _file, _writer) = full_pipe();
    backend.add(number.clone().into(), GHOST, Interest::READ).unwrap();
    number.close();
    backend.remove(GHOST).unwrap_or_default();
    for _ in 0..3 {
        assert_eq!(check(&mut backend), []);
    }
    assert_eq!(backend.rebuilds(), 1);
    for _ in 0..2 {
        backend.modify(OTHER, interest).unwrap();
        assert_eq!(check(&mut backend), [(OTHER, Readiness::IN)]);
        assert_eq!(check(&mut backend), []);
    }
}
