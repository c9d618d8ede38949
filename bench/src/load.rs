//! The load of all loops: the same descriptors, the same kicks, and the same deadlines.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::event::{EventfdFlags, eventfd};

use crate::case::{Run, timed};

/// Makes an eventfd with the flags of all contestants.
pub(crate) fn doorbell() -> anyhow::Result<Rc<OwnedFd>> {
    Ok(Rc::new(eventfd(
        0,
        EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
    )?))
}

pub(crate) fn doorbells(count: u64) -> anyhow::Result<Vec<Rc<OwnedFd>>> {
    (0..count).map(|_| doorbell()).collect()
}

pub(crate) fn ring(fd: &OwnedFd) {
    let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
}

pub(crate) fn drain(fd: &OwnedFd) {
    let _ = rustix::io::read(fd, &mut [0u8; 8]);
}

/// A loop that watches doorbells. It drains and counts the doorbells that ring.
pub(crate) trait Watches: 'static {
    /// The doorbells that it watches.
    fn bells(&self) -> &[Rc<OwnedFd>];

    /// Returns the number of rings.
    fn count(&self) -> u64;

    /// Runs one iteration. If it `BLOCKS`, it sleeps until a doorbell rings.
    fn iterate<const BLOCKS: bool>(&mut self);
}

/// Measures a ring of the last doorbell, and the wait for it.
pub(crate) fn self_kick(mut it: impl Watches) -> Run {
    let bell = it.bells().last().expect("a doorbell").clone();
    Box::new(move |times| {
        timed(times, || {
            ring(&bell);
            it.iterate::<true>();
        })
    })
}

/// Measures rings of `k` doorbells, and the wait for all of them.
pub(crate) fn dispatch(mut it: impl Watches, k: u64) -> Run {
    let kicked = spread(it.bells(), k);
    Box::new(move |times| {
        timed(times, || {
            kicked.iter().for_each(|bell| ring(bell));
            let goal = it.count() + k;
            while it.count() < goal {
                it.iterate::<true>();
            }
        })
    })
}

/// Measures a check with nothing ready.
pub(crate) fn empty(mut it: impl Watches) -> Run {
    Box::new(move |times| timed(times, || it.iterate::<false>()))
}

/// Returns `k` of the doorbells, evenly spread.
pub(crate) fn spread(bells: &[Rc<OwnedFd>], k: u64) -> Vec<Rc<OwnedFd>> {
    let step = (bells.len() as u64 / k).max(1) as usize;
    bells.iter().step_by(step).take(k as usize).cloned().collect()
}

/// Returns random numbers for deadlines without order.
pub(crate) fn random() -> fastrand::Rng {
    fastrand::Rng::with_seed(7)
}
