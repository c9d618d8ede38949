//! A trace on a context and on the reference model, side by side.

use crate::common::Bench;
use crate::model::Model;
use crate::replay::Replay;
use crate::trace::{Expected, parse};

/// Replays a trace on a context and on the model; what differs, or is not as expected, is the error.
pub(crate) fn replay(bench: Bench, trace: &str) -> Result<usize, String> {
    let (real, mut model) = (Replay::new(bench), Model::default());
    let mut calls = 0;
    for (number, (step, expected)) in parse(trace).iter().enumerate() {
        let log = real.step(step);
        let model_log = model.step(step, &log);
        if log != model_log {
            return Err(format!(
                "step {number}, {step:?}: the context did {log:?}, the model {model_log:?}"
            ));
        }
        let (called, wanted) = compared(&log, expected.as_ref());
        if wanted.is_some_and(|wanted| called != wanted) {
            return Err(format!("step {number}, {step:?}: {log:?}, but {expected:?}"));
        }
        calls += called.len();
    }
    Ok(calls)
}

/// What is compared of a log with what is expected: not the signs of progress.
fn compared(log: &[String], expected: Option<&Expected>) -> (Vec<String>, Option<Vec<String>>) {
    let mut called: Vec<_> = log
        .iter()
        .map(|entry| entry.trim_end_matches(['+', '-']).to_owned())
        .filter(|entry| !entry.is_empty())
        .collect();
    let mut wanted = expected.map(|expected| expected.calls.clone());
    if expected.is_some_and(|expected| expected.in_any_order) {
        called.sort();
        wanted.iter_mut().for_each(|wanted| wanted.sort());
    }
    (called, wanted)
}

/// Replays a trace that must go as it says, and as the model does it.
pub(crate) fn check(bench: Bench, trace: &str) {
    if let Err(why) = replay(bench, trace) {
        panic!("{trace}\n{why}");
    }
}
