//! How discards and write-zeroes advance: in steps that cost about as much as a transfer of [`STEP`] bytes.

use super::STEP;

/// At most so many bytes are given back in one step: that costs a fraction of writing them.
const GIVEN_BACK: u64 = 16 * STEP;
/// Of a hole, where there is little to give back, a step takes so many bytes.
const HOLE: u64 = 1024 * STEP;
/// What that may cost: the hole may be reserved space.
const HOLE_COST: u64 = STEP / 16;
/// A step costs at least as much as moving so many bytes, however short it is.
const LEAST_COST: u64 = 8 * 1024;

/// What zeroes are written from.
pub(super) static ZEROES: [u8; 64 * 1024] = [0; 64 * 1024];

/// What a step of a discard or a write-zeroes did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the rest of the range is still to be cleared"]
pub(crate) struct Cleared {
    /// So many bytes, from the beginning of the range, are done.
    pub(crate) bytes: u64,
    /// It took about as long as moving so many bytes.
    pub(crate) cost: u64,
}

impl Cleared {
    /// Written.
    pub(super) fn by_hand(bytes: u64) -> Self {
        let cost = bytes.max(LEAST_COST);
        Self { bytes, cost }
    }

    /// There was nothing to do for them.
    pub(super) fn nothing(bytes: u64) -> Self {
        Self {
            bytes,
            cost: LEAST_COST,
        }
    }
}

/// Whole units that one step clears without writing them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// The first byte.
    pub(super) from: u64,
    /// Bytes.
    pub(super) len: u64,
    /// There is no data in it.
    is_hole: bool,
}

impl Stretch {
    /// What a step did that began at byte `at`, and cleared the stretch.
    pub(super) fn cleared(self, at: u64) -> Cleared {
        let cost = (self.len / (GIVEN_BACK / STEP)).max(LEAST_COST);
        Cleared {
            bytes: self.from + self.len - at,
            cost: if self.is_hole { cost.min(HOLE_COST) } else { cost },
        }
    }
}

/// The next step of clearing a range whose whole units can be cleared quickly.
///
/// Steps end at multiples of [`GIVEN_BACK`], so that they cut no unit of a file system in two.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clearing {
    at: u64,
    len: u64,
    unit: u64,
}

impl Clearing {
    /// A range, in units of so many bytes: a power of two, at most [`GIVEN_BACK`].
    pub(super) fn new(at: u64, len: u64, unit: u64) -> Self {
        Self { at, len, unit }
    }

    /// The first whole units, as many as one step takes.
    pub(super) fn middle(&self) -> Option<Stretch> {
        self.units(GIVEN_BACK, false)
    }

    /// Whether the range has more than so many bytes.
    pub(super) fn is_longer_than(&self, len: u64) -> bool {
        self.len > len
    }

    /// As [`middle`](Self::middle), where the file has a hole up to byte `data`. `None` if a step takes no more than usual.
    pub(super) fn hole(&self, data: u64) -> Option<Stretch> {
        let before_data = Self {
            len: self.len.min(data.saturating_sub(self.at)),
            ..*self
        };
        before_data
            .units(HOLE, true)
            .filter(|stretch| stretch.len > GIVEN_BACK)
    }

    /// The first whole units, up to the next multiple of `most`.
    fn units(&self, most: u64, is_hole: bool) -> Option<Stretch> {
        let from = self.at.next_multiple_of(self.unit);
        let end = self.at + self.len;
        let stop = (from / most + 1) * most;
        let stop = stop.min(end / self.unit * self.unit);
        (from < stop).then(|| Stretch {
            from,
            len: stop - from,
            is_hole,
        })
    }

    /// How many bytes to write in a step: with `quick`, at most up to the first whole unit.
    pub(super) fn by_hand(&self, quick: bool) -> u64 {
        let most = self.len.min(STEP);
        match self.middle() {
            Some(stretch) if quick && stretch.from > self.at => most.min(stretch.from - self.at),
            _ => most,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the range, steps cover all of it once, in order, and each costs a bounded amount.
    #[test]
    fn c13_steps_cover_a_range() {
        for (at, len) in [
            (0, 1),
            (511, 1),
            (512, 4096),
            (0, 4096),
            (4095, 4098),
            (512, 3 * GIVEN_BACK),
            (GIVEN_BACK - 512, 1024),
            (1 << 42, 1 << 26),
        ] {
            let (mut next, end) = (at, at + len);
            while next < end {
                let step = Clearing::new(next, end - next, 4096);
                let count = match step.middle() {
                    Some(stretch) if stretch.from == next => {
                        assert!(next.is_multiple_of(4096) && stretch.len.is_multiple_of(4096));
                        assert!(stretch.len <= GIVEN_BACK);
                        let cleared = stretch.cleared(next);
                        assert!(cleared.cost <= STEP);
                        cleared.bytes
                    }
                    _ => step.by_hand(true),
                };
                assert!(count > 0, "no progress at {next} of {at} + {len}");
                next += count;
            }
            assert_eq!(next, end, "{at} + {len}");
        }
    }

    #[test]
    fn c13_short_steps_are_not_free() {
        let cost = |len, is_hole| {
            let stretch = Stretch {
                from: 1024,
                len,
                is_hole,
            };
            let cleared = stretch.cleared(512);
            assert_eq!(cleared.bytes, 512 + len);
            cleared.cost
        };
        assert_eq!(cost(512, false), LEAST_COST);
        assert_eq!(cost(GIVEN_BACK, false), STEP);
        assert_eq!(cost(512, true), LEAST_COST);
        assert_eq!(cost(HOLE, true), HOLE_COST);
        assert_eq!(Cleared::by_hand(512).cost, LEAST_COST);
        assert_eq!(Cleared::by_hand(STEP).cost, STEP);
    }

    #[test]
    fn c12_a_hole_is_taken_in_longer_steps() {
        let step = Clearing::new(512, 8 * HOLE, 512);
        let range = |data| step.hole(data).map(|stretch| (stretch.from, stretch.len));
        assert_eq!(range(u64::MAX), Some((512, HOLE - 512)));
        assert_eq!(range(512 + 2 * GIVEN_BACK), Some((512, 2 * GIVEN_BACK)));
        assert_eq!(range(GIVEN_BACK), None, "that is no more than a step with data");
        assert_eq!(range(512), None);
        assert_eq!(range(0), None);
        assert_eq!(Clearing::new(HOLE - 512, 1024, 512).hole(u64::MAX), None);
    }
}
