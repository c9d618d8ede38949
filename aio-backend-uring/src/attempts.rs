//! [`Attempts`]: whether an enter that has failed is made again.

use std::io;

use rustix::io::Errno;

/// How often in a row an enter is repeated that was refused for lack of memory or of room, both of which may be there the next time.
const REFUSALS: u32 = 3;
/// How often in a row an enter is repeated that a signal has interrupted.
const INTERRUPTIONS: u32 = 64;

/// What an enter has led to, if it is not to be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entered {
    /// It has submitted and waited, maybe for the whole timeout.
    Done,
    /// A signal came first. A wait does not sleep again.
    Interrupted,
    /// The kernel has refused it (`EAGAIN`, `EBUSY`); it is to be made again.
    Refused,
}

/// Counts the enters in a row that have failed, for all that enter: waits, removals, and the arming for another backend.
///
/// A failed enter has submitted nothing, so all requests are still in their queue. `EINTR`, `EAGAIN` and `EBUSY` pass; any other error does
/// not, and ends the attempts at once.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    refusals: u32,
    interruptions: u32,
}

impl Attempts {
    /// Judges an enter. `completions` is the number of those that were taken after it: they make room, which an enter may have lacked.
    ///
    /// # Errors
    /// That of the enter, in the words of other calls, if another attempt is not worth it: `EAGAIN` and `EBUSY` are a lack of memory for
    /// requests and for completions, and `EOPNOTSUPP` tells that the number means another file than the ring.
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

    /// The number of enters with this error in a row until they are given up, and the error then.
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
