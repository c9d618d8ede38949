//! mio: a selector with tokens. The caller runs the callback.

use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::case::{Run, timed};
use crate::load::{Watches, doorbell, doorbells, drain};

pub(super) struct Loop {
    poll: Poll,
    events: Events,
    bells: Vec<Rc<OwnedFd>>,
    count: u64,
}

impl Loop {
    pub(super) fn new(n: u64) -> anyhow::Result<Self> {
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
}

impl Watches for Loop {
    fn bells(&self) -> &[Rc<OwnedFd>] {
        &self.bells
    }

    fn count(&self) -> u64 {
        self.count
    }

    #[inline]
    fn iterate<const BLOCKS: bool>(&mut self) {
        let timeout = (!BLOCKS).then_some(Duration::ZERO);
        let _ = self.poll.poll(&mut self.events, timeout);
        for event in &self.events {
            drain(&self.bells[event.token().0]);
            self.count += 1;
        }
    }
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
