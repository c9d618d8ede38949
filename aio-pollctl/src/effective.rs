//! [`Effective`]: the values a policy works with, after it has replaced zeros by defaults.

use core::fmt;
use core::time::Duration;

use crate::PollParams;
use crate::params::saturating_ns;

/// The values a policy works with. `None` means that the policy does not use the value. `Display` prints them as options.
///
/// # Examples
/// ```
/// use core::time::Duration;
/// use aio_pollctl::{PollParams, PollPolicy, Qemu2020};
///
/// let policy = Qemu2020::new(PollParams::up_to(Duration::from_micros(32)));
/// let effective = policy.effective();
/// assert_eq!((effective.max_ns, effective.grow, effective.cpu_price), (Some(32_000), Some(2), None));
/// assert!(effective.to_string().starts_with("poll-policy=qemu-2020 poll-max-ns=32000 poll-grow=2 "));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Effective {
    /// The name of the policy.
    pub policy: &'static str,
    /// `poll-max-ns`: the longest polling time before one wait. `u64::MAX` means no limit.
    pub max_ns: Option<u64>,
    /// `poll-grow`.
    pub grow: Option<u64>,
    /// `poll-shrink`. `u64::MAX` means that the polling time drops to zero at once.
    pub shrink: Option<u64>,
    /// `poll-weight`.
    pub weight: Option<u32>,
    /// The wake-up latency that the policy assumes.
    pub wake_latency_ns: Option<u64>,
    /// The polling time that costs as much as a sleep.
    pub break_even_ns: Option<u64>,
    /// `poll-cpu-price` in percent.
    pub cpu_price: Option<u32>,
    /// `poll-cpu-max` in percent.
    pub cpu_max: Option<u32>,
}

impl Effective {
    /// Makes the values of a policy that uses none of them.
    #[must_use]
    pub const fn new(policy: &'static str) -> Self {
        Self {
            policy,
            max_ns: None,
            grow: None,
            shrink: None,
            weight: None,
            wake_latency_ns: None,
            break_even_ns: None,
            cpu_price: None,
            cpu_max: None,
        }
    }

    /// Sets the longest polling time.
    #[must_use]
    pub const fn with_max_ns(self, max_ns: u64) -> Self {
        Self {
            max_ns: Some(max_ns),
            ..self
        }
    }

    /// Makes the values of a policy that weighs polling against the cost of a sleep, and polls for at most
    /// `longest`.
    pub(crate) fn with_cost(policy: &'static str, params: &PollParams, longest: Duration) -> Self {
        Self {
            wake_latency_ns: Some(saturating_ns(params.wake_or_assumed().latency)),
            break_even_ns: Some(params.break_even_ns()),
            cpu_price: Some(params.price_or_default()),
            ..Self::new(policy).with_max_ns(saturating_ns(longest))
        }
    }
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "poll-policy={}", self.policy)?;
        let wide = [
            ("poll-max-ns", self.max_ns, "unlimited"),
            ("poll-grow", self.grow, "unlimited"),
            ("poll-shrink", self.shrink, "to zero"),
            ("poll-weight", self.weight.map(u64::from), ""),
            ("poll-cpu-price", self.cpu_price.map(u64::from), ""),
            ("poll-cpu-max", self.cpu_max.map(u64::from), ""),
            ("wake-latency-ns", self.wake_latency_ns, ""),
            ("break-even-ns", self.break_even_ns, ""),
        ];
        for (name, value, most) in wide {
            match value {
                Some(u64::MAX) => write!(f, " {name}={most}")?,
                Some(value) => write!(f, " {name}={value}")?,
                None => {}
            }
        }
        let mut unused = wide[..6]
            .iter()
            .filter(|(_, value, _)| value.is_none())
            .map(|row| row.0);
        if let Some(first) = unused.next() {
            write!(f, " (not used: {first}")?;
            unused.try_for_each(|name| write!(f, ", {name}"))?;
            f.write_str(")")?;
        }
        Ok(())
    }
}
