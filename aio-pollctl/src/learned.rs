//! [`RegretLadder`]: the policies `learned` and `learned-2`. They choose the polling time that would recently
//! have cost least, after waits similar to the last ones.

use core::time::Duration;

use crate::rcl::{Counts, Rcl};
use crate::{Effective, Iteration, PollParams, PollPolicy};

/// A policy that learns the cost of each of eight polling times, in `BANKS` banks.
///
/// The last waits, a moving mean of waits, and the handler of the last event select the bank. [`Learned`] uses the last wait,
/// [`Learned2`] the last two.
///
/// # Examples
/// ```
/// use core::time::Duration;
/// use aio_pollctl::{Iteration, PollParams, PollPolicy, RegretLadder};
///
/// let us = Duration::from_micros;
/// let mut policy = RegretLadder::<64>::new(PollParams::up_to(us(50)));
/// assert_eq!((policy.name(), RegretLadder::<256>::new(PollParams::OFF).name()), ("learned", "learned-2"));
/// for _ in 0..100 {
///     policy.observe(Iteration::new(us(2), us(2), false, true));
/// }
/// assert!(policy.budget() >= us(2));
/// ```
#[derive(Clone, Debug)]
pub struct RegretLadder<const BANKS: usize>(Rcl<BANKS>);

/// The policy `learned`, the default: it uses the last wait and a fast mean.
///
/// # Examples
/// ```
/// use core::time::Duration;
/// use aio_pollctl::{Iteration, Learned, PollParams, PollPolicy, WakeCost};
///
/// let us = Duration::from_micros;
/// let mut policy = Learned::new(PollParams::unlimited().with_wake(WakeCost::of_total(us(10))));
/// assert_eq!(policy.budget(), us(10));
/// // Events come 900 us apart: polling does not pay.
/// for _ in 0..100 {
///     policy.observe(Iteration::new(us(908), policy.budget(), true, false));
/// }
/// assert_eq!(policy.budget(), us(0));
/// ```
pub type Learned = RegretLadder<64>;

/// The policy `learned-2`: it uses the last two waits and a slower mean. It finds longer patterns and learns more slowly.
///
/// # Examples
/// ```
/// use core::time::Duration;
/// use aio_pollctl::{Iteration, Learned2, PollParams, PollPolicy, WakeCost};
///
/// let us = Duration::from_micros;
/// let mut policy = Learned2::new(PollParams::unlimited().with_wake(WakeCost::of_total(us(10))));
/// // Two short waits and a long one, again and again. The policy learns to poll for the short ones only.
/// let mut budgets = [us(0); 3];
/// for _ in 0..400 {
///     for (budget, wait) in budgets.iter_mut().zip([us(3), us(3), us(900)]) {
///         *budget = policy.budget();
///         let slept = wait > *budget;
///         let late = if slept { us(8) } else { us(0) };
///         policy.observe(Iteration::new(wait + late, wait.min(*budget), slept, !slept));
///     }
/// }
/// assert!(budgets[0] >= us(3) && budgets[1] >= us(3));
/// assert_eq!(budgets[2], us(0));
/// ```
pub type Learned2 = RegretLadder<256>;

impl<const BANKS: usize> RegretLadder<BANKS> {
    const NAME: &'static str = if BANKS == 64 { "learned" } else { "learned-2" };

    /// Makes the policy. It polls for the break-even time at first. `BANKS` is 64 or 256; other values do not compile.
    #[must_use]
    pub fn new(params: PollParams) -> Self {
        const {
            assert!(
                BANKS == 64 || BANKS == 256,
                "64 banks look back one wait, 256 two"
            )
        };
        Self(Rcl::new(params))
    }

    /// Returns the policy's counters.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.0.counts()
    }
}

impl<const BANKS: usize> PollPolicy for RegretLadder<BANKS> {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn budget(&self) -> Duration {
        self.0.budget()
    }

    fn budget_until(&self, deadline: Option<Duration>) -> Duration {
        self.0.budget_until(deadline)
    }

    fn observe(&mut self, seen: Iteration) {
        self.0.observe(&seen);
    }

    fn reset(&mut self, params: PollParams) {
        *self = Self::new(params);
    }

    fn reprice(&mut self, params: PollParams) {
        self.0.reprice(params);
    }

    fn effective(&self) -> Effective {
        self.0.effective(self.name())
    }
}
