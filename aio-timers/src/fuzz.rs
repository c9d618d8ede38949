//! An entry point for fuzzing: compares the queue with vectors that are searched from end to end.
//!
//! Only tests and the feature `fuzz` build this. The target is in `fuzz/`; its seeds are replayed by the tests below.

use alloc::vec::Vec;

use crate::{Moment, TimerId, TimerQueue};

/// The expected state of the queue.
#[derive(Default)]
pub(crate) struct Model {
    armed: Vec<(Moment, u64, TimerId)>,
    due: Vec<TimerId>,
    sequence: u64,
}

impl Model {
    pub(crate) fn cancel(&mut self, id: TimerId) -> bool {
        let before = self.armed.len() + self.due.len();
        self.armed.retain(|(_, _, other)| *other != id);
        self.due.retain(|other| *other != id);
        before != self.armed.len() + self.due.len()
    }

    /// Arms a timer. Returns `true` if its deadline is now the earliest of the armed ones.
    pub(crate) fn arm(&mut self, id: TimerId, deadline: Moment) -> bool {
        self.cancel(id);
        self.sequence += 1;
        self.armed.push((deadline, self.sequence, id));
        self.armed
            .sort_by_key(|(deadline, sequence, _)| (*deadline, *sequence));
        self.armed.first().is_some_and(|(_, _, first)| *first == id)
    }

    pub(crate) fn anticipate(&mut self, id: TimerId, deadline: Moment) -> bool {
        let is_earlier = self.deadline(id).is_none_or(|present| deadline < present);
        is_earlier && self.arm(id, deadline)
    }

    pub(crate) fn deadline(&self, id: TimerId) -> Option<Moment> {
        if self.due.contains(&id) {
            return Some(Moment::ZERO);
        }
        let armed = self.armed.iter().find(|(_, _, other)| *other == id);
        armed.map(|(deadline, _, _)| *deadline)
    }

    pub(crate) fn next_deadline(&self) -> Option<Moment> {
        if self.due.is_empty() {
            self.armed.first().map(|(deadline, _, _)| *deadline)
        } else {
            Some(Moment::ZERO)
        }
    }

    pub(crate) fn begin(&mut self, now: Moment) {
        let is_due = |deadline: Moment| deadline <= now && deadline != Moment::NEVER;
        let due = self
            .armed
            .iter()
            .take_while(|(deadline, _, _)| is_due(*deadline))
            .count();
        self.due.extend(self.armed.drain(..due).map(|(_, _, id)| id));
    }

    pub(crate) fn next_due(&mut self) -> Option<TimerId> {
        (!self.due.is_empty()).then(|| self.due.remove(0))
    }
}

/// Returns one of a few moments, with both ends of the range, so that many are equal.
fn moment(byte: u8) -> Moment {
    match byte {
        0 => Moment::ZERO,
        0xff => Moment::NEVER,
        0xfe => Moment::from_nanos(u64::MAX - 1),
        other => Moment::from_nanos(u64::from(other % 64)),
    }
}

/// Runs the operations that `data` encodes on a queue. Each takes three bytes: the operation, the timer, the
/// deadline.
///
/// # Panics
/// If a result of the queue differs from that of vectors that are searched from end to end.
pub fn timer_queue(data: &[u8]) {
    let (mut queue, mut model) = (TimerQueue::new(), Model::default());
    // Each live timer with its value, and the removed ones.
    let (mut live, mut gone) = (Vec::<(TimerId, usize)>::new(), Vec::<TimerId>::new());
    for (step, operation) in data.chunks_exact(3).enumerate() {
        let (which, deadline) = (usize::from(operation[1]), moment(operation[2]));
        if live.is_empty() || operation[0] % 16 == 0 {
            live.push((queue.insert(step), step));
            continue;
        }
        let place = which % live.len();
        let (id, _) = live[place];
        match operation[0] % 16 {
            1..6 => assert_eq!(queue.arm(id, deadline), model.arm(id, deadline), "arm"),
            6..8 => assert_eq!(
                queue.anticipate(id, deadline),
                model.anticipate(id, deadline),
                "anticipate"
            ),
            8 => assert_eq!(queue.cancel(id), model.cancel(id), "cancel"),
            9 => {
                queue.begin(deadline);
                model.begin(deadline);
            }
            10..13 => assert_eq!(queue.next_due(), model.next_due(), "next_due"),
            13 => {
                let (id, value) = live.swap_remove(place);
                assert_eq!(queue.remove(id), Some(value), "remove");
                model.cancel(id);
                gone.push(id);
            }
            _ => stale(&mut queue, &gone, which, deadline),
        }
        queue.heap.check();
        assert_eq!(queue.next_deadline(), model.next_deadline(), "next_deadline");
        assert_eq!(queue.len(), live.len(), "len");
        for (id, value) in &live {
            assert_eq!(queue.deadline(*id), model.deadline(*id), "deadline of {id:?}");
            assert_eq!(queue.get(*id), Some(value), "value of {id:?}");
        }
    }
}

/// Asserts that the id of a removed timer is stale.
fn stale(queue: &mut TimerQueue<usize>, gone: &[TimerId], which: usize, deadline: Moment) {
    if let Some(id) = gone.get(which % gone.len().max(1)) {
        assert!(!queue.arm(*id, deadline) && !queue.anticipate(*id, deadline));
        assert!(!queue.cancel(*id) && queue.deadline(*id).is_none());
        assert!(queue.get(*id).is_none() && queue.remove(*id).is_none());
    }
}

#[cfg(test)]
mod tests {
    use super::timer_queue;
    use crate::tests::random;
    use std::path::Path;
    use std::println;
    use std::vec::Vec;

    #[test]
    fn t3_t4_random_operations_agree_with_a_sorted_vector() {
        let mut random = random();
        for _ in 0..300 {
            let operations: Vec<u8> = (0..600).map(|_| random.u8(..)).collect();
            timer_queue(&operations);
        }
    }

    #[test]
    fn t3_t4_seeds_of_timer_queue() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/timer_queue");
        if !seeds.exists() {
            // A package has no seeds: they are a part of the workspace.
            println!("skipped: there is no {}", seeds.display());
            return;
        }
        let mut random = random();
        let mut count = 0;
        for entry in std::fs::read_dir(&seeds).unwrap() {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            let seed = std::fs::read(&path).unwrap();
            timer_queue(&seed);
            for _ in 0..100 {
                let mut changed = seed.clone();
                let at = random.usize(..changed.len());
                changed[at] = random.u8(..);
                timer_queue(&changed);
            }
            count += 1;
        }
        assert!(count >= 5, "{count} seeds in {}", seeds.display());
    }
}
