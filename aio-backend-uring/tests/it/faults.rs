//! A kernel that fails on purpose: errors of each call, from which the backend recovers without losing an event.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aio_backend::{Backend, Completed, Interest, NotSubmitted, Operation, Readiness, ReadyList, Token};
use aio_backend_uring::sys::{Completion, Kernel, KernelRing, Request, Ring, Sys};
use aio_backend_uring::{Config, Uring};
use rustix::io::Errno;

use crate::kit::{A, B, IN, available, check, doorbell, read, ring, watch};

/// The errors of an enter that must be repeated.
const LACKS: [Errno; 3] = [Errno::AGAIN, Errno::BUSY, Errno::INTR];

/// The errors of the next calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failing {
    setup: Option<Errno>,
    pub(crate) enters: Rc<RefCell<VecDeque<Errno>>>,
    /// If set, one in this number of enters fails, with each of [`LACKS`] in turn. `lacked` counts those.
    pub(crate) lacks: Rc<Cell<Option<usize>>>,
    pub(crate) lacked: Rc<Cell<usize>>,
    entered: Rc<Cell<usize>>,
    /// The results of the next polls; with `None` the call succeeds.
    polls: Rc<RefCell<VecDeque<Option<Errno>>>>,
    /// The results of the next poll requests, which do not reach the kernel.
    pub(crate) requests: Rc<RefCell<VecDeque<Errno>>>,
    /// The number of requests that the submission queue has room for.
    pub(crate) room: Rc<Cell<Option<usize>>>,
    seems_busy: Rc<Cell<bool>>,
    pub(crate) has_operations: Rc<Cell<bool>>,
    /// Set to make the first completion of a multishot request visible after the next enter only.
    pub(crate) is_late: Rc<Cell<bool>>,
}

#[derive(Debug)]
pub(crate) struct FailingRing {
    sys: Failing,
    ring: KernelRing,
    failed: VecDeque<Completion>,
    /// The multishot requests of the next enter, and those of the last one, whose completions are late.
    multishot: [Vec<u64>; 2],
    late: VecDeque<Completion>,
}

fn fail(calls: &RefCell<VecDeque<Errno>>) -> io::Result<()> {
    let failed = calls.borrow_mut().pop_front();
    failed.map_or(Ok(()), |errno| Err(errno.into()))
}

impl Failing {
    /// Fails if `lacks` is set and this enter is due to fail.
    fn lack(&self) -> io::Result<()> {
        let Some(every) = self.lacks.get() else {
            return Ok(());
        };
        self.entered.set(self.entered.get() + 1);
        if !self.entered.get().is_multiple_of(every) {
            return Ok(());
        }
        let turn = self.lacked.replace(self.lacked.get() + 1);
        Err(LACKS[turn % LACKS.len()].into())
    }
}

impl Sys for Failing {
    type Ring = FailingRing;

    fn setup(&self, config: &Config) -> io::Result<FailingRing> {
        match self.setup {
            Some(errno) => Err(errno.into()),
            None => Kernel.setup(config).map(|ring| FailingRing {
                sys: self.clone(),
                ring,
                failed: VecDeque::new(),
                multishot: [Vec::new(), Vec::new()],
                late: VecDeque::new(),
            }),
        }
    }
    fn find(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Kernel.find(fd)
    }
    fn poll(&self, fds: &[(BorrowedFd<'_>, Interest)], answers: &mut [Readiness]) -> io::Result<()> {
        if let Some(errno) = self.polls.borrow_mut().pop_front().flatten() {
            return Err(errno.into());
        }
        Kernel.poll(fds, answers)
    }
    fn is_socket(&self, fd: BorrowedFd<'_>) -> bool {
        Kernel.is_socket(fd)
    }
    fn now(&self) -> Instant {
        Kernel.now()
    }
}

impl Ring for FailingRing {
    fn sees_all(&self) -> bool {
        self.ring.sees_all()
    }
    fn is_idle(&mut self) -> bool {
        self.failed.is_empty() && !self.sys.seems_busy.get() && self.ring.is_idle()
    }
    fn push(&mut self, request: Request) -> bool {
        if self.sys.room.get().is_some_and(|room| self.pushed() >= room) {
            return false;
        }
        if let Request::Poll { key, .. } = request
            && let Some(errno) = self.sys.requests.borrow_mut().pop_front()
        {
            self.failed.push_back(Completion {
                key,
                result: -errno.raw_os_error(),
                has_more: false,
            });
            return true;
        }
        let poll = Some(&request).filter(|_| self.sys.is_late.get());
        if let Some(Request::Poll {
            key,
            is_multishot: true,
            ..
        }) = poll
        {
            self.multishot[0].push(*key);
        }
        self.ring.push(request)
    }
    fn pushed(&mut self) -> usize {
        self.ring.pushed()
    }
    fn enter(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        fail(&self.sys.enters)?;
        self.sys.lack()?;
        let timeout = if self.failed.is_empty() {
            timeout
        } else {
            Some(Duration::ZERO)
        };
        self.failed.append(&mut self.late);
        self.multishot = [Vec::new(), std::mem::take(&mut self.multishot[0])];
        self.ring.enter(timeout)
    }
    fn make_eventfd(&mut self) -> io::Result<OwnedFd> {
        self.ring.make_eventfd()
    }
    fn next(&mut self) -> Option<Completion> {
        self.failed.pop_front().or_else(|| {
            let (late, now) = (&mut self.late, &self.multishot[1]);
            let next = || {
                self.ring
                    .next()
                    .inspect(|next| late.extend(now.contains(&next.key).then_some(*next)))
            };
            std::iter::from_fn(next).find(|next| !now.contains(&next.key))
        })
    }
    fn submit(&mut self, operation: Operation) -> Result<Token, NotSubmitted> {
        if self.sys.has_operations.get() {
            self.ring.submit(operation)
        } else {
            Err(NotSubmitted::unsupported(operation, "uring"))
        }
    }
    fn cancel(&mut self, operation: Token) {
        self.ring.cancel(operation);
    }
    fn next_completed(&mut self) -> Option<(Token, Completed)> {
        self.ring.next_completed()
    }
    fn has_completed(&self) -> bool {
        self.ring.has_completed()
    }
    fn has_waiting(&self) -> bool {
        self.ring.has_waiting()
    }
    fn accepted(&self) -> usize {
        self.ring.accepted()
    }
    fn end_operations(&mut self, other: &mut dyn FnMut(Completion)) {
        self.ring.end_operations(other);
    }
}

pub(crate) fn failing() -> Option<(Failing, Uring<Failing>)> {
    let sys = Failing::default();
    let backend = available(Uring::with_sys(sys.clone(), Config::new()))?;
    Some((sys, backend))
}

pub(crate) fn error_of(backend: &mut Uring<Failing>, timeout: Option<Duration>) -> Option<Errno> {
    let waited = backend.wait(timeout, &mut ReadyList::new());
    waited.err().and_then(|error| Errno::from_io_error(&error))
}

/// The kernel may set the flag for pending work after the work was done.
#[test]
fn r10_a_flag_without_work_costs_a_few_enters_and_hides_nothing() {
    let Some((sys, mut backend)) = failing() else {
        return;
    };
    let bell = doorbell();
    watch(&mut backend, &bell, A);
    assert_eq!(check(&mut backend), []);
    sys.seems_busy.set(true);
    for _ in 0..3 {
        let enters = backend.enters();
        assert_eq!(check(&mut backend), []);
        // One of these enters arms the request again, after an event.
        assert!(backend.enters() - enters <= 5, "{backend:?}");
        ring(&bell);
        assert_eq!(check(&mut backend), [(A, IN)]);
        read(&bell);
    }
}

/// With many registrations, the backend fetches completions before it arms more. It does not wait for
/// completions that only a flag without work announces.
#[test]
fn r10_a_flag_without_work_keeps_no_registration_from_being_armed() {
    let Some((sys, mut backend)) = failing() else {
        return;
    };
    sys.seems_busy.set(true);
    let bells = [(); 100].map(|()| doorbell());
    for (index, bell) in (0..).zip(&bells) {
        watch(&mut backend, bell, aio_backend::Token::new(index, 0));
    }
    assert_eq!(check(&mut backend), []);
    // They are armed, so no work is left, and the next wake-up clears the flag.
    sys.seems_busy.set(false);
    let peeked = backend.peek(&mut ReadyList::new()).unwrap();
    assert_ne!(peeked, aio_backend::Peek::Pending, "{backend:?}");
    ring(&bells[77]);
    assert_eq!(
        check(&mut backend),
        [(aio_backend::Token::new(77, 0), IN)],
        "{backend:?}"
    );
}

#[test]
fn b4_a_system_without_io_uring_says_what_helps() {
    for errno in [Errno::NOSYS, Errno::PERM, Errno::NOMEM, Errno::MFILE] {
        let sys = Failing {
            setup: Some(errno),
            ..Failing::default()
        };
        let error = Uring::with_sys(sys, Config::new()).unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(errno));
        let none = aio_backend::remedy(&io::Error::other("?"));
        assert_ne!(aio_backend::remedy(&error), none, "{errno:?}");
    }
}

#[test]
fn b4_a_lack_that_passes_is_not_seen_and_loses_nothing() {
    let Some((sys, mut backend)) = failing() else {
        return;
    };
    let bell = doorbell();
    watch(&mut backend, &bell, A);
    for errno in [Errno::AGAIN, Errno::BUSY, Errno::INTR] {
        for times in 1..=3 {
            ring(&bell);
            sys.enters.borrow_mut().extend(vec![errno; times]);
            for timeout in [Some(Duration::ZERO), Some(Duration::from_secs(60)), None] {
                let mut ready = ReadyList::new();
                // An interrupted wait may end early.
                while ready.is_empty() {
                    backend.wait(timeout, &mut ready).unwrap();
                }
                assert_eq!(ready.iter().collect::<Vec<_>>(), [(A, IN)], "{errno:?}");
            }
            read(&bell);
            assert_eq!(check(&mut backend), []);
        }
    }
}

#[test]
fn b4_an_error_of_a_wait_is_returned_and_the_next_wait_goes_on() {
    let Some((sys, mut backend)) = failing() else {
        return;
    };
    let (bell, other) = (doorbell(), doorbell());
    watch(&mut backend, &bell, A);
    watch(&mut backend, &other, B);
    for (errno, returned) in [
        (Errno::NOMEM, Errno::NOMEM),
        (Errno::BADF, Errno::BADF),
        (Errno::AGAIN, Errno::NOMEM),
        (Errno::BUSY, Errno::NOMEM),
        (Errno::OPNOTSUPP, Errno::BADF),
    ] {
        for timeout in [Some(Duration::ZERO), Some(Duration::from_secs(60)), None] {
            ring(&bell);
            sys.enters.borrow_mut().extend([errno; 4]);
            assert_eq!(error_of(&mut backend, timeout), Some(returned));
            sys.enters.borrow_mut().clear();
            assert_eq!(check(&mut backend), [(A, IN)], "{errno:?}");
            read(&bell);
            assert_eq!(check(&mut backend), []);
        }
    }
}

#[test]
fn b4_a_descriptor_that_cannot_be_verified_is_reported_later() {
    let Some((sys, mut backend)) = failing() else {
        return;
    };
    let bell = doorbell();
    watch(&mut backend, &bell, A);
    assert_eq!(check(&mut backend), []);
    ring(&bell);
    sys.polls.borrow_mut().push_back(Some(Errno::NOMEM));
    assert_eq!(error_of(&mut backend, None), Some(Errno::NOMEM));
    assert_eq!(check(&mut backend), [(A, IN)]);
}

#[test]
fn b4_events_that_were_reported_before_an_error_are_not_lost() {
    let Some((sys, mut backend)) = failing() else {
        return;
    };
    let once = Interest::READ | Interest::ONESHOT;
    let bells = [(); 100].map(|()| doorbell());
    for (index, bell) in (0..).zip(&bells) {
        let token = aio_backend::Token::new(index, 0);
        backend.add(bell.clone().into(), token, once).unwrap();
    }
    assert_eq!(check(&mut backend), []);
    bells.iter().for_each(|bell| ring(bell));
    // A full list leaves the other registrations unverified for the next wait.
    let mut seen = check(&mut backend);
    sys.polls.borrow_mut().extend([None, Some(Errno::NOMEM)]);
    while seen.len() < bells.len() {
        let mut ready = ReadyList::with_limit(1_000);
        match backend.wait(Some(Duration::from_secs(10)), &mut ready) {
            Ok(()) => seen.extend(ready.iter()),
            Err(error) => {
                assert_eq!(Errno::from_io_error(&error), Some(Errno::NOMEM));
                assert!(ready.is_empty(), "its events would be lost");
            }
        }
    }
    assert!(sys.polls.borrow().is_empty());
    assert_eq!(check(&mut backend), []);
}

#[test]
fn b4_a_descriptor_that_cannot_be_armed_is_armed_later() {
    let Some((sys, mut backend)) = failing() else {
        return;
    };
    let (bell, other) = (doorbell(), doorbell());
    for timeout in [Some(Duration::ZERO), Some(Duration::from_secs(60)), None] {
        watch(&mut backend, &bell, A);
        sys.requests.borrow_mut().push_back(Errno::NOMEM);
        // If a wait cannot wait for the registration, it does not sleep.
        assert_eq!(error_of(&mut backend, timeout), Some(Errno::NOMEM));
        assert_eq!(check(&mut backend), []);
        ring(&bell);
        assert_eq!(check(&mut backend), [(A, IN)]);
        backend.remove(A).unwrap();

        // Together with an event it is no error.
        ring(&other);
        watch(&mut backend, &bell, A);
        watch(&mut backend, &other, B);
        sys.requests.borrow_mut().push_back(Errno::NOMEM);
        let mut ready = ReadyList::new();
        backend.wait(timeout, &mut ready).unwrap();
        assert_eq!(ready.iter().collect::<Vec<_>>(), [(B, IN)]);
        let mut found = check(&mut backend);
        found.sort_by_key(|(token, _)| *token);
        assert_eq!(found, [(A, IN), (B, IN)]);
        backend.remove(A).unwrap();
        backend.remove(B).unwrap();
        read(&bell);
        read(&other);
    }
    // The kernel cancels a request without being asked to.
    watch(&mut backend, &bell, A);
    sys.requests.borrow_mut().push_back(Errno::CANCELED);
    ring(&bell);
    assert_eq!(check(&mut backend), [(A, IN)]);
}

#[test]
fn b4_a_removal_that_cannot_be_submitted_is_an_error_and_complete() {
    let Some((sys, mut backend)) = failing() else {
        return;
    };
    let (bell, other) = (doorbell(), doorbell());
    for errno in [Errno::NOMEM, Errno::AGAIN] {
        watch(&mut backend, &bell, A);
        watch(&mut backend, &other, B);
        assert_eq!(check(&mut backend), []);
        sys.enters.borrow_mut().extend([errno; 4]);
        let removed = backend.remove(A).unwrap_err();
        assert_eq!(Errno::from_io_error(&removed), Some(Errno::NOMEM), "{errno:?}");
        assert_eq!(Rc::strong_count(&bell), 1);
        assert_eq!(backend.remove(A).unwrap_err().kind(), io::ErrorKind::NotFound);
        sys.enters.borrow_mut().clear();
        ring(&bell);
        ring(&other);
        assert_eq!(check(&mut backend), [(B, IN)]);
        backend.remove(B).unwrap();
        read(&bell);
        read(&other);
    }
}

#[test]
fn b4_a_full_submission_queue_is_no_obstacle() {
    let Some((sys, mut backend)) = failing() else {
        return;
    };
    sys.room.set(Some(1));
    let bells = [(); 20].map(|()| doorbell());
    for (index, bell) in (0..).zip(&bells) {
        watch(&mut backend, bell, aio_backend::Token::new(index, 0));
        ring(bell);
    }
    for _ in 0..3 {
        assert_eq!(check(&mut backend).len(), bells.len());
    }
    backend.drain(&mut |fd, _, _| drop(fd));
    assert!(bells.iter().all(|bell| Rc::strong_count(bell) == 1));
}

#[test]
fn s1_an_error_of_an_enter_loses_no_operation() {
    let Some((sys, mut backend)) = failing() else {
        return;
    };
    sys.has_operations.set(true);
    let bell = doorbell();
    watch(&mut backend, &bell, A);
    let file = Arc::new(std::fs::File::open("/dev/zero").unwrap());
    let operation = || Operation::read(file.clone(), 0, vec![1; 8]);
    for (errno, calls) in [
        (Errno::INTR, 1),
        (Errno::NOMEM, 1),
        (Errno::AGAIN, 4),
        (Errno::BUSY, 4),
    ] {
        for timeout in [Some(Duration::ZERO), Some(Duration::from_secs(60)), None] {
            let submitted = [(); 3].map(|()| backend.submit(B, operation()).unwrap());
            sys.enters.borrow_mut().extend(vec![errno; calls]);
            if errno == Errno::INTR {
                assert_eq!(error_of(&mut backend, timeout), None);
            } else {
                assert_eq!(error_of(&mut backend, timeout), Some(Errno::NOMEM));
            }
            assert!(sys.enters.borrow().is_empty());
            let mut ended = Vec::new();
            while ended.len() < submitted.len() {
                let mut ready = ReadyList::new();
                backend.wait(Some(Duration::from_secs(60)), &mut ready).unwrap();
                assert_eq!(ready.iter().collect::<Vec<_>>(), [(B, IN)]);
                while let Some((id, completed)) = backend.next_completed() {
                    assert_eq!(completed.into_bytes().unwrap(), [0; 8]);
                    ended.push(id);
                }
            }
            ended.sort();
            let mut submitted = submitted.to_vec();
            submitted.sort();
            assert_eq!(ended, submitted, "{errno:?}");
        }
    }
    ring(&bell);
    assert_eq!(check(&mut backend), [(A, IN)]);
}

#[test]
fn s2_a_ring_without_operations_gives_them_back() {
    let Some((_, mut backend)) = failing() else {
        return;
    };
    let file = Arc::new(std::fs::File::open("/dev/zero").unwrap());
    let refused = backend
        .submit(B, Operation::read(file.clone(), 0, vec![1; 8]))
        .unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
    drop(refused);
    assert_eq!((backend.in_flight(), Arc::strong_count(&file)), (0, 1));
    backend.end_operations();
    assert!(backend.next_completed().is_none());
}
