//! Enters that the kernel refuses or interrupts, at each of the three places that enter: a wait, a removal,
//! and the arming for another backend. All of them handle an error in the same way.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aio_backend::{Backend, Interest, Operation, ReadyList};
use aio_backend_uring::Uring;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::faults::{Failing, error_of, failing};
use crate::kit::{A, B, IN, check, doorbell, read, ring, watch};

/// The result of a number of consecutive enters with this error, and the number of enters that are made.
struct Row {
    errno: Errno,
    times: usize,
    made: usize,
    leads_to: Option<Errno>,
}

const fn row(errno: Errno, times: usize, made: usize, leads_to: Option<Errno>) -> Row {
    Row {
        errno,
        times,
        made,
        leads_to,
    }
}

const ROWS: [Row; 9] = [
    row(Errno::INTR, 1, 1, None),
    row(Errno::INTR, 64, 64, None),
    row(Errno::INTR, 70, 65, Some(Errno::INTR)),
    row(Errno::AGAIN, 1, 1, None),
    row(Errno::AGAIN, 3, 3, None),
    row(Errno::AGAIN, 6, 4, Some(Errno::NOMEM)),
    row(Errno::BUSY, 3, 3, None),
    row(Errno::BUSY, 6, 4, Some(Errno::NOMEM)),
    row(Errno::NOMEM, 2, 1, Some(Errno::NOMEM)),
];

impl Row {
    fn plan(&self, sys: &Failing) {
        sys.enters.borrow_mut().extend(vec![self.errno; self.times]);
    }

    /// Asserts that this number of enters failed, and removes the remaining errors.
    #[track_caller]
    fn end(&self, sys: &Failing) {
        let left = sys.enters.borrow().len();
        assert_eq!(
            self.times - left,
            self.made,
            "{:?}, {} times",
            self.errno,
            self.times
        );
        sys.enters.borrow_mut().clear();
    }

    /// Returns the error of a call; `None` if it only ends because of an interruption.
    fn error(&self) -> Option<Errno> {
        self.leads_to.filter(|errno| *errno != Errno::INTR)
    }
}

#[test]
fn b4_a_wait_repeats_what_passes_and_its_events_are_reported_by_it_or_the_next_one() {
    let Some((sys, mut backend)) = failing() else {
        return;
    };
    let bell = doorbell();
    watch(&mut backend, &bell, A);
    for row in &ROWS {
        for timeout in [Some(Duration::ZERO), Some(Duration::from_secs(60)), None] {
            ring(&bell);
            row.plan(&sys);
            let mut ready = ReadyList::new();
            let waited = backend.wait(timeout, &mut ready);
            let error = waited.err().map(|error| Errno::from_io_error(&error).unwrap());
            assert_eq!(error, row.error(), "{:?}", row.errno);
            row.end(&sys);
            if row.leads_to.is_some() {
                assert!(ready.is_empty());
                backend.wait(timeout, &mut ready).unwrap();
            }
            assert_eq!(ready.iter().collect::<Vec<_>>(), [(A, IN)], "{:?}", row.errno);
            read(&bell);
            assert_eq!(check(&mut backend), []);
        }
    }
}

#[test]
fn b4_a_wait_that_sleeps_is_ended_by_an_interruption_and_not_by_a_lack() {
    let Some((sys, mut backend)) = failing() else {
        return;
    };
    let bell = doorbell();
    watch(&mut backend, &bell, A);
    assert_eq!(check(&mut backend), []);
    sys.enters.borrow_mut().push_back(Errno::INTR);
    assert_eq!(error_of(&mut backend, None), None);
    for errno in [Errno::AGAIN, Errno::BUSY] {
        // The wait then sleeps for its timeout.
        let enters = backend.enters();
        sys.enters.borrow_mut().extend([errno; 3]);
        assert_eq!(error_of(&mut backend, Some(Duration::from_micros(300))), None);
        assert_eq!(backend.enters(), enters + 4);
    }
}

#[test]
fn r8_a_removal_repeats_what_passes_and_is_complete_in_any_case() {
    let Some((sys, mut backend)) = failing() else {
        return;
    };
    let (bell, other) = (doorbell(), doorbell());
    for row in &ROWS {
        watch(&mut backend, &bell, A);
        watch(&mut backend, &other, B);
        assert_eq!(check(&mut backend), []);
        row.plan(&sys);
        let removed = backend.remove(A);
        let error = removed.err().map(|error| Errno::from_io_error(&error).unwrap());
        assert_eq!(error, row.leads_to, "{:?}", row.errno);
        row.end(&sys);
        assert_eq!((Rc::strong_count(&bell), backend.watched()), (1, 1));
        // The next wait submits the entries that this one could not submit.
        ring(&bell);
        ring(&other);
        assert_eq!(check(&mut backend), [(B, IN)]);
        backend.remove(B).unwrap();
        read(&bell);
        read(&other);
    }
}

fn is_readable(eventfd: &OwnedFd, timeout: &Timespec) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(eventfd.as_fd(), PollFlags::IN)];
    poll(&mut polled, Some(timeout)).unwrap() > 0
}

/// Arms the ring for another backend. Returns a duplicate of the eventfd that shows completions.
fn arm(backend: &mut Uring<Failing>) -> Result<OwnedFd, Errno> {
    let armed = backend.make_operations_pollable();
    armed
        .map(|eventfd| eventfd.unwrap().try_clone_to_owned().unwrap())
        .map_err(|error| Errno::from_io_error(&error).unwrap())
}

#[test]
fn b4_arming_for_another_backend_repeats_what_passes_and_forgets_no_operation() {
    let Some((sys, mut backend)) = failing() else {
        return;
    };
    sys.has_operations.set(true);
    let (at_once, soon) = (
        Timespec::default(),
        Timespec {
            tv_sec: 10,
            tv_nsec: 0,
        },
    );
    let eventfd = arm(&mut backend).unwrap();
    let file = Arc::new(File::open("/dev/zero").unwrap());
    for row in &ROWS {
        let submitted = backend
            .submit(B, Operation::read(file.clone(), 0, vec![1; 8]))
            .unwrap();
        row.plan(&sys);
        let armed = arm(&mut backend).err();
        assert_eq!(armed, row.error(), "{:?}", row.errno);
        row.end(&sys);
        if armed.is_some() {
            arm(&mut backend).unwrap();
        } else if row.leads_to.is_some() {
            // The arming ended early, so the other backend must return at once.
            assert!(is_readable(&eventfd, &at_once));
        }
        assert!(is_readable(&eventfd, &soon), "{:?}", row.errno);
        assert_eq!(check(&mut backend), [(B, IN)]);
        let (operation, completed) = backend.next_completed().unwrap();
        assert_eq!(operation, submitted);
        assert_eq!(completed.into_bytes().unwrap(), [0; 8]);
    }
    // It also arms a registration.
    let bell = doorbell();
    backend.add(bell.clone().into(), A, Interest::READ).unwrap();
    sys.enters
        .borrow_mut()
        .extend([Errno::INTR, Errno::AGAIN, Errno::BUSY]);
    arm(&mut backend).unwrap();
    ring(&bell);
    assert_eq!(check(&mut backend), [(A, IN)]);
}
