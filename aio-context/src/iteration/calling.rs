//! Calling one handler: one that is polled, that may not be entered twice, or whose event is reported once.
//!
//! Plain events are delivered in `iteration.rs`; this is the rest.

use std::rc::Rc;

use aio_backend::{Interest, Readiness, Token};
use aio_handlers::{EdgeGuard, Event as Next};
use aio_pollset::Excluded;

use crate::context::Inner;
use crate::exclusion::{self, Identity};
use crate::handler::{identity, identity_of};
use crate::wall::is_own;
use crate::{Context, Event, Handler};

impl Inner {
    /// An event that the registry cannot deliver as it is, or one that has been recorded. Returns how many handlers it called: one, or
    /// none.
    #[inline(never)]
    pub(crate) fn call_unusual(&self, cx: &Context, token: Token, readiness: Readiness) -> u64 {
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
        let handler = polled.handler.clone();
        let exclusive = polled.is_exclusive.then(|| polled.own.clone());
        drop(registry);
        let _entered = match exclusive.map(|own| (exclusion::enter(identity(&*own)), own)) {
            Some((None, own)) => {
                let owed = self.polling.set.leave(token);
                self.hold_back(cx, token, identity(&*own));
                owed.finish(|| cx.call(|_| own.poll_end()));
                return 0;
            }
            entered => entered,
        };
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
        let mut _entered = None;
        if handler.exclusive() {
            let identity = identity_of(handler);
            _entered = exclusion::enter(identity);
            if _entered.is_none() {
                self.hold_back(cx, token, identity);
                self.descriptors.record(token, event.readiness());
                return 0;
            }
        }
        let _excluded = self.polling.set.promote(token).then(|| self.kicked(token));
        self.call_guarded(cx, handler, event);
        1
    }

    /// A polled handler was kicked. It is not polled until the guard is dropped.
    #[inline]
    fn kicked(&self, token: Token) -> Excluded<'_> {
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

    /// Has a registration wait until its exclusive handler, which runs in another place, has returned: the next event masks it, and it
    /// is polled again afterwards only.
    #[cold]
    pub(crate) fn hold_back(&self, cx: &Context, token: Token, handler: Identity) {
        self.descriptors.registry.borrow_mut().exclude(token);
        let context = cx.downgrade();
        exclusion::after(handler, move || {
            if let Some(cx) = context.upgrade() {
                cx.0.readmit(&cx, token);
            }
        });
    }

    /// The handler that a registration [waited for](Self::hold_back) has returned.
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
