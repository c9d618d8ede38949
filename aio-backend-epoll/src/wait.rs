//! Waiting, and turning the kernel's events into ours.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

use aio_backend::{Readiness, ReadyList, Token};
use rustix::event::epoll::{self, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::set::Set;

/// After so many late events in a row, for tokens that are not watched, the set is built anew: a descriptor that was closed
/// while a copy of it lives cannot be taken out in any other way.
const GHOST_STREAK: u32 = 16;

/// The buffer for the kernel's events, reused by every wait.
#[derive(Default)]
pub(crate) struct Events {
    buffer: Vec<MaybeUninit<epoll::Event>>,
    ghosts: u32,
}

impl Events {
    pub(crate) fn wait(
        &mut self,
        set: &mut Set,
        timeout: Option<Duration>,
        ready: &mut ReadyList,
    ) -> io::Result<()> {
        if let Some(timeout) = timeout.filter(|timeout| !timeout.is_zero())
            && !sleep(set, timeout)?
        {
            return Ok(());
        }
        // What is always ready comes second, and takes turns with the rest when there is not room for all.
        set.report_always_ready_if_its_turn(ready);
        let room = ready.room();
        if room != 0 {
            self.fetch(set, timeout.is_none(), room, ready)?;
            set.report_always_ready(ready);
        }
        if self.ghosts >= GHOST_STREAK {
            self.ghosts = 0;
            set.rebuild()?;
        }
        Ok(())
    }

    fn fetch(&mut self, set: &Set, forever: bool, room: usize, ready: &mut ReadyList) -> io::Result<()> {
        if self.buffer.len() < room {
            self.buffer.resize_with(room, MaybeUninit::uninit);
        }
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let timeout = if forever { None } else { Some(&now) };
        let events = match epoll::wait(set.fd(), &mut self.buffer[..room], timeout) {
            Ok((events, _)) => events,
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for event in events {
            let token = Token::from_bits(event.data.u64());
            if set.knows(token) {
                self.ghosts = 0;
                ready.push(token, readiness(event.flags));
            } else {
                self.ghosts += 1;
            }
        }
        Ok(())
    }
}

/// Sleeps until the set has something, or the time is over; true if it has.
fn sleep(set: &Set, timeout: Duration) -> io::Result<bool> {
    let timeout = Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    let mut fds = [PollFd::new(set.fd(), PollFlags::IN)];
    match rustix::event::poll(&mut fds, Some(&timeout)) {
        Ok(count) => Ok(count != 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn readiness(flags: EventFlags) -> Readiness {
    let mut readiness = Readiness::empty();
    readiness.set(Readiness::IN, flags.contains(EventFlags::IN));
    readiness.set(Readiness::OUT, flags.contains(EventFlags::OUT));
    readiness.set(Readiness::HUP, flags.contains(EventFlags::HUP));
    readiness.set(Readiness::ERR, flags.contains(EventFlags::ERR));
    readiness
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("capacity", &self.buffer.len())
            .finish_non_exhaustive()
    }
}
