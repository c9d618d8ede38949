//! Eventfds for the model checkers, to which the kernel is invisible: counters with numbers, and a wait for
//! any of them.
//!
//! Each run of a model has a [`Kernel`] of its own. It has no time: a loop that waits for time advances its
//! clock itself.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, Result};

use crate::checker::lazy_static;
#[cfg(feature = "loom")]
use crate::hooks;
use crate::is_torn_down;
use crate::monitor::Monitor;

lazy_static! {
    static ref KERNEL: Arc<Kernel> = Arc::new(Kernel(Monitor::new(Counts::new())));
}

/// All eventfds of a run, by their numbers.
#[derive(Debug)]
pub struct Kernel(Monitor<Counts>);

type Counts = BTreeMap<RawFd, u64>;

impl Kernel {
    /// Returns the kernel of this run.
    #[must_use]
    pub fn of_this_run() -> Arc<Self> {
        KERNEL.clone()
    }

    /// Calls `is_ready` with the counts of all open eventfds, and again after each change until it returns
    /// `true`. Unless `block` is set, calls it only once. Each call is one step.
    pub fn wait(&self, block: bool, mut is_ready: impl FnMut(&BTreeMap<RawFd, u64>) -> bool) {
        self.0.wait(|counts| is_ready(counts) || !block);
    }

    /// Sleeps until this eventfd has a count, as a loop's backend would.
    pub fn block(&self, fd: impl AsFd) {
        let number = fd.as_fd().as_raw_fd();
        self.wait(true, |counts| counts[&number] > 0);
    }

    /// Returns the number of open eventfds.
    #[must_use]
    pub fn open_files(&self) -> usize {
        self.0.with(|counts| counts.len())
    }
}

/// An eventfd of the kernel of this run. Its number is that of a real one, which is not used.
#[derive(Debug)]
pub struct Eventfd {
    kernel: Arc<Kernel>,
    number: OwnedFd,
}

impl Eventfd {
    /// Makes an eventfd with the count zero.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn new() -> Result<Self> {
        let kernel = Kernel::of_this_run();
        let number = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        kernel.0.with(|counts| counts.insert(number.as_raw_fd(), 0));
        Ok(Self { kernel, number })
    }

    /// Adds to the counter.
    ///
    /// # Errors
    /// `AGAIN` if the counter would overflow.
    pub fn write(&self, count: u64) -> Result<()> {
        #[cfg(feature = "loom")]
        hooks::before_write();
        let written = self.kernel.0.change(|counts| {
            let shown = counts.entry(self.number.as_raw_fd()).or_default();
            let sum = shown.checked_add(count).filter(|sum| *sum < u64::MAX);
            *shown = sum.ok_or(Errno::AGAIN)?;
            Ok(())
        });
        #[cfg(feature = "loom")]
        hooks::after_write();
        written
    }

    /// Returns the counter and resets it to zero.
    ///
    /// # Errors
    /// `AGAIN` if it is zero.
    pub fn read(&self) -> Result<u64> {
        let number = self.number.as_raw_fd();
        let count = self.kernel.0.with(|counts| counts.insert(number, 0));
        #[cfg(feature = "loom")]
        hooks::after_drain(count.unwrap_or(0));
        match count {
            None | Some(0) => Err(Errno::AGAIN),
            Some(count) => Ok(count),
        }
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
