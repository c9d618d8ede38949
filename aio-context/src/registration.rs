//! Registering, replacing and removing handlers, and pausing groups of them.
//!
//! The order is always the same: registry, polled set, backend; then the callbacks that are owed; and the value is dropped
//! last, outside every borrow, because its `Drop` may use the context.

use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::{Rc, Weak};

use aio_backend::{Interest, Token, Watched};
use aio_handlers::{GroupId, Occupied};
use aio_pollset::EndOwed;

use crate::adapting::PollTime;
use crate::context::Inner;
use crate::error::explained_if_all;
use crate::handler::{Entry, Join};
use crate::waiting::REBALANCE_EVERY;
use crate::{Context, Handler, Pollable};

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

    /// Puts `handler` in the place of the present one, between two callbacks: a callback that is running keeps its
    /// handler until it returns, the next event goes to the new one. The interest and the group stay.
    ///
    /// # Errors
    /// `NotFound` if the handler is not registered any more, `InvalidInput` if `handler` has another descriptor, or what
    /// the system says; the former handler then stays. If the system refuses to watch that one again, too, it is
    /// [broken](Handler::broken).
    pub fn replace<H: Handler>(&self, handler: Rc<H>) -> io::Result<()> {
        self.replace_with(Entry::plain(handler))
    }

    /// As [`replace`](Self::replace), with a polled handler.
    ///
    /// # Errors
    /// As [`replace`](Self::replace).
    pub fn replace_polled<H: Pollable>(&self, handler: Rc<H>) -> io::Result<()> {
        self.replace_with(Entry::polled(handler))
    }

    fn replace_with(&self, entry: Entry) -> io::Result<()> {
        let cx = self.context()?;
        cx.0.replace(&cx, self.token, entry)
    }

    /// Waits for something else from now on.
    ///
    /// # Errors
    /// `NotFound` if the handler is not registered any more, or what the system says; the former interest stays.
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

    /// How long the policy would poll for this handler, to be read from any thread while the loop runs. A handler that takes
    /// its place begins anew, and is asked about anew.
    ///
    /// # Errors
    /// `NotFound` if the handler is not registered any more.
    pub fn poll_time(&self) -> io::Result<PollTime> {
        let cx = self.context()?;
        Ok(cx.0.poll_time(self.token))
    }

    /// Whether the handler is still registered: not replaced by another `watch` of the same descriptor, not
    /// [broken](Handler::broken).
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.context
            .upgrade()
            .is_some_and(|inner| inner.registry.borrow().get(self.token).is_some())
    }

    fn context(&self) -> io::Result<Context> {
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

fn not_registered() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the handler is not registered any more")
}

impl Inner {
    /// Registers a handler; one that is registered for the same descriptor number gives way to it (rules R2, R3).
    #[inline]
    pub(crate) fn add(
        &self,
        cx: &Context,
        entry: Entry,
        interest: Interest,
        group: GroupId,
    ) -> io::Result<Token> {
        let interest = interest.canonical();
        let owner = Watched::new(entry.owner());
        let fd = owner.as_raw_fd();
        let former = self.registry.borrow().token_of(fd);
        if let Some(former) = former {
            self.remove(cx, former);
        }
        let polled = entry.pollable().cloned();
        let inserted = self
            .registry
            .borrow_mut()
            .insert(Some(fd), entry, interest, group);
        let token = inserted.map_err(|Occupied { .. }| {
            io::Error::new(
                io::ErrorKind::AlreadyExists,
                "the drop of the former handler watched its descriptor again",
            )
        })?;
        if interest != Interest::NONE
            && let Err(why) = self.enter_backend(token, owner, interest)
        {
            let entry = self.registry.borrow_mut().remove(token);
            drop(entry);
            return Err(why);
        }
        if let Some(handler) = polled {
            let _new = self.join_polled(token, handler, group);
        }
        self.wake_if_about_to_wait();
        Ok(token)
    }

    #[inline(always)]
    fn enter_backend(&self, token: Token, owner: Watched, interest: Interest) -> io::Result<()> {
        let added = self.backend.borrow_mut().add(owner, token, interest);
        added.map_err(|why| explained_if_all("add a descriptor", self.backend.borrow().name(), why))?;
        self.looks_since_rebalance.set(REBALANCE_EVERY);
        if let Some(entry) = self.registry.borrow_mut().get_mut(token) {
            entry.in_backend = true;
        }
        Ok(())
    }

    pub(crate) fn replace(&self, cx: &Context, token: Token, mut entry: Entry) -> io::Result<()> {
        let owner = Watched::new(entry.owner());
        let (former_owner, effective, group) = {
            let registry = self.registry.borrow();
            let former = registry.get(token).ok_or_else(not_registered)?;
            if registry.token_of(owner.as_raw_fd()) != Some(token) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "a handler can only be replaced by one for the same descriptor; watch the other one instead",
                ));
            }
            let effective = registry.effective_interest(token).unwrap_or(Interest::NONE);
            let group = registry.group(token).unwrap_or(GroupId::DEFAULT);
            (former.in_backend.then(|| former.owner()), effective, group)
        };
        if let Some(former) = former_owner {
            self.exchange_share(cx, token, owner, Watched::new(former), effective)?;
        }
        let polled = entry.pollable().cloned();
        let mut registry = self.registry.borrow_mut();
        entry.in_backend = registry.get(token).is_some_and(|former| former.in_backend);
        let former = registry.replace(token, entry);
        drop(registry);
        let owed = match polled {
            Some(handler) => self.join_polled(token, handler, group),
            None => self.polled.leave(token),
        };
        self.wake_if_about_to_wait();
        if let Some(former) = former {
            if let Some(polled) = &former.polled {
                owed.finish(|| cx.call(|_| polled.handler.poll_end()));
            }
            cx.call(|_| drop(former));
        }
        Ok(())
    }

    /// Has a handler polled, unless its group is paused. Returns what the former one is owed.
    fn join_polled(&self, token: Token, handler: Rc<dyn Join>, group: GroupId) -> EndOwed<'_> {
        let owed = handler.join(token, &self.polled);
        if self.registry.borrow().is_paused(group) {
            let _new = self.polled.suspend(token);
        }
        owed
    }

    /// Has the backend hold a share in the new owner instead of the former one's; on an error the former stays, or is told
    /// that it could not.
    fn exchange_share(
        &self,
        cx: &Context,
        token: Token,
        new: Watched,
        former: Watched,
        interest: Interest,
    ) -> io::Result<()> {
        let mut backend = self.backend.borrow_mut();
        // The backend forgets the token whatever it answers; adding again shows whether anything is wrong.
        let _ = backend.remove(token);
        let Err(why) = backend.add(new, token, interest) else {
            return Ok(());
        };
        let restored = backend.add(former, token, interest);
        drop(backend);
        if let Err(error) = restored {
            // It would be registered and deaf.
            if let Some(entry) = self.registry.borrow_mut().get_mut(token) {
                entry.in_backend = false;
            }
            self.give_up(cx, token, error);
        }
        Err(why)
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
        let owner = registry
            .get(token)
            .filter(|entry| !entry.in_backend)
            .map(Entry::owner);
        drop(registry);
        let told = match owner {
            Some(owner) => self.enter_backend(token, Watched::new(owner), effective),
            None => self.backend.borrow_mut().modify(token, effective),
        };
        if told.is_ok() {
            // Not before: an edge of the former interest would be lost.
            self.registry.borrow_mut().set_interest(token, interest);
        }
        self.wake_if_about_to_wait();
        told.map_err(|why| explained_if_all("change an interest", self.backend.borrow().name(), why))
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
