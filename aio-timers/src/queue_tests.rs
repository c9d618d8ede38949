//! The rules of timers, one by one. Random operations beside a sorted vector are in `fuzz`.

use std::vec::Vec;

use super::*;
use crate::fuzz::Model;

fn at(nanoseconds: u64) -> Moment {
    Moment::from_nanos(nanoseconds)
}

fn drain(queue: &mut TimerQueue<u32>, now: u64) -> Vec<u32> {
    queue.begin(at(now));
    let mut fired = Vec::new();
    while let Some(id) = queue.next_due() {
        fired.push(*queue.get(id).unwrap());
    }
    fired
}

#[test]
fn t3_equal_deadlines_fire_in_the_order_of_arming() {
    let mut queue = TimerQueue::new();
    let ids: Vec<TimerId> = (0..1000).map(|value| queue.insert(value)).collect();
    for id in ids.iter().rev() {
        queue.arm(*id, at(5));
    }
    assert_eq!(drain(&mut queue, 5), (0..1000).rev().collect::<Vec<_>>());
}

#[test]
fn t1_timers_are_counted_armed_or_not() {
    let mut queue = TimerQueue::new();
    assert!(queue.is_empty());
    let ids: Vec<TimerId> = (0..3).map(|value| queue.insert(value)).collect();
    queue.arm(ids[0], at(5));
    assert_eq!((queue.len(), queue.is_empty()), (3, false));
    for id in ids {
        assert!(queue.remove(id).is_some());
    }
    assert_eq!((queue.len(), queue.is_empty()), (0, true));
}

#[test]
fn t3_arm_returns_whether_the_earliest_deadline_changed() {
    let mut queue = TimerQueue::new();
    let (a, b) = (queue.insert(1), queue.insert(2));
    assert!(queue.arm(a, at(10)));
    assert!(
        !queue.arm(b, at(20)) && !queue.arm(b, at(10)),
        "a tie is not earlier"
    );
    assert!(queue.arm(b, at(9)));
    assert_eq!(queue.next_deadline(), Some(at(9)));
}

#[test]
fn t3_anticipate_only_if_earlier_or_not_armed() {
    let mut queue = TimerQueue::new();
    let id = queue.insert(1);
    assert!(queue.anticipate(id, at(10)));
    assert!(!queue.anticipate(id, at(11)));
    assert_eq!(queue.deadline(id), Some(at(10)));
    assert!(queue.anticipate(id, at(9)));
    assert_eq!(queue.deadline(id), Some(at(9)));
}

#[test]
fn t3_cancel_is_idempotent_and_reaches_the_due() {
    let mut queue = TimerQueue::new();
    let (a, b) = (queue.insert(1), queue.insert(2));
    queue.arm(a, at(1));
    queue.arm(b, at(2));
    assert!(queue.cancel(a) && !queue.cancel(a));
    queue.begin(at(5));
    assert_eq!(queue.next_deadline(), Some(Moment::ZERO));
    assert!(queue.cancel(b) && !queue.cancel(b));
    assert_eq!((queue.next_due(), queue.next_deadline()), (None, None));
}

#[test]
fn t4_a_re_arm_at_or_before_now_is_for_the_next_run() {
    let mut queue = TimerQueue::new();
    let id = queue.insert(1);
    queue.arm(id, at(1));
    queue.begin(at(5));
    for now in [5, 0, 3] {
        assert_eq!(queue.next_due(), Some(id));
        queue.arm(id, at(now));
        assert_eq!(queue.next_due(), None, "not in the same run");
        queue.begin(at(5));
    }
}

#[test]
fn t4_a_due_timer_that_is_armed_anew_fires_once_at_its_new_time() {
    let mut queue = TimerQueue::new();
    let (a, b) = (queue.insert(1), queue.insert(2));
    queue.arm(a, at(1));
    queue.arm(b, at(2));
    queue.begin(at(5));
    assert_eq!(queue.next_due(), Some(a));
    queue.arm(b, at(4));
    assert_eq!(queue.next_due(), None);
    assert_eq!(drain(&mut queue, 5), [2]);
}

#[test]
fn t4_a_nested_run_fires_the_remaining_timers_of_the_outer_one() {
    let mut queue = TimerQueue::new();
    for value in 0..4 {
        let id = queue.insert(value);
        queue.arm(id, at(1));
    }
    queue.begin(at(1));
    assert!(queue.next_due().is_some());
    let late = queue.insert(9);
    queue.arm(late, at(1));
    assert_eq!(drain(&mut queue, 1), [1, 2, 3, 9]);
    assert_eq!(queue.next_due(), None);
}

#[test]
fn t3_deadlines_at_both_ends() {
    let mut queue = TimerQueue::new();
    let (never, always) = (queue.insert(1), queue.insert(2));
    queue.arm(never, Moment::NEVER);
    queue.arm(always, Moment::ZERO);
    assert_eq!(drain(&mut queue, u64::MAX), [2]);
    assert_eq!(queue.next_deadline(), Some(Moment::NEVER));
}

#[test]
fn t3_an_id_of_a_removed_timer_finds_no_timer() {
    let mut queue = TimerQueue::new();
    let old = queue.insert(1);
    queue.arm(old, at(1));
    queue.begin(at(1));
    assert_eq!((queue.remove(old), queue.remove(old)), (Some(1), None));
    let new = queue.insert(2);
    assert!(!queue.arm(old, at(1)) && !queue.cancel(old) && queue.deadline(old).is_none());
    assert_eq!(queue.next_due(), None, "the due list had the old one");
    assert_eq!((queue.get(new), queue.len()), (Some(&2), 1));
}

#[test]
fn t3_a_million_equal_deadlines() {
    let mut queue = TimerQueue::new();
    for value in 0..1_000_000 {
        let id = queue.insert(value);
        queue.arm(id, at(7));
    }
    queue.begin(at(7));
    for value in 0..1_000_000 {
        let id = queue.next_due().unwrap();
        assert_eq!(queue.get(id), Some(&value));
    }
    assert_eq!(queue.next_due(), None);
}

/// A queue and its model, with the live and the removed timers.
struct Pair {
    queue: TimerQueue<u32>,
    model: Model,
    ids: Vec<TimerId>,
    gone: Vec<TimerId>,
}

impl Pair {
    /// Makes a pair that soon runs out of numbers for due timers and for armings.
    fn aged(rng: &mut fastrand::Rng) -> Self {
        let mut queue = TimerQueue::new();
        queue.first_due = DUE_NUMBERS - rng.u32(1..40);
        queue.heap.age(u32::MAX - rng.u32(0..100));
        Self {
            queue,
            model: Model::default(),
            ids: Vec::new(),
            gone: Vec::new(),
        }
    }

    fn step(&mut self, rng: &mut fastrand::Rng, most: u64) {
        let chosen = rng.usize(0..self.ids.len());
        let (id, deadline) = (self.ids[chosen], at(rng.u64(0..most)));
        let (queue, model) = (&mut self.queue, &mut self.model);
        match rng.u32(0..8) {
            0..=2 => {
                assert_eq!(queue.arm(id, deadline), model.arm(id, deadline));
            }
            3 => {
                let expected = model.anticipate(id, deadline);
                assert_eq!(queue.anticipate(id, deadline), expected);
            }
            4 => assert_eq!(queue.cancel(id), model.cancel(id)),
            5 => {
                queue.begin(deadline);
                model.begin(deadline);
            }
            6 => {
                let expected = model.next_due();
                assert_eq!(queue.next_due(), expected);
            }
            _ => {
                assert!(queue.remove(id).is_some());
                model.cancel(id);
                self.gone.push(self.ids.swap_remove(chosen));
            }
        }
        assert_eq!(self.queue.deadline(id), self.model.deadline(id));
        self.queue.heap.check();
    }

    /// Asserts that no operation with the id of a removed timer has an effect.
    fn use_stale(&mut self, rng: &mut fastrand::Rng) {
        let Some(&id) = rng.choice(&self.gone) else { return };
        assert!(!self.queue.arm(id, at(0)) && !self.queue.anticipate(id, at(0)) && !self.queue.cancel(id));
        assert!(self.queue.deadline(id).is_none() && self.queue.remove(id).is_none());
        assert!(self.queue.get(id).is_none() && self.queue.value_mut(id).is_none());
    }

    fn compare(&self) {
        assert_eq!(self.queue.next_deadline(), self.model.next_deadline());
        assert_eq!(self.queue.len(), self.ids.len());
        let is_same = |id: &TimerId| self.queue.deadline(*id) == self.model.deadline(*id);
        assert!(self.ids.iter().all(is_same));
    }
}

fn agree_with_a_sorted_vector(rounds: usize, steps: u32, standing: usize, most: u64) {
    let mut rng = crate::tests::random();
    for _ in 0..rounds {
        let mut pair = Pair::aged(&mut rng);
        for step in 0..steps {
            while pair.ids.len() < standing || rng.u32(0..12) == 0 {
                pair.ids.push(pair.queue.insert(step));
            }
            pair.step(&mut rng, most);
            pair.use_stale(&mut rng);
            if pair.ids.len() < 20 || step % 64 == 0 {
                pair.compare();
            }
        }
    }
}

#[test]
fn t3_t4_random_operations_agree_with_a_sorted_vector() {
    agree_with_a_sorted_vector(300, 200, 3, 50);
}

/// With enough timers for every path up and down, most of them with distinct deadlines.
#[test]
fn t3_t4_random_operations_on_many_timers_agree_with_a_sorted_vector() {
    agree_with_a_sorted_vector(10, 3000, 300, 10_000);
}

#[test]
fn t3_the_order_of_arming_outlives_four_thousand_million_armings() {
    let mut queue = TimerQueue::new();
    let ids: Vec<TimerId> = (0..50).map(|value| queue.insert(value)).collect();
    // Arms the timers twice, in different orders, each time for one of three moments. Both times the sequence
    // numbers run out, once among timers that are inserted, once among timers that are moved.
    for round in [7, 3] {
        queue.heap.age(u32::MAX - 20);
        for step in 0..50 {
            let index = step * round % 50;
            queue.arm(ids[index], Moment::from_nanos(1 + index as u64 % 3));
            queue.heap.check();
        }
    }
    queue.begin(Moment::from_nanos(3));
    let mut expected: Vec<usize> = (0..50).map(|step| step * 3 % 50).collect();
    expected.sort_by_key(|index| index % 3);
    let fired: Vec<usize> =
        std::iter::from_fn(|| queue.next_due().map(|id| *queue.get(id).unwrap())).collect();
    assert_eq!(fired, expected);
}

#[test]
fn t3_an_id_whose_slot_has_no_generation_left_finds_no_timer() {
    let mut queue = TimerQueue::new();
    let id = queue.insert('a');
    queue.heap.wear_out(id.slot);
    let last = queue.heap.id(id.slot);
    assert_eq!(queue.remove(last), Some('a'));
    assert_eq!(queue.get(last), None);
    assert!(!queue.arm(last, Moment::ZERO));
    assert_ne!(queue.insert('b').slot, id.slot, "the slot is retired");
}

#[test]
fn t3_slots_are_used_again_before_there_are_new_ones() {
    let mut queue = TimerQueue::new();
    let mut ids: Vec<TimerId> = (0..100).map(|value| queue.insert(value)).collect();
    let mut seen: std::collections::HashSet<TimerId> = ids.iter().copied().collect();
    for round in 1..50 {
        for id in ids.drain(50..) {
            queue.arm(id, at(round));
            assert!(queue.remove(id).is_some());
        }
        ids.extend((0..50).map(|value| queue.insert(value)));
        assert_eq!((queue.len(), queue.values.len()), (100, 100));
        assert!(
            ids[50..].iter().all(|id| seen.insert(*id)),
            "no id is given twice"
        );
    }
    assert_eq!(queue.next_deadline(), None);
}

#[test]
fn t4_cancelled_timers_leave_nothing_in_the_due_list() {
    let mut queue = TimerQueue::new();
    let ids: Vec<TimerId> = (0..3).map(|value| queue.insert(value)).collect();
    for _ in 0..100 {
        for id in &ids {
            queue.arm(*id, at(1));
        }
        queue.begin(at(1));
        assert!(ids.iter().all(|id| queue.cancel(*id)));
        assert_eq!(queue.due.len(), 0);
    }
}

#[test]
fn t4_a_value_is_taken_out_and_put_back() {
    let mut queue = TimerQueue::new();
    let (a, b) = (queue.insert(1), queue.insert(2));
    assert_eq!(queue.value_mut(b).and_then(Option::take), Some(2));
    assert_eq!((queue.get(a), queue.get(b), queue.len()), (Some(&1), None, 2));
    assert!(queue.arm(b, at(1)), "without a value it is a timer all the same");
    *queue.value_mut(b).unwrap() = Some(3);
    assert_eq!((queue.get(b), queue.deadline(b)), (Some(&3), Some(at(1))));
    assert_eq!(queue.value_mut(b).and_then(Option::take), Some(3));
    assert_eq!(queue.remove(b), None);
    assert!(queue.value_mut(b).is_none() && queue.len() == 1);
    assert_eq!(queue.next_deadline(), None);
}
