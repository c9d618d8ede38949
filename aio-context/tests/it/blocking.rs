//! Case L1: debug builds warn of blocking descriptors whose handlers could stop the loop.

use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;

use aio_context::{Context, Handler, Interest};
use rustix::event::{EventfdFlags, eventfd};

use aio_testing::warnings;

/// A handler that has only a descriptor.
struct Quiet<F>(F);

impl<F: std::os::fd::AsFd> std::os::fd::AsFd for Quiet<F> {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl<F: std::os::fd::AsFd + 'static> Handler for Quiet<F> {}

fn logged(fd: impl std::os::fd::AsFd + 'static, interest: Interest) -> Vec<String> {
    let cx = Context::new().unwrap();
    let quiet = Rc::new(Quiet(fd));
    warnings(|| {
        // There is one warning, however often this happens.
        for _ in 0..3 {
            drop(cx.watch(quiet.clone(), interest).unwrap());
        }
    })
}

#[test]
fn l1_a_blocking_listener_is_warned_of_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let logged = logged(listener, Interest::READ);
    if cfg!(debug_assertions) {
        assert_eq!(logged.len(), 1, "{logged:#?}");
        assert!(logged[0].contains("set_nonblocking"), "{logged:#?}");
    } else {
        assert!(logged.is_empty(), "{logged:#?}");
    }
}

#[test]
fn l1_blocking_and_edge_triggered_is_warned_of_once() {
    let edges = Interest::READ | Interest::EDGE;
    let expected = usize::from(cfg!(debug_assertions));
    let found = logged(std::io::pipe().unwrap().0, edges);
    assert_eq!(found.len(), expected, "{found:#?}");
    let found = logged(eventfd(0, EventfdFlags::CLOEXEC).unwrap(), edges);
    assert_eq!(found.len(), expected, "{found:#?}");
    let found = logged(UnixStream::pair().unwrap().0, edges);
    assert_eq!(found.len(), expected, "{found:#?}");
}

/// Legal and harmless registrations cause no warning.
#[test]
fn l1_there_are_no_false_warnings() {
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
    let silent = listener.try_clone().unwrap();
    let found = logged(silent, Interest::NONE);
    assert!(found.is_empty(), "nothing is waited for: {found:#?}");
    listener.set_nonblocking(true).unwrap();
    let found = logged(listener, Interest::READ);
    assert!(found.is_empty(), "{found:#?}");
    // One read of a ready descriptor does not block.
    for interest in [Interest::READ, Interest::WRITE, Interest::BOTH] {
        let found = logged(UnixStream::pair().unwrap().0, interest);
        assert!(found.is_empty(), "{interest:?}: {found:#?}");
    }
    let found = logged(std::io::pipe().unwrap().0, Interest::READ);
    assert!(found.is_empty(), "{found:#?}");
    let edges = Interest::READ | Interest::EDGE;
    let found = logged(tempfile::tempfile().unwrap(), edges);
    assert!(found.is_empty(), "a file never blocks: {found:#?}");
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let found = logged(eventfd(0, flags).unwrap(), edges);
    assert!(found.is_empty(), "{found:#?}");
}
