//! Divides discards and write-zeroes into steps that cost about as much as a transfer of [`STEP`] bytes.

use std::io;

use super::STEP;

/// The most bytes that one step releases. Releasing costs a fraction of writing.
const RELEASED: u64 = 16 * STEP;
/// The most bytes of a step in a hole, which has little to release.
const HOLE: u64 = 1024 * STEP;
/// The highest cost of a step in a hole: the hole can be reserved space.
const HOLE_COST: u64 = STEP / 16;
/// The cost of the shortest step.
const LEAST_COST: u64 = 8 * 1024;

/// The source of zeroes that are written.
static ZEROES: [u8; 64 * 1024] = [0; 64 * 1024];

/// The result of a step of a discard or write-zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the rest of the range is still to be cleared"]
pub(crate) struct Cleared {
    /// The number of bytes, from the beginning of the range, that the step has cleared.
    pub(crate) bytes: u64,
    /// The cost, as the number of bytes whose transfer takes as long.
    pub(crate) cost: u64,
}

impl Cleared {
    /// Clears a range by writing zeroes. Calls `write` with the position and the zeroes of each part of the
    /// range.
    ///
    /// # Errors
    /// The errors of `write`.
    pub(super) fn by_writing(
        at: u64,
        bytes: u64,
        mut write: impl FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<Self> {
        let mut done = 0;
        while done < bytes {
            let part = (bytes - done).min(ZEROES.len() as u64);
            write(at + done, &ZEROES[..part as usize])?;
            done += part;
        }
        let cost = bytes.max(LEAST_COST);
        Ok(Self { bytes, cost })
    }

    /// Returns the result of a step that had nothing to do.
    pub(super) fn nothing(bytes: u64) -> Self {
        Self {
            bytes,
            cost: LEAST_COST,
        }
    }
}

/// Whole units that one step clears without writing zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// The first byte.
    pub(super) from: u64,
    /// The number of bytes.
    pub(super) len: u64,
    /// Set if the file has no data there.
    is_hole: bool,
}

impl Stretch {
    /// Returns the result of a step that began at byte `at` and cleared the stretch.
    pub(super) fn cleared(self, at: u64) -> Cleared {
        let cost = (self.len / (RELEASED / STEP)).max(LEAST_COST);
        Cleared {
            bytes: self.from + self.len - at,
            cost: if self.is_hole { cost.min(HOLE_COST) } else { cost },
        }
    }
}

/// The next step of clearing a range whose whole units can be cleared quickly.
///
/// Steps end at multiples of [`RELEASED`], so that they cut no unit of a file system in two.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clearing {
    at: u64,
    len: u64,
    unit: u64,
}

impl Clearing {
    /// Creates a step for a range. `unit` is in bytes: a power of two, at most [`RELEASED`].
    pub(super) fn new(at: u64, len: u64, unit: u64) -> Self {
        Self { at, len, unit }
    }

    /// Returns the whole units that the next step clears, if there are any.
    pub(super) fn middle(&self) -> Option<Stretch> {
        self.units(RELEASED, false)
    }

    /// Like [`middle`](Self::middle), for a step as long as one in a hole.
    pub(super) fn long(&self) -> Option<Stretch> {
        self.units(HOLE, false)
    }

    /// Returns `true` if the range has more than `len` bytes.
    pub(super) fn is_longer_than(&self, len: u64) -> bool {
        self.len > len
    }

    /// Like [`middle`](Self::middle), if the file has a hole up to byte `data`. Returns `None` if the step
    /// would not be longer.
    pub(super) fn hole(&self, data: u64) -> Option<Stretch> {
        let before_data = Self {
            len: self.len.min(data.saturating_sub(self.at)),
            ..*self
        };
        before_data
            .units(HOLE, true)
            .filter(|stretch| stretch.len > RELEASED)
    }

    /// Returns the first whole units, up to the next multiple of `most`.
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

    /// Returns the number of bytes to which the next step writes zeroes: with `quick`, at most up to the
    /// first whole unit.
    pub(super) fn write_len(&self, quick: bool) -> u64 {
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

    /// Steps cover all of any range once, in order, and each costs a bounded amount.
    #[test]
    fn c13_steps_cover_a_range() {
        for (at, len) in [
            (0, 1),
            (511, 1),
            (512, 4096),
            (0, 4096),
            (4095, 4098),
            (512, 3 * RELEASED),
            (RELEASED - 512, 1024),
            (1 << 42, 1 << 26),
        ] {
            let (mut next, end) = (at, at + len);
            while next < end {
                let step = Clearing::new(next, end - next, 4096);
                let count = match step.middle() {
                    Some(stretch) if stretch.from == next => {
                        assert!(next.is_multiple_of(4096) && stretch.len.is_multiple_of(4096));
                        assert!(stretch.len <= RELEASED);
                        let cleared = stretch.cleared(next);
                        assert!(cleared.cost <= STEP);
                        cleared.bytes
                    }
                    _ => step.write_len(true),
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
        assert_eq!(cost(RELEASED, false), STEP);
        assert_eq!(cost(512, true), LEAST_COST);
        assert_eq!(cost(HOLE, true), HOLE_COST);
        let written = |bytes| Cleared::by_writing(512, bytes, |_, _| Ok(())).unwrap();
        assert_eq!(written(512).cost, LEAST_COST);
        assert_eq!(written(STEP).cost, STEP);
    }

    #[test]
    fn c12_a_hole_is_taken_in_longer_steps() {
        let step = Clearing::new(512, 8 * HOLE, 512);
        let range = |data| step.hole(data).map(|stretch| (stretch.from, stretch.len));
        assert_eq!(range(u64::MAX), Some((512, HOLE - 512)));
        assert_eq!(range(512 + 2 * RELEASED), Some((512, 2 * RELEASED)));
        assert_eq!(range(RELEASED), None, "that is no more than a step with data");
        assert_eq!(range(512), None);
        assert_eq!(range(0), None);
        assert_eq!(Clearing::new(HOLE - 512, 1024, 512).hole(u64::MAX), None);
    }
}
