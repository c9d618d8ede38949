//! Descriptor numbers that can be closed while a loop watches them, which safe code should not be able to do.
//!
//! While such a number is closed it must stay free, even if other threads open descriptors. So each replaying
//! thread has a range of its own, above the numbers that the system assigns.

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::{Condvar, Mutex, PoisonError};

use rustix::process::{Resource, getrlimit, setrlimit};

/// The number of descriptors in a range.
const WIDTH: i32 = 16;
/// The upper limit of all ranges. A large table of descriptors costs memory.
const CEILING: u64 = 4096;
/// The numbers below and above the ranges. They are left to the system, and to other users of the highest
/// numbers.
const BELOW: i32 = 300;
const ABOVE: i32 = 150;

/// The ranges that are in use.
static TAKEN: Mutex<Vec<bool>> = Mutex::new(Vec::new());
static GIVEN_BACK: Condvar = Condvar::new();

/// Descriptor numbers that belong to one thread.
#[derive(Debug)]
pub(crate) struct Range {
    place: Rc<Place>,
    first: i32,
}

/// A place that is released when the range and all of its numbers are dropped, in any order.
#[derive(Debug)]
struct Place(usize);

impl Range {
    /// Takes a range. Waits until one is free.
    pub(crate) fn take() -> Self {
        let top = i32::try_from(limit()).unwrap_or(i32::MAX) - ABOVE;
        let most = usize::try_from((top - BELOW) / WIDTH).unwrap_or(0);
        assert!(most > 0, "RLIMIT_NOFILE is too low; raise it with ulimit -n");
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let place = taken.iter().position(|taken| !taken).unwrap_or(taken.len());
            if place < most {
                if place == taken.len() {
                    taken.push(true);
                }
                taken[place] = true;
                let first = top - (place as i32 + 1) * WIDTH;
                let place = Rc::new(Place(place));
                return Self { place, first };
            }
            taken = GIVEN_BACK.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Opens number `index` of the range, which must be free, for the file of `fd`.
    pub(crate) fn open(&self, index: usize, fd: impl AsFd) -> Rc<Number> {
        let wanted = self.first + index as i32;
        let fd = rustix::io::fcntl_dupfd_cloexec(fd, wanted).expect("one more descriptor");
        assert_eq!(fd.as_raw_fd(), wanted, "a number of this range is taken");
        Rc::new(Number {
            fd: ManuallyDrop::new(fd),
            is_open: Cell::new(true),
            _place: self.place.clone(),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        TAKEN.lock().unwrap_or_else(PoisonError::into_inner)[self.0] = false;
        GIVEN_BACK.notify_one();
    }
}

/// Returns the greatest number of open descriptors, up to the ceiling.
fn limit() -> u64 {
    let mut limits = getrlimit(Resource::Nofile);
    if limits.current != limits.maximum {
        limits.current = limits.maximum;
        // If the system refuses, the former limit stays in force.
        let _ = setrlimit(Resource::Nofile, limits);
    }
    getrlimit(Resource::Nofile)
        .current
        .unwrap_or(CEILING)
        .min(CEILING)
}

/// The owner of a number, which other code may close.
#[derive(Debug)]
pub(crate) struct Number {
    fd: ManuallyDrop<OwnedFd>,
    is_open: Cell<bool>,
    /// Dropped after the number has been closed.
    _place: Rc<Place>,
}

impl Number {
    pub(crate) fn is_open(&self) -> bool {
        self.is_open.get()
    }

    /// Closes the number as a `close(2)` by other code would.
    pub(crate) fn close(&self) {
        if self.is_open.replace(false) {
            nix::unistd::close(self.fd.as_raw_fd()).expect("it is open");
        }
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        self.close();
    }
}

impl AsFd for Number {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_not_reused_while_one_of_its_numbers_is_open() {
        let range = Range::take();
        let place = range.place.0;
        let number = range.open(3, std::io::stdin());
        drop(range);
        let ranges: Vec<_> = (0..3).map(|_| Range::take()).collect();
        assert!(ranges.iter().all(|other| other.place.0 != place));
        assert!(number.is_open());
    }
}
