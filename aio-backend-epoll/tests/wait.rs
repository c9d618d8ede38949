//! The reports of a wait that the conformance kit does not test.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Write};
use std::rc::Rc;
use std::time::Duration;

use aio_backend::{Backend, Interest, Readiness, ReadyList, Token};
use aio_backend_epoll::Epoll;

fn pipe() -> (Rc<PipeReader>, PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    (Rc::new(reader), writer)
}

/// Makes a backend and pipes that it watches. All pipes have data to read.
fn full_pipes(count: u32) -> (Epoll, Vec<PipeWriter>) {
    let mut backend = Epoll::new().unwrap();
    let writers = (0..count).map(|index| {
        let (reader, mut writer) = pipe();
        backend
            .add(reader.into(), Token::new(index, 0), Interest::READ)
            .unwrap();
        writer.write_all(b"x").unwrap();
        writer
    });
    let writers = writers.collect();
    (backend, writers)
}

/// Opens a file, which is always ready.
fn regular_file() -> Rc<File> {
    Rc::new(File::open(std::env::current_exe().unwrap()).unwrap())
}

fn check(backend: &mut Epoll, limit: usize) -> Vec<(Token, Readiness)> {
    let mut ready = ReadyList::with_limit(limit);
    backend.wait(Some(Duration::ZERO), &mut ready).unwrap();
    ready.iter().collect()
}

#[test]
fn d2_a_long_list_gets_all_a_full_one_nothing() {
    let (mut backend, _writers) = full_pipes(200);
    assert_eq!(check(&mut backend, 5_000).len(), 200);
    assert_eq!(check(&mut backend, 150).len(), 150);
    let mut ready = ReadyList::with_limit(1);
    ready.push(Token::new(9, 9), Readiness::IN);
    backend.wait(None, &mut ready).unwrap();
    assert_eq!(
        ready.iter().collect::<Vec<_>>(),
        [(Token::new(9, 9), Readiness::IN)]
    );
}

#[test]
fn b4_a_regular_file_is_ready_for_its_interest() {
    let token = Token::new(0, 0);
    let mut backend = Epoll::new().unwrap();
    backend.add(regular_file().into(), token, Interest::READ).unwrap();
    assert!(backend.always_ready());
    let mut ready = ReadyList::new();
    backend.wait(None, &mut ready).unwrap();
    assert_eq!(ready.iter().collect::<Vec<_>>(), [(token, Readiness::IN)]);

    backend.modify(token, Interest::BOTH).unwrap();
    assert_eq!(check(&mut backend, 64), [(token, Readiness::IN | Readiness::OUT)]);
    backend.modify(token, Interest::WRITE).unwrap();
    assert_eq!(check(&mut backend, 64), [(token, Readiness::OUT)]);
    backend.modify(token, Interest::NONE).unwrap();
    assert!(!backend.always_ready());
    assert_eq!(check(&mut backend, 64), []);
    backend.modify(token, Interest::READ).unwrap();
    assert_eq!(check(&mut backend, 64), [(token, Readiness::IN)]);
    backend.remove(token).unwrap();
    assert!(!backend.always_ready());
}

#[test]
fn g2_one_descriptor_stands_for_all() {
    let (reader, mut writer) = pipe();
    let mut backend = Epoll::new().unwrap();
    backend
        .add(reader.into(), Token::new(0, 0), Interest::READ)
        .unwrap();
    // A second epoll set is the foreign loop.
    let shown = backend
        .make_pollable()
        .unwrap()
        .unwrap()
        .try_clone_to_owned()
        .unwrap();
    let mut foreign = Epoll::new().unwrap();
    foreign
        .add(Rc::new(shown).into(), Token::new(7, 7), Interest::READ)
        .unwrap();

    assert_eq!(check(&mut foreign, 64), []);
    writer.write_all(b"x").unwrap();
    assert_eq!(check(&mut foreign, 64), [(Token::new(7, 7), Readiness::IN)]);
    assert_eq!(check(&mut backend, 64), [(Token::new(0, 0), Readiness::IN)]);
    backend.modify(Token::new(0, 0), Interest::NONE).unwrap();
    assert_eq!(check(&mut foreign, 64), []);
}

#[test]
fn shares_are_let_go_by_remove_drain_and_a_failed_add() {
    let mut backend = Epoll::new().unwrap();
    let [first, second, file] = [Token::new(0, 0), Token::new(1, 0), Token::new(2, 0)];
    let (one, _one) = pipe();
    let (two, _two) = pipe();
    let regular = regular_file();
    backend.add(one.clone().into(), first, Interest::BOTH).unwrap();
    backend.add(two.clone().into(), second, Interest::NONE).unwrap();
    backend.add(regular.clone().into(), file, Interest::READ).unwrap();
    assert_eq!((Rc::strong_count(&one), Rc::strong_count(&regular)), (2, 2));

    backend.remove(first).unwrap();
    assert_eq!(Rc::strong_count(&one), 1);
    backend
        .add(one.clone().into(), second, Interest::READ)
        .unwrap_err();
    assert_eq!(Rc::strong_count(&one), 1);

    let mut seen = Vec::new();
    backend.drain(&mut |_, token, interest| seen.push((token, interest)));
    assert_eq!(seen, [(second, Interest::NONE), (file, Interest::READ)]);
    assert_eq!((Rc::strong_count(&two), Rc::strong_count(&regular)), (1, 1));
    assert!(!backend.always_ready());
    assert_eq!(check(&mut backend, 64), []);
    backend.add(two.into(), second, Interest::READ).unwrap();
}
