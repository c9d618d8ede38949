//! [`EndedWait`]: a policy's observation of a search and a wait, and of the running time of handlers in
//! between.

use core::time::Duration;

use crate::{Contention, Iteration, Pacing, Searched};

/// The search and the wait of an iteration, before it called any handler.
///
/// ```
/// use aio_pollctl::{Searched, Waited};
///
/// let slept = Waited { searched: Searched::default(), timeout: None, blocked: true };
/// assert!(slept.blocked && !slept.searched.hit);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waited {
    /// The result of the search, and its end.
    pub searched: Searched,
    /// The longest search and wait that were allowed.
    pub timeout: Option<Duration>,
    /// Whether the loop slept after the search.
    pub blocked: bool,
}

/// A search and a wait that have ended, while the loop serves the events found.
///
/// It is made before any handler runs, because the handlers' time is not waiting (rule A10). It is measured
/// after them, because the peer of a hit waits for its handler. If it is not measured, for instance because a
/// handler panics, no policy observes this wait, and it does not count as the time of handlers.
///
/// ```
/// use core::time::Duration;
/// use aio_pollctl::{Pacing, Searched, Waited};
///
/// let us = Duration::from_micros;
/// let pacing = Pacing::new(true);
/// // A search ended at 5 us and has found nothing. The sleep after it ended at 35 us.
/// let waited = |ended_us: u64| Waited {
///     searched: Searched::not_at(ended_us * 1000),
///     blocked: true,
///     ..Waited::default()
/// };
/// let ended = pacing.ended(waited(5), || 35_000);
/// // ... handlers run for 70 us
/// let seen = ended.measure();
/// assert_eq!((seen.elapsed, seen.busy), (us(30), us(0)));
/// let next = pacing.ended(waited(105), || 106_000).measure();
/// assert_eq!((next.elapsed, next.busy), (us(1), us(70)));
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "dropped, it shows nothing to the policy"]
pub struct EndedWait {
    waited: Waited,
    /// The time at which the wait ended. Unknown for a hit in the very first round.
    at_ns: u64,
    /// The time at which the wait before it ended, if known.
    before_ns: Option<u64>,
}

impl Pacing {
    /// Records that an iteration has searched and waited. `now_ns` reads the loop's clock; it is called
    /// unless the search has found work.
    #[inline]
    pub fn ended(&self, waited: Waited, now_ns: impl FnOnce() -> u64) -> EndedWait {
        let Searched { hit, ended_ns, .. } = waited.searched;
        let at_ns = if hit { ended_ns.unwrap_or(0) } else { now_ns() };
        let mut before_ns = None;
        if ended_ns.is_some() {
            self.contention(Contention::waited);
            before_ns = self.waited_until_ns.replace(Some(at_ns));
        }
        EndedWait {
            waited,
            at_ns,
            before_ns,
        }
    }
}

impl EndedWait {
    /// A search without a time limit whose first round has found work.
    pub const AT_ONCE: Self = Self {
        waited: Waited {
            searched: Searched {
                hit: true,
                spun: Duration::ZERO,
                ended_ns: None,
            },
            timeout: None,
            blocked: false,
        },
        at_ns: 0,
        before_ns: None,
    };

    /// Returns the observation for the policy.
    #[inline(always)]
    #[must_use]
    pub fn measure(self) -> Iteration {
        let Waited {
            searched, timeout, ..
        } = self.waited;
        if searched.hit && searched.ended_ns.is_none() && timeout.is_none() {
            // Most hits are found in the very first round, for which no clock was read.
            Iteration::new(Duration::ZERO, Duration::ZERO, false, true)
        } else {
            self.measure_time()
        }
    }

    #[inline(never)]
    fn measure_time(self) -> Iteration {
        let Waited {
            searched: Searched { hit, spun, ended_ns },
            timeout,
            blocked,
        } = self.waited;
        let seen = match ended_ns {
            None => Iteration::new(Duration::ZERO, Duration::ZERO, blocked, hit),
            Some(ended_ns) => {
                let since = |later_ns: u64, ns: u64| Duration::from_nanos(later_ns.saturating_sub(ns));
                let busy = self.before_ns.map_or(Duration::ZERO, |before_ns| {
                    since(ended_ns, before_ns).saturating_sub(spun)
                });
                let elapsed = spun + since(self.at_ns, ended_ns);
                Iteration::new(elapsed, spun, blocked, hit).with_busy(busy)
            }
        };
        match timeout {
            Some(deadline) => seen.with_deadline(deadline, seen.elapsed >= deadline),
            None => seen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    /// Returns a sleep after a search in vain for `spun`, which ended at `ended_us`.
    fn slept(spun: u64, ended_us: u64, timeout: Option<Duration>) -> Waited {
        let searched = Searched {
            spun: us(spun),
            ..Searched::not_at(ended_us * 1000)
        };
        Waited {
            searched,
            timeout,
            blocked: true,
        }
    }

    #[test]
    fn a6_a10_a_wait_is_measured_without_the_time_of_handlers() {
        let pacing = Pacing::new(true);
        let first = pacing.ended(slept(5, 100, None), || 130_000).measure();
        assert_eq!((first.elapsed, first.spun, first.busy), (us(35), us(5), us(0)));
        // Handlers ran for 70 us, until the search began.
        let second = pacing.ended(slept(10, 210, Some(us(15))), || 220_000);
        let second = second.measure();
        assert_eq!((second.elapsed, second.busy), (us(20), us(70)));
        assert_eq!((second.deadline, second.timed_out), (Some(us(15)), true));
        let searched = Searched {
            hit: true,
            ..Searched::default()
        };
        for timeout in [None, Some(us(9))] {
            let hit = Waited {
                searched,
                timeout,
                blocked: false,
            };
            let at_once = pacing.ended(hit, || unreachable!("no clock is read")).measure();
            assert_eq!(
                (at_once.elapsed, at_once.hit, at_once.blocked),
                (us(0), true, false)
            );
            assert_eq!((at_once.deadline, at_once.timed_out), (timeout, false));
        }
        assert_eq!(
            EndedWait::AT_ONCE.measure(),
            Iteration::new(us(0), us(0), false, true)
        );
    }

    #[test]
    fn a10_a_wait_that_is_not_shown_to_the_policy_is_no_time_of_handlers() {
        let pacing = Pacing::new(true);
        for round in 0..2 {
            let began_us = round * 10_000;
            let _not_shown = pacing.ended(slept(5, began_us + 100, None), || (began_us + 1000) * 1000);
            let _not_shown = EndedWait::AT_ONCE;
            // Handlers ran for 70 us.
            let waited = slept(10, began_us + 1080, None);
            let seen = pacing.ended(waited, || (began_us + 9990) * 1000).measure();
            assert_eq!((seen.elapsed, seen.busy), (us(8920), us(70)), "{round}");
        }
    }

    /// A hit ends the wait at the end of the search.
    #[test]
    fn a10_after_a_hit_handlers_run_from_the_end_of_the_search() {
        let pacing = Pacing::new(true);
        let mut hit = slept(4, 10, None);
        (hit.searched.hit, hit.blocked) = (true, false);
        let seen = pacing.ended(hit, || unreachable!("no clock is read")).measure();
        assert_eq!((seen.elapsed, seen.spun, seen.hit), (us(4), us(4), true));
        let next = pacing.ended(slept(2, 40, None), || 50_000).measure();
        assert_eq!((next.elapsed, next.busy), (us(12), us(28)));
    }
}
