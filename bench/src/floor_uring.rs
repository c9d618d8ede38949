//! The floor on io_uring: a hand-written loop on a bare ring, with the same work in the callback.
//!
//! In one system call it arms all descriptors that it has served, and waits. It checks nothing else: it would
//! also serve a stale completion, or a descriptor that was closed.

use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use io_uring::types::Fd;
use io_uring::{EnterFlags, IoUring, opcode};

use crate::load::{Watches, drain};

const SUBMISSIONS: u32 = 1024;

pub(crate) struct Ring {
    ring: IoUring,
    pub(crate) fds: Vec<Rc<OwnedFd>>,
    /// The descriptors to arm.
    due: Vec<usize>,
    pub(crate) count: u64,
}

impl Ring {
    pub(crate) fn new(fds: Vec<Rc<OwnedFd>>) -> anyhow::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_cqsize(32_768)
            .build(SUBMISSIONS)?;
        let due = (0..fds.len()).collect();
        let mut this = Self {
            ring,
            fds,
            due,
            count: 0,
        };
        this.iterate(false);
        Ok(this)
    }

    /// Queues requests for the descriptors to arm, while there is room.
    fn push(&mut self) {
        const POLLIN: u32 = 1;
        let mut queue = self.ring.submission();
        while let Some(&index) = self.due.last() {
            let fd = Fd(self.fds[index].as_raw_fd());
            let request = opcode::PollAdd::new(fd, POLLIN).build().user_data(index as u64);
            // SAFETY: a poll request has no pointer.
            if unsafe { queue.push(&request) }.is_err() {
                return;
            }
            self.due.pop();
        }
    }

    /// Returns `true` if an enter would neither submit nor find anything.
    fn is_quiet(&mut self) -> bool {
        let queue = self.ring.submission();
        let is_quiet = queue.is_empty() && !queue.taskrun() && !queue.cq_overflow();
        drop(queue);
        is_quiet && self.ring.completion().is_empty()
    }

    /// Runs one iteration. Returns the number of served events.
    pub(crate) fn iterate(&mut self, block: bool) -> usize {
        loop {
            self.push();
            if !block && self.is_quiet() {
                return 0;
            }
            let pushed = self.ring.submission().len() as u32;
            let want = u32::from(block && self.due.is_empty());
            let flags = EnterFlags::GETEVENTS.bits();
            // SAFETY: there is no argument, and `pushed` entries are in the queue.
            let _ = unsafe { self.ring.submitter().enter::<()>(pushed, want, flags, None) };
            let mut served = 0;
            for completion in self.ring.completion() {
                let index = completion.user_data() as usize;
                let Some(fd) = self.fds.get(index) else {
                    // The completion of a descriptor that was added and removed.
                    continue;
                };
                drain(fd);
                self.due.push(index);
                served += 1;
            }
            self.count += served as u64;
            if served > 0 || !block {
                return served;
            }
        }
    }

    /// Arms another descriptor and cancels that again, with the next enter.
    pub(crate) fn add_and_remove(&mut self, fd: &OwnedFd, key: u64) {
        const POLLIN: u32 = 1;
        let add = opcode::PollAdd::new(Fd(fd.as_raw_fd()), POLLIN)
            .build()
            .user_data(key);
        let remove = opcode::PollRemove::new(key).build().user_data(u64::MAX);
        let mut queue = self.ring.submission();
        // SAFETY: neither has a pointer.
        let is_full = unsafe { queue.push_multiple(&[add.clone(), remove.clone()]) }.is_err();
        drop(queue);
        if is_full {
            let pushed = self.ring.submission().len() as u32;
            let flags = EnterFlags::GETEVENTS.bits();
            // SAFETY: as above.
            let _ = unsafe { self.ring.submitter().enter::<()>(pushed, 0, flags, None) };
            self.ring.completion().for_each(drop);
            // SAFETY: as above.
            let _ = unsafe { self.ring.submission().push_multiple(&[add, remove]) };
        }
    }
}

impl Watches for Ring {
    fn bells(&self) -> &[Rc<OwnedFd>] {
        &self.fds
    }

    fn count(&self) -> u64 {
        self.count
    }

    #[inline]
    fn iterate<const BLOCKS: bool>(&mut self) {
        Self::iterate(self, BLOCKS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{doorbell, doorbells, ring};

    #[test]
    fn a_bare_ring_serves_what_is_rung_and_nothing_else() {
        let Ok(mut floor) = Ring::new(doorbells(3_000).unwrap()) else {
            eprintln!("skipped: no io_uring");
            return;
        };
        assert_eq!(floor.iterate(false), 0);
        for round in 1..20 {
            for place in [7, 2_999] {
                let bell = floor.fds[place].clone();
                ring(&bell);
            }
            let mut served = 0;
            while served < 2 {
                served += floor.iterate(true);
            }
            assert_eq!((served, floor.iterate(false), floor.count), (2, 0, 2 * round));
        }
        let other = doorbell().unwrap();
        ring(&other);
        for _ in 0..5_000 {
            floor.add_and_remove(&other, 3_001);
        }
        let bell = floor.fds[5].clone();
        ring(&bell);
        assert!(floor.iterate(true) >= 1);
    }
}
