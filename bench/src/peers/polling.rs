//! polling: a portable selector; level-triggered, as ours is.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use polling::{Event, Events, PollMode, Poller};

use crate::case::{Run, timed};
use crate::floor::{doorbell, doorbells, drain, ring};
use crate::load::spread;

struct Loop {
    // Before the bells: it must let go of them first.
    poller: Poller,
    events: Events,
    bells: Vec<Rc<OwnedFd>>,
    count: u64,
}

impl Loop {
    fn new(n: u64) -> anyhow::Result<Self> {
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

    fn iterate(&mut self, timeout: Option<Duration>) {
        self.events.clear();
        let _ = self.poller.wait(&mut self.events, timeout);
        for event in self.events.iter() {
            drain(&self.bells[event.key]);
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
            let added =
                // SAFETY: it is removed again before the descriptor is closed.
                unsafe { it.poller.add_with_mode(&*bell, Event::readable(usize::MAX - 1), PollMode::Level) };
            if added.is_ok() {
                let _ = it.poller.delete(&*bell);
            }
        })
    }))
}
