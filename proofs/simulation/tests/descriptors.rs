//! I8: no descriptor is left. Alone in its process, because others would open some meanwhile.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use aio_simulation::run;

#[test]
fn i8_no_descriptor_is_left() {
    for seed in 0..300 {
        run(seed, 300, None, false, true).unwrap_or_else(|failure| panic!("{failure}"));
    }
}
