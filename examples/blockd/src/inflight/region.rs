//! [`Region`]: the loads and stores of a queue's region, in the layout that the vhost-user specification has for split virtqueues.
//!
//! A kill ends the daemon between any two stores, and the next daemon finds the stores before it. So the
//! compiler must keep their order, and therefore each is a release store. The processor keeps the order of
//! the stores of one thread for that thread itself, and only one thread stores.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering};

use vm_memory::{AtomicInteger, VolatileMemory as _};

use super::error::InflightError;
use super::kill_point::after_store;
use crate::memory::Mapping;

/// Each region begins at a multiple of this many bytes.
pub(super) const ALIGNMENT: usize = 64;
pub(super) const HEADER_LEN: usize = 16;
pub(super) const ENTRY_LEN: usize = 16;

/// The version of this layout. A region of version 0 was never used.
const VERSION: u16 = 1;

// The header.
const FEATURES_AT: usize = 0;
const VERSION_AT: usize = 8;
const ENTRIES_AT: usize = 10;
const LAST_HEAD_AT: usize = 12;
const USED_INDEX_AT: usize = 14;
// An entry.
const IN_FLIGHT_AT: usize = 0;
const NEXT_AT: usize = 6;
const COUNTER_AT: usize = 8;

/// The region of one queue.
#[derive(Debug)]
pub(super) struct Region {
    map: Arc<Mapping>,
    at: usize,
    size: u16,
}

impl Region {
    /// Returns the region at this offset, with `size` entries. The map must contain it.
    pub(super) fn new(map: Arc<Mapping>, at: usize, size: u16) -> Self {
        Self { map, at, size }
    }

    pub(super) fn is_lost(&self) -> bool {
        self.map.is_lost()
    }

    /// Checks that this daemon supports the layout. Returns `true` if the region was used before.
    pub(super) fn check_header(&self) -> Result<bool, InflightError> {
        let version = self.load::<AtomicU16>(VERSION_AT);
        let entries = self.load::<AtomicU16>(ENTRIES_AT);
        let features = self.load::<AtomicU64>(FEATURES_AT);
        match version {
            0 => Ok(false),
            VERSION if features == 0 && (entries == 0 || entries == self.size) => Ok(true),
            _ => Err(InflightError::Header {
                features,
                version,
                entries,
            }),
        }
    }

    /// Initializes a region without requests in flight, for a queue with this used index. The version is
    /// stored last, so it marks the region as complete.
    pub(super) fn initialize(&self, used: u16) {
        for head in 0..self.size {
            self.set_in_flight(head, false);
        }
        self.store::<AtomicU64>(FEATURES_AT, 0);
        self.store::<AtomicU16>(ENTRIES_AT, self.size);
        self.set_last_head(0);
        self.set_used_index(used);
        self.store::<AtomicU16>(VERSION_AT, VERSION);
    }

    /// Returns the head of the request that was completed last.
    pub(super) fn last_head(&self) -> u16 {
        self.load::<AtomicU16>(LAST_HEAD_AT)
    }

    pub(super) fn set_last_head(&self, head: u16) {
        self.store::<AtomicU16>(LAST_HEAD_AT, head);
    }

    /// Returns the used index up to which the marks of completed requests are removed.
    pub(super) fn used_index(&self) -> u16 {
        self.load::<AtomicU16>(USED_INDEX_AT)
    }

    pub(super) fn set_used_index(&self, index: u16) {
        self.store::<AtomicU16>(USED_INDEX_AT, index);
    }

    /// Returns 1 if the request at this head is in flight, or else 0. The client can have stored any other
    /// value.
    pub(super) fn in_flight(&self, head: u16) -> u8 {
        self.load::<AtomicU8>(entry(head) + IN_FLIGHT_AT)
    }

    pub(super) fn set_in_flight(&self, head: u16, is_in_flight: bool) {
        self.store::<AtomicU8>(entry(head) + IN_FLIGHT_AT, is_in_flight.into());
    }

    /// Returns the head of the request that was completed before the one at `head`.
    pub(super) fn next(&self, head: u16) -> u16 {
        self.load::<AtomicU16>(entry(head) + NEXT_AT)
    }

    pub(super) fn set_next(&self, head: u16, next: u16) {
        self.store::<AtomicU16>(entry(head) + NEXT_AT, next);
    }

    /// Returns the position of the request in the order of taking.
    pub(super) fn counter(&self, head: u16) -> u64 {
        self.load::<AtomicU64>(entry(head) + COUNTER_AT)
    }

    pub(super) fn set_counter(&self, head: u16, counter: u64) {
        self.store::<AtomicU64>(entry(head) + COUNTER_AT, counter);
    }

    fn load<T: AtomicInteger>(&self, at: usize) -> T::V {
        self.word::<T>(at).load(Ordering::Relaxed)
    }

    #[inline]
    fn store<T: AtomicInteger>(&self, at: usize, value: T::V) {
        self.word::<T>(at).store(value, Ordering::Release);
        after_store();
    }

    fn word<T: AtomicInteger>(&self, at: usize) -> &T {
        debug_assert!(at < HEADER_LEN + usize::from(self.size) * ENTRY_LEN);
        self.map
            .get_atomic_ref::<T>(self.at + at)
            .expect("bounds and alignment were checked when the area was mapped")
    }
}

/// Returns the offset of the entry of a head. The caller has checked that the head is within the queue.
fn entry(head: u16) -> usize {
    HEADER_LEN + usize::from(head) * ENTRY_LEN
}
