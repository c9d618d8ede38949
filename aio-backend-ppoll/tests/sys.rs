//! The seam: a backend on a simulated kernel.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::time::Duration;

use aio_backend::{Backend, Interest, Readiness, ReadyList, Token};
use aio_backend_ppoll::Ppoll;
use aio_backend_ppoll::sys::{Polled, Sys};

/// A kernel that reports the entry with this number as ready.
#[derive(Clone, Debug, Default)]
struct MadeUp {
    ready: Rc<Cell<i32>>,
    /// The descriptor number that counts as closed.
    closed: Rc<Cell<i32>>,
    asked: Rc<RefCell<Vec<Vec<Interest>>>>,
}

impl Sys for MadeUp {
    const SIMULATED: bool = true;

    fn find(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        if self.closed.get() == fd.as_raw_fd() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        Ok(())
    }

    fn ppoll(&self, polled: &mut Polled<'_>, _: Option<Duration>) -> io::Result<usize> {
        self.asked
            .borrow_mut()
            .push(polled.iter().map(|(_, interest)| interest).collect());
        let mut all = polled.iter();
        let place = all.position(|(fd, _)| fd.as_raw_fd() == self.ready.get());
        drop(all);
        match place {
            Some(place) => polled.answer(place, Readiness::IN | Readiness::HUP),
            None => return Err(io::ErrorKind::Interrupted.into()),
        }
        Ok(1)
    }
}

#[test]
fn r3_a_number_that_is_not_open_is_refused_and_changes_nothing() {
    let sys = MadeUp::default();
    let mut backend = Ppoll::with_sys(sys.clone());
    let token = Token::new(0, 0);
    let (reader, _writer) = std::io::pipe().unwrap();
    let owner = Rc::new(reader);
    sys.closed.set(owner.as_raw_fd());
    let refused = io::ErrorKind::NotConnected; // as this kernel has it
    let why = backend
        .add(owner.clone().into(), token, Interest::READ)
        .unwrap_err();
    assert_eq!(
        (why.kind(), backend.watched(), Rc::strong_count(&owner)),
        (refused, 0, 1)
    );
    // A descriptor without an interest need not be open.
    backend.add(owner.into(), token, Interest::NONE).unwrap();
    let why = backend.modify(token, Interest::READ).unwrap_err();
    assert_eq!(why.kind(), refused);
    let interest = |backend: &Ppoll<MadeUp>| {
        let mut all = Vec::new();
        backend.visit(&mut |_, _, interest| all.push(interest));
        all
    };
    assert_eq!(interest(&backend), [Interest::NONE], "the former one is in force");
    sys.closed.set(-1);
    backend.modify(token, Interest::READ).unwrap();
    sys.closed.set(-2);
    backend.modify(token, Interest::NONE).unwrap();
    assert_eq!(interest(&backend), [Interest::NONE]);
}

#[test]
fn b1_a_simulated_kernel_determines_the_events() {
    let sys = MadeUp::default();
    let mut backend = Ppoll::with_sys(sys.clone());
    for index in 0..3 {
        let (reader, _writer) = std::io::pipe().unwrap();
        if index == 1 {
            sys.ready.set(reader.as_fd().as_raw_fd());
        }
        let interest = [Interest::READ, Interest::BOTH, Interest::NONE][index];
        let token = Token::new(index as u32, 0);
        backend.add(Rc::new(reader).into(), token, interest).unwrap();
    }
    let mut ready = ReadyList::new();
    backend.wait(None, &mut ready).unwrap();
    assert_eq!(
        ready.iter().collect::<Vec<_>>(),
        [(Token::new(1, 0), Readiness::IN | Readiness::HUP)]
    );
    backend.remove(Token::new(1, 0)).unwrap();
    ready.clear();
    let error = backend.wait(None, &mut ready).unwrap_err();
    assert_eq!(
        error.kind(),
        io::ErrorKind::Interrupted,
        "no EINTR of the system's"
    );
    assert!(ready.is_empty());
    assert_eq!(
        *sys.asked.borrow(),
        [vec![Interest::READ, Interest::BOTH], vec![Interest::READ]]
    );
}
