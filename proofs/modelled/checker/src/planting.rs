//! Faults that are planted on purpose, to check that the models find them: see [`faulty!`](crate::faulty).
//!
//! A process has at most one fault, from its beginning to its end; an environment variable names it. A model
//! that fails may end its process, so each fault has a process of its own.

use std::process::Command;
use std::sync::OnceLock;

const FAULT: &str = "AIO_PLANT";
const MODEL: &str = "AIO_PLANT_IN";

fn planted() -> Option<&'static str> {
    static PLANTED: OnceLock<Option<String>> = OnceLock::new();
    PLANTED.get_or_init(|| std::env::var(FAULT).ok()).as_deref()
}

/// Returns `true` if this fault is planted in this process.
pub fn is_planted(fault: &str) -> bool {
    planted() == Some(fault)
}

/// Returns `true` if any fault is planted.
#[must_use]
pub fn is_any_planted() -> bool {
    planted().is_some()
}

/// Runs the models with a fault. At least one of them must fail. `test` is the path of the test that calls
/// this; it is run again as a child for each model.
///
/// # Panics
/// If no model fails.
pub fn must_be_found(test: &str, fault: &str, models: &[fn()]) {
    if let Ok(number) = std::env::var(MODEL) {
        let number: usize = number.parse().expect("the parent gives a number");
        return models[number]();
    }
    let test = test.split_once("::").map_or(test, |(_, in_crate)| in_crate);
    let failed = (0..models.len()).any(|number| {
        let child = Command::new(std::env::current_exe().expect("a test knows where it is"))
            .args(["--exact", test, "--test-threads=1"])
            .env(FAULT, fault)
            .env(MODEL, number.to_string())
            .output()
            .expect("a test can be started");
        let output = String::from_utf8_lossy(&child.stdout);
        assert!(
            output.contains("running 1 test"),
            "the child did not run the model: {output}"
        );
        !child.status.success()
    });
    assert!(failed, "{fault} is planted, and no model fails");
}
