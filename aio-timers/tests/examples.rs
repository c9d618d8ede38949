//! Runs the example, which checks itself.
#![cfg(feature = "std")]

#[path = "../examples/own_loop.rs"]
mod own_loop;

#[test]
fn own_loop_ends_with_its_timers() {
    own_loop::main();
}
