//! The conformance kit, for a ladder that is always at its upper level, one that moves up when it pays, and
//! one that moves up after waits of some time; and for a set whose operations a ring executes.
//!
//! If the system has no `io_uring`, or forbids it, each test of the latter prints a line that begins with
//! `skipped`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::rc::Rc;

use aio_backend::Backend;
use aio_backend::conformance::{check, walk};
use aio_backend_epoll::Epoll;
use aio_backend_ladder::{Ladder, Split};
use aio_backend_ppoll::Ppoll;
use aio_backend_uring::Uring;

aio_backend::conformance!(ladder_at_0, || Ladder::new(Ppoll::new(), Epoll::new, 0));
aio_backend::conformance!(ladder_at_64, || Ladder::new(Ppoll::new(), Epoll::new, 64));
aio_backend::conformance!(ladder_after_8, || Ladder::new(Ppoll::new(), Epoll::new, 64)
    .climbing_after(8));

/// Returns a set with a ring for its operations; `None` if there is no ring.
fn split() -> Option<Split<Epoll>> {
    let mut ring = match Uring::new() {
        Ok(ring) => ring,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "skipped: no io_uring: {error}");
            return None;
        }
    };
    let shown = ring.make_operations_pollable().unwrap().unwrap();
    let shown = Rc::new(shown.try_clone_to_owned().unwrap());
    Some(Split::new(
        Epoll::new().unwrap(),
        Box::new(ring),
        shown.into(),
        None,
    ))
}

fn check_if_available(id: &str, backend: &mut Option<Split<Epoll>>) {
    if let Some(backend) = backend {
        check(id, backend);
    }
}

mod split_to_a_ring {
    use super::*;

    aio_backend::__one_test_per_promise!(split, check_if_available);

    #[test]
    fn a_random_walk() {
        if let Some(backend) = &mut split() {
            walk(backend);
        }
    }
}
