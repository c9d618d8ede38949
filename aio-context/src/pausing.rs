//! Pausing groups of handlers (rule B5).
//!
//! All members are suspended, or unmasked, before one of them is called, because a call may panic.

use aio_backend::Token;
use aio_handlers::{GroupId, call_each};
use aio_pollset::EndOwed;
use smallvec::SmallVec;

use crate::Context;
use crate::context::{Inner, WeakContext};
use crate::handler::Entry;

/// The state of a pause or a resume for each member of a group. Up to 16 members need no allocation.
type OfMembers<T> = SmallVec<[T; 16]>;

impl Context {
    /// Makes a new group for handlers that are to be paused together.
    #[must_use]
    pub fn new_group(&self) -> GroupId {
        self.0.descriptors.registry.borrow_mut().new_group()
    }

    /// Pauses a group: until the guard is dropped, its handlers are neither waited for, polled nor called.
    /// Pauses nest. Dropping the last guard wakes the loop, which then delivers the events that came
    /// meanwhile.
    #[doc(alias = "aio_disable_external")]
    pub fn pause(&self, group: GroupId) -> Paused {
        let (context, inner) = (self.downgrade(), &self.0);
        let guard = Paused { context, group };
        let depth = inner.descriptors.registry.borrow_mut().pause(group);
        if depth == 1 {
            inner.suspend(self, group);
        }
        guard
    }

    /// Returns `true` while a group is paused. For handlers that serve several items in a row: they must stop
    /// if the callback of one item pauses the group.
    #[must_use]
    pub fn is_paused(&self, group: GroupId) -> bool {
        self.0.descriptors.registry.borrow().is_paused(group)
    }
}

/// A guard that pauses a group: while it exists, the group's handlers are neither waited for, polled nor
/// called; see [`Context::pause`].
///
/// # Examples
/// ```
/// use aio_context::{Context, Wait};
///
/// # fn main() -> std::io::Result<()> {
/// let (cx, (reader, writer)) = (Context::new()?, std::io::pipe()?);
/// let clients = cx.new_group();
/// let _registration = cx.on(reader).readable(|_, _| ()).group(clients).watch()?;
/// drop(writer);
/// {
///     let _paused = cx.pause(clients);
///     // ... rearrange what the handlers use
///     assert!(!cx.poll(Wait::NoBlock)?);
/// }
/// assert!(cx.poll(Wait::NoBlock)?);
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "dropped at once, the group goes on at once"]
pub struct Paused {
    context: WeakContext,
    group: GroupId,
}

impl Drop for Paused {
    fn drop(&mut self) {
        if let Some(cx) = self.context.upgrade_at_home() {
            cx.0.resume(&cx, self.group);
        }
    }
}

impl Inner {
    /// Suspends the polled handlers of a group that has just been paused.
    fn suspend(&self, cx: &Context, group: GroupId) {
        // All are suspended before one of them is called, because a call may panic.
        let members = self.polled_of(group);
        let suspend = |token: &Token| (*token, Some(self.polling.set.suspend(*token)));
        let owed: OfMembers<_> = members.iter().map(suspend).collect();
        let paused = members.into_iter().map(|token| (token, None));
        let calls = owed.into_iter().chain(paused);
        call_each(calls, |(token, owed): (_, Option<EndOwed<'_>>)| match owed {
            Some(owed) => owed.finish(|| {
                if let Some(handler) = self.pollable(token) {
                    cx.call(|_| handler.poll_end());
                }
            }),
            None => self.notify_of_pause(cx, group, token),
        });
    }

    /// Returns the polled handlers of a group. This walks over all registrations, as pausing is rare.
    fn polled_of(&self, group: GroupId) -> OfMembers<Token> {
        let registry = self.descriptors.registry.borrow();
        let is_polled =
            |token: &Token| registry.group(*token) == Some(group) && self.polling.set.contains(*token);
        registry.tokens().filter(is_polled).collect()
    }

    fn resume(&self, cx: &Context, group: GroupId) {
        // All are unmasked before a handler is notified of a refusal, because a handler may panic.
        let mut refused = OfMembers::new();
        let mut rearm = |token, interest| {
            let rearmed = self.descriptors.backend.modify(token, interest);
            refused.extend(rearmed.err().map(|why| (token, Some(why))));
        };
        let last = self.descriptors.registry.borrow_mut().resume(group, &mut rearm);
        let mut resumed = OfMembers::new();
        if last {
            resumed = self.polled_of(group);
            resumed.iter().for_each(|token| self.polling.set.resume(*token));
            self.mailbox.notify();
        }
        let resumed = resumed.into_iter().map(|token| (token, None));
        let calls = refused.into_iter().chain(resumed);
        call_each(calls, |(token, refused)| match refused {
            Some(why) => self.invalidate(cx, token, why),
            None => self.notify_of_pause(cx, group, token),
        });
    }

    /// Notifies a [`Source`](crate::Source) that its group was paused or resumed. The group's present state
    /// decides which, because a handler that was called before may have changed it.
    fn notify_of_pause(&self, cx: &Context, group: GroupId, token: Token) {
        let registry = self.descriptors.registry.borrow();
        let is_paused = registry.is_paused(group);
        let Some(source) = registry.get(token).and_then(Entry::pollable).cloned() else {
            return;
        };
        drop(registry);
        if is_paused {
            cx.call(|_| source.paused());
        } else {
            cx.call(|_| source.resumed());
        }
    }
}
