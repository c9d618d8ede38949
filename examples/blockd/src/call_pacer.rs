//! [`CallPacer`]: decides whether to call the driver within a batch or after it.
//!
//! A call costs the queue a system call that wakes a thread. A driver that sleeps wakes up some microseconds
//! after the call, and is idle until then: the later the call, the longer. So the same prices apply as for
//! polling. A late call costs the driver the duration of the rest of the batch. An early call can cost one
//! call more, because the driver may sleep again before the end of the batch. So an early call pays if the
//! rest of the batch takes longer than a call.
//!
//! | driver | calls within a batch | at its end |
//! |---|---|---|
//! | spins: it wanted no call in the last turn | none, and nothing is read of its memory for it | if it wants one |
//! | sleeps, and the rest of the batch takes at least as long as a call | after each group of completions, if it wants one | if it wants one |
//! | sleeps, and the rest is shorter | none | if it wants one |

use std::time::Duration;

/// The lowest price of a call: a system call that wakes no thread.
const LEAST_PRICE_NS: u32 = 300;
/// A timed turn has the weight of one part in two to this power in the mean.
const WEIGHT: u32 = 2;

/// Decides whether the driver is called now or after the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallPacer {
    price_ns: u32,
    /// The duration of a request in nanoseconds; 0 while it is unknown.
    request_ns: u32,
    /// Set if the driver wanted a call in the last turn.
    sleeps: bool,
    /// Set if the driver wanted a call in this turn.
    called: bool,
}

impl CallPacer {
    /// Creates a pacer for a driver that is not known to sleep. `price` is the duration of a call; the lowest
    /// price is that of a system call that wakes no thread.
    pub(crate) fn new(price: Duration) -> Self {
        Self {
            price_ns: to_u32(price.as_nanos()).max(LEAST_PRICE_NS),
            request_ns: 0,
            sleeps: false,
            called: false,
        }
    }

    /// Returns `true` if the caller is to check now whether the driver wants a call, with `left` requests of
    /// the batch remaining.
    #[inline]
    pub(crate) fn is_due(self, left: u16) -> bool {
        self.sleeps && left > 0 && u64::from(left) * u64::from(self.request_ns) >= u64::from(self.price_ns)
    }

    /// Records that the driver wanted a call, and was called.
    #[inline]
    pub(crate) fn called(&mut self) {
        self.called = true;
    }

    /// Records the end of the turn.
    #[inline]
    pub(crate) fn turn_ended(&mut self) {
        self.sleeps = self.called;
        self.called = false;
    }

    /// Records the duration of a timed turn with `requests` requests.
    pub(crate) fn took(&mut self, time: Duration, requests: u64) {
        if requests == 0 {
            return;
        }
        let each_ns = to_u32(time.as_nanos() / u128::from(requests));
        self.request_ns = match self.request_ns {
            0 => each_ns,
            mean => mean - (mean >> WEIGHT) + (each_ns >> WEIGHT),
        };
    }
}

fn to_u32(ns: u128) -> u32 {
    u32::try_from(ns).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    /// Returns a pacer after turns with and without a call, for requests of 200 ns and calls of 3 us.
    fn after(turns: &[bool]) -> CallPacer {
        let mut pacer = CallPacer::new(3 * US);
        pacer.took(2 * US, 10);
        for called in turns {
            if *called {
                pacer.called();
            }
            pacer.turn_ended();
        }
        pacer
    }

    #[test]
    fn a11_a_driver_that_spins_is_never_called_within_a_batch() {
        for pacer in [after(&[]), after(&[false]), after(&[true, false])] {
            assert!((0..=u16::MAX).all(|left| !pacer.is_due(left)), "{pacer:?}");
        }
    }

    #[test]
    fn a11_a_driver_that_sleeps_is_called_while_the_rest_takes_longer_than_a_call() {
        let pacer = after(&[true]);
        let due: Vec<u16> = (0..=32).filter(|left| pacer.is_due(*left)).collect();
        assert_eq!(due, (15..=32).collect::<Vec<_>>(), "15 requests take 3 us");
    }

    #[test]
    fn a11_slow_requests_complete_one_by_one_for_a_driver_that_sleeps() {
        let mut pacer = after(&[true]);
        (0..100).for_each(|_| pacer.took(100 * US, 1));
        assert!(pacer.is_due(1) && !pacer.is_due(0));
    }

    #[test]
    fn a11_without_a_timed_turn_or_a_price_it_is_careful() {
        let mut pacer = CallPacer::new(3 * US);
        pacer.called();
        pacer.turn_ended();
        assert!(!pacer.is_due(u16::MAX), "how long a request takes is not known");
        pacer.took(US, 0);
        assert!(!pacer.is_due(u16::MAX));
        let mut free = CallPacer::new(Duration::ZERO);
        free.took(US, 10);
        free.called();
        free.turn_ended();
        assert!(
            free.is_due(3) && !free.is_due(2),
            "a system call costs 300 ns in any case"
        );
        free.took(Duration::MAX, 1);
        assert!(free.is_due(1));
    }

    #[test]
    fn a11_the_number_of_calls_in_a_batch_is_bounded_by_its_length() {
        // The driver sleeps again after each completion. One call for each group of eight requests costs no
        // more than the requests.
        let pacer = after(&[true]);
        let calls = (0..32u16)
            .filter(|at| (at + 1) % 8 == 0 && pacer.is_due(31 - at))
            .count();
        assert_eq!(calls, 2, "after 8 and 16; the last one is at the end");
    }
}
