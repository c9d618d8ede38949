//! Descriptors that are closed without `remove`.

use std::io::{PipeReader, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use aio_backend::conformance::disturb::Number;
use aio_backend::{Backend, Interest, Readiness, Token};

use crate::kit::{A, B, IN, alone, backends, check, doorbell, ring, wait, watch};

/// Makes a pipe: a number for the backend, and both ends, which keep its file alive.
fn pipe() -> (Rc<Number>, PipeReader, std::io::PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    (Number::of(&reader), reader, writer)
}

#[test]
fn r4_a_closed_number_is_reported_when_its_file_becomes_ready() {
    let _alone = alone();
    for mut backend in backends() {
        let (number, _file, mut writer) = pipe();
        let other = doorbell();
        backend.add(number.clone().into(), A, Interest::READ).unwrap();
        watch(&mut backend, &other, B);
        assert_eq!(check(&mut backend), []);
        number.close();
        assert_eq!(check(&mut backend), [], "its request is armed");
        writer.write_all(b"x").unwrap();
        for _ in 0..3 {
            assert_eq!(check(&mut backend), [(A, Readiness::NVAL)]);
        }
        ring(&other);
        let mut found = check(&mut backend);
        found.sort_by_key(|(token, _)| *token);
        assert_eq!(found, [(A, Readiness::NVAL), (B, IN)]);
        backend.remove(A).unwrap();
        assert_eq!(check(&mut backend), [(B, IN)]);
    }
}

#[test]
fn r2_a_closed_number_whose_file_lives_on_is_silent_after_its_removal() {
    let _alone = alone();
    for mut backend in backends() {
        let (number, _file, mut writer) = pipe();
        backend.add(number.clone().into(), A, Interest::READ).unwrap();
        assert_eq!(check(&mut backend), []);
        writer.write_all(b"x").unwrap();
        number.close();
        backend.remove(A).unwrap();
        let (start, timeout) = (Instant::now(), Duration::from_millis(3));
        assert_eq!(wait(&mut backend, timeout, 1), []);
        assert!(start.elapsed() >= timeout);
    }
}

/// A loop that replaces a handler exchanges the reference: remove, and add of the same token.
#[test]
fn r2_a_token_that_comes_back_at_once_does_not_get_the_events_of_its_former_file() {
    let _alone = alone();
    for mut backend in backends() {
        let (number, _file, mut writer) = pipe();
        backend.add(number.clone().into(), A, Interest::READ).unwrap();
        assert_eq!(check(&mut backend), []);
        writer.write_all(b"x").unwrap();
        let (silent, mut silent_writer) = std::io::pipe().unwrap();
        number.becomes(&silent);
        backend.remove(A).unwrap();
        backend.add(number.clone().into(), A, Interest::READ).unwrap();
        assert_eq!(
            check(&mut backend),
            [],
            "there is nothing to read in the new file"
        );
        silent_writer.write_all(b"x").unwrap();
        assert_eq!(check(&mut backend), [(A, IN)]);
        backend.remove(A).unwrap();
        number.close();
    }
}

#[test]
fn b4_a_number_that_means_another_file_by_now_is_watched_anew() {
    let _alone = alone();
    for mut backend in backends() {
        let (number, file, mut writer) = pipe();
        backend.add(number.clone().into(), A, Interest::READ).unwrap();
        assert_eq!(check(&mut backend), []);
        let (silent, _silent_writer) = std::io::pipe().unwrap();
        number.becomes(&silent);
        // The request belongs to the former file, and completes.
        writer.write_all(b"x").unwrap();
        assert_eq!(check(&mut backend), []);
        number.becomes(&file);
        backend.modify(A, Interest::BOTH).unwrap();
        assert_eq!(check(&mut backend), [(A, IN)]);
        backend.remove(A).unwrap();
        number.close();
    }
}

#[test]
fn r3_a_closed_number_is_refused_and_nothing_is_kept() {
    let _alone = alone();
    for mut backend in backends() {
        let (number, ..) = pipe();
        backend.add(number.clone().into(), A, Interest::READ).unwrap();
        number.close();
        let references = Rc::strong_count(&number);
        let errno = |result: std::io::Result<()>| result.unwrap_err().raw_os_error();
        let closed = Some(rustix::io::Errno::BADF.raw_os_error());
        assert_eq!(
            errno(backend.add(number.clone().into(), B, Interest::READ)),
            closed
        );
        assert_eq!(errno(backend.modify(A, Interest::WRITE)), closed);
        assert_eq!(Rc::strong_count(&number), references);
        assert_eq!(backend.watched(), 1);
        backend.visit(&mut |_, token, interest| assert_eq!((token, interest), (A, Interest::READ)));
        assert_eq!(check(&mut backend), [(A, Readiness::NVAL)]);
        backend.modify(A, Interest::NONE).unwrap();
        assert_eq!(check(&mut backend), []);
        let bell = doorbell();
        watch(&mut backend, &bell, Token::new(1, 9));
    }
}
