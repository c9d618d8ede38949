//! The seam: a backend on a simulated kernel.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use aio_backend::{Backend, Interest, Readiness, ReadyList, Token};
use aio_backend_epoll::Epoll;
use aio_backend_epoll::sys::{Events, Kernel, Sys};

/// Sets that are empty in the kernel; their events and the time are simulated.
#[derive(Clone, Debug)]
struct MadeUp {
    ready: Rc<RefCell<Vec<u64>>>,
    waits: Rc<RefCell<Vec<Option<Duration>>>>,
    started: Instant,
    passed: Rc<Cell<Duration>>,
}

impl Sys for MadeUp {
    fn create(&self) -> io::Result<OwnedFd> {
        Kernel.create()
    }
    fn add(&self, _: BorrowedFd<'_>, _: BorrowedFd<'_>, key: u64, _: Interest) -> io::Result<()> {
        self.ready.borrow_mut().push(key);
        Ok(())
    }
    fn modify(&self, _: BorrowedFd<'_>, _: BorrowedFd<'_>, _: u64, _: Interest) -> io::Result<()> {
        Ok(())
    }
    fn delete(&self, _: BorrowedFd<'_>, _: BorrowedFd<'_>) -> io::Result<()> {
        self.ready.borrow_mut().clear();
        Ok(())
    }
    fn wait(
        &self,
        _: BorrowedFd<'_>,
        events: &mut Events<'_>,
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        self.waits.borrow_mut().push(timeout);
        let ready = self.ready.borrow();
        for (place, key) in ready.iter().take(events.room()).enumerate() {
            events.write(place, *key, Readiness::OUT);
        }
        if ready.is_empty() {
            self.passed.set(self.passed.get() + timeout.unwrap());
        }
        Ok(ready.len().min(events.room()))
    }
    fn poll(&self, _: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
        self.waits.borrow_mut().push(Some(timeout));
        self.passed.set(self.passed.get() + timeout);
        Ok(false)
    }
    fn now(&self) -> Instant {
        self.started + self.passed.get()
    }
}

#[test]
fn b2_a_simulated_kernel_determines_the_events() {
    let sys = MadeUp {
        ready: Rc::default(),
        waits: Rc::default(),
        started: Instant::now(),
        passed: Rc::default(),
    };
    let mut backend = Epoll::with_sys(sys.clone()).unwrap();
    let mut ready = ReadyList::new();
    backend
        .wait(Some(Duration::from_micros(2500)), &mut ready)
        .unwrap();
    let asked = [Duration::from_millis(2), Duration::from_micros(500)].map(Some);
    assert_eq!(
        *sys.waits.borrow(),
        asked,
        "first the milliseconds, then the rest"
    );
    assert_eq!(
        sys.passed.get(),
        Duration::from_micros(2500),
        "an hour would pass as fast"
    );

    let (reader, _writer) = std::io::pipe().unwrap();
    let token = Token::new(5, 1);
    backend
        .add(Rc::new(reader).into(), token, Interest::WRITE)
        .unwrap();
    backend.wait(None, &mut ready).unwrap();
    assert_eq!(ready.iter().collect::<Vec<_>>(), [(token, Readiness::OUT)]);
    backend.remove(token).unwrap();
    assert!(sys.ready.borrow().is_empty());
}
