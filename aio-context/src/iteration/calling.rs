//! Calls single handlers that need more than a plain call: polled ones, exclusive ones, timed ones, and those
//! whose event is reported once.
//!
//! `iteration.rs` delivers plain events.

use std::rc::Rc;

use aio_backend::{Interest, Readiness, Token};
use aio_handlers::{EdgeGuard, Event as Next, Running};
use aio_notify::HandlerCounters;
use aio_pollset::{Excluded, Hit};

use crate::context::Inner;
use crate::descriptors::is_own;
use crate::handler::Join;
use crate::stats::Timing;
use crate::{Context, Event, Handler};

impl Inner {
    /// Handles an event that was recorded, or that the registry cannot deliver as it is. Returns `true` if it
    /// called a handler.
    #[inline(never)]
    pub(crate) fn call_unusual(&self, cx: &Context, token: Token, readiness: Readiness) -> bool {
        let mut registry = self.descriptors.registry.borrow_mut();
        match registry.resolve(token, readiness) {
            Next::Ready(due) => {
                let (handler, is_special) = (due.value.handler.clone(), due.is_special);
                let is_timed = is_special && self.metrics.is_on.get();
                let timing = is_timed.then(|| due.value.timing()).flatten();
                let event = Event::new(token, due.readiness, due.interest, due.version);
                drop(registry);
                if is_special {
                    return self.call_special(cx, &handler, event, timing);
                }
                self.call_guarded(event, || cx.call(|cx| handler.ready(cx, event)));
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

    /// Calls a polled handler whose hit is on a list. Returns `true` if it called one.
    #[inline(never)]
    pub(crate) fn call_listed(&self, cx: &Context, token: Token) -> bool {
        let hit = self.polling.set.hit(token);
        hit.is_some_and(|hit| self.call_polled(cx, hit))
    }

    /// Calls a polled handler that has work. Returns `true` if it called one.
    #[inline(always)]
    pub(crate) fn call_polled(&self, cx: &Context, hit: Hit<'_>) -> bool {
        let registry = self.descriptors.registry.borrow_mut();
        let Some(entry) = registry.get(hit.token()) else {
            return false;
        };
        let Some(polled) = entry.polled() else {
            return false;
        };
        let handler = polled.own.clone();
        if polled.is_exclusive || self.metrics.is_on.get() {
            let timing = entry.timing();
            drop(registry);
            return self.call_polled_with_care(cx, hit.into_token(), &*handler, timing);
        }
        drop(registry);
        hit.serve(|| cx.call(|cx| handler.poll_ready(cx))).is_some()
    }

    /// Calls a polled handler that is exclusive or timed.
    #[cold]
    #[inline(never)]
    fn call_polled_with_care(
        &self,
        cx: &Context,
        token: Token,
        handler: &dyn Join,
        timing: Option<Rc<Timing>>,
    ) -> bool {
        let running = handler.exclusive().then(|| Running::enter(handler));
        if matches!(running, Some(None)) {
            let owed = self.polling.set.leave(token);
            self.hold_back(cx, token, handler);
            owed.finish(|| cx.call(|_| handler.poll_end()));
            return false;
        }
        let call = || cx.call_timing(timing, |it| it.poll_hits.add(1), |cx| handler.poll_ready(cx));
        self.polling.set.serve(token, call).is_some()
    }

    /// Calls a handler that is polled or exclusive.
    #[inline(never)]
    fn call_special(
        &self,
        cx: &Context,
        handler: &Rc<dyn Handler>,
        event: Event,
        timing: Option<Rc<Timing>>,
    ) -> bool {
        let token = event.token();
        if is_own(token) {
            self.own_event(token, event.readiness());
            return false;
        }
        if handler.exclusive() {
            let Some(_running) = Running::enter(&**handler) else {
                self.hold_back(cx, token, &**handler);
                self.descriptors.record(token, event.readiness());
                return false;
            };
            self.call_entered(cx, handler, event, timing);
        } else {
            self.call_entered(cx, handler, event, timing);
        }
        true
    }

    #[inline(always)]
    fn call_entered(
        &self,
        cx: &Context,
        handler: &Rc<dyn Handler>,
        event: Event,
        timing: Option<Rc<Timing>>,
    ) {
        let token = event.token();
        let excluded = self.polling.set.promote(token).then(|| self.kicked(token));
        let count = |counters: &HandlerCounters| {
            counters.events.add(1);
            counters.kicks.add(excluded.is_some().into());
        };
        self.call_guarded(event, || {
            cx.call_timing(timing, count, |cx| handler.ready(cx, event));
        });
    }

    /// Excludes a polled handler that was kicked: it is not polled until the guard is dropped.
    #[inline]
    fn kicked(&self, token: Token) -> Excluded<'_> {
        self.shared.counters.kicks.add(1);
        self.polling.set.exclude(token)
    }

    /// Calls a handler that may wait for events that are reported once.
    #[inline]
    fn call_guarded(&self, event: Event, call: impl FnOnce()) {
        let guard = EdgeGuard::new(self, event.token(), event.interest(), event.readiness());
        if event.interest().contains(Interest::ONESHOT) {
            self.descriptors.registry.borrow_mut().delivered(event.token());
        }
        call();
        if let Some(guard) = guard {
            guard.finish();
        }
    }

    /// Holds a registration back while its exclusive handler runs in another place: the next event masks it,
    /// and it is polled again only after the handler has returned.
    #[cold]
    pub(crate) fn hold_back<H: Handler + ?Sized>(&self, cx: &Context, token: Token, handler: &H) {
        self.descriptors.registry.borrow_mut().exclude(token);
        let context = cx.downgrade();
        Running::after(handler, move || {
            if let Some(cx) = context.upgrade() {
                cx.0.readmit(&cx, token);
            }
        });
    }

    /// Readmits a registration that was [held back](Self::hold_back), after its handler has returned.
    fn readmit(&self, cx: &Context, token: Token) {
        let rearm = self.descriptors.registry.borrow_mut().readmit(token);
        if let Some(interest) = rearm {
            self.rearm(cx, token, interest);
        }
        if !self.polling.set.contains(token)
            && let Some(handler) = self.pollable(token)
        {
            let _new = self.join_polled(cx, token, handler);
        }
    }
}
