//! The checks find planted faults.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use aio_simulation::{Plant, run};

/// The number of runs within which a fault must be found.
const SEEDS: u64 = 400;

/// Returns the number of runs until a fault is found, and the check that finds it.
fn found(plant: Plant) -> Option<(u64, String)> {
    (0..SEEDS).find_map(|seed| {
        let failure = run(seed, 600, Some(plant), false, false).err()?;
        Some((seed, failure.why))
    })
}

#[test]
fn every_planted_fault_is_found() {
    let mut missed = Vec::new();
    for plant in Plant::ALL {
        match found(plant) {
            Some((seed, why)) => println!("{plant:?}: seed {seed}: {why}"),
            None => missed.push(plant),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
