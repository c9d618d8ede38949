//! The system calls of the simulated kernel: their results, their failures, and the time that passes in a sleep.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use aio_backend_epoll::sys::{Events, Sys as EpollSys};
use aio_backend_ppoll::sys::{Polled, Sys as PpollSys};
use aio_context::{Interest, Readiness};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::kernel::{No, reported};
use crate::plant::Plant;
use crate::target::Target;
use crate::world::World;

/// The number of calls without a callback within a millisecond above which the loop counts as busy.
const MOST_IDLE_CALLS: u32 = 3_000;

/// The kernel's interface for the backends.
pub(crate) struct Calls(pub(crate) Rc<World>);

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Calls")
    }
}

const CREATE: &[Errno] = &[Errno::MFILE, Errno::NFILE, Errno::NOMEM];
const CONTROL: &[Errno] = &[Errno::NOSPC, Errno::NOMEM];
const CHANGE: &[Errno] = &[Errno::NOMEM];
pub(crate) const WAIT: &[Errno] = &[Errno::BADF, Errno::INVAL];
pub(crate) const PPOLL: &[Errno] = &[Errno::NOMEM, Errno::INVAL];

impl World {
    /// Begins a call: lets time pass and others act.
    pub(crate) fn enter(&self, name: &'static str) {
        self.readings.set(0);
        self.pass(50 + self.below(200));
        self.others_may_act();
        let (calls, since) = self.idle_calls.get();
        if self.time.get() - since > 1_000_000 {
            self.idle_calls.set((1, self.time.get()));
        } else {
            self.idle_calls.set((calls + 1, since));
            self.require(calls < MOST_IDLE_CALLS, || {
                format!("{calls} system calls in a row to no effect, the last is {name}: a busy loop")
            });
        }
        if let Some(level) = self.levels.borrow_mut().last_mut() {
            level.calls += 1;
        }
    }

    /// Makes some calls fail.
    pub(crate) fn refuse(&self, name: &'static str, errors: &[Errno], rate: u16) -> io::Result<()> {
        if !self.strikes(rate) {
            return Ok(());
        }
        let error = errors[self.below(errors.len() as u64) as usize];
        self.injected.set(self.injected.get() + 1);
        self.refused.set(self.refused.get() + 1);
        self.record(|| format!("kernel: {name} fails: {error:?}"), 11);
        Err(error.into())
    }

    /// Begins a wait. Checks that it may block, and makes some waits fail. Returns `true` if it ends early.
    pub(crate) fn begin_wait(&self, timeout: Option<u64>, errors: &[Errno]) -> io::Result<bool> {
        let rates = self.rates.get();
        let level_forbids = self
            .levels
            .borrow()
            .last()
            .is_some_and(|level| level.wait == aio_context::Wait::NoBlock);
        self.require(!(level_forbids && timeout != Some(0)), || {
            format!("I9: an iteration that may not wait asks to sleep for {timeout:?} ns")
        });
        self.refuse("a wait", errors, rates.failed_waits)?;
        if self.strikes(rates.interrupted) {
            self.injected.set(self.injected.get() + 1);
            self.record(|| "kernel: interrupted".to_owned(), 12);
            return Err(Errno::INTR.into());
        }
        if self.strikes(rates.jumps) && self.time.get() < 1 << 63 {
            self.injected.set(self.injected.get() + 1);
            let nanos = self.below(3_000_000_000_000_000_000);
            self.record(
                || format!("the clock jumps {} days ahead", nanos / 86_400_000_000_000),
                13,
            );
            self.pass(nanos);
        }
        let spurious = self.strikes(rates.spurious);
        if spurious {
            self.injected.set(self.injected.get() + 1);
            self.record(|| "kernel: spurious wake-up".to_owned(), 14);
        }
        Ok(spurious)
    }

    /// Sleeps until `check` finds an event or `timeout` is over. Others act during the sleep.
    pub(crate) fn sleep(&self, timeout: Option<u64>, mut check: impl FnMut(&Self) -> usize) -> usize {
        let began = self.time.get();
        loop {
            let found = check(self);
            if found > 0 || timeout == Some(0) {
                return found;
            }
            self.may_sleep(timeout.map(|timeout| timeout.saturating_sub(self.time.get() - began)));
            let end = timeout.map(|timeout| began.saturating_add(timeout));
            match (self.next_action(), end) {
                (Some(next), end) if end.is_none_or(|end| next <= end) => {
                    self.time.set(self.time.get().max(next));
                    self.others_may_act();
                }
                (_, Some(end)) => {
                    let slack = self.below(40_000);
                    self.time.set(self.time.get().max(end).saturating_add(slack));
                    self.others_may_act();
                    return check(self);
                }
                (_, None) => self.fail("I1: the loop sleeps for ever without a wake-up to come".to_owned()),
            }
        }
    }

    /// Returns `true` if the loop's own eventfd, which is a real one, is readable.
    pub(crate) fn rings(&self) -> bool {
        let Some(remote) = self.remote() else {
            return false;
        };
        let rings = remote.wakeups().0;
        if rings == self.silent_at.get() {
            return false;
        }
        if self.plant == Some(Plant::RingLost) && rings % 8 == 3 {
            return false;
        }
        let doorbell = self.doorbell.borrow();
        let Some(doorbell) = doorbell.as_ref() else {
            return false;
        };
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let mut fds = [PollFd::new(doorbell, PollFlags::IN)];
        let is_set = poll(&mut fds, Some(&now)).is_ok_and(|found| found > 0);
        if !is_set {
            self.silent_at.set(rings);
        }
        is_set
    }

    fn touch_doorbell(&self, raw: i32) -> bool {
        let rings = self.rings();
        if rings {
            self.kernel
                .borrow_mut()
                .touch(Target::Doorbell(raw), Readiness::IN);
        }
        rings
    }

    fn ready_in(&self, set: BorrowedFd<'_>, room: usize, consume: bool) -> Vec<(u64, Readiness)> {
        let doorbell = self.kernel.borrow_mut().doorbell_in(set);
        let rings = doorbell.is_some_and(|raw| self.touch_doorbell(raw));
        self.kernel.borrow_mut().ready(set, room, consume, rings)
    }

    /// Stores a duplicate of the loop's own eventfd, so that the kernel can check its readiness.
    pub(crate) fn meet(&self, fd: BorrowedFd<'_>) {
        if self.kernel.borrow().number_of(fd.as_raw_fd()).is_none() && self.doorbell.borrow().is_none() {
            *self.doorbell.borrow_mut() = fd.try_clone_to_owned().ok();
        }
    }
}

pub(crate) fn nanos(timeout: Duration) -> u64 {
    u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX)
}

impl From<No> for io::Error {
    fn from(no: No) -> Self {
        match no {
            No::BadDescriptor => Errno::BADF.into(),
            No::Exists => Errno::EXIST.into(),
            No::Missing => Errno::NOENT.into(),
            No::NotForEpoll => Errno::PERM.into(),
        }
    }
}

impl EpollSys for Calls {
    fn create(&self) -> io::Result<OwnedFd> {
        self.0.enter("epoll_create1");
        self.0
            .refuse("epoll_create1", CREATE, self.0.rates.get().refused)?;
        let set = self.0.kernel.borrow().backing[0].try_clone()?;
        self.0.kernel.borrow_mut().create(set.as_raw_fd());
        Ok(set)
    }

    fn add(&self, set: BorrowedFd<'_>, fd: BorrowedFd<'_>, key: u64, interest: Interest) -> io::Result<()> {
        self.0.enter("EPOLL_CTL_ADD");
        self.0.meet(fd);
        self.0
            .refuse("EPOLL_CTL_ADD", CONTROL, self.0.rates.get().refused)?;
        Ok(self.0.kernel.borrow_mut().add(set, fd, key, interest)?)
    }

    fn modify(
        &self,
        set: BorrowedFd<'_>,
        fd: BorrowedFd<'_>,
        key: u64,
        interest: Interest,
    ) -> io::Result<()> {
        self.0.enter("EPOLL_CTL_MOD");
        self.0
            .refuse("EPOLL_CTL_MOD", CHANGE, self.0.rates.get().refused)?;
        Ok(self.0.kernel.borrow_mut().modify(set, fd, key, interest)?)
    }

    fn delete(&self, set: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.0.enter("EPOLL_CTL_DEL");
        self.0
            .refuse("EPOLL_CTL_DEL", CHANGE, self.0.rates.get().refused)?;
        Ok(self.0.kernel.borrow_mut().delete(set, fd)?)
    }

    fn wait(
        &self,
        set: BorrowedFd<'_>,
        events: &mut Events<'_>,
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        let world = &self.0;
        world.enter("epoll_wait");
        let timeout = timeout.map(nanos);
        if world.begin_wait(timeout, WAIT)? {
            return Ok(0);
        }
        let room = events.room();
        Ok(world.sleep(timeout, |world| {
            let ready = world.ready_in(set, room, true);
            for (place, (key, readiness)) in ready.iter().enumerate() {
                events.write(place, *key, *readiness);
            }
            ready.len()
        }))
    }

    fn poll(&self, set: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
        let world = &self.0;
        world.enter("ppoll of the set");
        let timeout = Some(nanos(timeout));
        if world.begin_wait(timeout, PPOLL)? {
            return Ok(false);
        }
        Ok(world.sleep(timeout, |world| world.ready_in(set, 1, false).len()) > 0)
    }

    fn now(&self) -> Instant {
        self.0.instant()
    }
}

impl PpollSys for Calls {
    const SIMULATED: bool = true;

    fn find(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.0.enter("fcntl");
        match self.0.kernel.borrow().target(fd) {
            Some(_) => Ok(()),
            None => Err(No::BadDescriptor.into()),
        }
    }

    fn ppoll(&self, polled: &mut Polled<'_>, timeout: Option<Duration>) -> io::Result<usize> {
        let world = &self.0;
        world.enter("ppoll");
        for (fd, _) in polled.iter() {
            world.meet(fd.as_fd());
        }
        let timeout = timeout.map(nanos);
        if world.begin_wait(timeout, PPOLL)? {
            return Ok(0);
        }
        Ok(world.sleep(timeout, |world| {
            let rings = world.rings();
            let kernel = world.kernel.borrow();
            let mut answers = Vec::new();
            for (place, (fd, interest)) in polled.iter().enumerate() {
                let ready = match kernel.target(fd) {
                    None => Readiness::NVAL,
                    Some(Target::Doorbell(_)) if rings => Readiness::IN,
                    Some(Target::Doorbell(_)) => Readiness::empty(),
                    Some(Target::File(file)) => kernel.files[file].readiness() & reported(interest),
                };
                if !ready.is_empty() {
                    answers.push((place, ready));
                }
            }
            for (place, readiness) in &answers {
                polled.answer(*place, *readiness);
            }
            answers.len()
        }))
    }
}
