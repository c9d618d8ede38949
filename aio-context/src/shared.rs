//! [`Shared`]: polling parameters and figures, read and written by any thread.

use aio_notify::Published;
use aio_pollctl::{PollParams, PollSetting, WakeCost};

use crate::metrics::Measured;
use crate::stats::Counters;

/// What a context shares with other threads besides its mailbox.
pub(crate) struct Shared {
    /// The polling parameters, as a [`PollSetting`].
    pub(crate) params: Published<{ PollSetting::WORDS }>,
    pub(crate) counters: Counters,
    pub(crate) measured: Measured,
}

impl Shared {
    pub(crate) fn new(params: PollParams) -> Self {
        Self {
            params: Published::new(PollSetting::new(params).to_words()),
            counters: Counters::default(),
            measured: Measured::default(),
        }
    }

    /// Sets the polling parameters. The caller interrupts the loop afterwards.
    pub(crate) fn set_params(&self, params: PollParams) {
        self.update(|setting| Some(setting.with(params)));
    }

    /// Sets the cost of a sleep, if it was measured and not given. Returns whether it has changed. The loop adopts it in its next iteration.
    pub(crate) fn refine_wake(&self, cost: WakeCost) -> bool {
        self.update(|setting| setting.refine_wake(cost))
    }

    fn update(&self, change: impl FnOnce(PollSetting) -> Option<PollSetting>) -> bool {
        let change = |words| change(PollSetting::from_words(words)).map(PollSetting::to_words);
        self.params.update(change)
    }

    /// The polling parameters, as new as their version or newer; see [`Published`].
    pub(crate) fn setting(&self) -> PollSetting {
        PollSetting::from_words(self.params.load())
    }
}
