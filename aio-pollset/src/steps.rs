//! Counts units of work, in tests only: cost that can be asserted without a clock.

/// One entry, slot or queued item is visited.
#[inline(always)]
pub(crate) fn step() {
    #[cfg(test)]
    aio_testing::steps::step();
}
