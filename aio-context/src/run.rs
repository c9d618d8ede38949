//! [`Context::run`] and the functions that stop it (rule D10).

use std::io;
use std::time::Instant;

use aio_timers::Moment;

use crate::{ClockId, Context, Remote, Wait};

impl Context {
    /// Polls until [`stop`](Self::stop) is called, by a callback or through a [`Remote`] by any thread.
    ///
    /// All work that was ready in the last iteration is done before this returns. A stop that comes while no
    /// `run` is running ends the next one, before it polls: so a thread may stop a `run` that has not begun
    /// yet. One stop ends one `run`: the innermost one if they are nested in callbacks.
    ///
    /// ```
    /// use std::time::Duration;
    /// use aio_context::Context;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let cx = Context::new()?;
    /// cx.after(Duration::from_millis(1), |cx| cx.stop());
    /// cx.run()?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`poll`](Self::poll). A pending stop stays pending.
    #[doc(alias = "g_main_loop_run")]
    pub fn run(&self) -> io::Result<()> {
        while !self.0.mailbox.take_stop() {
            self.poll(Wait::Block)?;
        }
        Ok(())
    }

    /// Makes [`run`](Self::run) return.
    #[doc(alias = "g_main_loop_quit")]
    pub fn stop(&self) {
        self.remote().stop();
    }

    /// Returns the moment of [`ClockId::Monotonic`] that is as far from now as `instant` is, for [`Wait::Until`] and
    /// [`Timer::arm_at`](crate::Timer::arm_at): never an earlier one. An instant before the start of the clock becomes
    /// [`Moment::ZERO`].
    #[must_use]
    pub fn moment(&self, instant: Instant) -> Moment {
        // The order matters: time that passes between the two calls makes the moment later.
        let before = Instant::now();
        let now = self.now(ClockId::Monotonic);
        match instant.checked_duration_since(before) {
            Some(left) => now.saturating_add(left),
            None => now.saturating_sub(before.duration_since(instant)),
        }
    }
}

impl Remote {
    /// Makes [`Context::run`] return, and wakes the loop for it. Never blocks. Has no effect if the context
    /// is gone.
    pub fn stop(&self) {
        self.mailbox.stop();
    }

    /// Returns `true` if this process is a forked child of the one that made the context. It may then only
    /// drop values that belong to the context: see [the limitations](crate#limitations).
    #[must_use]
    pub fn is_inherited(&self) -> bool {
        !self.mailbox.process().is_here()
    }
}
