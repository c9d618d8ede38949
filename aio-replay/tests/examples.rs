//! The examples run.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

#[test]
fn a_policy_from_outside_is_judged_beside_the_others() {
    let test = std::env::current_exe().unwrap();
    let built = test.parent().unwrap().parent().unwrap().join("examples");
    let output = Command::new(built.join("judge")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let table = String::from_utf8(output.stdout).unwrap();
    let mean_of = |policy: &str| -> f64 {
        let line = table.lines().find(|line| line.starts_with(policy));
        let cells = line.unwrap().split_whitespace();
        cells.clone().nth(1).unwrap().parse().unwrap()
    };
    assert!(mean_of("learned") < mean_of("mean"), "{table}");
    assert!(mean_of("ski-rental") <= 2.0, "{table}");
}
