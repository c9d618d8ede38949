//! mio: a selector with tokens; the callback is the caller's.

use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::case::{Run, timed};
use crate::floor::{doorbell, doorbells, drain, ring};
use crate::load::spread;

struct Loop {
    poll: Poll,
    events: Events,
    bells: Vec<Rc<OwnedFd>>,
    count: u64,
}

impl Loop {
    fn new(n: u64) -> anyhow::Result<Self> {
        let (poll, bells) = (Poll::new()?, doorbells(n)?);
        for (index, bell) in bells.iter().enumerate() {
            poll.registry()
                .register(&mut SourceFd(&bell.as_raw_fd()), Token(index), Interest::READABLE)?;
        }
        Ok(Self {
            poll,
            events: Events::with_capacity(1024),
            bells,
            count: 0,
        })
    }

    fn iterate(&mut self, timeout: Option<Duration>) {
        let _ = self.poll.poll(&mut self.events, timeout);
        for event in &self.events {
            drain(&self.bells[event.token().0]);
            self.count += 1;
        }
    }
}

pub(super) fn self_kick(n: u64) -> anyhow::Result<Run> {
    let mut it = Loop::new(n + 1)?;
    let bell = it.bells[n as usize].clone();
    Ok(Box::new(move |times| {
        timed(times, || {
            ring(&bell);
            it.iterate(None);
        })
    }))
}

pub(super) fn dispatch(k: u64, m: u64) -> anyhow::Result<Run> {
    let mut it = Loop::new(m)?;
    let kicked = spread(&it.bells, k);
    Ok(Box::new(move |times| {
        timed(times, || {
            kicked.iter().for_each(|bell| ring(bell));
            let goal = it.count + k;
            while it.count < goal {
                it.iterate(None);
            }
        })
    }))
}

pub(super) fn empty(n: u64) -> anyhow::Result<Run> {
    let mut it = Loop::new(n)?;
    Ok(Box::new(move |times| {
        timed(times, || it.iterate(Some(Duration::ZERO)))
    }))
}

pub(super) fn register(n: u64) -> anyhow::Result<Run> {
    let it = Loop::new(n)?;
    let bell = doorbell()?;
    Ok(Box::new(move |times| {
        let _whole = &it;
        timed(times, || {
            let source = bell.as_raw_fd();
            let registry = it.poll.registry();
            let _ = registry.register(&mut SourceFd(&source), Token(usize::MAX - 1), Interest::READABLE);
            let _ = registry.deregister(&mut SourceFd(&source));
        })
    }))
}
