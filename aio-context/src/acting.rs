//! The actions of an [`Event`]: calling a handler, and changing the handler's registration (rule R13).

use std::io;

use aio_backend::{Interest, NotTaken, Readiness};

use crate::context::Inner;
use crate::descriptors::not_registered;
use crate::handler::Entry;
use crate::{Action, Context, Event, Handler, HandlerMut};

impl Event {
    /// Calls a handler for each direction that is due. Before each direction except the first, the
    /// registration must still wait for it (rules R9, D3).
    ///
    /// For a handler that only reads, the call is the last action, so no value has to be kept across it.
    #[inline]
    pub(crate) fn deliver<H: Handler + ?Sized>(self, handler: &H, cx: &Context) {
        if self.concerns_more_than_reading() {
            self.deliver_all(handler, cx);
        } else if self.readiness().wakes_reader(Interest::READ) {
            debug_assert!(self.is_readable(), "without an interest there are no events");
            handler.readable(cx);
        }
    }

    #[inline(never)]
    fn deliver_all<H: Handler + ?Sized>(self, handler: &H, cx: &Context) {
        let calls: [fn(&H, &Context); 3] = [H::readable, H::writable, H::priority];
        self.each_direction(cx, calls, |call| call(handler, cx));
    }

    /// As [`deliver`](Self::deliver), for a handler with `&mut self`.
    pub(crate) fn deliver_mut<F, H: HandlerMut<F> + ?Sized>(self, handler: &mut H, owner: &F, cx: &Context) {
        let calls: [fn(&mut H, &F, &Context); 3] = [H::readable, H::writable, H::priority];
        self.each_direction(cx, calls, |call| call(handler, owner, cx));
    }

    /// Makes the calls that are due: for reading, writing and priority.
    #[inline(always)]
    fn each_direction<C>(self, cx: &Context, [read, write, priority]: [C; 3], mut call: impl FnMut(C)) {
        let mut is_first = true;
        if self.is_readable() {
            call(read);
            is_first = false;
        }
        if self.is_writable() && (is_first || self.is_wanted(cx, Readiness::wakes_writer)) {
            call(write);
            is_first = false;
        }
        if self.is_priority() && (is_first || self.is_wanted(cx, Readiness::wakes_priority)) {
            call(priority);
        }
    }

    /// Returns `true` if the registration still waits for the next direction. If a pause prevents the call,
    /// the event is kept.
    #[inline(never)]
    fn is_wanted(self, cx: &Context, wakes: fn(Readiness, Interest) -> bool) -> bool {
        let descriptors = &cx.0.descriptors;
        let is_wanted = descriptors
            .registry
            .borrow()
            .is_current(self.token(), self.version(), |interest| {
                wakes(self.readiness(), interest)
            });
        if !is_wanted {
            descriptors.reject(self.token());
        }
        is_wanted
    }

    /// Returns `true` while the handler that was called is registered: neither removed, invalidated nor
    /// replaced.
    #[must_use]
    pub fn is_current(self, cx: &Context) -> bool {
        let registry = cx.0.descriptors.registry.borrow();
        registry.version(self.token()) == Some(self.version())
    }

    /// Removes the handler: no callback of it starts after this returns. Returns `false` if it is not
    /// registered any more. If there is a holder of the [`Registration`](crate::Registration), it may drop it
    /// at any time.
    pub fn remove(self, cx: &Context) -> bool {
        self.is_current(cx) && cx.unwatch(self.token())
    }

    /// Replaces the interest. With [`Interest::EDGE`] or [`Interest::ONESHOT`] this arms the registration,
    /// even if the interest is the same.
    ///
    /// # Errors
    /// As [`Registration::set_interest`](crate::Registration::set_interest).
    pub fn set_interest(self, cx: &Context, interest: Interest) -> io::Result<()> {
        self.check_current(cx)?;
        cx.set_interest(self.token(), interest)
    }

    /// Arms the present interest again, after the only event of [`Interest::ONESHOT`], or for another report
    /// of an edge: the next wait reports readiness that exists already. Has no effect on a level-triggered
    /// interest.
    ///
    /// # Errors
    /// As [`Registration::set_interest`](crate::Registration::set_interest).
    pub fn rearm(self, cx: &Context) -> io::Result<()> {
        self.check_current(cx)?;
        cx.rearm(self.token())
    }

    /// Replaces the handler that was called by `handler`, and its interest; see
    /// [`Registration::replace_with`](crate::Registration::replace_with). The handler that was called lives
    /// until its callback returns.
    ///
    /// # Errors
    /// As [`Registration::replace_with`](crate::Registration::replace_with).
    pub fn replace<H>(self, cx: &Context, handler: H, interest: Interest) -> Result<(), NotTaken<H>>
    where
        H: Into<Entry> + Clone,
    {
        NotTaken::offer(handler, |handler| {
            self.check_current(cx)?;
            cx.0.replace(cx, self.token(), handler.into(), Some(interest))
        })
    }

    /// Carries out the action that a callback has returned. If the system refuses the interest, the handler
    /// is [invalidated](Handler::invalidated). Has no effect if the handler was removed or replaced.
    pub fn apply(self, cx: &Context, action: Action) {
        let changed = match action {
            Action::Continue => return,
            Action::Rearm => self.rearm(cx),
            Action::Interest(interest) => self.set_interest(cx, interest),
            Action::Remove => {
                self.remove(cx);
                return;
            }
        };
        if let Err(why) = changed
            && self.is_current(cx)
        {
            cx.0.invalidate(cx, self.token(), why);
        }
    }

    fn check_current(self, cx: &Context) -> io::Result<()> {
        self.is_current(cx).then_some(()).ok_or_else(not_registered)
    }
}

impl Inner {
    /// Returns the event for a polling hit of a handler, if it is registered under the number `number`.
    pub(crate) fn event_of_work(&self, number: i32, is_it: impl FnOnce(&Entry) -> bool) -> Option<Event> {
        let registry = self.descriptors.registry.borrow();
        let token = registry.token_of(number)?;
        let is_registered = registry.get(token).is_some_and(is_it);
        let (interest, version) = (registry.interest(token)?, registry.version(token)?);
        is_registered.then(|| Event::new(token, Readiness::empty(), interest, version))
    }
}
