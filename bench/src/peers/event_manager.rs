//! event-manager: the loop of virtual machine monitors; subscribers that are called with events.

use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};

use crate::case::{Run, timed};
use crate::floor::{doorbell, doorbells, drain, ring};
use crate::load::spread;

struct Bell {
    fd: Rc<OwnedFd>,
    count: Rc<std::cell::Cell<u64>>,
}

impl MutEventSubscriber for Bell {
    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {
        drain(&self.fd);
        self.count.set(self.count.get() + 1);
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        let _ = ops.add(Events::new_raw(self.fd.as_raw_fd(), EventSet::IN));
    }
}

struct Loop {
    manager: EventManager<Bell>,
    bells: Vec<Rc<OwnedFd>>,
    count: Rc<std::cell::Cell<u64>>,
}

impl Loop {
    fn new(n: u64) -> anyhow::Result<Self> {
        let manager = EventManager::new().map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let mut it = Self {
            manager,
            bells: doorbells(n)?,
            count: Rc::default(),
        };
        for bell in it.bells.clone() {
            let count = it.count.clone();
            it.manager.add_subscriber(Bell { fd: bell, count });
        }
        Ok(it)
    }

    fn iterate(&mut self, timeout_ms: i32) {
        let _ = self.manager.run_with_timeout(timeout_ms);
    }
}

pub(super) fn self_kick(n: u64) -> anyhow::Result<Run> {
    let mut it = Loop::new(n + 1)?;
    let bell = it.bells[n as usize].clone();
    Ok(Box::new(move |times| {
        timed(times, || {
            ring(&bell);
            it.iterate(-1);
        })
    }))
}

pub(super) fn dispatch(k: u64, m: u64) -> anyhow::Result<Run> {
    let mut it = Loop::new(m)?;
    let kicked = spread(&it.bells, k);
    Ok(Box::new(move |times| {
        timed(times, || {
            kicked.iter().for_each(|bell| ring(bell));
            let goal = it.count.get() + k;
            while it.count.get() < goal {
                it.iterate(-1);
            }
        })
    }))
}

pub(super) fn empty(n: u64) -> anyhow::Result<Run> {
    let mut it = Loop::new(n)?;
    Ok(Box::new(move |times| timed(times, || it.iterate(0))))
}

pub(super) fn register(n: u64) -> anyhow::Result<Run> {
    let mut it = Loop::new(n)?;
    let bell = doorbell()?;
    Ok(Box::new(move |times| {
        timed(times, || {
            let count = it.count.clone();
            let id = it.manager.add_subscriber(Bell {
                fd: bell.clone(),
                count,
            });
            let _ = it.manager.remove_subscriber(id);
        })
    }))
}
