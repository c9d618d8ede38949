//! I8: no descriptor is left open. The test is alone in its process, because others would open descriptors at
//! the same time.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use aio_simulation::run;

#[test]
fn i8_no_descriptor_is_left() {
    for seed in 0..300 {
        run(seed, 300, None, false, true).unwrap_or_else(|failure| panic!("{failure}"));
    }
}
