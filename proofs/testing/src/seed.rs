//! Seeds of random tests.

/// Returns the seed of a random test, and prints it. The seed is that of `AIO_SEED`, so that a failure can be
/// repeated, or a new one.
///
/// # Panics
/// If `AIO_SEED` is no number.
#[must_use]
pub fn seed() -> u64 {
    let seed = match std::env::var("AIO_SEED") {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("AIO_SEED is a number, not {text:?}")),
        Err(_) => fastrand::u64(..),
    };
    println!("AIO_SEED={seed}");
    seed
}
