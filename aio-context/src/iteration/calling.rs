//! Calling one handler: one that is polled, that may not be entered twice, or whose event is reported once.
//!
//! Plain events are delivered in `iteration.rs`; this is the rest.

use std::rc::Rc;

use aio_backend::{Interest, Readiness, Token};
use aio_handlers::{EdgeGuard, Event as Next};
use aio_pollset::Excluded as PollExcluded;

use crate::context::Inner;
use crate::wall::is_own;
use crate::{Context, Event, Handler};

impl Inner {
    /// An event that the registry cannot deliver as it is, or one that has been recorded. Returns whether it called a
    /// handler.
    #[inline(never)]
    pub(crate) fn call_unusual(&self, cx: &Context, token: Token, readiness: Readiness) -> bool {
        let mut registry = self.descriptors.registry.borrow_mut();
        match registry.resolve(token, readiness) {
            Next::Ready(due) => {
                let (handler, is_special) = (due.value.handler.clone(), due.is_special);
                let event = Event::new(token, due.readiness, due.interest, due.version);
                drop(registry);
                if is_special {
                    return self.call_special(cx, &handler, event);
                }
                self.call_guarded(cx, &handler, event);
                true
            }
            Next::Masked => {
                drop(registry);
                self.descriptors.mask(token);
                false
            }
            Next::Dropped => false,
        }
    }

    /// A polled handler with work. Returns whether it called one.
    #[inline(never)]
    pub(crate) fn call_polled(&self, cx: &Context, token: Token) -> bool {
        let registry = self.descriptors.registry.borrow();
        let Some(polled) = registry.get(token).and_then(|entry| entry.polled.as_ref()) else {
            return false;
        };
        let (handler, is_exclusive) = (polled.handler.clone(), polled.is_exclusive);
        drop(registry);
        let _exclusive = is_exclusive.then(|| self.exclude(cx, token, true));
        let served = self
            .polling
            .set
            .serve(token, || cx.call(|cx| handler.poll_ready(cx)));
        served.is_some()
    }

    /// A handler that is polled, or may not be entered twice.
    #[inline(never)]
    fn call_special(&self, cx: &Context, handler: &Rc<dyn Handler>, event: Event) -> bool {
        let token = event.token();
        if is_own(token) {
            self.own_event(token, event.readiness());
            return false;
        }
        let _exclusive = self.exclude(cx, token, handler.exclusive());
        let _excluded = self.polling.set.promote(token).then(|| self.kicked(token));
        self.call_guarded(cx, handler, event);
        true
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
        let guard = EdgeGuard::new(self, event.token(), event.interest(), event.readiness());
        if event.interest().contains(Interest::ONESHOT) {
            self.descriptors.registry.borrow_mut().delivered(event.token());
        }
        cx.call(|cx| handler.ready(cx, event));
        if let Some(guard) = guard {
            guard.finish();
        }
    }

    /// Keeps an exclusive handler from being entered again until the guard is dropped.
    fn exclude<'a>(&'a self, cx: &'a Context, token: Token, exclusive: bool) -> Option<Excluded<'a>> {
        let is_excluded = exclusive && self.descriptors.registry.borrow_mut().exclude(token);
        is_excluded.then(|| Excluded { cx, token })
    }
}

/// An exclusive handler is running.
struct Excluded<'a> {
    cx: &'a Context,
    token: Token,
}

impl Drop for Excluded<'_> {
    fn drop(&mut self) {
        let inner = &self.cx.0;
        let rearm = inner.descriptors.registry.borrow_mut().readmit(self.token);
        if let Some(interest) = rearm {
            inner.rearm(self.cx, self.token, interest);
        }
    }
}
