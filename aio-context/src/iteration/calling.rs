//! Calling one handler: one that is polled, that may not be entered twice, or whose event is reported once.
//!
//! Plain events are delivered in `iteration.rs`; this is the rest.

use std::rc::Rc;

use aio_backend::{Interest, Readiness, Token};
use aio_handlers::Event as Next;
use aio_pollset::Excluded as PollExcluded;

use crate::context::Inner;
use crate::descriptors::Descriptors;
use crate::handler::Entry;
use crate::wall::is_own;
use crate::{Context, Event, Handler};

impl Inner {
    /// An event that the registry cannot deliver as it is, or one that has been recorded. Returns how many handlers it called: one, or
    /// none.
    #[inline(never)]
    pub(crate) fn call_unusual(&self, cx: &Context, token: Token, readiness: Readiness) -> u64 {
        let mut registry = self.descriptors.registry.borrow_mut();
        match registry.resolve(token, readiness) {
            Next::Ready(entry, readiness, interest) => {
                let (handler, is_special) = (entry.handler.clone(), entry.is_special);
                let event = Event::new(token, readiness, interest, entry.version);
                drop(registry);
                if is_special {
                    return self.call_special(cx, &handler, event);
                }
                self.call_guarded(cx, &handler, event);
                1
            }
            Next::Masked => {
                drop(registry);
                self.descriptors.mask(token);
                0
            }
            Next::Dropped => 0,
        }
    }

    /// A polled handler with work. Returns how many handlers it called: one, or none.
    #[inline(never)]
    pub(crate) fn call_polled(&self, cx: &Context, token: Token) -> u64 {
        let registry = self.descriptors.registry.borrow();
        let Some(polled) = registry.get(token).and_then(|entry| entry.polled.as_ref()) else {
            return 0;
        };
        let (handler, is_exclusive) = (polled.handler.clone(), polled.is_exclusive);
        drop(registry);
        let _exclusive = is_exclusive.then(|| self.exclude(cx, token, true));
        let served = self
            .polling
            .set
            .serve(token, || cx.call(|cx| handler.poll_ready(cx)));
        u64::from(served.is_some())
    }

    /// A handler that is polled, or may not be entered twice.
    #[inline(never)]
    fn call_special(&self, cx: &Context, handler: &Rc<dyn Handler>, event: Event) -> u64 {
        let token = event.token();
        if is_own(token) {
            self.own_event(token, event.readiness());
            return 0;
        }
        let _exclusive = self.exclude(cx, token, handler.exclusive());
        let _excluded = self.polling.set.promote(token).then(|| self.kicked(token));
        self.call_guarded(cx, handler, event);
        1
    }

    /// A polled handler was kicked. It is not polled until the guard is dropped.
    #[inline]
    fn kicked(&self, token: Token) -> PollExcluded<'_> {
        self.shared.counters.kicks.add(1);
        self.polling.set.exclude(token)
    }

    /// A handler that may wait for what is reported once.
    #[inline]
    fn call_guarded(&self, cx: &Context, handler: &Rc<dyn Handler>, event: Event) {
        let _guard = EdgeGuard::new(&self.descriptors, event);
        if event.interest().contains(Interest::ONESHOT) {
            self.descriptors.registry.borrow_mut().delivered(event.token());
        }
        cx.call(|cx| handler.ready(cx, event));
    }

    /// Keeps an exclusive handler from being entered again until the guard is dropped.
    fn exclude<'a>(&'a self, cx: &'a Context, token: Token, exclusive: bool) -> Option<Excluded<'a>> {
        if !exclusive {
            return None;
        }
        let mut registry = self.descriptors.registry.borrow_mut();
        let others = registry.get(token)?.others;
        registry.exclude(token).then_some(Excluded { cx, token, others })
    }
}

/// Restores an edge if the callback for it panics: no backend reports it anew. The only event of an interest in one counts as delivered.
struct EdgeGuard<'a> {
    descriptors: &'a Descriptors<Entry>,
    event: Event,
}

impl<'a> EdgeGuard<'a> {
    fn new(descriptors: &'a Descriptors<Entry>, event: Event) -> Option<Self> {
        let (edge, once) = (Interest::EDGE, Interest::ONESHOT);
        let is_edge = event.interest() & (edge | once) == edge;
        is_edge.then_some(Self { descriptors, event })
    }
}

impl Drop for EdgeGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.descriptors
                .restore(self.event.token(), self.event.readiness());
        }
    }
}

/// An exclusive handler is running.
struct Excluded<'a> {
    cx: &'a Context,
    token: Token,
    /// As in its entry: the exclusion has ended if another handler has replaced it.
    others: u16,
}

impl Drop for Excluded<'_> {
    fn drop(&mut self) {
        let inner = &self.cx.0;
        let mut registry = inner.descriptors.registry.borrow_mut();
        let is_its_own = registry
            .get(self.token)
            .is_some_and(|entry| entry.others == self.others);
        let rearm = is_its_own.then(|| registry.readmit(self.token)).flatten();
        drop(registry);
        if let Some(interest) = rearm {
            inner.rearm(self.cx, self.token, interest);
        }
    }
}
