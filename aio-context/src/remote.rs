//! [`Remote`]: the handle to a context for other threads.

use std::sync::Arc;

use aio_notify::{Message, reply};
use aio_pollctl::{PollParams, WakeCost};

use crate::context::{Mailbox, all_at_home, at_home};
use crate::macros::impl_debug;
use crate::stats::Shared;
use crate::{Context, Gone, Stats};

/// A handle to a context for any thread; it does not keep the context alive.
///
/// ```
/// use std::cell::Cell;
/// use std::rc::Rc;
/// use aio_context::{Context, Wait};
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// let remote = cx.remote();
/// let thread = std::thread::spawn(move || {
///     // A closure for the home thread, and one whose result this thread waits for.
///     let sent = remote.run(|cx| cx.stop());
///     sent.and_then(|()| remote.run_and_wait(|_cx| 6 * 7))
/// });
/// cx.run()?; // until the first closure calls `stop`
/// let gone_or_done = loop {
///     if thread.is_finished() {
///         break thread.join().expect("it does not panic");
///     }
///     cx.poll(Wait::AtMost(std::time::Duration::from_millis(1)))?;
/// };
/// assert_eq!(gone_or_done, Ok(42));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Remote {
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) shared: Arc<Shared>,
}

impl Context {
    /// Returns a handle for other threads.
    #[must_use]
    pub fn remote(&self) -> Remote {
        Remote {
            mailbox: self.0.mailbox.clone(),
            shared: self.0.shared.clone(),
        }
    }

    /// Sets the polling parameters. The policy restarts with them.
    pub fn set_poll_params(&self, params: PollParams) {
        self.remote().set_poll_params(params);
    }
}

impl Remote {
    /// Runs `job` once on the home thread, in the next iteration, after everything that was scheduled before
    /// it.
    ///
    /// If the context is dropped before that, the job is dropped without having run. A job that must report
    /// this does so in the `Drop` of a value that it owns.
    ///
    /// # Errors
    /// [`Gone`] if the context is already gone.
    #[doc(alias = "aio_bh_schedule_oneshot")]
    pub fn run(&self, job: impl FnOnce(&Context) + Send + 'static) -> Result<(), Gone> {
        let mut job = Some(job);
        let once = move |cx: &Context| {
            if let Some(job) = job.take() {
                job(cx);
            }
        };
        let sent = self.mailbox.send(Box::new(Message::new(once)));
        sent.map_err(|_| Gone::of(self.mailbox.lost()))
    }

    /// Runs `job` on the home thread and waits for its result. If this is the home thread, the job runs at
    /// once, in place.
    ///
    /// If the calling thread is the home of no context, it sleeps meanwhile. Any other thread goes on polling
    /// its contexts, as with [`Context::run_on`], so that threads can wait for each other, also in a circle:
    /// their handlers and bottom halves are called inside this call. A thread with several contexts polls one
    /// of them, and the others every millisecond.
    ///
    /// # Errors
    /// [`Gone`], with the reason, if the context is gone, goes away before the job is done, or the job
    /// panics.
    pub fn run_and_wait<R: Send + 'static>(
        &self,
        job: impl FnOnce(&Context) -> R + Send + 'static,
    ) -> Result<R, Gone> {
        if let Some(cx) = at_home(&self.mailbox) {
            return Ok(job(&cx));
        }
        if self.mailbox.home().is_here() {
            // The thread ends, and its table is gone already: no thread polls any more, so no answer would
            // come.
            return Err(Gone::of(self.mailbox.lost()));
        }
        let all = all_at_home();
        if let Some((cx, others)) = all.split_first() {
            return cx.wait_for(self, others, job);
        }
        let (sender, result) = reply(|| ());
        self.run(move |cx| sender.send(job(cx)))?;
        result.wait().map_err(Gone::of)
    }

    /// Sets the polling parameters and wakes the loop. The policy restarts with them.
    #[doc(alias = "aio_context_set_poll_params")]
    pub fn set_poll_params(&self, params: PollParams) {
        self.shared.update(|setting| Some(setting.with(params)));
        self.mailbox.interrupt();
    }

    /// Sets the cost of a sleep, if the present one was [measured](PollParams::with_measured_wake) and not
    /// given. The policy adopts it in the next iteration and keeps its measurements. The loop is not woken
    /// for it. Returns `true` if the cost has changed.
    ///
    /// `WakeCalibration` of the crate `aio-sources` measures it.
    pub fn refine_wake_cost(&self, cost: WakeCost) -> bool {
        self.shared.update(|setting| setting.refine_wake(cost))
    }

    /// Records how the cost of a sleep was measured, for [`Stats::wake_batches`] and
    /// [`Stats::wake_spread_percent`]: the number of batches of sleeps, and the spread between them.
    pub fn wake_cost_measured(&self, batches: u64, spread_percent: u32) {
        let counters = &self.shared.counters;
        counters.wake_batches.set(batches);
        counters.wake_spread_percent.set(spread_percent.into());
    }

    /// Makes every [`Context::wait_while`] of this context read its condition again. Call it after the
    /// change. It is nearly free if there is none.
    #[doc(alias = "aio_wait_kick")]
    pub fn kick(&self) {
        self.mailbox.kick();
    }

    /// Wakes the loop without giving it work: a blocking poll returns.
    #[doc(alias = "aio_notify")]
    pub fn notify(&self) {
        self.mailbox.interrupt();
    }

    /// Returns `true` on the context's home thread.
    #[must_use]
    pub fn is_at_home(&self) -> bool {
        self.mailbox.home().is_here()
    }

    /// Returns `true` if both lead to the same context.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.mailbox, &other.mailbox)
    }

    /// Returns the polling parameters that were set last, with the cost of a sleep as
    /// [refined](Self::refine_wake_cost) since.
    #[must_use]
    pub fn poll_params(&self) -> PollParams {
        self.shared.setting().params
    }

    /// Returns the figures of the loop so far. The loop is not stopped for it.
    ///
    /// ```
    /// use aio_context::{Context, Wait};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let (cx, (reader, writer)) = (Context::new()?, std::io::pipe()?);
    /// let _registration = cx.on(reader).readable(|_, _| ()).watch()?;
    /// drop(writer);
    /// cx.poll(Wait::Block)?;
    /// let remote = cx.remote();
    /// let stats = std::thread::spawn(move || remote.stats()).join().unwrap();
    /// assert_eq!((stats.iterations, stats.events, stats.kicks), (1, 1, 0));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.counters.stats(&self.mailbox)
    }

    /// Returns two numbers of wake-ups so far: those that made a system call, and those elided because the
    /// loop was awake.
    #[must_use]
    pub fn wakeups(&self) -> (u64, u64) {
        self.mailbox.wakeups()
    }
}

impl_debug!(Remote, "Remote": |it| mailbox = it.mailbox);
