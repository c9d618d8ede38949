//! Runs the examples, with few rounds: they measure, and a test measures nothing.

#[path = "../examples/returns.rs"]
#[allow(dead_code, reason = "an example is a program")]
mod returns;
#[path = "../examples/timeouts.rs"]
#[allow(dead_code, reason = "an example is a program")]
mod timeouts;

#[test]
fn returns_runs() {
    returns::run(2, 10).expect("the system has a descriptor left");
}

#[test]
fn timeouts_runs() {
    timeouts::run(3, 2).expect("the system has a descriptor left");
}
