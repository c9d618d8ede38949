//! [`Tracking`]: the stores of a queue to its region while it runs, and the recovery of the next daemon from
//! them.
//!
//! # Marks
//! A request that is passed to threads or to the ring is marked as in flight before it can end. Requests that
//! the loop executes at once are not marked. The taken requests always are a prefix of the available ring.
//! **Before a request is marked, all requests before it are marked or published**: a queue publishes the
//! requests that the loop has executed before it passes on another one. So the prefix up to the last mark
//! consists of published requests, which the used index counts, and of marked ones, which the region names.
//! The first request that is neither is the entry of the available ring at the used index plus the number of
//! marks. If a later request was executed but not published, the next daemon takes it again from the
//! available ring.
//!
//! # Completions
//! First the head is put into a list, then the used index is published, and then the mark is removed. A
//! daemon that is killed before the last step leaves a mark too many: the region's used index is less than
//! that of the ring, by the number of heads of the list whose marks do not count. Here each completion is
//! published by itself, so there is at most one such head.
//!
//! While nothing is marked, there can be no such mark, independent of the list and the region's used index.
//! So completions are then published without a store to the region, also several together, and the region's
//! used index is set before the next mark. A queue whose requests the loop executes, such as the queue of a
//! disk in memory, stores nothing at all.
//!
//! While something is marked, a request without a mark enters the list, too. Otherwise the next daemon would
//! count a head that was completed earlier, and that can be in flight again.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use super::error::InflightError;
use super::region::Region;
use crate::ring::Ring;

/// The region of a running queue.
#[derive(Debug)]
pub(crate) struct Tracking {
    pub(super) region: Region,
    /// The counter of the next marked request.
    counter: Cell<u64>,
    /// The number of marked requests.
    marked: Cell<u16>,
    /// The values in the region. The daemon does not read its own stores again, because the client can change
    /// them.
    last_head: Cell<u16>,
    used_index: Cell<u16>,
    /// The heads of requests that a former daemon has left and this one has not begun, in the order of
    /// taking.
    pub(super) left: RefCell<VecDeque<u16>>,
}

/// A marked request.
struct Marked {
    counter: u64,
    head: u16,
}

impl Tracking {
    /// Reads the entries that a former daemon has left in a region, and brings the region up to date. Also
    /// returns the next entry of the available ring. `base` counts only if nothing is marked and the used
    /// index is impossible ([`Ring::resume_at`]).
    ///
    /// # Errors
    /// [`InflightError`] if the region contradicts itself or the ring. The region is then unchanged.
    pub(super) fn recover(region: Region, ring: &Ring, base: u16) -> Result<(Self, u16), InflightError> {
        let used = ring.used_index();
        let mut all = Vec::new();
        if region.check_header()? {
            all = marked(&region, ring.size())?;
            if !all.is_empty() {
                let completed = last_completed(&region, used, ring.size())?;
                all.retain(|request| completed.binary_search(&request.head).is_err());
                check_count(all.len() as u16, ring, used)?;
                for head in completed {
                    region.set_in_flight(head, false);
                }
            }
            region.set_used_index(used);
        } else {
            region.initialize(used);
        }
        all.sort_by_key(|request| request.counter);
        let count = all.len() as u16;
        let next_available = match count {
            0 => ring.resume_at(base),
            _ => used.wrapping_add(count),
        };
        let tracking = Self {
            counter: Cell::new(all.last().map_or(0, |last| last.counter.wrapping_add(1))),
            marked: Cell::new(count),
            last_head: Cell::new(region.last_head()),
            used_index: Cell::new(used),
            left: RefCell::new(all.into_iter().map(|request| request.head).collect()),
            region,
        };
        Ok((tracking, next_available))
    }

    /// Marks a taken request. `used` is the used index. All requests taken before must be published or
    /// marked.
    pub(crate) fn mark(&self, head: u16, used: u16) {
        if self.marked.get() == 0 {
            self.set_used_index(used);
        }
        self.region.set_counter(head, self.counter.get());
        self.counter.set(self.counter.get().wrapping_add(1));
        self.region.set_in_flight(head, true);
        self.marked.set(self.marked.get() + 1);
    }

    /// Completes a marked request. `publish` fills its entry of the used ring, and publishes and returns the index.
    pub(crate) fn complete(&self, head: u16, publish: impl FnOnce() -> u16) {
        self.enlist(head);
        let used = publish();
        self.region.set_in_flight(head, false);
        self.set_used_index(used);
        self.marked.set(self.marked.get().saturating_sub(1));
    }

    /// Completes like [`complete`](Self::complete) a request that is not marked.
    pub(crate) fn complete_unmarked(&self, head: u16, publish: impl FnOnce() -> u16) {
        if self.marked.get() == 0 {
            publish();
            return;
        }
        self.enlist(head);
        self.set_used_index(publish());
    }

    /// Returns the head of the first request that a former daemon has left and this one has not begun.
    pub(crate) fn first_left(&self) -> Option<u16> {
        self.left.borrow().front().copied()
    }

    /// Records that the first of these requests has begun.
    pub(crate) fn forget_first_left(&self) {
        self.left.borrow_mut().pop_front();
    }

    /// Returns the number of requests that a former daemon has left and this one has not begun.
    pub(crate) fn count_left(&self) -> u16 {
        self.left.borrow().len() as u16
    }

    /// Returns `true` if the region has lost pages.
    pub(crate) fn is_lost(&self) -> bool {
        self.region.is_lost()
    }

    /// Puts a head into the list of the last completions.
    pub(super) fn enlist(&self, head: u16) {
        self.region.set_next(head, self.last_head.replace(head));
        self.region.set_last_head(head);
    }

    fn set_used_index(&self, used: u16) {
        if self.used_index.replace(used) != used {
            self.region.set_used_index(used);
        }
    }
}

/// Returns the marked requests of a queue of this size.
fn marked(region: &Region, size: u16) -> Result<Vec<Marked>, InflightError> {
    let mut found = Vec::new();
    for head in 0..size {
        match region.in_flight(head) {
            0 => {}
            1 => found.push(Marked {
                counter: region.counter(head),
                head,
            }),
            value => return Err(InflightError::Entry { head, value }),
        }
    }
    Ok(found)
}

/// Returns the heads of the last completions, which are published but may still be marked, in ascending
/// order.
fn last_completed(region: &Region, used: u16, size: u16) -> Result<Vec<u16>, InflightError> {
    let count = used.wrapping_sub(region.used_index());
    if count > size {
        return Err(InflightError::Batch { count, size });
    }
    let mut heads = Vec::with_capacity(count.into());
    let mut is_listed = vec![false; size.into()];
    let mut head = region.last_head();
    for _ in 0..count {
        match is_listed.get_mut(usize::from(head)) {
            Some(is_listed) if !*is_listed => *is_listed = true,
            _ => return Err(InflightError::List { count }),
        }
        heads.push(head);
        head = region.next(head);
    }
    heads.sort_unstable();
    Ok(heads)
}

/// Checks that the driver has offered at least `marked` requests that are not complete.
fn check_count(marked: u16, ring: &Ring, used: u16) -> Result<(), InflightError> {
    let outstanding = ring.available_index().wrapping_sub(used);
    match marked > outstanding {
        true => Err(InflightError::TooMany { marked, outstanding }),
        false => Ok(()),
    }
}
