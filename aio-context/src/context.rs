//! [`Context`] and its parts.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use aio_notify::{Nesting, Slot};
use aio_pollctl::Pacing;
use aio_timers::{Moment, SelfTime, SlowLimit};
use smallvec::SmallVec;

use crate::descriptors::Descriptors;
use crate::extension::Extensions;
use crate::handler::Entry;
use crate::iteration::concerns::Concerns;
use crate::macros::impl_debug;
use crate::polling::Polling;
use crate::stats::Shared;
use crate::sync::thread_local;
use crate::timer::Fire;
use crate::timers::Timers;

/// A closure that another thread sends.
pub(crate) type Job = dyn FnMut(&Context) + Send;
pub(crate) type Mailbox = aio_notify::Mailbox<Slot, Job>;
/// The deferred closures of the home thread.
pub(crate) type Deferred = aio_notify::Deferred<Rc<dyn Fn(&Context)>, Job>;

/// The longest time for which [`Context::poll`] may wait.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use aio_context::{ClockId, Context, Wait};
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// assert!(!cx.poll(Wait::NoBlock)?);
/// assert!(!cx.poll(Wait::AtMost(Duration::from_millis(1)))?);
/// let end = cx.now(ClockId::Monotonic).saturating_add(Duration::from_millis(1));
/// assert!(!cx.poll(Wait::Until(end))?);
/// cx.defer(|_cx| ());
/// assert!(cx.poll(Wait::Block)?);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Waits until there is progress, or a thread notifies.
    Block,
    /// As [`Block`](Self::Block), but for no longer than this.
    AtMost(Duration),
    /// As [`Block`](Self::Block), but not beyond this moment of
    /// [`ClockId::Monotonic`](crate::ClockId::Monotonic); a past one is as [`NoBlock`](Self::NoBlock). See
    /// [`Context::now`] and [`Context::moment`].
    Until(Moment),
    /// Does not wait: serves the work that is ready now.
    NoBlock,
}

/// An event loop: waits for descriptors, timers and deferred callbacks on one thread and, when that is cheaper than
/// sleeping, polls for work in user space first.
///
/// A context lives on the thread that made it, its *home thread*: it is neither `Send` nor `Sync`. Clones are the same
/// context. Other threads hold a [`Remote`](crate::Remote) or a [`BottomHalf`](crate::BottomHalf).
///
/// Closures and handlers that the context keeps should not keep the context: such a cycle is never freed.
/// They get a `&Context` when they run; where that does not suffice, keep a [`WeakContext`].
///
/// ```compile_fail
/// fn is_send<T: Send>() {}
/// is_send::<aio_context::Context>();
/// ```
/// ```
/// fn is_send<T: Send + Sync>() {}
/// is_send::<aio_context::Remote>();
/// is_send::<aio_context::BottomHalf>();
/// ```
#[derive(Clone)]
pub struct Context(pub(crate) Rc<Inner>);

/// A context that may be gone.
///
/// ```
/// use aio_context::Context;
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// let weak = cx.downgrade(); // for a callback that the context itself owns
/// assert!(weak.upgrade().is_some());
/// drop(cx);
/// assert!(weak.upgrade().is_none());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct WeakContext(pub(crate) Weak<Inner>);

impl WeakContext {
    /// Returns the context, if it still exists.
    #[must_use]
    pub fn upgrade(&self) -> Option<Context> {
        self.0.upgrade().map(Context)
    }

    /// Returns the context, if it belongs to this process. A forked child shares the backend's state in the
    /// kernel, so it leaves everything registered until it drops the context (R15).
    pub(crate) fn upgrade_at_home(&self) -> Option<Context> {
        self.upgrade().filter(|cx| cx.0.mailbox.process().is_here())
    }
}

/// The parts of a context.
pub(crate) struct Inner {
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) descriptors: Descriptors<Entry>,
    pub(crate) polling: Polling,
    pub(crate) pacing: Pacing,
    pub(crate) timers: Timers<Fire, Job>,
    pub(crate) deferred: Deferred,
    pub(crate) nesting: Nesting,
    pub(crate) metrics: Metrics,
    pub(crate) concerns: Concerns,
    /// Dropped last.
    pub(crate) extensions: Extensions,
}

/// The state for timing callbacks: see `timed.rs`.
#[derive(Default)]
pub(crate) struct Metrics {
    /// Set once there was a limit, or a measured handler.
    pub(crate) is_on: Cell<bool>,
    pub(crate) times: SelfTime,
    /// The limit. Slow bottom halves and timers are reported by kind and name.
    pub(crate) slow: SlowLimit<(&'static str, &'static str)>,
}

impl Context {
    /// Returns a handle that does not keep the context alive.
    #[must_use]
    pub fn downgrade(&self) -> WeakContext {
        WeakContext(Rc::downgrade(&self.0))
    }

    /// Returns two numbers: late events, for registrations that no longer exist, which were recognised and
    /// dropped; and handlers that were [invalidated](crate::Handler::invalidated).
    #[must_use]
    pub fn anomalies(&self) -> (u64, u64) {
        (
            self.0.descriptors.registry.borrow().stale_events(),
            self.0.descriptors.invalidated.get(),
        )
    }

    /// Returns the name of the present backend.
    #[must_use]
    pub fn backend_name(&self) -> &'static str {
        self.0.descriptors.backend.borrow().name()
    }

    /// Returns `true` if the present backend calls a handler with [`Interest::EDGE`](crate::Interest::EDGE)
    /// once for each new activity, rather than for as long as there is something to read. A context may move
    /// to such a backend, and back, at any wait.
    #[must_use]
    pub fn reports_edges(&self) -> bool {
        self.0.descriptors.backend.borrow().reports_edges()
    }

    /// Returns the one value of type `T` that belongs to this context. The first call for the type makes the
    /// value with `make`. The context drops it on its thread, at its own end.
    ///
    /// For crates that need a state for each context, such as an executor. A value must not keep the context
    /// alive: that is a cycle.
    ///
    /// ```
    /// use std::cell::Cell;
    /// use aio_context::Context;
    ///
    /// #[derive(Default)]
    /// struct Requests(Cell<u64>);
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let cx = Context::new()?;
    /// let requests = cx.extension(|_cx| Requests::default());
    /// requests.0.set(1);
    /// assert_eq!(cx.extension(|_cx| Requests::default()).0.get(), 1);
    /// # Ok(()) }
    /// ```
    #[inline]
    pub fn extension<T: 'static>(&self, make: impl FnOnce(&Self) -> T) -> Rc<T> {
        let extensions = &self.0.extensions;
        extensions.get().unwrap_or_else(|| extensions.add(make(self)))
    }

    /// Runs user code. No part of the context may be borrowed meanwhile, because the code may use the
    /// context.
    pub(crate) fn call<R>(&self, code: impl FnOnce(&Self) -> R) -> R {
        self.assert_free();
        code(self)
    }

    /// Asserts, in debug builds, that callbacks may be called now.
    pub(crate) fn assert_free(&self) {
        debug_assert!(
            self.0.is_free(),
            "a callback may not be called while something is borrowed"
        );
    }
}

impl Inner {
    fn is_free(&self) -> bool {
        self.descriptors.is_free() && self.polling.controller.is_free()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        move_out();
        self.mailbox.end();
        let never_ran = self.deferred.close(self.mailbox.inbox());
        if !never_ran.is_empty() {
            tracing::warn!(bottom_halves = ?never_ran, "a context was dropped with bottom halves still scheduled");
        }
    }
}

thread_local! {
    /// The contexts whose home this thread is, so that `run_and_wait` can run in place instead of waiting for
    /// itself.
    static AT_HOME: RefCell<Vec<WeakContext>> = const { RefCell::new(Vec::new()) };
}

/// Uses the table. On a thread that ends, the table is gone already and counts as empty.
fn with_table<R: Default>(use_it: impl FnOnce(&mut Vec<WeakContext>) -> R) -> R {
    AT_HOME
        .try_with(|here| use_it(&mut here.borrow_mut()))
        .unwrap_or_default()
}

/// Adds a context to those at home on this thread.
pub(crate) fn move_in(cx: &Context) {
    with_table(|here| here.push(cx.downgrade()));
}

/// Removes the contexts that are gone.
fn move_out() {
    with_table(|here| here.retain(|one| one.0.strong_count() != 0));
}

/// Returns the contexts whose home this thread is. Up to four need no allocation.
pub(crate) fn all_at_home() -> SmallVec<[Context; 4]> {
    with_table(|here| here.iter().filter_map(WeakContext::upgrade).collect())
}

/// Returns the context with this mailbox, if its home is this thread.
pub(crate) fn at_home(mailbox: &Arc<Mailbox>) -> Option<Context> {
    let is_its = |cx: &Context| Arc::ptr_eq(&cx.0.mailbox, mailbox);
    with_table(|here| here.iter().filter_map(WeakContext::upgrade).find(is_its))
}

impl_debug!(Context, "Context": |it|
    backend = it.0.descriptors.backend.try_borrow().map(|backend| backend.name()).ok(),
    handlers = it.0.descriptors.handlers(),
    depth = it.0.nesting.depth()
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_callback_is_called_while_something_is_borrowed() {
        let cx = Context::builder().build().expect("there is a descriptor left");
        assert!(cx.0.is_free());
        {
            let _registry = cx.0.descriptors.registry.borrow();
            assert!(!cx.0.is_free());
        }
        {
            let _backend = cx.0.descriptors.backend.borrow();
            assert!(!cx.0.is_free());
        }
        {
            let controller = &cx.0.polling.controller;
            controller.with_policy(|_| assert!(!cx.0.is_free()));
        }
        cx.assert_free();
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "while something is borrowed")]
    fn a_callback_while_something_is_borrowed_is_a_panic() {
        let cx = Context::builder().build().expect("there is a descriptor left");
        let _registry = cx.0.descriptors.registry.borrow();
        cx.call(|_| {});
    }
}
