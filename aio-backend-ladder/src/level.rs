//! The choice of the level, without side effects.

use std::io;

use rustix::io::Errno;

/// One of the two backends of a ladder.
///
/// # Examples
/// ```
/// use std::io;
/// use aio_backend_ladder::{Ladder, Level};
/// use aio_backend_epoll::Epoll;
/// use aio_backend_ppoll::Ppoll;
///
/// // With 0 the upper backend is used at once, if it can be made.
/// let backend = Ladder::new(Ppoll::new(), Epoll::new, 0);
/// assert_eq!(backend.level(), Level::Upper);
/// let refuses = || -> io::Result<Epoll> { Err(io::ErrorKind::OutOfMemory.into()) };
/// let backend = Ladder::new(Ppoll::new(), refuses, 0);
/// assert_eq!(backend.level(), Level::Lower);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The backend for few descriptors.
    Lower,
    /// The backend for many descriptors.
    Upper,
}

/// A reason to ignore the number of descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// The number decides.
    Free,
    /// A foreign loop uses the upper backend's descriptor.
    Upper,
    /// The upper backend has failed.
    Lower,
}

/// Returns the level for `count` descriptors.
///
/// Between half of `climb_at` and `climb_at` it stays `now`, so a small change of the count does not move all registrations.
pub(crate) fn next(now: Level, count: usize, climb_at: usize, hold: Hold) -> Level {
    match hold {
        Hold::Upper => Level::Upper,
        Hold::Lower => Level::Lower,
        Hold::Free if count >= climb_at => Level::Upper,
        Hold::Free if count < climb_at / 2 => Level::Lower,
        Hold::Free => now,
    }
}

/// Returns whether the error means that a number is not open.
pub(crate) fn is_closed(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::BADF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b3_the_next_level() {
        use Level::{Lower, Upper};
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
                let up = next(Level::Lower, count, climb_at, Hold::Free);
                let down = next(Level::Upper, count, climb_at, Hold::Free);
                assert!(
                    !(up == Level::Upper && down == Level::Lower),
                    "{count}, climbing at {climb_at}"
                );
            }
        }
    }

    #[test]
    fn b4_a_hold_overrules_the_count() {
        for now in [Level::Lower, Level::Upper] {
            for (count, climb_at) in [(0, 0), (0, 64), (100, 64)] {
                assert_eq!(next(now, count, climb_at, Hold::Upper), Level::Upper);
                assert_eq!(next(now, count, climb_at, Hold::Lower), Level::Lower);
            }
        }
    }
}
