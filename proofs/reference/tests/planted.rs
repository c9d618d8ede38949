//! The comparison finds planted faults.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use aio_reference::{Plant, USUAL, run_seed};

/// The number of sequences within which a fault must be found: a tenth of the number that tests every change.
const SEQUENCES: u64 = 2_000;

#[test]
fn every_planted_fault_is_found() {
    let mut missed = Vec::new();
    for plant in Plant::ALL {
        let found = (0..SEQUENCES).find_map(|seed| {
            let difference = run_seed(seed, USUAL, Some(plant)).err()?;
            Some((seed, difference))
        });
        match found {
            Some((seed, difference)) => println!("{plant:?}: seed {seed}: {difference}\n"),
            None => missed.push(plant),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
