//! The load that all loops get: the same descriptors, and the same deadlines.

use std::os::fd::OwnedFd;
use std::rc::Rc;

/// `k` of them, evenly spread.
pub(crate) fn spread(bells: &[Rc<OwnedFd>], k: u64) -> Vec<Rc<OwnedFd>> {
    let step = (bells.len() as u64 / k).max(1) as usize;
    bells.iter().step_by(step).take(k as usize).cloned().collect()
}

/// Deadlines without order.
pub(crate) fn random() -> fastrand::Rng {
    fastrand::Rng::with_seed(7)
}
