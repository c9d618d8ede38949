//! The descriptors that the backend itself opens. There is only one test, because no other may open a
//! descriptor at the same time.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use aio_backend::{Backend, Interest, ReadyList, Token};
use aio_backend_epoll::Epoll;

/// Returns the open descriptor numbers, without the one that this check opens.
fn open() -> BTreeSet<u32> {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    let mut open: BTreeSet<u32> = entries
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    open.retain(|number| std::fs::read_link(format!("/proc/self/fd/{number}")).is_ok());
    open
}

/// Returns `true` if the kernel closes a number on exec.
fn is_cloexec(number: u32) -> bool {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    u32::from_str_radix(flags.trim(), 8).unwrap() & 0o2_000_000 != 0
}

#[test]
fn b7_every_descriptor_is_cloexec_and_closed_on_drop() {
    let (reader, _writer) = std::io::pipe().unwrap();
    let reader = Rc::new(reader);
    let before = open();

    let mut backend = Epoll::new().unwrap();
    backend
        .add(reader.clone().into(), Token::new(0, 0), Interest::READ)
        .unwrap();
    let shown = rustix::io::fcntl_getfd(backend.make_pollable().unwrap().unwrap().as_fd()).unwrap();
    assert!(shown.contains(rustix::io::FdFlags::CLOEXEC));
    let opened: Vec<u32> = open().difference(&before).copied().collect();
    assert_eq!(
        opened.len(),
        2,
        "the set, and its pollable descriptor: {opened:?}"
    );
    assert!(opened.iter().all(|&number| is_cloexec(number)), "{opened:?}");
    drop(backend);
    assert_eq!(open(), before);

    for round in 0..10_000 {
        let mut backend = Epoll::new().unwrap();
        let token = Token::new(round % 3, round);
        backend.add(reader.clone().into(), token, Interest::READ).unwrap();
        backend.wait(Some(Duration::ZERO), &mut ReadyList::new()).unwrap();
        if round % 2 == 0 {
            backend.make_pollable().unwrap();
        }
        if round % 3 == 0 {
            backend.remove(token).unwrap();
        }
    }
    assert_eq!(open(), before);
    assert_eq!(Rc::strong_count(&reader), 1);
}
