//! What a wait reports, and how long it takes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Write};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use aio_backend::{Backend, Interest, Readiness, ReadyList, Token};
use aio_backend_epoll::Epoll;

fn pipe() -> (Rc<PipeReader>, PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    (Rc::new(reader), writer)
}

/// Makes a backend and pipes that it watches, all with data to read.
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
fn r4_silence_covers_a_hang_up_and_can_be_left_again() {
    let (reader, writer) = pipe();
    let token = Token::new(3, 1);
    let mut backend = Epoll::new().unwrap();
    backend.add(reader.into(), token, Interest::NONE).unwrap();
    drop(writer);
    assert_eq!(check(&mut backend, 64), []);
    backend.modify(token, Interest::READ).unwrap();
    assert_eq!(check(&mut backend, 64), [(token, Readiness::HUP)]);
    backend.modify(token, Interest::NONE).unwrap();
    assert_eq!(check(&mut backend, 64), []);
    backend.remove(token).unwrap();
}

#[test]
fn d2_batches_reach_every_descriptor() {
    let (mut backend, _writers) = full_pipes(10);
    let mut seen = BTreeMap::<Token, u32>::new();
    for _ in 0..10 {
        let batch = check(&mut backend, 3);
        assert_eq!(batch.len(), 3);
        for (token, _) in batch {
            *seen.entry(token).or_default() += 1;
        }
    }
    assert_eq!(seen.len(), 10);
    assert!(seen.values().all(|&times| times == 3), "{seen:?}");
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
fn b4_regular_files_and_pipes_share_a_short_list() {
    const PIPES: u32 = 6;
    const FILES: u32 = 5;
    for limit in 1..14 {
        let (mut backend, _writers) = full_pipes(PIPES);
        for index in PIPES..PIPES + FILES {
            let token = Token::new(index, 0);
            backend.add(regular_file().into(), token, Interest::READ).unwrap();
        }
        let mut seen = BTreeMap::<u32, u32>::new();
        for _ in 0..40 {
            let batch = check(&mut backend, limit);
            assert_eq!(batch.len(), limit.min((PIPES + FILES) as usize));
            for (token, _) in batch {
                *seen.entry(token.index()).or_default() += 1;
            }
        }
        assert_eq!(seen.len() as u32, PIPES + FILES, "limit {limit}: {seen:?}");
        assert!(seen.values().all(|&times| times >= 3), "limit {limit}: {seen:?}");
    }
}

#[test]
fn b2_a_timeout_is_never_early() {
    let mut backend = Epoll::new().unwrap();
    for nanos in [1, 50_000, 300_000, 1_000_000, 2_300_000] {
        let timeout = Duration::from_nanos(nanos);
        let start = Instant::now();
        backend.wait(Some(timeout), &mut ReadyList::new()).unwrap();
        assert!(start.elapsed() >= timeout, "{timeout:?}");
    }
}

#[test]
fn b2_long_timeouts_wait_and_end_when_something_comes() {
    for timeout in [
        Duration::MAX,
        Duration::from_millis(i32::MAX as u64 + 1),
        Duration::from_micros(59_999_999),
    ] {
        let (reader, mut writer) = pipe();
        let mut backend = Epoll::new().unwrap();
        backend
            .add(reader.into(), Token::new(0, 0), Interest::READ)
            .unwrap();
        let waiter = std::fs::read_link("/proc/thread-self").unwrap();
        let waker = std::thread::spawn(move || {
            let stat = Path::new("/proc").join(waiter).join("stat");
            while !std::fs::read_to_string(&stat).unwrap().contains(") S ") {
                std::thread::yield_now();
            }
            writer.write_all(b"x").unwrap();
        });
        let mut ready = ReadyList::new();
        backend.wait(Some(timeout), &mut ready).unwrap();
        assert_eq!(ready.len(), 1, "{timeout:?}");
        waker.join().unwrap();
    }
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
fn unknown_tokens_are_not_found() {
    let (reader, _writer) = pipe();
    let token = Token::new(1, 1);
    let mut backend = Epoll::new().unwrap();
    backend.add(reader.into(), token, Interest::READ).unwrap();
    for wrong in [Token::new(1, 0), Token::new(2, 1)] {
        let error = backend.modify(wrong, Interest::READ).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        assert_eq!(
            backend.remove(wrong).unwrap_err().kind(),
            std::io::ErrorKind::NotFound
        );
    }
    let error = backend
        .add(pipe().0.into(), Token::new(1, 2), Interest::READ)
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
    backend.remove(token).unwrap();
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
