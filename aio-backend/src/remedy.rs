//! The meaning of system errors for a loop: whether they concern all descriptors, and their remedies.

use std::io;

use crate::errno;

/// Returns whether an error comes from a limit of the process or the system, so that other descriptors fail as well: `EMFILE`,
/// `ENFILE`, `ENOSPC` or `ENOMEM`.
#[must_use]
pub fn concerns_all(error: &io::Error) -> bool {
    errno::is_one_of(error, &[errno::MFILE, errno::NFILE, errno::NOSPC, errno::NOMEM])
}

/// Returns the remedy for an error, for the operator of the program, as part of a sentence.
///
/// ```
/// let error = std::io::Error::from_raw_os_error(24); // EMFILE
/// assert!(aio_backend::remedy(&error).contains("ulimit -n"));
/// ```
#[must_use]
pub fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(errno::MFILE) => {
            "the process is at its limit of open descriptors: raise RLIMIT_NOFILE (ulimit -n)"
        }
        Some(errno::NFILE) => "the system is at its limit of open files: raise the sysctl fs.file-max",
        Some(errno::NOSPC) => {
            "the user is at the limit of watches: raise the sysctl fs.epoll.max_user_watches"
        }
        Some(errno::NOMEM) => {
            "the kernel is out of memory: give the system more, or start fewer programs; for io_uring before Linux 5.12, raise RLIMIT_MEMLOCK (ulimit -l)"
        }
        Some(errno::BADF | errno::INVAL) => {
            "the backend's own descriptor is gone: look for a close() of a number that the program does not own"
        }
        Some(errno::NOSYS | errno::PERM) => {
            "the system call is missing or forbidden: look at the kernel's version, at seccomp filters, and, for io_uring, at the sysctl kernel.io_uring_disabled"
        }
        Some(errno::LOOP) => {
            "epoll sets watch each other in a circle, or too deep: look which set is added to which"
        }
        Some(errno::NODEV) => {
            "the kernel has no anonymous files, which every event loop needs: try another kernel"
        }
        _ => "none is known",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

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
            let expected = remedy(&kind[0].into());
            assert!(!known.contains(&expected), "{kind:?}: {expected}");
            for errno in kind {
                assert_eq!(remedy(&(*errno).into()), expected, "{errno:?}");
            }
            known.push(expected);
        }
    }
}
