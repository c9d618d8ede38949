//! Eventfds for the model checkers, which cannot see into the kernel: counters with numbers, and a wait for any of them.
//!
//! Each run of a model has a [`Kernel`] of its own. It knows no time: who waits for time lets it pass by himself.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, Result};

#[cfg(all(test, loom))]
use crate::hooks;
use crate::monitor::Monitor;
use crate::sync::{is_torn_down, lazy_static};

lazy_static! {
    static ref KERNEL: Arc<Kernel> = Arc::new(Kernel(Monitor::new(Counts::new())));
}

/// All eventfds of a run, by their numbers.
#[derive(Debug)]
pub struct Kernel(Monitor<Counts>);

type Counts = BTreeMap<RawFd, u64>;

impl Kernel {
    /// The kernel of this run.
    #[must_use]
    pub fn of_this_run() -> Arc<Self> {
        KERNEL.clone()
    }

    /// Asks `look`, which is told what every open eventfd counts, and asks it again after each change until it says that it
    /// has found something; once only, unless it may `block`. All of a question is one step.
    pub fn wait(&self, block: bool, mut look: impl FnMut(&BTreeMap<RawFd, u64>) -> bool) {
        self.0.wait(|counts| look(counts) || !block);
    }

    /// How many eventfds are open.
    #[must_use]
    pub fn open_files(&self) -> usize {
        self.0.with(|counts| counts.len())
    }
}

/// An eventfd of the kernel of this run. Its number is that of a true one, which nobody uses.
#[derive(Debug)]
pub(crate) struct Eventfd {
    kernel: Arc<Kernel>,
    number: OwnedFd,
}

impl Eventfd {
    pub(crate) fn new() -> Result<Self> {
        let kernel = Kernel::of_this_run();
        let number = eventfd(0, EventfdFlags::CLOEXEC)?;
        kernel.0.with(|counts| counts.insert(number.as_raw_fd(), 0));
        Ok(Self { kernel, number })
    }

    pub(crate) fn write(&self, count: u64) -> Result<()> {
        #[cfg(all(test, loom))]
        hooks::before_write();
        let written = self.kernel.0.change(|counts| {
            let shown = counts.entry(self.number.as_raw_fd()).or_default();
            let sum = shown.checked_add(count).filter(|sum| *sum < u64::MAX);
            *shown = sum.ok_or(Errno::AGAIN)?;
            Ok(())
        });
        #[cfg(all(test, loom))]
        hooks::after_write();
        written
    }

    pub(crate) fn read(&self) -> Result<u64> {
        let number = self.number.as_raw_fd();
        let count = self.kernel.0.with(|counts| counts.insert(number, 0));
        #[cfg(all(test, loom))]
        hooks::after_drain();
        match count {
            None | Some(0) => Err(Errno::AGAIN),
            Some(count) => Ok(count),
        }
    }

    /// Sleeps until it counts something, as a loop's backend would.
    #[cfg(test)]
    pub(crate) fn wait(&self) {
        let number = self.number.as_raw_fd();
        self.kernel.wait(true, |counts| counts[&number] > 0);
    }
}

impl Drop for Eventfd {
    fn drop(&mut self) {
        if !is_torn_down() {
            let number = self.number.as_raw_fd();
            self.kernel.0.with(|counts| counts.remove(&number));
        }
    }
}

impl AsFd for Eventfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.number.as_fd()
    }
}
