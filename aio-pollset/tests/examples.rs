//! The example runs, and receives every message.

#[path = "../examples/hand_written_loop.rs"]
mod hand_written_loop;

#[test]
fn hand_written_loop_ends_with_its_messages() {
    hand_written_loop::main();
}
