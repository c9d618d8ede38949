//! Descriptors that are closed without `remove`.

use std::io::{PipeReader, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use aio_backend::{Backend, Interest, Readiness, Token, Watched};
use rustix::io::fcntl_dupfd_cloexec;

use crate::kit::{A, B, IN, alone, backends, check, doorbell, ring, wait, watch};

/// An owner that does not own.
struct Number(RawFd);

impl Number {
    fn watched(&self) -> Watched {
        Rc::new(Number(self.0)).into()
    }

    /// Closes the number.
    fn close(&self) {
        // SAFETY: the numbers in these tests come from `into_raw_fd`; they have no other owner.
        unsafe { rustix::io::close(self.0) };
    }

    /// Makes the number mean the file of `other`.
    fn becomes(&self, other: impl AsFd) {
        // SAFETY: as for `close`; the owner is made for the call, and forgotten.
        let mut owner = unsafe { OwnedFd::from_raw_fd(self.0) };
        rustix::io::dup2(other, &mut owner).unwrap();
        let _ = owner.into_raw_fd();
    }
}

impl AsFd for Number {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the number may be closed, which is what this file tests. It is only passed to system calls that return an error
        // if it is not open.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }
}

/// Makes a pipe: a number for the backend, and both ends, which keep its file alive.
fn pipe() -> (Number, PipeReader, std::io::PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    // A high number: the system assigns the lowest ones, so no other test of this process gets it once it is closed.
    let high = [20_000, 900]
        .into_iter()
        .find_map(|least| fcntl_dupfd_cloexec(&reader, least).ok());
    let number = Number(high.unwrap().into_raw_fd());
    (number, reader, writer)
}

#[test]
fn r4_a_closed_number_is_reported_when_its_file_becomes_ready() {
    let _alone = alone();
    for mut backend in backends() {
        let (number, _file, mut writer) = pipe();
        let other = doorbell();
        backend.add(number.watched(), A, Interest::READ).unwrap();
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
        backend.add(number.watched(), A, Interest::READ).unwrap();
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
        backend.add(number.watched(), A, Interest::READ).unwrap();
        assert_eq!(check(&mut backend), []);
        writer.write_all(b"x").unwrap();
        let (silent, mut silent_writer) = std::io::pipe().unwrap();
        number.becomes(&silent);
        backend.remove(A).unwrap();
        backend.add(number.watched(), A, Interest::READ).unwrap();
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
        backend.add(number.watched(), A, Interest::READ).unwrap();
        assert_eq!(check(&mut backend), []);
        let (silent, _silent_writer) = std::io::pipe().unwrap();
        number.becomes(&silent);
        // The request is one about the former file, and completes.
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
        backend.add(number.watched(), A, Interest::READ).unwrap();
        number.close();
        let owner = Rc::new(Number(number.0));
        let errno = |result: std::io::Result<()>| result.unwrap_err().raw_os_error();
        let closed = Some(rustix::io::Errno::BADF.raw_os_error());
        assert_eq!(
            errno(backend.add(owner.clone().into(), B, Interest::READ)),
            closed
        );
        assert_eq!(errno(backend.modify(A, Interest::WRITE)), closed);
        assert_eq!(Rc::strong_count(&owner), 1);
        assert_eq!(backend.watched(), 1);
        backend.visit(&mut |_, token, interest| assert_eq!((token, interest), (A, Interest::READ)));
        assert_eq!(check(&mut backend), [(A, Readiness::NVAL)]);
        backend.modify(A, Interest::NONE).unwrap();
        assert_eq!(check(&mut backend), []);
        let bell = doorbell();
        watch(&mut backend, &bell, Token::new(1, 9));
    }
}
