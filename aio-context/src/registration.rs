//! Registering and removing handlers. Replacing them is in `replacing.rs`, pausing groups of them in
//! `pausing.rs`.
//!
//! The order is always the same: registry, polled set, backend; then the callbacks that are due; and the
//! value is dropped last, outside every borrow, because its `Drop` may use the context.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::rc::{Rc, Weak};

use aio_backend::{Interest, NotTaken, Refused, Token, Watched};
use aio_handlers::{GroupId, Running};
use aio_pollset::EndOwed;

use crate::Context;
use crate::context::{Inner, WeakContext};
use crate::descriptor;
use crate::descriptors::{is_own, not_registered};
use crate::handler::{Entry, Join};
use crate::iteration::measure::PollTime;

/// A registered handler; dropping it removes the handler.
///
/// It does not keep the context alive, and does nothing once the context is gone.
///
/// # Examples
/// ```
/// use std::io::Write as _;
/// use aio_context::{Context, Interest, Wait};
///
/// # fn main() -> std::io::Result<()> {
/// let (cx, (reader, mut writer)) = (Context::new()?, std::io::pipe()?);
/// let registration = cx.on(reader).readable(|_, _| ()).watch()?;
/// writer.write_all(b"x")?;
/// registration.set_interest(Interest::NONE)?;
/// assert!(!cx.poll(Wait::NoBlock)?);
/// registration.set_interest(Interest::READ)?;
/// assert!(cx.poll(Wait::NoBlock)?);
/// drop(registration);
/// assert!(!cx.poll(Wait::NoBlock)?);
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "dropped at once, it watches nothing; keep it or `detach()` it"]
pub struct Registration {
    /// Dangling if it was detached.
    context: WeakContext,
    token: Token,
}

impl Registration {
    #[inline]
    pub(crate) fn new(cx: &Context, token: Token) -> Self {
        let context = cx.downgrade();
        Self { context, token }
    }

    /// Replaces the interest. With [`Interest::EDGE`] or [`Interest::ONESHOT`] this arms the registration,
    /// even if the interest is the same: the next wait reports readiness that exists already.
    ///
    /// # Errors
    /// `NotFound` if the handler is not registered any more, `InvalidInput` if it is a
    /// [`Source`](crate::Source), or the error of the system. The former interest then stays.
    pub fn set_interest(&self, interest: Interest) -> io::Result<()> {
        self.context()?.set_interest(self.token, interest)
    }

    /// Arms the present interest again, after the only event of [`Interest::ONESHOT`], or for another report
    /// of an edge. Has no effect on a level-triggered interest.
    ///
    /// # Errors
    /// As [`set_interest`](Self::set_interest).
    pub fn rearm(&self) -> io::Result<()> {
        self.context()?.rearm(self.token)
    }

    /// Removes the handler: no callback of it starts after this returns. The same as dropping the
    /// registration.
    pub fn remove(self) {}

    /// Keeps the handler registered for as long as the context lives, or until [`Context::unwatch`].
    pub fn detach(mut self) -> Token {
        self.context = WeakContext(Weak::new());
        self.token
    }

    /// Returns the token of the registration, for [`Context::unwatch`] and others.
    #[must_use]
    pub fn token(&self) -> Token {
        self.token
    }

    /// Returns a handle to this handler's polling time, readable from any thread while the loop runs.
    /// Replacing the handler resets the time; get a new handle then.
    ///
    /// # Errors
    /// `NotFound` if no handler is registered any more, `Unsupported` if the handler is not a polled one.
    pub fn poll_time(&self) -> io::Result<PollTime> {
        self.context()?.0.poll_time(self.token)
    }

    /// Returns `true` while a handler is registered: neither [removed](Context::unwatch) nor
    /// [invalidated](crate::Handler::invalidated).
    #[must_use]
    pub fn is_live(&self) -> bool {
        let cx = self.context.upgrade();
        cx.is_some_and(|cx| cx.0.descriptors.registry.borrow().get(self.token).is_some())
    }

    pub(crate) fn context(&self) -> io::Result<Context> {
        self.context.upgrade().ok_or_else(not_registered)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(cx) = self.context.upgrade_at_home() {
            cx.0.remove(&cx, self.token);
        }
    }
}

impl Context {
    /// Calls `handler` when its descriptor is ready for `interest`, until the registration is dropped.
    /// `handler` is an `Rc` of a [`Handler`](crate::Handler), or a [`Polled`](crate::Polled) one, which is
    /// also polled in user space, and with [`Interest::NONE`] only polled.
    ///
    /// Readiness is level-triggered: a handler may read once and is called again if there is more. A handler
    /// that reads or accepts until `WouldBlock` needs a non-blocking descriptor: with a blocking one its last
    /// call waits, and blocks the whole loop. In debug builds, a `tracing` event warns of blocking listeners
    /// and of blocking edge-triggered descriptors.
    ///
    /// A descriptor number has at most one handler. To replace it by another one, see
    /// [`replace`](Self::replace).
    ///
    /// # Errors
    /// `AlreadyExists` if the number has a handler, which stays; `EBADF` if the number is not open, in a
    /// [`Refused`]; or another error of the system. Nothing is registered then, and the error contains
    /// `handler`.
    ///
    /// [`Refused`]: crate::Refused
    #[doc(alias = "aio_set_fd_handler")]
    #[doc(alias = "aio_set_fd_poll")]
    pub fn watch<H>(&self, handler: H, interest: Interest) -> Result<Registration, NotTaken<H>>
    where
        H: Into<Entry> + Clone,
    {
        self.watch_in(GroupId::DEFAULT, handler, interest)
    }

    /// As [`watch`](Self::watch), as a member of `group`, which can be [paused](Self::pause).
    ///
    /// # Errors
    /// As [`watch`](Self::watch).
    pub fn watch_in<H>(
        &self,
        group: GroupId,
        handler: H,
        interest: Interest,
    ) -> Result<Registration, NotTaken<H>>
    where
        H: Into<Entry> + Clone,
    {
        let add = |handler: H| self.0.add(self, handler.into(), interest, group);
        NotTaken::offer(handler, add).map(|token| Registration::new(self, token))
    }

    /// Removes the handler registered under `token`. Returns `false` if there is none. After this returns, no
    /// callback of the handler starts. Also removes handlers that were detached.
    pub fn unwatch(&self, token: Token) -> bool {
        !is_own(token) && self.0.remove(self, token)
    }

    /// As [`Registration::set_interest`], for the registration with this token, such as one that was
    /// [detached](Registration::detach).
    ///
    /// # Errors
    /// As [`Registration::set_interest`].
    #[inline]
    pub fn set_interest(&self, token: Token, interest: Interest) -> io::Result<()> {
        if is_own(token) {
            return Err(not_registered());
        }
        if self.0.descriptors.set_interest(token, interest, Entry::owner)? {
            self.0.mailbox.notify_if_about_to_wait();
        }
        Ok(())
    }

    /// As [`Registration::rearm`], for the registration with this token.
    ///
    /// # Errors
    /// As [`Registration::set_interest`].
    pub fn rearm(&self, token: Token) -> io::Result<()> {
        let interest = self.0.descriptors.registry.borrow().interest(token);
        self.set_interest(token, interest.ok_or_else(not_registered)?)
    }

    /// Returns the token of the handler that is registered for this descriptor number, regardless of its
    /// owner. A number has at most one.
    ///
    /// With it, a polled handler reaches its own registration from its [`poll_ready`](crate::Pollable::poll_ready):
    /// `cx.token_of(self)`.
    #[must_use]
    pub fn token_of(&self, fd: impl AsFd) -> Option<Token> {
        let number = fd.as_fd().as_raw_fd();
        let token = self.0.descriptors.registry.borrow().token_of(number);
        token.filter(|token| !is_own(*token))
    }

    /// Returns a registration for the handler under `token`, such as one that was
    /// [detached](Registration::detach). A thread that has the token can call this in a job of a
    /// [`Remote`](crate::Remote). Dropping the registration removes the handler. `None` if no handler is
    /// registered under the token any more.
    ///
    /// If the registration with this token was not detached, there are two. Dropping either of them removes
    /// the handler.
    #[must_use = "dropped at once, it removes the handler"]
    pub fn attach(&self, token: Token) -> Option<Registration> {
        let is_live = !is_own(token) && self.0.descriptors.registry.borrow().get(token).is_some();
        is_live.then(|| Registration::new(self, token))
    }
}

impl Inner {
    /// Registers a handler, unless its descriptor has one already (rules R2, R3).
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
        let number = owner.as_raw_fd();
        let polled = entry.pollable().cloned();
        let token = self.enroll(Some(number), entry, interest, group)?;
        if cfg!(debug_assertions) {
            descriptor::warn_if_blocking(owner.as_fd(), interest);
        }
        let entered = if interest == Interest::NONE {
            // The backend never gets it.
            descriptor::find(&owner)
                .map_err(|why| self.descriptors.backend.explain("add a descriptor", number, why))
        } else {
            self.descriptors
                .backend
                .add_numbered(token, owner, number, interest)
        };
        if let Err(why) = entered {
            let entry = self.descriptors.registry.borrow_mut().remove(token);
            drop(entry);
            return Err(why);
        }
        if let Some(handler) = polled {
            let _new = self.join_polled(cx, token, handler);
        }
        self.time_if_on(token);
        self.mailbox.notify_if_about_to_wait();
        Ok(token)
    }

    /// Makes a registration that is neither watched nor polled yet.
    #[inline(always)]
    pub(crate) fn enroll(
        &self,
        number: Option<RawFd>,
        entry: Entry,
        interest: Interest,
        group: GroupId,
    ) -> io::Result<Token> {
        let is_special = entry.is_special();
        let mut registry = self.descriptors.registry.borrow_mut();
        let inserted = registry.insert(number, entry, interest, group);
        if is_special && let Ok(token) = &inserted {
            registry.set_special(*token);
        }
        drop(registry);
        Ok(inserted?)
    }

    /// Adds a handler to the poll set, unless its group is paused, or it is exclusive and runs in another
    /// place. Returns the `poll_end` that is due for the former handler.
    pub(crate) fn join_polled(&self, cx: &Context, token: Token, handler: Rc<dyn Join>) -> EndOwed<'_> {
        if handler.exclusive() && Running::is_running(&*handler) {
            self.hold_back(cx, token, &*handler);
            return self.polling.set.leave(token);
        }
        let owed = handler.join(token, &self.polling.set);
        let registry = self.descriptors.registry.borrow();
        let group = registry.group(token);
        if group.is_some_and(|group| registry.is_paused(group)) {
            let _new = self.polling.set.suspend(token);
        }
        owed
    }

    /// Removes a handler. Returns `true` if there was one. If there is none, this has no effect and does not
    /// wake a loop (R3).
    pub(crate) fn remove(&self, cx: &Context, token: Token) -> bool {
        let Some(entry) = self.descriptors.unlink(token) else {
            return false;
        };
        self.mailbox.notify_if_about_to_wait();
        finish_former(cx, entry, || self.polling.set.leave(token));
        true
    }

    /// Unmasks a handler in the backend.
    pub(crate) fn rearm(&self, cx: &Context, token: Token, interest: Interest) {
        let rearmed = self.descriptors.backend.modify(token, interest);
        if let Err(why) = rearmed {
            self.invalidate(cx, token, why);
        }
    }

    /// Removes a handler that cannot be watched any longer, and notifies it (rule R4).
    pub(crate) fn invalidate(&self, cx: &Context, token: Token, why: io::Error) {
        let Some(entry) = self.descriptors.unlink(token) else {
            return;
        };
        let why = Refused::while_registered(why);
        tracing::warn!(?token, error = %why, "a descriptor is not watched any longer");
        self.descriptors.invalidated.add(1);
        let (handler, timing) = (entry.handler.clone(), entry.timing());
        finish_former(cx, entry, || self.polling.set.leave(token));
        let (cx, own) = (cx.clone(), handler.clone());
        Running::after(&*own, move || {
            cx.call_timing(timing, |_| {}, |cx| handler.invalidated(cx, why));
            cx.call(|_| drop(handler));
        });
    }
}

/// Calls `poll_end` of a former handler if it is due, and drops the handler. `leave` takes it out of poll
/// mode.
#[inline(always)]
pub(crate) fn finish_former<'a>(cx: &Context, entry: Entry, leave: impl FnOnce() -> EndOwed<'a>) {
    if let Some(handler) = entry.pollable() {
        leave().finish(|| cx.call(|_| handler.poll_end()));
    }
    cx.call(|_| drop(entry));
}
