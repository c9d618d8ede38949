//! A policy with state for each handler, written with only the public interface (the example `per_handler`).

#[path = "../examples/per_handler.rs"]
mod per_handler;

use std::time::Duration;

use aio_pollctl::{HandlerMemory, Iteration, PollParams, PollPolicy};
use per_handler::Patient;

const US: Duration = Duration::from_micros(1);

/// Reports one iteration that waited for `wait` and found events of the handlers in `events`. Returns the
/// budget after it.
fn step(policy: &mut Patient, handlers: &mut [HandlerMemory], wait: Duration, events: &[usize]) -> Duration {
    let seen = Iteration::new(wait, Duration::ZERO, true, false);
    for (index, memory) in handlers.iter_mut().enumerate() {
        policy.observe_handler(memory, events.contains(&index), seen);
    }
    policy.observe(seen);
    policy.budget()
}

#[test]
fn l4_a_policy_from_outside_keeps_a_time_and_a_word_for_each_handler() {
    let mut policy = Patient::new(PollParams::up_to(50 * US));
    let mut handlers = [HandlerMemory::default(); 2];
    assert_eq!(step(&mut policy, &mut handlers, 10 * US, &[0]), 20 * US);
    assert_eq!(
        step(&mut policy, &mut handlers, 4 * US, &[1]),
        20 * US,
        "the longest time counts"
    );
    assert_eq!(handlers.map(|memory| memory.time()), [20 * US, 8 * US]);
    // Handler 0 is silent. Its memory counts the silences, and the last one ends its polling time.
    for _ in 0..Patient::SILENCES - 2 {
        assert_eq!(step(&mut policy, &mut handlers, 4 * US, &[1]), 20 * US);
    }
    assert_eq!(step(&mut policy, &mut handlers, 4 * US, &[1]), 8 * US);
    assert_eq!(
        step(&mut policy, &mut handlers, 15 * US, &[0]),
        30 * US,
        "and it comes back"
    );
}

#[test]
fn l4_a_reset_invalidates_the_memory_that_the_loop_stores() {
    let mut policy = Patient::new(PollParams::up_to(50 * US));
    let mut handlers = [HandlerMemory::default(); 1];
    assert_eq!(step(&mut policy, &mut handlers, 10 * US, &[0]), 20 * US);
    policy.reset(PollParams::up_to(15 * US));
    assert_eq!(policy.budget(), Duration::ZERO);
    assert_eq!(step(&mut policy, &mut handlers, 1 * US, &[]), Duration::ZERO);
    assert_eq!(
        step(&mut policy, &mut handlers, 10 * US, &[0]),
        15 * US,
        "no longer than the maximum"
    );
    policy.reset(PollParams::OFF);
    assert_eq!(step(&mut policy, &mut handlers, 1 * US, &[0]), Duration::ZERO);
}

#[test]
fn l4_memory_is_zero_until_something_is_stored_in_this_generation() {
    let mut memory = HandlerMemory::default();
    assert_eq!(
        (memory.time_ns(1), memory.word(1), memory.time()),
        (0, 0, Duration::ZERO)
    );
    assert_eq!(
        (memory.time_ns(0), memory.word(0)),
        (0, 0),
        "also in generation 0"
    );
    memory.store(7, 3000, u64::MAX);
    assert_eq!(
        (memory.time_ns(7), memory.word(7), memory.time()),
        (3000, u64::MAX, 3 * US)
    );
    for other in [0, 6, 8, u32::MAX] {
        assert_eq!((memory.time_ns(other), memory.word(other)), (0, 0), "{other}");
    }
    assert!(
        size_of::<HandlerMemory>() <= 24,
        "one lies beside each polled handler"
    );
}

#[test]
fn the_example_runs() {
    per_handler::main();
}
