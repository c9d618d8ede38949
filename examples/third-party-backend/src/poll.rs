//! A backend on `poll`: each wait passes every descriptor to the kernel.

use std::io::{self, ErrorKind};
use std::time::Duration;

use aio_backend::{Backend, Interest, Readiness, ReadyList, Token, Watched};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, fcntl_getfd};

/// Waits with `poll`.
#[derive(Debug, Default)]
pub struct Poll {
    entries: Vec<(Watched, Token, Interest)>,
    /// The entry that the next wait reports first.
    first: usize,
}

impl Poll {
    fn find(&self, token: Token) -> io::Result<usize> {
        self.entries.iter().position(|(_, known, _)| *known == token).ok_or(ErrorKind::NotFound.into())
    }
}

impl Backend for Poll {
    fn name(&self) -> &'static str {
        "poll"
    }

    fn add(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()> {
        if self.find(token).is_ok() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        fcntl_getfd(&fd)?; // EBADF, if the number is not open
        self.entries.push((fd, token, interest));
        Ok(())
    }

    fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        let place = self.find(token)?;
        if interest != Interest::NONE {
            fcntl_getfd(&self.entries[place].0)?; // it may be closed by now
        }
        self.entries[place].2 = interest;
        Ok(())
    }

    fn remove(&mut self, token: Token) -> io::Result<()> {
        let place = self.find(token)?;
        self.entries.swap_remove(place);
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        // Without an interest, poll would still report hang-ups.
        let is_on = |place: &usize| self.entries[*place].2 != Interest::NONE;
        let all = 0..self.watched();
        let order: Vec<usize> = all.clone().cycle().skip(self.first).take(all.len()).filter(is_on).collect();
        let watched = order.iter().map(|place| &self.entries[*place]);
        let mut fds: Vec<_> = watched.map(|(fd, _, interest)| PollFd::new(fd, flags(*interest))).collect();
        let longest = Timespec { tv_sec: i64::MAX, tv_nsec: 0 };
        let timeout = timeout.map(|timeout| timeout.try_into().unwrap_or(longest));
        match poll(&mut fds, timeout.as_ref()) {
            Err(Errno::INTR) => return Ok(()),
            result => result?,
        };
        let found: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        for (place, found) in order.into_iter().zip(found).filter(|(_, found)| !found.is_empty()) {
            let (_, token, interest) = &mut self.entries[place];
            if !ready.push(*token, Readiness::from_system(u32::from(found.bits()))) {
                self.first = place; // the list is full
                break;
            }
            if interest.contains(Interest::ONESHOT) {
                *interest = Interest::NONE;
            }
        }
        Ok(())
    }

    fn watched(&self) -> usize {
        self.entries.len()
    }

    fn visit(&self, each: &mut dyn FnMut(&Watched, Token, Interest)) {
        self.entries.iter().for_each(|(fd, token, interest)| each(fd, *token, *interest));
    }

    fn drain(&mut self, each: &mut dyn FnMut(Watched, Token, Interest)) {
        self.entries.drain(..).for_each(|(fd, token, interest)| each(fd, token, interest));
    }
}

fn flags(interest: Interest) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN | PollFlags::RDHUP, interest.contains(Interest::READ));
    flags.set(PollFlags::OUT, interest.contains(Interest::WRITE));
    flags.set(PollFlags::PRI, interest.contains(Interest::PRIORITY));
    flags
}
