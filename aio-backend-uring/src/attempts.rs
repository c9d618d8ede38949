//! [`Attempts`]: decides whether a failed enter is repeated.

use std::io;

use rustix::io::Errno;

/// The number of repetitions in a row of an enter that was refused for lack of memory or of room, both of
/// which may be there the next time.
const REFUSALS: u32 = 3;
/// The number of repetitions in a row of an enter that a signal has interrupted.
const INTERRUPTIONS: u32 = 64;

/// The result of an enter after which attempts go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entered {
    /// It has submitted and waited, maybe for the whole timeout.
    Done,
    /// A signal came first. A wait does not sleep again.
    Interrupted,
    /// The kernel has refused it (`EAGAIN`, `EBUSY`); it is to be repeated.
    Refused,
}

/// Counts the failed enters in a row, for waits, removals, and the arming for another backend.
///
/// A failed enter has submitted no request, so all are still in their queue. `EINTR`, `EAGAIN` and `EBUSY`
/// are temporary. Any other error ends the attempts at once.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    refusals: u32,
    interruptions: u32,
}

impl Attempts {
    /// Classifies the result of an enter. `completions` is the number of completions that were taken after
    /// it: they make room, which the enter may have lacked.
    ///
    /// # Errors
    /// The error of the enter, if another attempt is not worth it, with the number that other calls use:
    /// `EAGAIN` (no memory for requests) and `EBUSY` (none for completions) become `ENOMEM`. `EOPNOTSUPP`
    /// becomes `EBADF`: the number is that of another file than the ring.
    #[inline]
    pub(crate) fn judge(&mut self, entered: io::Result<()>, completions: usize) -> io::Result<Entered> {
        match entered {
            Ok(()) => {
                *self = Self::default();
                Ok(Entered::Done)
            }
            Err(error) => self.judge_error(error, completions),
        }
    }

    #[cold]
    fn judge_error(&mut self, error: io::Error, completions: usize) -> io::Result<Entered> {
        if completions > 0 {
            *self = Self::default();
        }
        match Errno::from_io_error(&error) {
            Some(Errno::TIME) => {
                *self = Self::default();
                Ok(Entered::Done)
            }
            Some(Errno::INTR) if self.interruptions < INTERRUPTIONS => {
                self.interruptions += 1;
                Ok(Entered::Interrupted)
            }
            Some(Errno::AGAIN | Errno::BUSY) if self.refusals < REFUSALS => {
                self.refusals += 1;
                Ok(Entered::Refused)
            }
            Some(Errno::AGAIN | Errno::BUSY) => Err(Errno::NOMEM.into()),
            Some(Errno::OPNOTSUPP) => Err(Errno::BADF.into()),
            _ => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the number of enters with this error in a row until they are given up, and the error then.
    fn given_up(errno: Errno) -> (usize, Option<Errno>) {
        let mut attempts = Attempts::default();
        for number in 1..1_000 {
            if let Err(error) = attempts.judge(Err(errno.into()), 0) {
                return (number, Errno::from_io_error(&error));
            }
        }
        (1_000, None)
    }

    #[test]
    fn b4_what_passes_is_tried_again_and_what_does_not_is_given_up_at_once() {
        for (errno, expected) in [
            (Errno::AGAIN, (4, Some(Errno::NOMEM))),
            (Errno::BUSY, (4, Some(Errno::NOMEM))),
            (Errno::INTR, (65, Some(Errno::INTR))),
            (Errno::NOMEM, (1, Some(Errno::NOMEM))),
            (Errno::OPNOTSUPP, (1, Some(Errno::BADF))),
            (Errno::BADF, (1, Some(Errno::BADF))),
            (Errno::TIME, (1_000, None)),
        ] {
            assert_eq!(given_up(errno), expected, "{errno:?}");
        }
    }

    #[test]
    fn b4_only_failures_in_a_row_count_and_completions_interrupt_the_row() {
        let mut attempts = Attempts::default();
        let fails = |errno: Errno| Err(errno.into());
        for (ended, completions) in [(Ok(()), 0), (fails(Errno::TIME), 0), (fails(Errno::BUSY), 2)] {
            for _ in 0..REFUSALS {
                assert_eq!(attempts.judge(fails(Errno::BUSY), 0).unwrap(), Entered::Refused);
            }
            attempts.judge(ended, completions).unwrap();
        }
        // An interruption shows nothing about memory.
        let mut attempts = Attempts::default();
        for _ in 0..REFUSALS {
            assert_eq!(attempts.judge(fails(Errno::AGAIN), 0).unwrap(), Entered::Refused);
            assert_eq!(
                attempts.judge(fails(Errno::INTR), 0).unwrap(),
                Entered::Interrupted
            );
        }
        assert!(attempts.judge(fails(Errno::AGAIN), 0).is_err());
    }
}
