//! Tasks of the executor that move between contexts.

use aio_tools::shell;
use anyhow::ensure;

use crate::at::{At, Outcome, Result};

/// Runs tasks that move between random contexts. The result is the number of moves.
pub(crate) fn hopping(at: &At<'_>) -> Result {
    let test = || {
        let mut cargo = shell::cargo();
        cargo
            .args(["test", "--locked", "--package", "aio-executor", "--test", "it"])
            .env("AIO_HOSTILE", "long");
        cargo
    };
    let said = at.built_tests(test, &["case_14", "--nocapture"])?;
    // Tests print concurrently, so the number need not begin its line.
    let words: Vec<&str> = said.split_whitespace().collect();
    let hops = words.windows(2).filter(|pair| pair[1] == "hops");
    let hops: Vec<u64> = hops.filter_map(|pair| pair[0].parse().ok()).collect();
    ensure!(!hops.is_empty(), "no test was run");
    Ok(Outcome::Found(format!(
        "{} kinds of contexts, {} hops, 0 tasks lost or doubled",
        hops.len(),
        hops.iter().sum::<u64>()
    )))
}
