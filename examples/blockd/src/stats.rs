//! Counters of an export's queues.
//!
//! Only the loop's thread writes and reads them, so a count costs a load and a store. The clock is read twice
//! in one of [`TIMED_TURNS`] turns, and once for each batch that is passed to threads. Together that is 8
//! instructions for a request and 21 for a turn, beside the thousand of a request of a disk in memory.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
};

use crate::figures::{BUCKETS, KINDS, KindFigures, Latency, QueueFigures, bucket_of};

/// The number of turns of which one is timed, if the loop executes the requests. A timed request counts this
/// number of times.
const TIMED_TURNS: u32 = 16;

/// The index in [`KINDS`] of each type of request.
const KIND_OF: [u8; 16] = {
    let mut kinds = [5; 16];
    kinds[VIRTIO_BLK_T_IN as usize] = 0;
    kinds[VIRTIO_BLK_T_OUT as usize] = 1;
    kinds[VIRTIO_BLK_T_FLUSH as usize] = 2;
    kinds[VIRTIO_BLK_T_DISCARD as usize] = 3;
    kinds[VIRTIO_BLK_T_WRITE_ZEROES as usize] = 4;
    kinds
};

/// Returns the index in [`KINDS`] of a type of request.
#[inline]
fn kind_of(request_type: u32) -> usize {
    // Unknown types count as "other".
    usize::from(KIND_OF[(request_type as usize).min(KIND_OF.len() - 1)])
}

#[inline]
fn add(counter: &Cell<u64>, more: u64) {
    counter.set(counter.get().wrapping_add(more));
}

/// The counters of an export. They outlive its clients.
#[derive(Debug, Default)]
pub(crate) struct ExportStats {
    clients: Cell<u64>,
    /// The counters of queues that have served.
    queues: RefCell<Vec<Option<Rc<QueueStats>>>>,
}

impl ExportStats {
    /// Counts a client that has connected.
    pub(crate) fn has_client(&self) {
        add(&self.clients, 1);
    }

    /// Returns the number of clients so far.
    pub(crate) fn clients(&self) -> u64 {
        self.clients.get()
    }

    /// Returns the counters of a queue.
    pub(crate) fn queue(&self, index: usize) -> Rc<QueueStats> {
        let mut queues = self.queues.borrow_mut();
        if queues.len() <= index {
            queues.resize(index + 1, None);
        }
        queues[index].get_or_insert_default().clone()
    }

    /// Returns the figures of all queues that have served.
    pub(crate) fn figures(&self) -> Vec<QueueFigures> {
        let queues = self.queues.borrow();
        let used = (0..).zip(&*queues);
        used.filter_map(|(index, queue)| Some(queue.as_ref()?.figures(index)))
            .collect()
    }
}

#[derive(Debug, Default)]
struct KindStats {
    requests: Cell<u64>,
    bytes: Cell<u64>,
    errors: Cell<u64>,
}

/// The counters of one queue.
#[derive(Debug, Default)]
pub(crate) struct QueueStats {
    kinds: [KindStats; KINDS.len()],
    /// The number of requests that the loop has executed.
    executed: Cell<u64>,
    turns: Cell<u32>,
    latency: [Cell<u64>; BUCKETS],
    latency_ns: Cell<u64>,
    poll_hits: Cell<u64>,
    kicks: Cell<u64>,
    calls: Cell<u64>,
}

/// A timed turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimedTurn {
    began: Instant,
    executed: u64,
}

impl QueueStats {
    /// Counts a complete request of this type that has moved `bytes` bytes.
    #[inline]
    pub(crate) fn completed(&self, request_type: u32, bytes: u64, failed: bool) {
        let kind = &self.kinds[kind_of(request_type)];
        add(&kind.requests, 1);
        add(&kind.bytes, bytes);
        if failed {
            add(&kind.errors, 1);
        }
    }

    /// Like [`completed`](Self::completed), for a request that the loop has executed in the present turn.
    #[inline]
    pub(crate) fn completed_in_turn(&self, request_type: u32, bytes: u64, failed: bool) {
        add(&self.executed, 1);
        self.completed(request_type, bytes, failed);
    }

    /// Begins a turn. Returns a value if the turn is timed, as the first one is.
    #[inline]
    pub(crate) fn begin_turn(&self) -> Option<TimedTurn> {
        let turn = self.turns.get();
        self.turns.set(turn.wrapping_add(1));
        if !turn.is_multiple_of(TIMED_TURNS) {
            return None;
        }
        Some(TimedTurn {
            began: Instant::now(),
            executed: self.executed.get(),
        })
    }

    /// Ends a timed turn. The requests that it has executed count as complete now. Returns its duration, and
    /// their number.
    #[inline(never)]
    pub(crate) fn end_turn(&self, turn: TimedTurn) -> (Duration, u64) {
        let requests = self.executed.get().wrapping_sub(turn.executed);
        let took = turn.began.elapsed();
        self.took(took, requests * u64::from(TIMED_TURNS));
        (took, requests)
    }

    /// Counts `requests` requests with this duration.
    pub(crate) fn took(&self, time: Duration, requests: u64) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        add(&self.latency[bucket_of(ns)], requests);
        add(&self.latency_ns, ns.wrapping_mul(requests));
    }

    /// Counts a poll that has found requests.
    #[inline]
    pub(crate) fn poll_hit(&self) {
        add(&self.poll_hits, 1);
    }

    /// Counts kicks of the driver.
    #[inline]
    pub(crate) fn kicked(&self, times: u64) {
        add(&self.kicks, times);
    }

    /// Counts a call of the driver.
    #[inline]
    pub(crate) fn called(&self) {
        add(&self.calls, 1);
    }

    pub(crate) fn figures(&self, queue: u16) -> QueueFigures {
        let kinds = KINDS.iter().zip(&self.kinds).map(|(name, kind)| {
            let figures = KindFigures {
                requests: kind.requests.get(),
                bytes: kind.bytes.get(),
                errors: kind.errors.get(),
            };
            ((*name).to_owned(), figures)
        });
        QueueFigures {
            queue,
            kinds: kinds.collect(),
            latency: Latency {
                buckets: self.latency.iter().map(Cell::get).collect(),
                sum_ns: self.latency_ns.get(),
            },
            poll_hits: self.poll_hits.get(),
            kicks: self.kicks.get(),
            calls: self.calls.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_by_kind() {
        let stats = ExportStats::default();
        let queue = stats.queue(3);
        queue.completed(VIRTIO_BLK_T_IN, 4096, false);
        queue.completed(VIRTIO_BLK_T_IN, 0, true);
        queue.completed(VIRTIO_BLK_T_OUT, 512, false);
        queue.completed(77, 0, true);
        assert!(Rc::ptr_eq(&queue, &stats.queue(3)));
        let figures = stats.figures();
        assert_eq!((figures.len(), figures[0].queue), (1, 3));
        let kind = |name: &str| figures[0].kinds[name];
        let expected = |requests, bytes, errors| KindFigures {
            requests,
            bytes,
            errors,
        };
        assert_eq!(kind("read"), expected(2, 4096, 1));
        assert_eq!(kind("write"), expected(1, 512, 0));
        assert_eq!(kind("other"), expected(1, 0, 1));
        assert_eq!(kind("flush"), expected(0, 0, 0));
    }

    #[test]
    fn one_turn_in_sixteen_counts_for_all() {
        let queue = QueueStats::default();
        let mut timed = 0;
        for _ in 0..10 * TIMED_TURNS {
            let turn = queue.begin_turn();
            queue.completed_in_turn(VIRTIO_BLK_T_IN, 512, false);
            queue.completed_in_turn(VIRTIO_BLK_T_OUT, 512, false);
            if let Some(turn) = turn {
                queue.end_turn(turn);
                timed += 1;
            }
        }
        assert_eq!(timed, 10);
        let counted: u64 = queue.figures(0).latency.buckets.iter().sum();
        assert_eq!(counted, 20 * u64::from(TIMED_TURNS));
    }
}
