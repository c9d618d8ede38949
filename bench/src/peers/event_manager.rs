//! event-manager: the loop of virtual machine monitors. It calls subscribers with events.

use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};

use crate::case::{Run, timed};
use crate::load::{Watches, doorbell, doorbells, drain};

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

pub(super) struct Loop {
    manager: EventManager<Bell>,
    bells: Vec<Rc<OwnedFd>>,
    count: Rc<std::cell::Cell<u64>>,
}

impl Loop {
    pub(super) fn new(n: u64) -> anyhow::Result<Self> {
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
}

impl Watches for Loop {
    fn bells(&self) -> &[Rc<OwnedFd>] {
        &self.bells
    }

    fn count(&self) -> u64 {
        self.count.get()
    }

    #[inline]
    fn iterate<const BLOCKS: bool>(&mut self) {
        let _ = self.manager.run_with_timeout(if BLOCKS { -1 } else { 0 });
    }
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
