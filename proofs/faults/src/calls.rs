//! The system calls of the backends. They fail as planned.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use aio_backend_epoll::sys::{Events, Kernel as EpollKernel, Sys as EpollSys};
use aio_backend_ppoll::sys::{Kernel as PpollKernel, Polled, Sys as PpollSys};
use aio_backend_uring::Config;
use aio_backend_uring::sys::{Completion, Kernel as RingKernel, KernelRing, Request, Ring, Sys as RingSys};
use aio_context::{Completed, Interest, NotSubmitted, Operation, Readiness, Token};
use rustix::io::Errno;

/// A system call and its purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// `epoll_create1`
    Create,
    /// `epoll_ctl(EPOLL_CTL_ADD)`
    Add,
    /// `epoll_ctl(EPOLL_CTL_MOD)`
    Modify,
    /// `epoll_ctl(EPOLL_CTL_DEL)`
    Delete,
    /// `epoll_wait`
    EpollWait,
    /// `ppoll` of an epoll set, for the rest of a millisecond
    SetPoll,
    /// `ppoll`
    Ppoll,
    /// `io_uring_setup`
    RingSetup,
    /// `io_uring_enter`
    RingEnter,
    /// `poll` of descriptors whose completions are verified
    RingPoll,
}

impl Call {
    /// All calls.
    pub const ALL: [Self; 10] = [
        Self::Create,
        Self::Add,
        Self::Modify,
        Self::Delete,
        Self::EpollWait,
        Self::SetPoll,
        Self::Ppoll,
        Self::RingSetup,
        Self::RingEnter,
        Self::RingPoll,
    ];

    /// Returns the name in the manual.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "epoll_create1",
            Self::Add => "epoll_ctl ADD",
            Self::Modify => "epoll_ctl MOD",
            Self::Delete => "epoll_ctl DEL",
            Self::EpollWait => "epoll_wait",
            Self::SetPoll => "ppoll (epoll set)",
            Self::Ppoll => "ppoll",
            Self::RingSetup => "io_uring_setup",
            Self::RingEnter => "io_uring_enter",
            Self::RingPoll => "poll (ring)",
        }
    }

    /// Returns the faults that the manual page allows, and ENOSYS and EPERM, which filters of system calls
    /// return. EEXIST and ENOENT are left out: they would be false statements about the set.
    #[must_use]
    pub fn faults(self) -> &'static [Fault] {
        use Fault::{Error, Nothing};
        match self {
            Self::Create | Self::RingSetup => &[
                Error(Errno::MFILE),
                Error(Errno::NFILE),
                Error(Errno::NOMEM),
                Error(Errno::INVAL),
                Error(Errno::NOSYS),
                Error(Errno::PERM),
            ],
            Self::Add => &[
                Error(Errno::NOSPC),
                Error(Errno::NOMEM),
                Error(Errno::BADF),
                Error(Errno::INVAL),
                Error(Errno::LOOP),
            ],
            Self::Modify => &[Error(Errno::NOMEM), Error(Errno::BADF), Error(Errno::INVAL)],
            Self::Delete => &[Error(Errno::NOMEM), Error(Errno::BADF), Error(Errno::INVAL)],
            Self::EpollWait => &[
                Error(Errno::INTR),
                Error(Errno::BADF),
                Error(Errno::INVAL),
                Error(Errno::NOSYS),
                Error(Errno::PERM),
                Nothing,
            ],
            Self::SetPoll | Self::Ppoll => &[
                Error(Errno::INTR),
                Error(Errno::INVAL),
                Error(Errno::NOMEM),
                Nothing,
            ],
            Self::RingEnter => &[
                Error(Errno::AGAIN),
                Error(Errno::BUSY),
                Error(Errno::INTR),
                Error(Errno::NOMEM),
                Error(Errno::BADF),
                Error(Errno::INVAL),
                Error(Errno::NOSYS),
                Error(Errno::PERM),
                Nothing,
            ],
            Self::RingPoll => &[Error(Errno::INVAL), Error(Errno::NOMEM)],
        }
    }
}

impl Fault {
    /// Returns `true` if the fault is possible for an open descriptor and a valid set. A kernel that returns
    /// an impossible one does so once in a run, not several times.
    pub(crate) fn is_possible(self, call: Call) -> bool {
        let registers = matches!(call, Call::Add | Call::Modify | Call::Delete);
        let lies = matches!(self, Self::Error(Errno::BADF | Errno::INVAL | Errno::LOOP));
        !(registers && lies)
    }
}

/// The way in which a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call fails with this error.
    Error(Errno),
    /// A wait ends at once, without an event.
    Nothing,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("spurious wake-up"),
            Self::Error(errno) => {
                let known = [
                    (Errno::MFILE, "EMFILE"),
                    (Errno::NFILE, "ENFILE"),
                    (Errno::NOMEM, "ENOMEM"),
                    (Errno::INVAL, "EINVAL"),
                    (Errno::NOSYS, "ENOSYS"),
                    (Errno::PERM, "EPERM"),
                    (Errno::NOSPC, "ENOSPC"),
                    (Errno::BADF, "EBADF"),
                    (Errno::LOOP, "ELOOP"),
                    (Errno::INTR, "EINTR"),
                    (Errno::AGAIN, "EAGAIN"),
                    (Errno::BUSY, "EBUSY"),
                ];
                let name = known.iter().find(|(known, _)| known == errno);
                f.write_str(name.map_or("?", |(_, name)| name))
            }
        }
    }
}

/// A mistake made on purpose, which the verdict must detect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// A refused registration counts as a success.
    RefusalIgnored,
    /// After a failure every wait ends at once, without end.
    Spin,
    /// After a failure a descriptor is left open.
    Leak,
}

/// The calls that fail.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// For each fault: the call, its number (from 1), and the fault.
    pub(crate) faults: Vec<(Call, u64, Fault)>,
    /// Every second one of these calls fails, too.
    pub(crate) storm: Option<(Call, Fault)>,
    pub(crate) plant: Option<Plant>,
    pub(crate) counts: [Cell<u64>; Call::ALL.len()],
    pub(crate) injected: Cell<u64>,
    /// The number of calls above which a run counts as a busy loop.
    pub(crate) most: u64,
}

/// The panic of a program that makes far too many calls.
pub(crate) struct Runaway;

impl Plan {
    pub(crate) fn total(&self) -> u64 {
        self.counts.iter().map(Cell::get).sum()
    }

    /// Returns the fault of this call, if there is one.
    fn next(&self, call: Call) -> Option<Fault> {
        let count = &self.counts[call as usize];
        count.set(count.get() + 1);
        if self.total() > 20 * self.most {
            std::panic::panic_any(Runaway);
        }
        let number = count.get();
        let planned = self
            .faults
            .iter()
            .find(|(of, at, _)| (*of, *at) == (call, number));
        let storm = self
            .storm
            .filter(|(of, _)| *of == call && number.is_multiple_of(2));
        let fault = planned
            .map(|(.., fault)| *fault)
            .or(storm.map(|(_, fault)| fault))?;
        self.injected.set(self.injected.get() + 1);
        Some(fault)
    }

    fn enter(&self, call: Call) -> io::Result<bool> {
        let spins = self.plant == Some(Plant::Spin) && self.injected.get() > 0;
        let fault = self.next(call);
        if fault.is_some() && self.plant == Some(Plant::Leak) {
            let leaked = std::fs::File::open("/dev/null")?;
            std::mem::forget(leaked);
        }
        match fault {
            Some(Fault::Error(errno)) => Err(errno.into()),
            Some(Fault::Nothing) => Ok(true),
            None => Ok(spins
                && matches!(
                    call,
                    Call::EpollWait | Call::Ppoll | Call::SetPoll | Call::RingEnter
                )),
        }
    }
}

/// The kernel, with the planned faults.
#[derive(Clone, Debug)]
pub(crate) struct Failing(pub(crate) Rc<Plan>);

impl Failing {
    fn register(&self, call: Call) -> io::Result<bool> {
        match self.0.enter(call) {
            Err(_) if self.0.plant == Some(Plant::RefusalIgnored) => Ok(true),
            result => result,
        }
    }
}

impl EpollSys for Failing {
    fn create(&self) -> io::Result<OwnedFd> {
        self.0.enter(Call::Create)?;
        EpollKernel.create()
    }
    fn add(&self, set: BorrowedFd<'_>, fd: BorrowedFd<'_>, key: u64, interest: Interest) -> io::Result<()> {
        if self.register(Call::Add)? {
            return Ok(());
        }
        EpollKernel.add(set, fd, key, interest)
    }
    fn modify(
        &self,
        set: BorrowedFd<'_>,
        fd: BorrowedFd<'_>,
        key: u64,
        interest: Interest,
    ) -> io::Result<()> {
        if self.register(Call::Modify)? {
            return Ok(());
        }
        EpollKernel.modify(set, fd, key, interest)
    }
    fn delete(&self, set: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.0.enter(Call::Delete)?;
        EpollKernel.delete(set, fd)
    }
    fn wait(
        &self,
        set: BorrowedFd<'_>,
        events: &mut Events<'_>,
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        if self.0.enter(Call::EpollWait)? {
            return Ok(0);
        }
        EpollKernel.wait(set, events, timeout)
    }
    fn poll(&self, set: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
        if self.0.enter(Call::SetPoll)? {
            return Ok(false);
        }
        EpollKernel.poll(set, timeout)
    }
    fn now(&self) -> Instant {
        EpollKernel.now()
    }
}

impl PpollSys for Failing {
    fn find(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        PpollKernel.find(fd)
    }

    fn ppoll(&self, polled: &mut Polled<'_>, timeout: Option<Duration>) -> io::Result<usize> {
        if self.0.enter(Call::Ppoll)? {
            return Ok(0);
        }
        PpollKernel.ppoll(polled, timeout)
    }
}

/// A ring of the kernel, with the planned faults.
#[derive(Debug)]
pub(crate) struct FailingRing {
    plan: Rc<Plan>,
    ring: KernelRing,
}

impl RingSys for Failing {
    type Ring = FailingRing;

    fn setup(&self, config: &Config) -> io::Result<FailingRing> {
        self.0.enter(Call::RingSetup)?;
        Ok(FailingRing {
            plan: self.0.clone(),
            ring: RingKernel.setup(config)?,
        })
    }
    fn find(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        RingKernel.find(fd)
    }
    fn poll(&self, fds: &[(BorrowedFd<'_>, Interest)], answers: &mut [Readiness]) -> io::Result<()> {
        self.0.enter(Call::RingPoll)?;
        RingKernel.poll(fds, answers)
    }
    fn is_socket(&self, fd: BorrowedFd<'_>) -> bool {
        RingKernel.is_socket(fd)
    }
    fn now(&self) -> Instant {
        RingKernel.now()
    }
}

impl Ring for FailingRing {
    fn sees_all(&self) -> bool {
        self.ring.sees_all()
    }
    fn is_idle(&mut self) -> bool {
        self.ring.is_idle()
    }
    fn is_quiet(&mut self) -> bool {
        self.ring.is_quiet()
    }
    fn push(&mut self, request: Request) -> bool {
        self.ring.push(request)
    }
    fn pushed(&mut self) -> usize {
        self.ring.pushed()
    }
    fn enter(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if self.plan.enter(Call::RingEnter)? {
            return Ok(());
        }
        self.ring.enter(timeout)
    }
    fn make_eventfd(&mut self) -> io::Result<OwnedFd> {
        self.ring.make_eventfd()
    }
    fn has_work(&mut self) -> bool {
        self.ring.has_work()
    }
    fn next(&mut self) -> Option<Completion> {
        self.ring.next()
    }
    fn submit(&mut self, operation: Operation) -> Result<Token, NotSubmitted> {
        self.ring.submit(operation)
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
