//! Growing and shrinking, shared by `qemu-2020`, `qemu-10`, `qemu-weighted` and `kvm`.

use crate::params::or_default;
use crate::{Effective, PollParams};

/// The first polling time of the original after zero, in nanoseconds.
pub(crate) const FIRST_NS: u64 = 4000;

/// A divisor that is fixed at set-up, so that divisions by it are multiplications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Divisor {
    by: u64,
    /// 2^64 / `by`, rounded down (up to one less).
    inverse: u64,
}

impl Divisor {
    /// Makes a divisor; 0 divides everything to zero.
    pub(crate) const fn new(by: u64) -> Self {
        let inverse = match u64::MAX.checked_div(by) {
            Some(inverse) => inverse,
            None => 0,
        };
        Self { by, inverse }
    }

    /// Returns `value / by`, rounded down, exactly.
    pub(crate) const fn divide(&self, value: u64) -> u64 {
        if self.by == 0 {
            return 0;
        }
        let mut quotient = ((value as u128 * self.inverse as u128) >> 64) as u64;
        while value - quotient * self.by >= self.by {
            quotient += 1; // at most twice
        }
        quotient
    }

    /// Returns the value for [`Effective`]: `u64::MAX` for a divisor of 0.
    pub(crate) const fn shown(&self) -> u64 {
        if self.by == 0 { u64::MAX } else { self.by }
    }
}

/// The original's rule for one polling time (rule A6). The arithmetic saturates where the original's overflows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Growth {
    pub(crate) max_ns: u64,
    pub(crate) grow: u64,
    pub(crate) shrink: Divisor,
}

impl Growth {
    pub(crate) fn new(params: PollParams) -> Self {
        Self {
            max_ns: params.max_ns(),
            grow: u64::from(or_default(params.grow, 2)),
            shrink: Divisor::new(u64::from(params.shrink)),
        }
    }

    pub(crate) const fn effective(&self, policy: &'static str) -> Effective {
        Effective {
            grow: Some(self.grow),
            shrink: Some(self.shrink.shown()),
            ..Effective::new(policy).with_max_ns(self.max_ns)
        }
    }

    /// Returns the polling time after a wait of `block_ns`, which includes polling.
    pub(crate) fn next(&self, ns: u64, block_ns: u64) -> u64 {
        if block_ns <= ns {
            return ns; // polling covered the wait, or would have
        }
        if block_ns > self.max_ns {
            return self.shrink.divide(ns);
        }
        if ns < self.max_ns && block_ns < self.max_ns {
            let grown = if ns == 0 {
                FIRST_NS
            } else {
                ns.saturating_mul(self.grow)
            };
            return grown.min(self.max_ns);
        }
        ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a6_dividing_by_multiplying_is_exact() {
        let values = [0, 1, 2, 3, 4000, 32_768, u64::MAX / 3, u64::MAX - 1, u64::MAX];
        for by in [1, 2, 3, 5, 7, 10, 4000, 65_535, u64::from(u32::MAX), u64::MAX] {
            for value in values.into_iter().chain([by - 1, by, by.saturating_add(1)]) {
                assert_eq!(Divisor::new(by).divide(value), value / by, "{value} / {by}");
            }
        }
        assert_eq!(Divisor::new(0).divide(99), 0);
    }
}
