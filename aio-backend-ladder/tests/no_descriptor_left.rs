//! The ladder at the process's limit of descriptors. There is only one test, because the limit holds for the
//! whole process.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use aio_backend::{Backend, Interest, ReadyList, Token};
use aio_backend_epoll::Epoll;
use aio_backend_ladder::{Ladder, Level};
use aio_backend_ppoll::Ppoll;
use rustix::process::{Resource, getrlimit, setrlimit};

fn check(ladder: &mut Ladder<Ppoll, Epoll>) -> usize {
    ladder.rebalance();
    let mut ready = ReadyList::with_limit(100);
    ladder.wait(Some(Duration::ZERO), &mut ready).unwrap();
    ready.len()
}

#[test]
fn b4_at_the_limit_of_descriptors_the_loop_goes_on_below() {
    let mut ladder = Ladder::new(Ppoll::new(), Epoll::new, 8);
    let mut writers = Vec::new();
    for index in 0..8 {
        let (reader, mut writer) = std::io::pipe().unwrap();
        ladder
            .add(Rc::new(reader).into(), Token::new(index, 0), Interest::READ)
            .unwrap();
        writer.write_all(b"x").unwrap();
        writers.push(writer);
    }

    let mut limits = getrlimit(Resource::Nofile);
    let former = limits.current;
    let next = File::open("/dev/null").unwrap().as_raw_fd() as u64;
    limits.current = Some(next + 8);
    setrlimit(Resource::Nofile, limits).unwrap();
    let fillers: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(!fillers.is_empty());

    assert_eq!((check(&mut ladder), ladder.level()), (8, Level::Lower));
    drop(fillers);
    limits.current = former;
    setrlimit(Resource::Nofile, limits).unwrap();
    assert_eq!(
        (check(&mut ladder), ladder.level()),
        (8, Level::Lower),
        "for good"
    );
}
