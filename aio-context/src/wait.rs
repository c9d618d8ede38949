//! Waiting for other threads while the loop goes on: [`Context::wait_while`], [`Context::run_on`] and [`Remote::run_and_wait`]
//! (rules W1 to W3).

use std::io;
use std::time::Duration;

use aio_notify::reply;

use crate::remote::Remote;
use crate::sync::faulty;
use crate::{Context, Gone, Wait};

impl Context {
    /// Polls until `condition` returns `false`. Returns `true` if it had to wait. Code that changes the data
    /// of the condition calls [`Remote::kick`] afterwards, from any thread.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    #[doc(alias = "AIO_WAIT_WHILE")]
    pub fn wait_while(&self, mut condition: impl FnMut() -> bool) -> io::Result<bool> {
        let mut waited = false;
        self.wait_in_turn(&[], || {
            let waits = condition();
            waited |= waits;
            waits
        })?;
        Ok(waited)
    }

    /// Runs `job` once on another context and waits for its result, while this context goes on polling: two
    /// contexts can wait for each other. If `other` is this very context, the job runs at once.
    ///
    /// # Errors
    /// [`Gone`], with the reason, if the other context is gone, goes away before the job is done, or the job
    /// panics; or if this context cannot be polled any longer.
    #[doc(alias = "aio_wait_bh_oneshot")]
    pub fn run_on<R: Send + 'static>(
        &self,
        other: &Remote,
        job: impl FnOnce(&Self) -> R + Send + 'static,
    ) -> Result<R, Gone> {
        if other.is_same(&self.remote()) {
            return Ok(job(self));
        }
        self.wait_for(other, &[], job)
    }

    /// Runs `job` on another context, and polls this context and `others`, which belong to this thread too,
    /// until it is done.
    pub(crate) fn wait_for<R: Send + 'static>(
        &self,
        other: &Remote,
        others: &[Self],
        job: impl FnOnce(&Self) -> R + Send + 'static,
    ) -> Result<R, Gone> {
        let waiter = self.remote();
        let (sender, result) = reply(move || waiter.kick());
        other.run(move |cx| sender.send(job(cx)))?;
        self.wait_in_turn(others, || result.is_pending())
            .map_err(|_| Gone::CannotWait)?;
        result.take().ok_or(Gone::CannotWait)?.map_err(Gone::of)
    }

    /// As [`wait_while`](Self::wait_while), but also polls `others` in turn. A kick wakes only this context
    /// at once.
    fn wait_in_turn(&self, others: &[Self], mut condition: impl FnMut() -> bool) -> io::Result<()> {
        let longest = if others.is_empty() { Wait::Block } else { TURN };
        faulty!(CountedLate: if condition() { let _late = self.0.mailbox.wait_guard(); self.poll(longest)?; });
        let _guard = self.0.mailbox.wait_guard();
        while condition() {
            for other in others {
                other.poll(Wait::NoBlock)?;
            }
            self.poll(longest)?;
        }
        Ok(())
    }
}

/// The time for which one of several contexts of a thread waits before the others have their turn.
const TURN: Wait = Wait::AtMost(Duration::from_millis(1));
