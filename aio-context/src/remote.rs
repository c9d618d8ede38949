//! What other threads hold of a context: [`Remote`], and the state behind it.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use aio_pollctl::PollParams;

use crate::bottom_half::{Mailbox, message};
use crate::stats::{Counters, Stats};
use crate::sync::{ArcSwap, AtomicU64, Fault, Ordering, planted, thread_local};
use crate::{Context, Gone, WeakContext};

/// What a context shares with other threads: the one door in, the polling parameters, and figures.
pub(crate) struct Shared {
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) params: ArcSwap<PollParams>,
    /// Raised after each change of `params`; the first are version 1.
    pub(crate) params_version: AtomicU64,
    /// The context was dropped while its home thread panicked.
    pub(crate) has_panicked: std::sync::atomic::AtomicBool,
    pub(crate) counters: Counters,
}

impl Shared {
    pub(crate) fn new(mailbox: Arc<Mailbox>, params: PollParams) -> Self {
        Self {
            mailbox,
            params: ArcSwap::from_pointee(params),
            params_version: AtomicU64::new(1),
            has_panicked: std::sync::atomic::AtomicBool::new(false),
            counters: Counters::default(),
        }
    }

    /// Why the context is gone.
    fn gone(&self) -> Gone {
        if self.has_panicked.load(std::sync::atomic::Ordering::Acquire) {
            Gone::Panicked
        } else {
            Gone::Dropped
        }
    }
}

thread_local! {
    /// The contexts whose home this thread is, so that `run_and_wait` can run in place instead of waiting for itself.
    static AT_HOME: RefCell<Vec<WeakContext>> = const { RefCell::new(Vec::new()) };
}

pub(crate) fn move_in(cx: &Context) {
    AT_HOME.with(|here| here.borrow_mut().push(cx.downgrade()));
}

/// Removes the contexts that are gone.
pub(crate) fn move_out() {
    // A context that is dropped while the thread ends finds the table gone already: nothing to do.
    let _ = AT_HOME.try_with(|here| here.borrow_mut().retain(WeakContext::is_alive));
}

/// The contexts whose home this thread is.
fn all_at_home() -> Vec<Context> {
    let alive =
        |here: &RefCell<Vec<WeakContext>>| here.borrow().iter().filter_map(WeakContext::upgrade).collect();
    AT_HOME.try_with(alive).unwrap_or_default()
}

/// The context with this mailbox, if its home is this thread.
pub(crate) fn at_home(mailbox: &Arc<Mailbox>) -> Option<Context> {
    let is_its = |cx: &Context| Arc::ptr_eq(&cx.0.mailbox, mailbox);
    let find =
        |here: &RefCell<Vec<WeakContext>>| here.borrow().iter().filter_map(WeakContext::upgrade).find(is_its);
    AT_HOME.try_with(find).ok().flatten()
}

/// A handle to a context for any thread; it does not keep the context alive.
#[derive(Clone)]
pub struct Remote(pub(crate) Arc<Shared>);

impl Remote {
    /// Has `job` run once on the home thread, in the next iteration, after what was scheduled before it.
    ///
    /// If the context is dropped before, the job is dropped without having run: a job that must tell of this does so in
    /// the `Drop` of something it owns.
    ///
    /// # Errors
    /// [`Gone`] if the context is already gone.
    #[doc(alias = "aio_bh_schedule_oneshot")]
    pub fn run(&self, job: impl FnOnce(&Context) + Send + 'static) -> Result<(), Gone> {
        self.0.mailbox.send(message(job)).map_err(|_| self.0.gone())
    }

    /// Has `job` run on the home thread and waits for its result; on the home thread itself it runs at once, in place.
    ///
    /// A thread that is the home of no context sleeps meanwhile. Any other thread goes on polling its contexts, as with
    /// [`Context::run_on`], so that threads can wait for each other, also in a circle: their handlers and bottom halves are
    /// called inside this call. A thread with several contexts polls one of them, and the others every millisecond.
    ///
    /// # Errors
    /// [`Gone`], with the reason, if the context is gone, goes away before the job is done, or the job panics.
    pub fn run_and_wait<R: Send + 'static>(
        &self,
        job: impl FnOnce(&Context) -> R + Send + 'static,
    ) -> Result<R, Gone> {
        if let Some(cx) = at_home(&self.0.mailbox) {
            return Ok(job(&cx));
        }
        if self.0.mailbox.home().is_here() {
            // The thread ends, and the table is gone already: nobody polls any more, so nobody would answer.
            return Err(self.0.gone());
        }
        let all = all_at_home();
        match all.split_first() {
            Some((cx, others)) => cx.wait_for(self, others, job),
            None => self.run_and_sleep(job),
        }
    }

    /// Sets the polling parameters: the policy starts anew with them, and the loop wakes.
    #[doc(alias = "aio_context_set_poll_params")]
    pub fn set_poll_params(&self, params: PollParams) {
        if planted(Fault::VersionBeforeParams) {
            self.0.params_version.fetch_add(1, Ordering::Release);
            self.0.params.store(Arc::new(params));
        } else {
            self.0.params.store(Arc::new(params));
            self.0.params_version.fetch_add(1, Ordering::Release);
        }
        self.0.mailbox.interrupt();
    }

    /// Has every [`Context::wait_while`] of this context look at its condition again; nearly free when there is none.
    /// Call it after the change.
    #[doc(alias = "aio_wait_kick")]
    pub fn kick(&self) {
        self.0.mailbox.kick();
    }

    /// Wakes the loop without giving it anything to do: a blocking poll returns.
    #[doc(alias = "aio_notify")]
    pub fn notify(&self) {
        self.0.mailbox.interrupt();
    }

    /// Whether both lead to the same context.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// What the loop has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.counters.read(self.wakeups())
    }

    /// Wake-ups so far: how many cost a system call, and how many were elided because the loop was awake.
    #[must_use]
    pub fn wakeups(&self) -> (u64, u64) {
        self.0.mailbox.wakeups()
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote")
            .field("mailbox", &self.0.mailbox)
            .finish_non_exhaustive()
    }
}
