//! [`Random`]: random numbers for traces, the same on every machine for the same seed.

use std::f64::consts::TAU;

/// SplitMix64 (Steele, Lea, Flood 2014), with some distributions.
///
/// # Examples
/// ```
/// use aio_replay::Random;
///
/// let mut random = Random::new(7);
/// let waits: Vec<f64> = (0..1000).map(|_| random.exponential(5_000.0)).collect();
/// let mean = waits.iter().sum::<f64>() / 1000.0;
/// assert!((4_000.0..6_000.0).contains(&mean));
/// assert_eq!(Random::new(7).exponential(5_000.0), waits[0]);
/// ```
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts a sequence.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Starts a separate sequence for a name.
    #[must_use]
    pub fn named(seed: u64, name: &str) -> Self {
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, mix);
        let mut random = Self(seed ^ hash);
        random.bits();
        random
    }

    /// Returns 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a uniform number between 0 (exclusive) and 1.
    pub fn unit(&mut self) -> f64 {
        ((self.bits() >> 11) + 1) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Returns a uniform number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(end)) >> 64) as u64
    }

    /// Returns a uniform number from `low` (exclusive) to `high` (inclusive).
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Returns `true` with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() <= probability
    }

    /// Returns an exponential number with this mean, such as a gap of a Poisson process.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * self.unit().ln()
    }

    /// Returns a normal number with mean 0 and standard deviation 1.
    pub fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (TAU * self.unit()).cos()
    }

    /// Returns a log-normal number with this median.
    pub fn log_normal(&mut self, median: f64, sigma: f64) -> f64 {
        median * (sigma * self.normal()).exp()
    }

    /// Returns a Pareto number with the minimum `least`.
    pub fn pareto(&mut self, alpha: f64, least: f64) -> f64 {
        least * self.unit().powf(-1.0 / alpha)
    }
}
