//! Where on the ladder to be: decisions without side effects.

use std::io;

use rustix::io::Errno;

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

/// Whether an error of `add` or `modify` says that a backend is at its end, not just that it refuses one descriptor.
#[must_use]
pub fn concerns_all(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOSPC | Errno::NOMEM)
    )
}

/// Whether an error says that the number is not open.
pub(crate) fn is_closed(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::BADF)
}

/// What whoever runs the program can do about an error.
#[must_use]
pub fn remedy(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::MFILE) => {
            "the process is at its limit of open descriptors: raise RLIMIT_NOFILE (ulimit -n)"
        }
        Some(Errno::NFILE) => "the system is at its limit of open files: raise the sysctl fs.file-max",
        Some(Errno::NOSPC) => {
            "the user is at the limit of watches: raise the sysctl fs.epoll.max_user_watches"
        }
        Some(Errno::NOMEM) => "the kernel is out of memory: give the system more, or start fewer programs",
        Some(Errno::BADF | Errno::INVAL) => {
            "the backend's own descriptor is gone: look for a close() of a number that the program does not own"
        }
        Some(Errno::NOSYS | Errno::PERM) => {
            "the system call is missing or forbidden: look at the kernel's version and at seccomp filters"
        }
        Some(Errno::LOOP) => {
            "epoll sets watch each other in a circle, or too deep: look which set is added to which"
        }
        Some(Errno::NODEV) => {
            "the kernel has no anonymous files, which every event loop needs: try another kernel"
        }
        _ => "none is known",
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

    #[test]
    fn b4_which_errors_concern_all() {
        let os = |errno: Errno| io::Error::from(errno);
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOSPC, Errno::NOMEM] {
            assert!(concerns_all(&os(errno)), "{errno:?}");
            assert_ne!(remedy(&os(errno)), remedy(&io::Error::other("?")), "{errno:?}");
        }
        for errno in [Errno::BADF, Errno::PERM, Errno::LOOP, Errno::INVAL, Errno::EXIST] {
            assert!(!concerns_all(&os(errno)), "{errno:?}");
        }
        assert!(!concerns_all(&io::Error::other("made up")));
    }

    #[test]
    fn b4_each_kind_of_error_has_a_remedy_of_its_own() {
        let kinds: [&[Errno]; 8] = [
            &[Errno::MFILE],
            &[Errno::NFILE],
            &[Errno::NOSPC],
            &[Errno::NOMEM],
            &[Errno::BADF, Errno::INVAL],
            &[Errno::NOSYS, Errno::PERM],
            &[Errno::LOOP],
            &[Errno::NODEV],
        ];
        let mut known = vec![remedy(&io::Error::other("?"))];
        for kind in kinds {
            let told = kind[0];
            let told = remedy(&told.into());
            assert!(!known.contains(&told), "{kind:?}: {told}");
            for errno in kind {
                assert_eq!(remedy(&(*errno).into()), told, "{errno:?}");
            }
            known.push(told);
        }
    }
}
