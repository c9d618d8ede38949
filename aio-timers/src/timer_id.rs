//! [`TimerId`]: the identifier of a timer in its queue.

use core::num::NonZeroU32;

/// Identifies a timer of a [`TimerQueue`](crate::TimerQueue) or a [`TimerSet`](crate::TimerSet).
///
/// The id of a removed timer is stale: operations on it have no effect, even after its slot was reused. An id
/// has no meaning for another queue.
///
/// ```
/// use aio_timers::{Moment, TimerQueue};
///
/// let mut queue = TimerQueue::new();
/// let id = queue.insert("old");
/// queue.remove(id);
/// let new = queue.insert("new");
/// assert!(id != new && !queue.arm(id, Moment::ZERO));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerId {
    pub(crate) slot: u32,
    pub(crate) generation: NonZeroU32,
}
