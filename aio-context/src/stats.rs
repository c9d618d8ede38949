//! [`Shared`]: the figures of a loop, which other threads read without stopping it, and its polling parameters.
//!
//! Only the home thread writes figures, but for those of the cost of a sleep. Any thread sets parameters.

use std::cell::Cell;
use std::sync::Arc;

use aio_backend::Token;
use aio_notify::{HandlerCounters, LoopCounters, Published, WeakMap};
use aio_pollctl::{PollParams, PollSetting};

/// What a context shares with other threads besides its mailbox.
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

    /// Sets the polling parameters to what `change` makes of them, unless that is `None`. Returns whether it has. The loop adopts them in its next
    /// iteration.
    pub(crate) fn update(&self, change: impl FnOnce(PollSetting) -> Option<PollSetting>) -> bool {
        let change = |words| change(PollSetting::from_words(words)).map(PollSetting::to_words);
        self.params.update(change)
    }

    /// The polling parameters, as new as their version or newer; see [`Published`].
    pub(crate) fn setting(&self) -> PollSetting {
        PollSetting::from_words(self.params.load())
    }
}

/// How the callbacks of one handler are timed.
pub(crate) struct Timing {
    pub(crate) counters: Arc<HandlerCounters>,
    /// The number of the limit that its slowness was reported for.
    pub(crate) reported_for: Cell<Option<u32>>,
}
