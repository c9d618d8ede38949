//! Runs the examples, which check themselves.

#[path = "../examples/mailbox_loop.rs"]
#[allow(dead_code, reason = "an example is a program")]
mod mailbox_loop;

#[test]
fn n1_mailbox_loop() {
    mailbox_loop::main().expect("the system has a descriptor left");
}
