//! P6: timers. The floor is a bare four-ary heap with the position of each entry. It does the same work: it
//! arms, moves and cancels by number, and fires the due timers. It promises less: a number may be reused
//! after its timer is gone, equal deadlines fire in any order, and a timer armed by a firing one fires in the
//! same run.

use aio_timers::{Moment, TimerId, TimerQueue};

use crate::case::{Case, Run, timed};
use crate::load::random;
use crate::peers;

const SIZES: [u64; 4] = [1, 1000, 100_000, 1_000_000];
/// The timers that are armed, modified or cancelled in a unit of work, so that the size stays about the same.
const STEP: u64 = 64;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for workload in ["arm", "modify", "cancel", "expire"] {
        for n in SIZES {
            let case = Case::new("P6", workload, n)
                .operations(STEP)
                .by("floor", move || Ok(Floor::run(workload, n)))
                .by("aio", move || Ok(ours(workload, n)));
            cases.push(peers::timers(case, workload, n));
        }
    }
    cases
}

/// The operations of all queues here.
trait Queue {
    type Id: Copy;
    fn insert(&mut self, deadline: u64) -> Self::Id;
    fn arm(&mut self, id: Self::Id, deadline: u64);
    fn cancel(&mut self, id: Self::Id);
    /// Fires everything due. Returns the number of fired timers.
    fn expire(&mut self, now: u64) -> u64;
    fn earliest(&self) -> u64;
}

/// Measures only the named part of a cycle that leaves the queue at the same size.
fn cycle<Q: Queue + 'static>(mut queue: Q, workload: &'static str, n: u64) -> Run {
    let mut random = random();
    let mut deadline = move || 1_000_000_000 + random.u64(..1_000_000_000);
    let standing: Vec<Q::Id> = (0..n).map(|_| queue.insert(deadline())).collect();
    let moving: Vec<Q::Id> = (0..STEP)
        .map(|_| {
            let id = queue.insert(1);
            queue.cancel(id);
            id
        })
        .collect();
    let mut pick = fastrand::Rng::with_seed(11);
    let mut now = 0;
    Box::new(move |times| {
        let mut total = std::time::Duration::ZERO;
        for _ in 0..times {
            let deadlines: Vec<u64> = (0..STEP).map(|_| deadline()).collect();
            let some: Vec<Q::Id> = (0..STEP)
                .map(|_| standing[pick.usize(..standing.len())])
                .collect();
            let arm = |queue: &mut Q| {
                for (id, at) in moving.iter().zip(&deadlines) {
                    queue.arm(*id, *at);
                }
            };
            let cancel = |queue: &mut Q| moving.iter().for_each(|id| queue.cancel(*id));
            match workload {
                "arm" => {
                    total += timed(1, || arm(&mut queue));
                    cancel(&mut queue);
                }
                "cancel" => {
                    arm(&mut queue);
                    total += timed(1, || cancel(&mut queue));
                }
                "modify" => {
                    total += timed(1, || {
                        for (id, at) in some.iter().zip(&deadlines) {
                            queue.arm(*id, *at);
                        }
                    });
                }
                _ => {
                    for (at, id) in moving.iter().enumerate() {
                        queue.arm(*id, now + 1 + at as u64);
                    }
                    now += STEP;
                    total += timed(1, || {
                        assert_eq!(queue.expire(now), STEP);
                    });
                    assert!(queue.earliest() > now);
                }
            }
        }
        total
    })
}

struct Ours(TimerQueue<()>);

impl Queue for Ours {
    type Id = TimerId;

    fn insert(&mut self, deadline: u64) -> TimerId {
        let id = self.0.insert(());
        self.arm(id, deadline);
        id
    }

    fn arm(&mut self, id: TimerId, deadline: u64) {
        self.0.arm(id, Moment::from_nanos(deadline));
    }

    fn cancel(&mut self, id: TimerId) {
        self.0.cancel(id);
    }

    fn expire(&mut self, now: u64) -> u64 {
        self.0.begin(Moment::from_nanos(now));
        let mut fired = 0;
        while self.0.next_due().is_some() {
            fired += 1;
        }
        fired
    }

    fn earliest(&self) -> u64 {
        self.0.next_deadline().map_or(u64::MAX, Moment::as_nanos)
    }
}

fn ours(workload: &'static str, n: u64) -> Run {
    cycle(Ours(TimerQueue::new()), workload, n)
}

/// A heap of pairs of deadline and owner, and for each owner the position of its entry.
#[derive(Default)]
struct Floor {
    heap: Vec<(u64, u32)>,
    places: Vec<u32>,
}

const NOWHERE: u32 = u32::MAX;

impl Floor {
    fn run(workload: &'static str, n: u64) -> Run {
        cycle(Self::default(), workload, n)
    }

    fn put(&mut self, at: usize, entry: (u64, u32)) {
        self.heap[at] = entry;
        self.places[entry.1 as usize] = at as u32;
    }

    fn up(&mut self, mut at: usize) {
        let entry = self.heap[at];
        while at > 0 {
            let parent = (at - 1) / 4;
            if self.heap[parent].0 <= entry.0 {
                break;
            }
            self.put(at, self.heap[parent]);
            at = parent;
        }
        self.put(at, entry);
    }

    fn down(&mut self, mut at: usize) {
        let entry = self.heap[at];
        loop {
            let first = at * 4 + 1;
            let last = (first + 4).min(self.heap.len());
            let Some(least) = (first..last).min_by_key(|child| self.heap[*child].0) else {
                break;
            };
            if self.heap[least].0 >= entry.0 {
                break;
            }
            self.put(at, self.heap[least]);
            at = least;
        }
        self.put(at, entry);
    }

    fn take(&mut self, at: usize) {
        let taken = self.heap.swap_remove(at);
        self.places[taken.1 as usize] = NOWHERE;
        if at < self.heap.len() {
            let moved = self.heap[at];
            self.places[moved.1 as usize] = at as u32;
            if moved.0 < taken.0 {
                self.up(at);
            } else {
                self.down(at);
            }
        }
    }
}

impl Queue for Floor {
    type Id = u32;

    fn insert(&mut self, deadline: u64) -> u32 {
        let id = self.places.len() as u32;
        self.places.push(NOWHERE);
        self.arm(id, deadline);
        id
    }

    fn arm(&mut self, id: u32, deadline: u64) {
        match self.places[id as usize] {
            NOWHERE => {
                self.heap.push((deadline, id));
                self.up(self.heap.len() - 1);
            }
            at => {
                let at = at as usize;
                let before = std::mem::replace(&mut self.heap[at].0, deadline);
                if deadline < before {
                    self.up(at);
                } else {
                    self.down(at);
                }
            }
        }
    }

    fn cancel(&mut self, id: u32) {
        match self.places[id as usize] {
            NOWHERE => {}
            at => self.take(at as usize),
        }
    }

    fn expire(&mut self, now: u64) -> u64 {
        let mut fired = 0;
        while self.earliest() <= now {
            self.take(0);
            fired += 1;
        }
        fired
    }

    fn earliest(&self) -> u64 {
        self.heap.first().map_or(u64::MAX, |first| first.0)
    }
}
