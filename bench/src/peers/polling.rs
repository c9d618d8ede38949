//! polling: a portable selector, level-triggered like ours.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use polling::{Event, Events, PollMode, Poller};

use crate::case::{Run, timed};
use crate::load::{Watches, doorbell, doorbells, drain};

pub(super) struct Loop {
    // Before the bells, because it must release them first.
    poller: Poller,
    events: Events,
    bells: Vec<Rc<OwnedFd>>,
    count: u64,
}

impl Loop {
    pub(super) fn new(n: u64) -> anyhow::Result<Self> {
        let (poller, bells) = (Poller::new()?, doorbells(n)?);
        for (index, bell) in bells.iter().enumerate() {
            let added =
                // SAFETY: the poller is dropped before the descriptors, which stay open as long as this value.
                unsafe { poller.add_with_mode(bell, Event::readable(index), PollMode::Level) };
            added?;
        }
        Ok(Self {
            poller,
            events: Events::new(),
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
        self.events.clear();
        let _ = self.poller.wait(&mut self.events, timeout);
        for event in self.events.iter() {
            drain(&self.bells[event.key]);
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
            let added =
                // SAFETY: it is removed again before the descriptor is closed.
                unsafe { it.poller.add_with_mode(&*bell, Event::readable(usize::MAX - 1), PollMode::Level) };
            if added.is_ok() {
                let _ = it.poller.delete(&*bell);
            }
        })
    }))
}
