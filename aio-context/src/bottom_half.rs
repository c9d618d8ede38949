//! [`BottomHalf`]: callbacks deferred to the next iteration, scheduled from any thread without an allocation.
//!
//! The closures, their queue and the wake-ups belong to `aio-notify` ([`Deferred`](aio_notify::Deferred)).
//! This module has the handle, and runs the closures that are due.

use std::cell::Cell;
use std::rc::Rc;

use aio_notify::{Due, Handle, Urgency};

use crate::Context;
use crate::context::{Deferred, Job, Mailbox, at_home};
use crate::macros::impl_debug;

impl Context {
    /// Makes a deferred callback, which can be scheduled any number of times from any thread. `name` appears
    /// in messages about it. For a closure that runs once, see [`defer`](Self::defer).
    #[doc(alias = "aio_bh_new")]
    pub fn bottom_half(&self, name: &'static str, run: impl Fn(&Self) + 'static) -> BottomHalf {
        let node = self.0.deferred.insert(name, Rc::new(run));
        BottomHalf {
            handle: Handle::new(node, self.0.mailbox.clone()),
            made_in: self.0.shared.counters.iterations.get(),
        }
    }

    /// Runs `run` once, on this thread, in the next iteration, after everything that was scheduled before it.
    /// It needs no handle, and may own values that are not `Send`; from another thread, see
    /// [`Remote::run`](crate::Remote::run).
    ///
    /// If the context is dropped before that, it drops `run` without having run it.
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
/// One exception: if the home thread makes, schedules and drops a handle before the next iteration begins,
/// the callback is kept until it has run once, so that `cx.bottom_half("flush", flush).schedule();` runs the
/// callback. [`delete`](Self::delete) cancels that, too.
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
    /// The number of the iteration in which it was made; [`NO_ITERATION`] for a clone.
    made_in: u64,
}

/// A number that no iteration has.
const NO_ITERATION: u64 = u64::MAX;

impl BottomHalf {
    /// Schedules the callback to run once in the next iteration, and wakes the loop. Scheduling it again
    /// before it runs changes nothing; scheduling it while it runs makes it run again in the iteration after.
    /// Never blocks, never allocates. Has no effect once the context is gone. Not for signal handlers, which
    /// can only [notify](crate::Remote::notify).
    #[doc(alias = "qemu_bh_schedule")]
    pub fn schedule(&self) {
        self.handle.post(Urgency::Normal);
    }

    /// Schedules the callback to run within 10 ms. It does not count as progress, and does not keep the loop
    /// awake.
    #[doc(alias = "qemu_bh_schedule_idle")]
    pub fn schedule_idle(&self) {
        // A notification would keep the loop from sleeping. A callback that schedules itself again sends
        // none, because it runs on the home thread.
        self.handle.post(Urgency::Idle);
    }

    /// Cancels a scheduled run. If another thread cancels just as the callback starts, the callback runs once
    /// more.
    #[doc(alias = "qemu_bh_cancel")]
    pub fn cancel(&self) {
        self.handle.cancel();
    }

    /// Cancels a scheduled run, and drops this handle. If it is the last one, the callback never runs again.
    #[doc(alias = "qemu_bh_delete")]
    pub fn delete(self) {
        self.cancel();
    }

    /// Returns the context, if this handle was made, scheduled and dropped in the same iteration on the home
    /// thread.
    fn is_dropped_at_once(&self) -> Option<Context> {
        let mailbox = self.handle.mailbox();
        let is_wanted =
            self.made_in != NO_ITERATION && mailbox.home().is_here() && self.handle.is_scheduled();
        let cx = is_wanted.then(|| at_home(mailbox)).flatten()?;
        (self.made_in == cx.0.shared.counters.iterations.get()).then_some(cx)
    }

    /// Returns the name given to [`Context::bottom_half`].
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

/// Runs the callbacks that are due. Returns `true` if one ran that counts as progress (rules H2-H4, H8).
#[inline]
pub(crate) fn run(deferred: &Deferred, mailbox: &Mailbox, cx: &Context) -> bool {
    if cx.0.metrics.slow.is_set() {
        run_each::<true>(deferred, mailbox, cx)
    } else {
        run_each::<false>(deferred, mailbox, cx)
    }
}

/// As [`run`]. If `TIMED`, also reports callbacks that are slow (rule M2).
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
