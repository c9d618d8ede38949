//! [`Source`]: work without a descriptor, which the loop polls while it is awake and which wakes the loop while it sleeps.
//!
//! A source is a member of the poll set only: no backend ever gets it. Its [`SourceWaker`] is a bottom half,
//! so that the inbox stays the only way in for other threads.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use aio_backend::{Interest, Token};
use aio_handlers::GroupId;
use aio_pollset::{EndOwed, PollSet};

use crate::context::{Inner, Mailbox};
use crate::handler::{Entry, Join};
use crate::macros::impl_as_fd;
use crate::{BottomHalf, Context, Handler, Registration};

/// Work that has no descriptor, such as a queue or a bitmap that other threads fill.
///
/// While the loop polls (between [`poll_begin`](Self::poll_begin) and [`poll_end`](Self::poll_end)) it finds
/// the work by [`poll`](Self::poll). At any other time a producer has to call [`SourceWaker::wake`] after it
/// has published its work: the source is not polled while the loop sleeps, or while the source is demoted
/// because it was idle.
///
/// All methods are called on the home thread. All except [`poll_ready`](Self::poll_ready) must not wait: a
/// poll of the context that is nested in one of them serves the work that is ready, and returns. `poll_ready`
/// may do anything that a [`Handler`] may.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU32, Ordering};
/// use aio_context::{Context, Source, Wait};
///
/// /// Jobs that another thread has counted.
/// struct Jobs(Arc<AtomicU32>);
///
/// impl Source for Jobs {
///     fn poll(&self) -> bool {
///         self.0.load(Ordering::Relaxed) > 0
///     }
///     fn poll_ready(&self, _cx: &Context) {
///         println!("{} jobs", self.0.swap(0, Ordering::Acquire));
///     }
/// }
///
/// # fn main() -> std::io::Result<()> {
/// let (cx, jobs) = (Context::new()?, Arc::new(AtomicU32::new(0)));
/// let source = cx.source("jobs");
/// let waker = source.waker();
/// let registration = source.register(Jobs(jobs.clone()));
/// let producer = std::thread::spawn(move || {
///     jobs.fetch_add(1, Ordering::Release);
///     waker.wake();
/// });
/// assert!(cx.poll(Wait::Block)?);
/// # producer.join().unwrap(); drop(registration); Ok(()) }
/// ```
pub trait Source: 'static {
    /// Returns `true` if there is work. Called many times in a row: it must be cheap and have no side
    /// effects.
    fn poll(&self) -> bool;

    /// Does the work, after [`poll`](Self::poll) returned `true` or the source was
    /// [woken](SourceWaker::wake). It may be called when there is none.
    fn poll_ready(&self, cx: &Context);

    /// Called when the loop begins to poll the source: producers need not wake it from now on.
    fn poll_begin(&self) {}

    /// Called when the loop stops polling the source: producers have to wake it from now on.
    /// [`poll`](Self::poll) is called one last time afterwards, so that work published meanwhile is not
    /// missed.
    fn poll_end(&self) {}

    /// Called when the source's group was paused: until it is [`resumed`](Self::resumed), the source is
    /// neither polled nor served. A source that is woken by a timer disarms the timer here, so that a paused
    /// source does not end a wait. Called once for nested pauses, and when the source is registered while its
    /// group is paused.
    fn paused(&self) {}

    /// Called when the last pause of the source's group has ended.
    fn resumed(&self) {}

    /// Returns `true` if a nested poll may poll and serve the source while its own
    /// [`poll_ready`](Self::poll_ready) runs. For a source that stands for many. Read once, when the source
    /// is registered.
    fn nests(&self) -> bool {
        false
    }
}

/// Wakes a [`Source`], from any thread. Clones wake the same source.
///
/// # Examples
/// ```
/// # use std::sync::{Arc, atomic::{AtomicU32, Ordering::Relaxed}};
/// # use aio_context::{Context, Source, Wait};
/// # struct Jobs(Arc<AtomicU32>);
/// # impl Source for Jobs {
/// #     fn poll(&self) -> bool { self.0.load(Relaxed) > 0 }
/// #     fn poll_ready(&self, _cx: &Context) { self.0.store(0, Relaxed) }
/// # }
/// # fn main() -> std::io::Result<()> {
/// # let (cx, jobs) = (Context::new()?, Arc::new(AtomicU32::new(0)));
/// let source = cx.source("jobs");
/// let waker = source.waker();
/// let registration = source.register(Jobs(jobs.clone()));
/// let published = jobs.clone();
/// std::thread::spawn(move || {
///     published.store(3, Relaxed); // first the work, then the wake
///     waker.wake();
/// });
/// cx.poll(Wait::Block)?;
/// assert_eq!(jobs.load(Relaxed), 0);
/// # drop(registration); Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct SourceWaker(BottomHalf);

impl SourceWaker {
    /// Schedules the source for service in the next iteration, promotes it if it was demoted, and wakes the
    /// loop. Publish the work first: [`Source::poll_ready`] sees all writes that precede the wake. Several
    /// wakes before the service count as one.
    ///
    /// While the source's group is paused, or while its own `poll_ready` runs (unless it
    /// [nests](Source::nests)), the source is polled afterwards instead. A wake by the source's own
    /// `poll_ready` takes effect in the next iteration.
    ///
    /// Never blocks, never allocates. Makes a system call only if the loop sleeps and no other thread has
    /// woken it yet. Has no effect once the source was removed or the context is gone.
    #[inline]
    pub fn wake(&self) {
        self.0.schedule();
    }
}

impl Context {
    /// Begins to register a [`Source`]: work without a descriptor. `name` appears in messages about it.
    pub fn source(&self, name: &'static str) -> SourceBuilder<'_> {
        let identity = Rc::new(Identity::default());
        let own = identity.clone();
        let wake = move |cx: &Self| match own.token.get() {
            Some(token) => cx.0.serve_woken(cx, token),
            None => own.was_woken.set(true),
        };
        SourceBuilder {
            cx: self,
            group: GroupId::DEFAULT,
            waker: SourceWaker(self.bottom_half(name, wake)),
            identity,
        }
    }
}

/// A source that is not registered yet. Made by [`Context::source`], to be completed by [`register`](Self::register).
///
/// # Examples
/// ```
/// # use std::{cell::Cell, rc::Rc};
/// # use aio_context::{Context, Source, Wait};
/// # struct Jobs(Rc<Cell<u32>>);
/// # impl Source for Jobs {
/// #     fn poll(&self) -> bool { self.0.get() > 0 }
/// #     fn poll_ready(&self, _cx: &Context) { self.0.set(0) }
/// # }
/// # fn main() -> std::io::Result<()> {
/// # let (cx, jobs) = (Context::new()?, Rc::new(Cell::new(3)));
/// let group = cx.new_group();
/// let source = cx.source("jobs").group(group);
/// let waker = source.waker();
/// let registration = source.register(Jobs(jobs.clone()));
/// waker.wake();
/// cx.poll(Wait::Block)?;
/// assert_eq!(jobs.get(), 0);
/// # drop(registration); Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "no source is polled before `register()`"]
pub struct SourceBuilder<'cx> {
    cx: &'cx Context,
    group: GroupId,
    waker: SourceWaker,
    identity: Rc<Identity>,
}

/// The identity of the source that a waker wakes.
#[derive(Debug, Default)]
struct Identity {
    /// `None` before the source is registered.
    token: Cell<Option<Token>>,
    /// Set if it was woken before it was registered.
    was_woken: Cell<bool>,
}

impl SourceBuilder<'_> {
    /// Makes the source a member of `group`, which can be [paused](Context::pause).
    pub fn group(mut self, group: GroupId) -> Self {
        self.group = group;
        self
    }

    /// Returns a waker of the source. The source itself may keep one. A wake before
    /// [`register`](Self::register) takes effect after it.
    #[must_use]
    pub fn waker(&self) -> SourceWaker {
        self.waker.clone()
    }

    /// Registers the source until the registration is dropped. The context owns the source.
    ///
    /// The registration has no interest, and its handler cannot be replaced: attempts to set or replace them
    /// return `InvalidInput`.
    ///
    /// # Panics
    /// If the group was not made by this context.
    pub fn register<S: Source>(self, source: S) -> Registration {
        let (cx, inner) = (self.cx, &self.cx.0);
        let source = Rc::new(Undescribed {
            source,
            mailbox: inner.mailbox.clone(),
            waker: self.waker.clone(),
        });
        let entry = Entry::of_polled(source.clone());
        let Ok(token) = inner.enroll(None, entry, Interest::NONE, self.group) else {
            unreachable!("only descriptors can be taken");
        };
        let is_paused = cx.is_paused(self.group);
        let _new = cx.call(|_| inner.join_polled(cx, token, source.clone()));
        inner.time_if_on(token);
        if is_paused {
            cx.call(|_| source.paused());
        }
        inner.mailbox.notify_if_about_to_wait();
        self.identity.token.set(Some(token));
        if self.identity.was_woken.get() {
            self.waker.wake();
        }
        Registration::new(cx, token)
    }
}

impl Inner {
    /// Serves a source that was woken, unless it is removed, paused or being served. In the latter two cases
    /// it is polled afterwards.
    fn serve_woken(&self, cx: &Context, token: Token) {
        let registry = self.descriptors.registry.borrow();
        let found = registry
            .get(token)
            .map(|entry| (entry.handler.clone(), entry.timing()));
        drop(registry);
        if let Some((source, timing)) = found {
            let serve = || cx.call_timing(timing, |events| events.events.add(1), |cx| source.readable(cx));
            let _served = self.polling.set.serve_woken(token, serve);
        }
    }
}

/// A source as the registry stores it. The loop's own eventfd stands in for a descriptor; no backend gets it.
struct Undescribed<S> {
    source: S,
    mailbox: Arc<Mailbox>,
    /// Kept, because a producer may drop its waker as soon as it has woken the source.
    waker: SourceWaker,
}

impl_as_fd!(impl[S] Undescribed<S>, mailbox);

impl<S: Source> Handler for Undescribed<S> {
    /// Called when it was woken.
    fn readable(&self, cx: &Context) {
        self.source.poll_ready(cx);
    }
}

impl<S: Source> Join for Undescribed<S> {
    fn join(self: Rc<Self>, token: Token, set: &PollSet) -> EndOwed<'_> {
        set.join(token, self)
    }
    fn poll_ready(&self, cx: &Context) {
        self.source.poll_ready(cx);
    }
    fn poll_end(&self) {
        self.source.poll_end();
    }
    fn name(&self) -> Option<&'static str> {
        Some(self.waker.0.name())
    }
    fn paused(&self) {
        self.source.paused();
    }
    fn resumed(&self) {
        self.source.resumed();
    }
}

impl<S: Source> aio_pollset::Source for Undescribed<S> {
    #[inline]
    fn poll(&self) -> bool {
        self.source.poll()
    }
    fn poll_begin(&self) {
        self.source.poll_begin();
    }
    fn poll_end(&self) {
        self.source.poll_end();
    }
    fn nests(&self) -> bool {
        self.source.nests()
    }
}
