//! [`Event`]: what a handler is called for, and its way to its own registration. [`Action`]: what it asks for in return.

use std::fmt;
use std::io;
use std::rc::Rc;

use aio_backend::{Interest, Readiness, Token};

use crate::context::Inner;
use crate::error::WatchError;
use crate::handler::Entry;
use crate::{Context, Handler, HandlerMut, Pollable};

/// What a descriptor is ready for, and the registration that waited for it.
///
/// [`Handler::ready`] and the closure of [`On::ready`](crate::On::ready) get it. It is a small value that can be copied, and does not
/// keep the registration alive. Its methods act on the registration of the handler that was called, and have no effect, or return
/// `NotFound`, once the handler was removed or replaced, for example by a poll that was nested in the callback.
///
/// ```
/// use std::io::{PipeReader, Read};
/// use std::os::fd::{AsFd, BorrowedFd};
/// use std::rc::Rc;
/// use aio_context::{Context, Event, Handler, Interest, Wait};
///
/// /// Reads until the writer has hung up.
/// struct Log(PipeReader);
///
/// # impl AsFd for Log { fn as_fd(&self) -> BorrowedFd<'_> { self.0.as_fd() } }
/// impl Handler for Log {
///     fn ready(&self, cx: &Context, event: Event) {
///         let mut line = [0; 512];
///         match (&self.0).read(&mut line) {
///             Ok(0) | Err(_) => _ = event.remove(cx),
///             Ok(length) => println!("{length} bytes"),
///         }
///     }
/// }
///
/// # fn main() -> std::io::Result<()> {
/// let (cx, (reader, writer)) = (Context::new()?, std::io::pipe()?);
/// let registration = cx.watch(Rc::new(Log(reader)), Interest::READ)?;
/// drop(writer);
/// cx.poll(Wait::Block)?;
/// assert!(!registration.is_live());
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// The bits of the token.
    token: u64,
    /// The readiness in 16 bits, the interest in 8, and, in the upper half, which handler of the registration it is: replacing one
    /// counts. Two registers hold an event on its way to a handler.
    rest: u64,
}

/// What becomes of a registration after a callback: see [`On::ready`](crate::On::ready) and [`Event::apply`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "an action takes effect when a closure returns it, or `Event::apply` gets it"]
#[non_exhaustive]
pub enum Action {
    /// It stays as it is. A registration with [`Interest::ONESHOT`] sleeps.
    #[default]
    Continue,
    /// It waits for its present interest again: see [`Event::rearm`].
    Rearm,
    /// It waits for another interest from now on.
    Interest(Interest),
    /// It ends.
    Remove,
}

impl From<()> for Action {
    fn from((): ()) -> Self {
        Self::Continue
    }
}

impl Event {
    #[inline]
    pub(crate) fn new(token: Token, readiness: Readiness, interest: Interest, version: u32) -> Self {
        let (readiness, interest) = (u64::from(readiness.bits()), u64::from(interest.bits()));
        Self {
            token: token.to_bits(),
            rest: readiness | interest << 16 | u64::from(version) << 32,
        }
    }

    #[inline]
    fn version(self) -> u32 {
        (self.rest >> 32) as u32
    }

    /// Returns the name of the registration, as [`Registration::token`](crate::Registration::token).
    #[inline]
    #[must_use]
    pub fn token(self) -> Token {
        Token::from_bits(self.token)
    }

    /// Returns everything that the system has reported, within the interest. Empty if a polled handler was called for work that its
    /// [`poll`](Pollable::poll) has found.
    #[inline]
    #[must_use]
    pub fn readiness(self) -> Readiness {
        Readiness::from_bits_retain(self.rest as u16)
    }

    /// Returns the interest of the registration when the event was dispatched.
    #[inline]
    #[must_use]
    pub fn interest(self) -> Interest {
        Interest::from_bits_retain((self.rest >> 16) as u8)
    }

    /// Returns whether [`Handler::readable`] is due: there is something to read, the peer has hung up or shut down its writing half,
    /// or the descriptor has an error, and the interest is in reading.
    #[inline]
    #[must_use]
    pub fn is_readable(self) -> bool {
        self.readiness().wakes_reader(self.interest())
    }

    /// Returns whether [`Handler::writable`] is due: there is room to write, or the descriptor has an error, and the interest is in
    /// writing; for a hang-up too if the interest is not in reading.
    #[inline]
    #[must_use]
    pub fn is_writable(self) -> bool {
        self.readiness().wakes_writer(self.interest())
    }

    /// Returns whether [`Handler::priority`] is due: there is an exceptional condition, and the interest is in it; for a hang-up or an
    /// error too if there is no other interest.
    #[inline]
    #[must_use]
    pub fn is_priority(self) -> bool {
        self.readiness().wakes_priority(self.interest())
    }

    /// Calls a handler for each direction that is due. Before each but the first, the registration must still wait for it (rules R9,
    /// D3).
    ///
    /// A handler that only reads is called last here, so nothing is kept for the time after that call.
    #[inline]
    pub(crate) fn deliver<H: Handler + ?Sized>(self, handler: &H, cx: &Context) {
        if self.concerns_more_than_reading() {
            self.deliver_all(handler, cx);
        } else if self.is_readable() {
            handler.readable(cx);
        }
    }

    #[inline(never)]
    fn deliver_all<H: Handler + ?Sized>(self, handler: &H, cx: &Context) {
        let mut is_first = true;
        if self.is_readable() {
            handler.readable(cx);
            is_first = false;
        }
        if self.is_writable() && (is_first || self.is_wanted(cx, Readiness::wakes_writer)) {
            handler.writable(cx);
            is_first = false;
        }
        if self.is_priority() && (is_first || self.is_wanted(cx, Readiness::wakes_priority)) {
            handler.priority(cx);
        }
    }

    /// As [`deliver`](Self::deliver).
    pub(crate) fn deliver_mut<F, H: HandlerMut<F> + ?Sized>(self, handler: &mut H, owner: &F, cx: &Context) {
        let mut is_first = true;
        if self.is_readable() {
            handler.readable(owner, cx);
            is_first = false;
        }
        if self.is_writable() && (is_first || self.is_wanted(cx, Readiness::wakes_writer)) {
            handler.writable(owner, cx);
            is_first = false;
        }
        if self.is_priority() && (is_first || self.is_wanted(cx, Readiness::wakes_priority)) {
            handler.priority(owner, cx);
        }
    }

    /// Returns whether there may be anything to do besides `readable`: one test for most handlers.
    #[inline]
    fn concerns_more_than_reading(self) -> bool {
        self.interest()
            .intersects(Interest::WRITE.union(Interest::PRIORITY))
    }

    /// Returns whether the registration still waits for what is due next. If a pause prevents it, the event is kept.
    #[inline(never)]
    fn is_wanted(self, cx: &Context, wakes: fn(Readiness, Interest) -> bool) -> bool {
        let descriptors = &cx.0.descriptors;
        let is_wanted = descriptors.is_current(
            self.token(),
            |entry| entry.version == self.version(),
            |interest| wakes(self.readiness(), interest),
        );
        if !is_wanted {
            descriptors.reject(self.token());
        }
        is_wanted
    }

    /// Returns whether the handler that was called is registered still: neither removed, invalidated nor replaced.
    #[must_use]
    pub fn is_current(self, cx: &Context) -> bool {
        let registry = cx.0.descriptors.registry.borrow();
        registry
            .get(self.token())
            .is_some_and(|entry| entry.version == self.version())
    }

    /// Removes the handler: no callback of it starts after this returns. Returns `false` if it is not registered any more. The holder of
    /// the [`Registration`](crate::Registration), if there is one, may drop it at any time.
    pub fn remove(self, cx: &Context) -> bool {
        self.is_current(cx) && cx.unwatch(self.token())
    }

    /// Waits for something else from now on. With [`Interest::EDGE`] or [`Interest::ONESHOT`] this arms the registration, also if it is
    /// the same interest.
    ///
    /// # Errors
    /// As [`Registration::set_interest`](crate::Registration::set_interest).
    pub fn set_interest(self, cx: &Context, interest: Interest) -> io::Result<()> {
        self.check_current(cx)?;
        cx.set_interest(self.token(), interest)
    }

    /// Waits for the present interest again, after the only event of [`Interest::ONESHOT`], or for another report of an edge: what is
    /// ready already is reported by the next wait. Without effect for a level-triggered interest.
    ///
    /// # Errors
    /// As [`Registration::set_interest`](crate::Registration::set_interest).
    pub fn rearm(self, cx: &Context) -> io::Result<()> {
        self.check_current(cx)?;
        cx.rearm(self.token())
    }

    /// Puts `handler` in the place of the one that was called, with another interest: see
    /// [`Registration::replace_with`](crate::Registration::replace_with). The handler that was called lives until its callback returns.
    ///
    /// # Errors
    /// As [`Registration::replace_with`](crate::Registration::replace_with).
    pub fn replace<H: Handler>(
        self,
        cx: &Context,
        handler: Rc<H>,
        interest: Interest,
    ) -> Result<(), WatchError<H>> {
        match self.check_current(cx) {
            Ok(()) => cx.replace_at(self.token(), handler, interest),
            Err(why) => Err(WatchError::new(handler, why)),
        }
    }

    /// As [`replace`](Self::replace), with a polled handler.
    ///
    /// # Errors
    /// As [`replace`](Self::replace).
    pub fn replace_polled<H: Pollable>(
        self,
        cx: &Context,
        handler: Rc<H>,
        interest: Interest,
    ) -> Result<(), WatchError<H>> {
        match self.check_current(cx) {
            Ok(()) => cx.replace_polled_at(self.token(), handler, interest),
            Err(why) => Err(WatchError::new(handler, why)),
        }
    }

    /// Does what a callback asks for. If the system refuses the interest, the handler is [invalidated](Handler::invalidated). Without
    /// effect if the handler was removed or replaced.
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
        if self.is_current(cx) {
            Ok(())
        } else {
            Err(crate::descriptors::not_registered())
        }
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("token", &self.token())
            .field("readiness", &self.readiness())
            .field("interest", &self.interest())
            .finish_non_exhaustive()
    }
}

impl Inner {
    /// The event of a handler that found work by itself, if it is registered under the number `number`.
    pub(crate) fn event_of_work(&self, number: i32, is_it: impl FnOnce(&Entry) -> bool) -> Option<Event> {
        let registry = self.descriptors.registry.borrow();
        let token = registry.token_of(number)?;
        let entry = registry.get(token).filter(|entry| is_it(entry))?;
        let interest = registry.interest(token)?;
        Some(Event::new(token, Readiness::empty(), interest, entry.version))
    }
}
