//! Registering and removing handlers, and pausing groups of them. Replacing them is in `replacing.rs`.
//!
//! The order is always the same: registry, polled set, backend; then the callbacks that are owed; and the value is dropped
//! last, outside every borrow, because its `Drop` may use the context.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::{Rc, Weak};

use aio_backend::{Interest, Token, Watched};
use aio_handlers::{GroupId, Occupied};
use aio_pollset::EndOwed;

use crate::Context;
use crate::adapting::PollTime;
use crate::context::Inner;
use crate::descriptor;
use crate::error::{explained_for, in_words, is_taken};
use crate::handler::{Entry, Join};
use crate::waiting::REBALANCE_EVERY;

/// A registered handler; dropping it removes the handler.
///
/// It does not keep the context alive, and does nothing once the context is gone.
#[must_use = "dropped at once, it watches nothing; keep it or `detach()` it"]
pub struct Registration {
    /// Of one that was detached: nobody.
    context: Weak<Inner>,
    token: Token,
}

impl Registration {
    pub(crate) fn new(cx: &Context, token: Token) -> Self {
        Self {
            context: Rc::downgrade(&cx.0),
            token,
        }
    }

    /// Waits for something else from now on.
    ///
    /// # Errors
    /// `NotFound` if the handler is not registered any more, `InvalidInput` if it is a [`Source`](crate::Source), or what the
    /// system says; the former interest stays.
    pub fn set_interest(&self, interest: Interest) -> io::Result<()> {
        let cx = self.context()?;
        cx.0.set_interest(self.token, interest)
    }

    /// Removes the handler: no callback of it starts after this returns. (The same as dropping it.)
    pub fn remove(self) {}

    /// Lets the handler stay registered for as long as the context lives, or until [`Context::unwatch`].
    pub fn detach(mut self) -> Token {
        self.context = Weak::new();
        self.token
    }

    /// The registration's name; [`Context::unwatch`] removes by it.
    #[must_use]
    pub fn token(&self) -> Token {
        self.token
    }

    /// Returns a handle to this handler's polling time, readable from any thread while the loop runs. Replacing the handler resets
    /// it: ask again then.
    ///
    /// # Errors
    /// `NotFound` if no handler is registered any more, `Unsupported` if the handler is not a polled one.
    pub fn poll_time(&self) -> io::Result<PollTime> {
        self.context()?.0.poll_time(self.token)
    }

    /// Whether a handler is still registered: neither [removed](Context::unwatch) nor
    /// [broken](crate::Handler::broken).
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.context
            .upgrade()
            .is_some_and(|inner| inner.registry.borrow().get(self.token).is_some())
    }

    pub(crate) fn context(&self) -> io::Result<Context> {
        self.context.upgrade().map(Context).ok_or_else(not_registered)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(inner) = self.context.upgrade() {
            let cx = Context(inner);
            cx.0.remove(&cx, self.token);
        }
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registration").field(&self.token).finish()
    }
}

/// While this is alive, the handlers of a group are neither waited for, polled nor called; see [`Context::pause`].
#[must_use = "dropped at once, the group goes on at once"]
pub struct Paused {
    context: Weak<Inner>,
    group: GroupId,
}

impl Drop for Paused {
    fn drop(&mut self) {
        if let Some(inner) = self.context.upgrade() {
            let cx = Context(inner);
            cx.0.resume(&cx, self.group);
        }
    }
}

impl fmt::Debug for Paused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Paused").field(&self.group).finish()
    }
}

pub(crate) fn not_registered() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the handler is not registered any more")
}

#[cold]
fn no_descriptor() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "a source has no descriptor to wait for; watch a handler instead",
    )
}

impl Inner {
    /// Registers a handler, unless its descriptor has one already (rules R2, R3).
    #[inline]
    pub(crate) fn add(&self, entry: Entry, interest: Interest, group: GroupId) -> io::Result<Token> {
        let interest = interest.canonical();
        let owner = Watched::new(entry.owner());
        let number = owner.as_raw_fd();
        let polled = entry.pollable().cloned();
        let inserted = self
            .registry
            .borrow_mut()
            .insert(Some(number), entry, interest, group);
        let token = inserted.map_err(|Occupied { .. }| is_taken(number))?;
        let entered = if interest == Interest::NONE {
            // No backend gets to see it.
            descriptor::find(&owner).map_err(|why| self.explain("add a descriptor", number, why))
        } else {
            self.enter_backend(token, owner, interest)
        };
        if let Err(why) = entered {
            let entry = self.registry.borrow_mut().remove(token);
            drop(entry);
            return Err(why);
        }
        if let Some(handler) = polled {
            let _new = self.join_polled(token, handler, group);
        }
        if cfg!(debug_assertions)
            && let Some(owner) = self.registry.borrow().get(token).map(Entry::owner)
        {
            descriptor::warn_if_blocking(owner.as_fd(), interest);
        }
        self.wake_if_about_to_wait();
        Ok(token)
    }

    /// Says of an error about one descriptor what failed and what helps.
    #[cold]
    pub(crate) fn explain(&self, call: &'static str, number: RawFd, why: io::Error) -> io::Error {
        explained_for(call, self.backend.borrow().name(), number, why)
    }

    #[inline(always)]
    pub(crate) fn enter_backend(&self, token: Token, owner: Watched, interest: Interest) -> io::Result<()> {
        let number = owner.as_raw_fd();
        let added = self.backend.borrow_mut().add(owner, token, interest);
        added.map_err(|why| self.explain("add a descriptor", number, why))?;
        self.looks_since_rebalance.set(REBALANCE_EVERY);
        if let Some(entry) = self.registry.borrow_mut().get_mut(token) {
            entry.in_backend = true;
        }
        Ok(())
    }

    /// Has a handler polled, unless its group is paused. Returns what the former one is owed.
    pub(crate) fn join_polled(&self, token: Token, handler: Rc<dyn Join>, group: GroupId) -> EndOwed<'_> {
        let owed = handler.join(token, &self.polled);
        if self.registry.borrow().is_paused(group) {
            let _new = self.polled.suspend(token);
        }
        owed
    }

    #[inline]
    pub(crate) fn set_interest(&self, token: Token, interest: Interest) -> io::Result<()> {
        let interest = interest.canonical();
        let registry = self.registry.borrow();
        let former = registry.interest(token).ok_or_else(not_registered)?;
        if former == interest {
            return Ok(());
        }
        let effective = registry.effective(token, interest).unwrap_or(Interest::NONE);
        let entry = registry.get(token).filter(|entry| !entry.in_backend);
        if entry.is_some_and(Entry::is_undescribed) {
            return Err(no_descriptor());
        }
        let owner = entry.map(Entry::owner);
        drop(registry);
        let told = match owner {
            Some(owner) => self.enter_backend(token, Watched::new(owner), effective),
            None => {
                let modified = self.backend.borrow_mut().modify(token, effective);
                modified.map_err(|why| self.explain_change(token, why))
            }
        };
        if told.is_ok() {
            // Not before: an edge of the former interest would be lost.
            self.registry.borrow_mut().set_interest(token, interest);
        }
        self.wake_if_about_to_wait();
        told
    }

    #[cold]
    fn explain_change(&self, token: Token, why: io::Error) -> io::Error {
        let registry = self.registry.borrow();
        let number = registry.get(token).map(|entry| entry.owner().as_fd().as_raw_fd());
        drop(registry);
        match number {
            Some(number) => self.explain("change an interest", number, why),
            None => why,
        }
    }

    /// Removes a handler; true if there was one. Without effect, and without waking anybody, if there is none (R3).
    pub(crate) fn remove(&self, cx: &Context, token: Token) -> bool {
        let Some(entry) = self.unlink(token) else {
            return false;
        };
        self.wake_if_about_to_wait();
        self.dismiss(cx, token, entry);
        true
    }

    /// Takes a handler out of the registry and the backend; the rest is for [`dismiss`](Self::dismiss), before anything else is
    /// called.
    #[inline]
    fn unlink(&self, token: Token) -> Option<Entry> {
        let entry = self.registry.borrow_mut().remove(token)?;
        if !entry.in_backend {
            return Some(entry);
        }
        self.looks_since_rebalance.set(REBALANCE_EVERY);
        if let Err(error) = self.backend.borrow_mut().remove(token) {
            // The number was closed behind our back, most likely; it is out of the backend all the same.
            tracing::debug!(?token, %error, "the backend complained about a removal");
        }
        Some(entry)
    }

    /// Takes a former handler out of the polled set, gives it its due `poll_end` and drops it.
    fn dismiss(&self, cx: &Context, token: Token, entry: Entry) {
        if let Some(polled) = &entry.polled {
            let owed = self.polled.leave(token);
            owed.finish(|| cx.call(|_| polled.handler.poll_end()));
        }
        cx.call(|_| drop(entry));
    }

    pub(crate) fn pause(&self, cx: &Context, group: GroupId) -> Paused {
        let depth = self.registry.borrow_mut().pause(group);
        let guard = Paused {
            context: Rc::downgrade(&cx.0),
            group,
        };
        if depth == 1 {
            // All are suspended before one of them is called, which might panic.
            let members = self.polled_of(group).into_iter();
            let owed = members.map(|token| (token, self.polled.suspend(token)));
            self.end_all(cx, owed.collect());
        }
        guard
    }

    /// Calls `poll_end` of all of them that are owed it. If one panics, the others are called all the same: nobody else would
    /// tell them. The first panic goes on, further ones end here.
    fn end_all(&self, cx: &Context, members: Vec<(Token, EndOwed<'_>)>) {
        let mut first_panic = None;
        for (token, owed) in members {
            let end = || {
                if let Some(handler) = self.pollable(token) {
                    cx.call(|_| handler.poll_end());
                }
            };
            let ended = catch_unwind(AssertUnwindSafe(|| owed.finish(end)));
            first_panic = first_panic.or(ended.err());
        }
        if let Some(panic) = first_panic {
            resume_unwind(panic);
        }
    }

    /// The polled handlers of a group. Pausing is rare: this looks at all registrations.
    fn polled_of(&self, group: GroupId) -> Vec<Token> {
        let registry = self.registry.borrow();
        let is_polled = |token: &Token| registry.group(*token) == Some(group) && self.polled.contains(*token);
        registry.tokens().filter(is_polled).collect()
    }

    fn resume(&self, cx: &Context, group: GroupId) {
        let mut parked = Vec::new();
        let last = self
            .registry
            .borrow_mut()
            .resume(group, &mut |token, interest| parked.push((token, interest)));
        // Everybody hears again before anybody is told that it does not: who is told may panic.
        let told = Farewells::of(
            cx,
            parked.into_iter().filter_map(|(token, interest)| {
                let rearmed = self.backend.borrow_mut().modify(token, interest);
                rearmed.err().map(|why| (token, why))
            }),
        );
        if last {
            let members = self.polled_of(group);
            members.into_iter().for_each(|token| self.polled.resume(token));
            self.shared.notifier.notify();
        }
        told.say();
    }

    /// Silences a handler in the backend because an event came that must wait (rule B5).
    pub(crate) fn park(&self, token: Token) {
        let silenced = self.backend.borrow_mut().modify(token, Interest::NONE);
        if let Err(error) = silenced {
            tracing::warn!(?token, %error, "a paused descriptor could not be silenced; it may keep the loop awake");
        }
    }

    /// Lets a parked handler hear again.
    pub(crate) fn rearm(&self, cx: &Context, token: Token, interest: Interest) {
        let rearmed = self.backend.borrow_mut().modify(token, interest);
        if let Err(why) = rearmed {
            self.give_up(cx, token, why);
        }
    }

    /// Removes a handler that cannot be watched any longer, and tells it why (rule R4).
    pub(crate) fn give_up(&self, cx: &Context, token: Token, why: io::Error) {
        let Some(entry) = self.unlink(token) else { return };
        let why = in_words(why);
        tracing::warn!(?token, error = %why, "a descriptor is not watched any longer");
        self.broken.set(self.broken.get() + 1);
        let handler = entry.handler.clone();
        self.dismiss(cx, token, entry);
        cx.call(|cx| handler.broken(cx, why));
        cx.call(|_| drop(handler));
    }
}

/// Those who cannot be watched any longer, and why. All are told, also after one of them has panicked.
struct Farewells<'a> {
    cx: &'a Context,
    left: std::vec::IntoIter<(Token, io::Error)>,
}

impl<'a> Farewells<'a> {
    fn of(cx: &'a Context, all: impl Iterator<Item = (Token, io::Error)>) -> Self {
        let left = all.collect::<Vec<_>>().into_iter();
        Self { cx, left }
    }

    fn say(mut self) {
        self.say_the_rest();
    }

    fn say_the_rest(&mut self) {
        for (token, why) in self.left.by_ref() {
            self.cx.0.give_up(self.cx, token, why);
        }
    }
}

impl Drop for Farewells<'_> {
    fn drop(&mut self) {
        self.say_the_rest();
    }
}
