//! The example `pacing`: a loop that is paced by the state machines of this crate.

#[path = "../examples/pacing/main.rs"]
mod pacing;

#[test]
fn r10_a8_a_loop_by_hand_serves_queues_and_descriptors() {
    let world = pacing::run();
    assert!(world.requests > 5_000, "{world:#?}");
    assert!(world.events > 500, "{world:#?}");
    // A check is due 50 us after the last one. A stride of rounds, a check and a wake-up may be added to
    // that.
    assert!(world.latest_ns < 70_000, "{world:#?}");
    assert!(world.checks < world.polls, "{world:#?}");
    assert!(world.polled < 10, "idle queues have left: {world:#?}");
    pacing::main();
}
