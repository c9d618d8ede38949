//! A descriptor that is closed without the backend's knowledge. There is only one test, because no other may
//! open a descriptor at the same time.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use aio_backend::{Backend, Interest, Readiness, ReadyList, Token};
use aio_backend_ppoll::Ppoll;

/// A descriptor number without ownership.
struct Number(RawFd);

impl AsFd for Number {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the number may be closed, which is the subject of this file. It is only passed to `ppoll`,
        // which reports a number that is not open.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }
}

#[test]
fn r3_r4_a_number_that_was_closed_is_reported_until_it_is_silenced_and_is_not_added_again() {
    let (reader, _writer) = std::io::pipe().unwrap();
    let number = reader.into_raw_fd();
    let token = Token::new(0, 0);
    let mut backend = Ppoll::new();
    backend
        .add(Rc::new(Number(number)).into(), token, Interest::READ)
        .unwrap();
    // SAFETY: this descriptor came from `into_raw_fd`, and it has no other owner.
    unsafe { rustix::io::close(number) };

    let check = |backend: &mut Ppoll| {
        let mut ready = ReadyList::new();
        backend.wait(Some(Duration::ZERO), &mut ready).unwrap();
        ready.iter().collect::<Vec<_>>()
    };
    let is_refused = |result: std::io::Result<()>| result.unwrap_err().raw_os_error() == Some(9);
    assert_eq!(check(&mut backend), [(token, Readiness::NVAL)]);
    assert!(is_refused(backend.modify(token, Interest::BOTH)));
    assert_eq!(check(&mut backend), [(token, Readiness::NVAL)]);
    backend.modify(token, Interest::NONE).unwrap();
    assert_eq!(check(&mut backend), []);
    assert!(is_refused(backend.modify(token, Interest::WRITE)));
    assert_eq!(check(&mut backend), []);
    backend.remove(token).unwrap();
    for closed in [number, RawFd::MAX] {
        assert!(is_refused(backend.add(
            Rc::new(Number(closed)).into(),
            token,
            Interest::READ
        )));
    }
    assert_eq!(backend.watched(), 0);
}
