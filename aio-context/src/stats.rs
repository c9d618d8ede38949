//! [`Shared`]: the figures of a loop, which other threads read without stopping it, and its polling
//! parameters.
//!
//! Only the home thread writes figures, except those of the cost of a sleep. Any thread sets parameters.

use std::cell::Cell;
use std::sync::Arc;

use aio_backend::Token;
use aio_notify::{HandlerCounters, LoopCounters, Published, WeakMap};
use aio_pollctl::{PollParams, PollSetting};

/// The data that a context shares with other threads, besides its mailbox.
pub(crate) struct Shared {
    /// The polling parameters, as a [`PollSetting`].
    pub(crate) params: Published<{ PollSetting::WORDS }>,
    pub(crate) counters: LoopCounters,
    /// The measured handlers.
    pub(crate) measured: WeakMap<Token, HandlerCounters>,
}

impl Shared {
    pub(crate) fn new(params: PollParams) -> Self {
        Self {
            params: Published::new(PollSetting::new(params).to_words()),
            counters: LoopCounters::default(),
            measured: WeakMap::default(),
        }
    }

    /// Replaces the polling parameters by the result of `change`, unless that is `None`. Returns `true` if it
    /// has replaced them. The loop adopts them in its next iteration.
    pub(crate) fn update(&self, change: impl FnOnce(PollSetting) -> Option<PollSetting>) -> bool {
        let change = |words| change(PollSetting::from_words(words)).map(PollSetting::to_words);
        self.params.update(change)
    }

    /// Returns the polling parameters, at least as new as their version; see [`Published`].
    pub(crate) fn setting(&self) -> PollSetting {
        PollSetting::from_words(self.params.load())
    }
}

/// The state for timing the callbacks of one handler.
pub(crate) struct Timing {
    pub(crate) counters: Arc<HandlerCounters>,
    /// The number of the limit for which its slowness was last reported.
    pub(crate) reported_for: Cell<Option<u32>>,
}
