//! [`Fixed`]: the same polling time before every wait. The policies to compare others with are of this kind.

use core::time::Duration;

use crate::{Iteration, PollParams, PollPolicy, WakeCost};

/// Polls for the same time before every wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed {
    name: &'static str,
    wanted: Duration,
    max: Duration,
}

impl Fixed {
    /// Always for `time`.
    #[must_use]
    pub const fn new(time: Duration) -> Self {
        Self::named("fixed", time)
    }

    /// Never.
    #[must_use]
    pub const fn never() -> Self {
        Self::named("never", Duration::ZERO)
    }

    /// For as long as allowed.
    #[must_use]
    pub const fn always() -> Self {
        Self::named("always", Duration::MAX)
    }

    /// For as long as a sleep costs: never worse than twice the best that could have been done (ski rental, Karlin, Manasse,
    /// McGeoch, Owicki 1990).
    #[must_use]
    pub const fn ski_rental(wake: WakeCost) -> Self {
        Self::named("ski-rental", Duration::from_nanos(wake.break_even_ns()))
    }

    const fn named(name: &'static str, wanted: Duration) -> Self {
        Self {
            name,
            wanted,
            max: Duration::ZERO,
        }
    }

    /// With a maximum already set.
    #[must_use]
    pub fn capped(mut self, params: PollParams) -> Self {
        self.reset(params);
        self
    }
}

impl PollPolicy for Fixed {
    fn name(&self) -> &'static str {
        self.name
    }

    fn budget(&self) -> Duration {
        self.wanted.min(self.max)
    }

    fn observe(&mut self, _: Iteration) {}

    fn reset(&mut self, params: PollParams) {
        self.max = params.max;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a1_the_maximum_is_kept() {
        let params = PollParams::up_to(Duration::from_micros(32));
        let wake = WakeCost::measured(Duration::from_micros(10), Duration::from_micros(2));
        for (policy, expected) in [
            (Fixed::never(), 0),
            (Fixed::always(), 32),
            (Fixed::new(Duration::from_micros(7)), 7),
            (Fixed::ski_rental(wake), 12),
        ] {
            assert_eq!(policy.budget(), Duration::ZERO, "off until there is a maximum");
            let policy = policy.capped(params);
            assert_eq!(
                policy.budget(),
                Duration::from_micros(expected),
                "{}",
                policy.name()
            );
        }
    }
}
