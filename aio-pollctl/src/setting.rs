//! [`PollSetting`]: polling parameters that other threads set, in words.

use crate::{PollParams, WakeCost};

/// Polling parameters, with the number of their setting. If the number has changed, a loop that adopts them
/// starts anew. Otherwise only the measured cost of a sleep has changed.
///
/// In [words](Self::to_words), the number is the last one. If words are stored from the first to the last and
/// loaded the other way round, a loop that reads a number also reads its parameters.
///
/// ```
/// use core::time::Duration;
/// use aio_pollctl::{PollParams, PollSetting, WakeCost};
///
/// let [estimate, cost] = [8, 9].map(|us| WakeCost::of_total(Duration::from_micros(us)));
/// let params = PollParams::up_to(Duration::from_micros(50)).with_measured_wake(estimate);
/// let setting = PollSetting::new(params);
/// let refined = setting.refine_wake(cost).expect("the cost was not given");
/// assert_eq!((refined.params.wake, refined.number), (cost, setting.number));
/// assert_ne!(refined.with(PollParams::OFF).number, setting.number);
/// assert_eq!(PollSetting::from_words(refined.to_words()), refined);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PollSetting {
    /// The parameters.
    pub params: PollParams,
    /// The number of the setting, from 1 on; it wraps around.
    pub number: u64,
}

impl PollSetting {
    /// The number of words of [`to_words`](Self::to_words).
    pub const WORDS: usize = PollParams::WORDS + 1;

    /// Makes the first setting.
    #[must_use]
    pub const fn new(params: PollParams) -> Self {
        Self { params, number: 1 }
    }

    /// Makes the next setting, with other parameters.
    #[must_use]
    pub const fn with(self, params: PollParams) -> Self {
        let number = self.number.wrapping_add(1);
        Self { params, number }
    }

    /// Makes the same setting with another cost of a sleep. Returns `None` if the cost is the same, or if it
    /// was given and not [measured](PollParams::with_measured_wake).
    #[must_use]
    pub fn refine_wake(self, cost: WakeCost) -> Option<Self> {
        let is_news = self.params.wake_is_estimate && self.params.wake != cost;
        is_news.then(|| Self {
            params: self.params.with_measured_wake(cost),
            ..self
        })
    }

    /// Encodes the setting as [`PollParams::to_words`] encodes the parameters.
    #[must_use]
    pub fn to_words(self) -> [u64; Self::WORDS] {
        let mut words = [self.number; Self::WORDS];
        words[..PollParams::WORDS].copy_from_slice(&self.params.to_words());
        words
    }

    /// Decodes the words of [`to_words`](Self::to_words). Any words are a valid setting.
    #[must_use]
    pub fn from_words(words: [u64; Self::WORDS]) -> Self {
        let [params @ .., number] = words;
        Self {
            params: PollParams::from_words(params),
            number,
        }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    #[test]
    fn a12_a_measured_cost_of_a_sleep_is_refined_and_a_given_one_is_kept() {
        let wake = |us| WakeCost::of_total(Duration::from_micros(us));
        let params = PollParams::up_to(Duration::from_micros(50)).with_measured_wake(wake(10));
        let setting = PollSetting::new(params);
        let refined = setting.refine_wake(wake(20)).expect("it was measured");
        assert_eq!(refined.params, params.with_measured_wake(wake(20)));
        assert_eq!((refined.number, refined.refine_wake(wake(20))), (1, None));
        let given = refined.with(params.with_wake(wake(30)));
        assert_eq!((given.number, given.params.wake), (2, wake(30)));
        assert_eq!(given.refine_wake(wake(20)), None);
    }

    #[test]
    fn a6_a_setting_is_decoded_as_it_was_encoded_and_its_number_comes_last() {
        let mut setting = PollSetting::new(PollParams::up_to(Duration::from_micros(50)));
        setting.number = u64::MAX;
        assert_eq!(setting.to_words().last(), Some(&u64::MAX));
        assert_eq!(PollSetting::from_words(setting.to_words()), setting);
        assert_eq!(setting.with(PollParams::OFF).number, 0);
    }
}
