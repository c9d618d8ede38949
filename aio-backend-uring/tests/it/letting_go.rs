//! The kernel keeps nothing of a file after its registration has ended.

use std::io::{PipeReader, PipeWriter, Read as _, Write as _};
use std::rc::Rc;
use std::time::Duration;

use aio_backend::{Backend, Interest, Token};
use aio_backend_uring::Uring;

use crate::kit::{A, B, backends, check, doorbell, ring, wait, watch};

/// Watches a pipe. Its writer can detect that the reader is closed.
fn pipe(backend: &mut Uring, token: Token, interest: Interest) -> (Rc<PipeReader>, PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    let reader = Rc::new(reader);
    backend.add(reader.clone().into(), token, interest).unwrap();
    (reader, writer)
}

/// Asserts that the last descriptor of the pipe's reader is this one, so that closing it closes the file.
#[track_caller]
fn assert_closes((reader, mut writer): (Rc<PipeReader>, PipeWriter), why: &str) {
    assert_eq!(Rc::strong_count(&reader), 1, "{why}");
    drop(reader);
    let written = writer.write(b"x").map_err(|error| error.kind());
    assert_eq!(
        written,
        Err(std::io::ErrorKind::BrokenPipe),
        "the kernel keeps the file: {why}"
    );
}

const INTERESTS: [Interest; 4] = [
    Interest::READ,
    Interest::READ.union(Interest::EDGE),
    Interest::READ.union(Interest::ONESHOT),
    Interest::NONE,
];

#[test]
fn r8_a_removal_closes_the_file_before_it_returns() {
    for mut backend in backends() {
        for (interest, is_armed) in INTERESTS.into_iter().flat_map(|one| [(one, true), (one, false)]) {
            let pipe = pipe(&mut backend, A, interest);
            if is_armed {
                assert_eq!(check(&mut backend), []);
            }
            backend.remove(A).unwrap();
            assert_closes(pipe, &format!("{interest:?}, armed: {is_armed}, {backend:?}"));
        }
    }
}

#[test]
fn r8_a_removal_after_an_event_or_a_change_closes_the_file() {
    for mut backend in backends() {
        for interest in INTERESTS {
            let mut ready = pipe(&mut backend, A, Interest::READ);
            let changed = pipe(&mut backend, B, Interest::READ);
            assert_eq!(check(&mut backend), []);
            ready.1.write_all(b"x").unwrap();
            assert_eq!(check(&mut backend).len(), 1);
            // The next wait would cancel its request, but there is no next wait.
            backend.modify(B, interest).unwrap();
            backend.remove(A).unwrap();
            backend.remove(B).unwrap();
            assert_closes(ready, "after an event");
            assert_closes(changed, &format!("after a change to {interest:?}"));
        }
    }
}

/// The request's wake-up is pending, and finds nothing to report. The request would then be armed again.
#[test]
fn r8_b7_a_request_ends_whose_wake_up_is_pending_without_its_cause() {
    for end in ["remove", "modify", "drain", "drop"] {
        for mut backend in backends() {
            let (reader, writer) = pipe(&mut backend, A, Interest::READ);
            assert_eq!(check(&mut backend), []);
            (&writer).write_all(b"x").unwrap();
            (&*reader).read_exact(&mut [0]).unwrap();
            match end {
                "remove" => backend.remove(A).unwrap(),
                "modify" => {
                    backend.modify(A, Interest::NONE).unwrap();
                    assert_eq!(check(&mut backend), []);
                    backend.remove(A).unwrap();
                }
                "drain" => backend.drain(&mut |fd, _, _| drop(fd)),
                _ => drop(backend),
            }
            assert_closes((reader, writer), end);
        }
    }
}

#[test]
fn r8_a_drain_and_a_drop_close_all_files() {
    for mut backend in backends() {
        for drops in [false, true] {
            let mut pipes = Vec::new();
            for (index, interest) in (0..40).zip(INTERESTS.into_iter().cycle()) {
                pipes.push(pipe(&mut backend, Token::new(index, 0), interest));
            }
            assert_eq!(check(&mut backend), []);
            if drops {
                drop(backend);
                pipes.into_iter().for_each(|pipe| assert_closes(pipe, "drop"));
                break;
            }
            backend.drain(&mut |fd, _, _| drop(fd));
            pipes.into_iter().for_each(|pipe| assert_closes(pipe, "drain"));
            assert_eq!(check(&mut backend), []);
        }
    }
}

#[test]
fn r8_one_of_two_registrations_of_a_file_ends_alone() {
    for mut backend in backends() {
        let bell = doorbell();
        let twin = Rc::new(bell.try_clone().unwrap());
        watch(&mut backend, &bell, A);
        watch(&mut backend, &twin, B);
        assert_eq!(check(&mut backend), []);
        backend.remove(A).unwrap();
        ring(&bell);
        let found = wait(&mut backend, Duration::from_secs(5), 64);
        assert_eq!(found, [(B, aio_backend::Readiness::IN)]);
    }
}
