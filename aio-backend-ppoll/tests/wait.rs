//! What a wait reports, and how long it takes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::{PipeReader, PipeWriter, Write};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use aio_backend::{Backend, Interest, Readiness, ReadyList, Token};
use aio_backend_ppoll::Ppoll;

fn pipe() -> (Rc<PipeReader>, PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    (Rc::new(reader), writer)
}

fn check(backend: &mut Ppoll, limit: usize) -> Vec<(Token, Readiness)> {
    let mut ready = ReadyList::with_limit(limit);
    backend.wait(Some(Duration::ZERO), &mut ready).unwrap();
    ready.iter().collect()
}

#[test]
fn r4_silence_covers_a_hang_up_and_can_be_left_again() {
    let (reader, writer) = pipe();
    let token = Token::new(3, 1);
    let mut backend = Ppoll::new();
    backend.add(reader.into(), token, Interest::NONE).unwrap();
    drop(writer);
    assert_eq!(check(&mut backend, 64), []);
    backend.modify(token, Interest::READ).unwrap();
    assert_eq!(check(&mut backend, 64), [(token, Readiness::HUP)]);
    backend.modify(token, Interest::NONE).unwrap();
    assert_eq!(check(&mut backend, 64), []);
}

#[test]
fn d2_batches_reach_every_descriptor() {
    let mut backend = Ppoll::new();
    let mut writers = Vec::new();
    for index in 0..10 {
        let (reader, mut writer) = pipe();
        backend
            .add(reader.into(), Token::new(index, 0), Interest::READ)
            .unwrap();
        writer.write_all(b"x").unwrap();
        writers.push(writer);
    }
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
fn d2_no_descriptor_starves_while_reported_ones_leave_and_return() {
    const COUNT: u32 = 17;
    for limit in [1, 2, 5] {
        let mut backend = Ppoll::new();
        let mut writers = Vec::new();
        for index in 0..COUNT {
            let (reader, mut writer) = pipe();
            backend
                .add(reader.into(), Token::new(index, 0), Interest::READ)
                .unwrap();
            writer.write_all(b"x").unwrap();
            writers.push(writer);
        }
        let mut waited = [0; COUNT as usize];
        for _ in 0..1_000 {
            let batch = check(&mut backend, limit);
            waited.iter_mut().for_each(|waits| *waits += 1);
            for &(token, _) in &batch {
                waited[token.index() as usize] = 0;
                backend.modify(token, Interest::NONE).unwrap();
            }
            for &(token, _) in &batch {
                backend.modify(token, Interest::READ).unwrap();
            }
            assert!(
                waited.iter().all(|&waits| waits < 10 * COUNT),
                "limit {limit}: {waited:?}"
            );
        }
    }
}

#[test]
fn d2_a_full_list_is_left_alone() {
    let (reader, mut writer) = pipe();
    writer.write_all(b"x").unwrap();
    let mut backend = Ppoll::new();
    backend
        .add(reader.into(), Token::new(0, 0), Interest::READ)
        .unwrap();
    let mut ready = ReadyList::with_limit(1);
    ready.push(Token::new(9, 9), Readiness::IN);
    backend.wait(None, &mut ready).unwrap();
    assert_eq!(
        ready.iter().collect::<Vec<_>>(),
        [(Token::new(9, 9), Readiness::IN)]
    );
}

#[test]
fn b1_a_timeout_is_never_early() {
    let mut backend = Ppoll::new();
    for nanos in [1, 50_000, 300_000, 2_000_000] {
        let timeout = Duration::from_nanos(nanos);
        let start = Instant::now();
        backend.wait(Some(timeout), &mut ReadyList::new()).unwrap();
        assert!(start.elapsed() >= timeout, "{timeout:?}");
    }
}

#[test]
fn b1_the_longest_timeout_waits() {
    for timeout in [
        Duration::MAX,
        Duration::from_secs(i64::MAX as u64),
        Duration::from_secs(1 << 40),
    ] {
        let (reader, mut writer) = pipe();
        let mut backend = Ppoll::new();
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
fn unknown_tokens_are_not_found() {
    let (reader, _writer) = pipe();
    let token = Token::new(1, 1);
    let mut backend = Ppoll::new();
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
