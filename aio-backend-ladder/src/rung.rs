//! Where on the ladder to be: decisions without side effects.

/// One of the two backends of a ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// The one for few descriptors.
    Lower,
    /// The one for many.
    Upper,
}

/// What overrules the number of descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Nothing.
    Free,
    /// Somebody relies on the upper backend's descriptor.
    Upper,
    /// The upper backend has failed.
    Lower,
}

/// The rung to be on with `count` descriptors.
///
/// Between half of `climb_at` and `climb_at` it is the one it is `now`, so that a count that goes up and down by a few
/// does not move everything each time.
pub(crate) fn next(now: Rung, count: usize, climb_at: usize, hold: Hold) -> Rung {
    match hold {
        Hold::Upper => Rung::Upper,
        Hold::Lower => Rung::Lower,
        Hold::Free if count >= climb_at => Rung::Upper,
        Hold::Free if count < climb_at / 2 => Rung::Lower,
        Hold::Free => now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b3_the_next_rung() {
        use Rung::{Lower, Upper};
        // (now, count, climb_at) -> next
        for (now, count, climb_at, expect) in [
            (Lower, 0, 64, Lower),
            (Lower, 31, 64, Lower),
            (Lower, 63, 64, Lower),
            (Lower, 64, 64, Upper),
            (Lower, 10_000, 64, Upper),
            (Upper, 64, 64, Upper),
            (Upper, 63, 64, Upper),
            (Upper, 32, 64, Upper),
            (Upper, 31, 64, Lower),
            (Upper, 0, 64, Lower),
            // always up
            (Lower, 0, 0, Upper),
            (Upper, 0, 0, Upper),
            // too small for a way back
            (Lower, 1, 1, Upper),
            (Upper, 0, 1, Upper),
            (Lower, 0, 1, Lower),
            // odd ones round down
            (Upper, 1, 3, Upper),
            (Upper, 0, 3, Lower),
            // never up
            (Lower, usize::MAX - 1, usize::MAX, Lower),
        ] {
            let found = next(now, count, climb_at, Hold::Free);
            assert_eq!(found, expect, "{now:?} with {count}, climbing at {climb_at}");
        }
    }

    #[test]
    fn b3_between_the_thresholds_no_count_switches_twice() {
        for climb_at in 0..20 {
            for count in 0..40 {
                let up = next(Rung::Lower, count, climb_at, Hold::Free);
                let down = next(Rung::Upper, count, climb_at, Hold::Free);
                assert!(
                    !(up == Rung::Upper && down == Rung::Lower),
                    "{count}, climbing at {climb_at}"
                );
            }
        }
    }

    #[test]
    fn b4_a_hold_overrules_the_count() {
        for now in [Rung::Lower, Rung::Upper] {
            for (count, climb_at) in [(0, 0), (0, 64), (100, 64)] {
                assert_eq!(next(now, count, climb_at, Hold::Upper), Rung::Upper);
                assert_eq!(next(now, count, climb_at, Hold::Lower), Rung::Lower);
            }
        }
    }
}
