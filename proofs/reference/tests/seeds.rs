//! The seeds of the fuzz target `operations`, each of them also with single bytes changed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use aio_reference::fuzz::operations;

#[test]
fn seeds_of_operations() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/operations");
    let seed = aio_testing::seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut count = 0;
    for entry in std::fs::read_dir(&seeds).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        let seed = std::fs::read(&path).unwrap();
        operations(&seed);
        for _ in 0..100 {
            let mut changed = seed.clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..changed.len());
                changed[at] = random.u8(..);
            }
            operations(&changed);
        }
        count += 1;
    }
    assert!(count >= 5, "{count} seeds in {}", seeds.display());
}
