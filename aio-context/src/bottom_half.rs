//! [`BottomHalf`]: callbacks deferred to the next iteration, scheduled from any thread without an allocation.
//!
//! The closures, their queue and the wake-ups are `aio-notify`'s ([`Deferred`](aio_notify::Deferred)); this is the handle, and running
//! what is due.

use std::cell::Cell;
use std::rc::Rc;

use aio_notify::{Due, Handle, Urgency};

use crate::Context;
use crate::context::{Deferred, Job, Mailbox, at_home};
use crate::macros::impl_debug;

impl Context {
    /// A deferred callback, to be scheduled any number of times from any thread; `name` appears in messages about it. For one
    /// that runs once, see [`defer`](Self::defer).
    #[doc(alias = "aio_bh_new")]
    pub fn bottom_half(&self, name: &'static str, run: impl Fn(&Self) + 'static) -> BottomHalf {
        let node = self.0.deferred.insert(name, Rc::new(run));
        BottomHalf {
            handle: Handle::new(node, self.0.mailbox.clone()),
            made_in: self.0.shared.counters.iterations.get(),
        }
    }

    /// Has `run` run once, on this thread, in the next iteration, after what was scheduled before it. It needs no handle, and may
    /// own what cannot be sent to another thread; from another thread, see [`Remote::run`](crate::Remote::run).
    ///
    /// If the context is dropped before, `run` is dropped with it without having run.
    ///
    /// ```
    /// use std::{cell::Cell, rc::Rc};
    /// use aio_context::{Context, Wait};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let (cx, done) = (Context::new()?, Rc::new(Cell::new(false)));
    /// let flag = done.clone();
    /// cx.defer(move |_cx| flag.set(true));
    /// cx.poll(Wait::NoBlock)?;
    /// assert!(done.get());
    /// # Ok(()) }
    /// ```
    pub fn defer(&self, run: impl FnOnce(&Self) + 'static) {
        let run = Cell::new(Some(run));
        let once = move |cx: &Self| {
            if let Some(run) = run.take() {
                run(cx);
            }
        };
        self.0.deferred.post_once(Rc::new(once), &self.0.mailbox);
    }
}

/// A deferred callback; dropping the last clone of the handle deletes it.
///
/// The handle can be used and dropped on any thread; the callback runs on the home thread, at most once per iteration,
/// in the order of scheduling. Once it is deleted it never runs, scheduled or not.
///
/// One exception: a handle that the home thread makes, schedules and drops before the next iteration begins is kept until the
/// callback has run once, so that `cx.bottom_half("flush", flush).schedule();` does what it says. [`delete`](Self::delete) takes
/// that back, too.
///
/// # Examples
/// ```
/// use std::{cell::Cell, rc::Rc};
/// use aio_context::{Context, Wait};
///
/// # fn main() -> std::io::Result<()> {
/// let (cx, flushes) = (Context::new()?, Rc::new(Cell::new(0)));
/// let count = flushes.clone();
/// let flush = cx.bottom_half("flush", move |_cx| count.set(count.get() + 1));
/// let handle = flush.clone();
/// std::thread::spawn(move || handle.schedule());
/// cx.poll(Wait::Block)?;
/// flush.schedule();
/// flush.schedule(); // changes nothing
/// cx.poll(Wait::NoBlock)?;
/// assert_eq!(flushes.get(), 2);
/// # Ok(()) }
/// ```
#[doc(alias = "QEMUBH")]
#[must_use = "dropped at once, it is deleted and never runs"]
pub struct BottomHalf {
    handle: Handle<Job>,
    /// The number of the iteration in which it was made; no number for a clone.
    made_in: u64,
}

/// No iteration has this number.
const NO_ITERATION: u64 = u64::MAX;

impl BottomHalf {
    /// Has the callback run once in the next iteration, and wakes the loop. Scheduling it again before it runs changes
    /// nothing; scheduling it while it runs makes it run again in the iteration after. Never blocks, never allocates;
    /// without effect once the context is gone. Not for signal handlers, which can only [notify](crate::Remote::notify).
    #[doc(alias = "qemu_bh_schedule")]
    pub fn schedule(&self) {
        self.handle.post(Urgency::Normal);
    }

    /// Has the callback run within 10 ms, without counting as progress and without keeping the loop awake.
    #[doc(alias = "qemu_bh_schedule_idle")]
    pub fn schedule_idle(&self) {
        // A notification would keep a loop from sleeping; one that schedules itself again makes none, being at home.
        self.handle.post(Urgency::Idle);
    }

    /// Takes back what was scheduled. If another thread cancels just as the callback starts, it runs once more.
    #[doc(alias = "qemu_bh_cancel")]
    pub fn cancel(&self) {
        self.handle.cancel();
    }

    /// Takes back what was scheduled, and drops this handle: if it is the last one, the callback never runs again.
    #[doc(alias = "qemu_bh_delete")]
    pub fn delete(self) {
        self.cancel();
    }

    /// The context, if this handle was made, scheduled and dropped in the same iteration on the home thread.
    fn is_dropped_at_once(&self) -> Option<Context> {
        let mailbox = self.handle.mailbox();
        let is_wanted =
            self.made_in != NO_ITERATION && mailbox.home().is_here() && self.handle.is_scheduled();
        let cx = is_wanted.then(|| at_home(mailbox)).flatten()?;
        (self.made_in == cx.0.shared.counters.iterations.get()).then_some(cx)
    }

    /// The name given to [`Context::bottom_half`].
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.handle.name()
    }
}

impl Drop for BottomHalf {
    fn drop(&mut self) {
        if let Some(cx) = self.is_dropped_at_once()
            && let Some(node) = self.handle.take_node()
        {
            cx.0.deferred.keep(node);
        }
    }
}

impl Clone for BottomHalf {
    fn clone(&self) -> Self {
        let handle = self.handle.clone();
        let made_in = NO_ITERATION;
        Self { handle, made_in }
    }
}

impl_debug!(BottomHalf, "BottomHalf": |it| name = it.name());

/// Runs what is due; true if a callback ran that counts as progress (rules H2-H4, H8).
#[inline]
pub(crate) fn run(deferred: &Deferred, mailbox: &Mailbox, cx: &Context) -> bool {
    if cx.0.metrics.slow.is_set() {
        run_each::<true>(deferred, mailbox, cx)
    } else {
        run_each::<false>(deferred, mailbox, cx)
    }
}

/// If `TIMED`, also reports callbacks that are slow (rule M2).
#[inline(never)]
fn run_each<const TIMED: bool>(deferred: &Deferred, mailbox: &Mailbox, cx: &Context) -> bool {
    let mut progress = false;
    let mut round = deferred.start(mailbox.inbox());
    while let Some((due, name)) = round.next_named() {
        match due {
            Due::Callback(callback, urgency) => {
                progress |= urgency == Urgency::Normal;
                call::<TIMED>(cx, name.unwrap_or("a closure of `defer`"), |cx| callback(cx));
            }
            Due::Message(mut job) => {
                progress = true;
                call::<TIMED>(cx, "a closure of `Remote::run`", |cx| (job.contents)(cx));
            }
        }
    }
    progress
}

#[inline(always)]
fn call<const TIMED: bool>(cx: &Context, name: &'static str, code: impl FnOnce(&Context)) {
    if TIMED {
        cx.call_named("bottom half", || name, code);
    } else {
        cx.call(code);
    }
}
