//! Replacing a handler, between two callbacks (rules R3, R6).

use std::io;
use std::os::fd::AsRawFd;

use aio_backend::{Interest, NotTaken, Token, Watched, exchange};

use crate::Context;
use crate::context::Inner;
use crate::descriptors::not_registered;
use crate::handler::Entry;
use crate::registration::{Registration, finish_former};

impl Registration {
    /// Replaces the handler by `handler`, between two callbacks: a callback that is running keeps its handler
    /// until it returns, and the next event goes to the new one. The token, the interest and the group stay.
    ///
    /// A polled handler whose `poll_begin` was called gets its `poll_end`. An interest with
    /// [`Interest::ONESHOT`] is armed: the new handler gets an event even if the former one had its only one.
    ///
    /// # Errors
    /// `NotFound` if no handler is registered any more, `InvalidInput` if `handler` has another descriptor,
    /// or the error of the system. The former handler then stays, and the error contains `handler`. If the
    /// system also refuses to watch the former one again, that one is
    /// [invalidated](crate::Handler::invalidated).
    pub fn replace<H: Into<Entry> + Clone>(&self, handler: H) -> Result<(), NotTaken<H>> {
        self.exchange(handler, None)
    }

    /// As [`replace`](Self::replace), and replaces the interest.
    ///
    /// # Errors
    /// As [`replace`](Self::replace); the former interest stays, too.
    pub fn replace_with<H>(&self, handler: H, interest: Interest) -> Result<(), NotTaken<H>>
    where
        H: Into<Entry> + Clone,
    {
        self.exchange(handler, Some(interest))
    }

    fn exchange<H>(&self, handler: H, interest: Option<Interest>) -> Result<(), NotTaken<H>>
    where
        H: Into<Entry> + Clone,
    {
        NotTaken::offer(handler, |handler| {
            let cx = self.context()?;
            cx.0.replace(&cx, self.token(), handler.into(), interest)
        })
    }
}

impl Context {
    /// Replaces the handler that is registered for the same descriptor number by `handler`, and its interest,
    /// between two callbacks; see [`Registration::replace`]. Returns the token, which stays. The registration
    /// still belongs to the holder of its [`Registration`].
    ///
    /// # Errors
    /// `NotFound` if the number has no handler ([`watch`](Self::watch) registers one), or the error of the
    /// system. The former handler then stays, and the error contains `handler`.
    #[doc(alias = "aio_set_fd_handler")]
    #[doc(alias = "aio_set_fd_poll")]
    pub fn replace<H>(&self, handler: H, interest: Interest) -> Result<Token, NotTaken<H>>
    where
        H: Into<Entry> + Clone,
    {
        NotTaken::offer(handler, |handler| {
            let new = handler.into();
            let token = self.token_of(&new.handler).ok_or_else(not_registered)?;
            self.0.replace(self, token, new, Some(interest))?;
            Ok(token)
        })
    }
}

impl Inner {
    /// Replaces the handler of `token` by `entry`. Without `interest` the former interest stays.
    pub(crate) fn replace(
        &self,
        cx: &Context,
        token: Token,
        entry: Entry,
        interest: Option<Interest>,
    ) -> io::Result<()> {
        let is_special = entry.is_special();
        let new = Watched::new(entry.owner());
        let registry = self.descriptors.registry.borrow();
        let change = registry.replacement(token, new.as_raw_fd(), interest.map(Interest::canonical))?;
        let former = registry.get(token).map(|former| Watched::new(former.owner()));
        let former = former.filter(|_| change.is_watched);
        drop(registry);
        if let Some(former) = former {
            self.exchange_owner(cx, token, (new, change.to), (former, change.from))?;
        } else if change.interest != Interest::NONE {
            self.descriptors.backend.add(token, new, change.to)?;
        }
        let polled = entry.pollable().cloned();
        let mut registry = self.descriptors.registry.borrow_mut();
        let replaced = registry.succeed(token, entry, change.interest, Entry::is_same);
        let replaced = replaced.ok_or_else(not_registered)?;
        if is_special {
            registry.set_special(token);
        }
        drop(registry);
        self.time_if_on(token);
        let owed = match polled {
            Some(handler) => self.join_polled(cx, token, handler),
            None => self.polling.set.leave(token),
        };
        if replaced.is_other {
            self.polling.set.end_exclusions(token);
        }
        if let Some(interest) = replaced.rearm {
            self.rearm(cx, token, interest);
        }
        self.mailbox.notify_if_about_to_wait();
        finish_former(cx, replaced.former, || owed);
        Ok(())
    }

    /// Replaces the former owner in the backend by the new one. On an error the former one stays, or is
    /// invalidated.
    fn exchange_owner(
        &self,
        cx: &Context,
        token: Token,
        new: (Watched, Interest),
        former: (Watched, Interest),
    ) -> io::Result<()> {
        let number = new.0.as_raw_fd();
        let exchanged = exchange(&mut **self.descriptors.backend.borrow_mut(), token, new, former);
        let Err(refused) = exchanged else { return Ok(()) };
        let backend = &self.descriptors.backend;
        let why = backend.explain("replace a handler", number, refused.error);
        if let Some(error) = refused.lost {
            // Otherwise the handler would be registered, and never called.
            self.invalidate(cx, token, error);
        }
        Err(why)
    }
}
