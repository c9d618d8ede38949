//! What other threads hold of a context: [`Remote`], and the state behind it.

use std::cell::RefCell;
use std::fmt;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use aio_notify::{Inbox, Node, Notifier, Posted, Urgency};
use aio_pollctl::PollParams;

use crate::bh::{Job, JobMessage, Slot, message};
use crate::context::Inner;
use crate::home::Home;
use crate::stats::{Counters, Stats};
use crate::sync::{ArcSwap, AtomicU64, AtomicUsize, Ordering, faulty, fence, thread_local};
use crate::{Context, Gone};

/// What a context shares with other threads: the one door in (inbox and notifier), and the polling parameters.
pub(crate) struct Shared {
    pub(crate) id: u64,
    pub(crate) notifier: Notifier,
    pub(crate) inbox: Inbox<Slot, Job>,
    pub(crate) home: Home,
    pub(crate) params: ArcSwap<PollParams>,
    /// Raised after each change of `params`; the first are version 1.
    pub(crate) params_version: AtomicU64,
    /// How many `wait_while` calls are under way; raised before their condition is read.
    pub(crate) waiters: AtomicUsize,
    /// How often somebody has asked that a blocking poll return, whether or not there is work. Raised before the notification.
    calls: AtomicU64,
    /// The context was dropped while its home thread panicked.
    pub(crate) has_panicked: std::sync::atomic::AtomicBool,
    pub(crate) counters: Counters,
}

impl Shared {
    pub(crate) fn new(notifier: Notifier, params: PollParams) -> Self {
        static NEXT_ID: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            notifier,
            inbox: Inbox::new(),
            home: Home::here(),
            params: ArcSwap::from_pointee(params),
            params_version: AtomicU64::new(1),
            waiters: AtomicUsize::new(0),
            calls: AtomicU64::new(0),
            has_panicked: std::sync::atomic::AtomicBool::new(false),
            counters: Counters::default(),
        }
    }

    #[inline]
    pub(crate) fn post(&self, node: &Node<Slot, Job>, urgency: Urgency) {
        if self.inbox.post(node, urgency) != Posted::Closed {
            self.tell();
        }
    }

    /// Gives up a handle to a node.
    pub(crate) fn retire(&self, node: Node<Slot, Job>) {
        if self.inbox.retire(node) {
            self.tell();
        }
    }

    /// Has the loop look at its inbox.
    #[inline]
    fn tell(&self) {
        if !self.home.will_look() {
            self.notifier.notify();
        }
    }

    /// Has a blocking poll return.
    fn call_back(&self) {
        faulty!(CalledLate, self.calls.fetch_add(1, Ordering::Release); self.notifier.notify());
    }

    /// How often somebody has asked for that. What a request was made for is seen by whoever has seen the request.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Acquire)
    }

    /// Why the context is gone.
    pub(crate) fn gone(&self) -> Gone {
        if self.has_panicked.load(std::sync::atomic::Ordering::Acquire) {
            Gone::Panicked
        } else {
            Gone::Dropped
        }
    }

    pub(crate) fn send(&self, job: Box<JobMessage>) -> Result<(), Gone> {
        faulty!(NotifiedBeforeSent, self.inbox.send(job).map_err(|_| self.gone())?; self.tell());
        Ok(())
    }
}

thread_local! {
    /// The contexts whose home this thread is, so that `run_and_wait` can run in place instead of waiting for itself.
    static AT_HOME: RefCell<Vec<(u64, Weak<Inner>)>> = const { RefCell::new(Vec::new()) };
}

pub(crate) fn move_in(inner: &Rc<Inner>) {
    AT_HOME.with(|here| here.borrow_mut().push((inner.shared.id, Rc::downgrade(inner))));
}

pub(crate) fn move_out(id: u64) {
    // A context that is dropped while the thread ends finds the table gone already: nothing to do.
    let _ = AT_HOME.try_with(|here| here.borrow_mut().retain(|(other, _)| *other != id));
}

/// The contexts whose home this thread is.
pub(crate) fn all_at_home() -> Vec<Context> {
    let upgraded = |here: &RefCell<Vec<(u64, Weak<Inner>)>>| {
        let all = here.borrow();
        all.iter()
            .filter_map(|(_, inner)| inner.upgrade())
            .map(Context)
            .collect()
    };
    AT_HOME.try_with(upgraded).unwrap_or_default()
}

pub(crate) fn at_home(id: u64) -> Option<Context> {
    AT_HOME
        .try_with(|here| {
            here.borrow()
                .iter()
                .find(|(other, _)| *other == id)
                .and_then(|(_, inner)| inner.upgrade())
        })
        .ok()
        .flatten()
        .map(Context)
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
        self.0.send(message(job))
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
        if let Some(cx) = at_home(self.0.id) {
            return Ok(job(&cx));
        }
        if self.0.home.is_here() {
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
        let version = &self.0.params_version;
        faulty!(VersionBeforeParams, self.0.params.store(Arc::new(params)); version.fetch_add(1, Ordering::Release));
        self.0.call_back();
    }

    /// Has every [`Context::wait_while`] of this context look at its condition again; nearly free when there is none.
    /// Call it after the change.
    #[doc(alias = "aio_wait_kick")]
    pub fn kick(&self) {
        // Pairs with the fence in `wait_while`: either the waiter sees the change or we see the waiter.
        faulty!(KickWithoutFence, fence(Ordering::SeqCst));
        if self.0.waiters.load(Ordering::Relaxed) != 0 {
            self.0.call_back();
        }
    }

    /// Wakes the loop without giving it anything to do: a blocking poll returns.
    #[doc(alias = "aio_notify")]
    pub fn notify(&self) {
        self.0.call_back();
    }

    /// Whether both lead to the same context.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }

    /// What the loop has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.counters.read(self.wakeups())
    }

    /// Wake-ups so far: how many cost a system call, and how many were elided because the loop was awake.
    #[must_use]
    pub fn wakeups(&self) -> (u64, u64) {
        (self.0.notifier.writes(), self.0.notifier.elided())
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote")
            .field("context", &self.0.id)
            .finish_non_exhaustive()
    }
}
