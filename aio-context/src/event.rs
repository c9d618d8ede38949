//! [`Event`]: the readiness that a handler is called for. [`Action`]: its answer.

use aio_backend::{Interest, Readiness, Token};

use crate::macros::impl_debug;

/// The readiness of a descriptor, and the registration that waited for it.
///
/// [`Handler::ready`](crate::Handler::ready) and the closure of [`On::ready`](crate::On::ready) get it. It is
/// a small `Copy` value and does not keep the registration alive. Its methods act on the registration of the
/// handler that was called. Once that handler was removed or replaced, for example by a poll that was nested
/// in the callback, they have no effect, or return `NotFound`.
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
    /// The readiness in 16 bits, the interest in 8, and, in the upper half, the version of the handler: each
    /// replacement in the registration counts. Two registers hold an event on its way to a handler.
    rest: u64,
}

/// The action on a registration after a callback; see [`On::ready`](crate::On::ready) and [`Event::apply`].
///
/// # Examples
/// ```
/// use std::io::Read as _;
/// use aio_context::{Action, Context, Wait};
///
/// # fn main() -> std::io::Result<()> {
/// let (cx, (reader, writer)) = (Context::new()?, std::io::pipe()?);
/// let registration = cx
///     .on(reader)
///     .ready(|mut reader, _cx, _event| match reader.read(&mut [0; 512]) {
///         Ok(0) | Err(_) => Action::Remove,
///         Ok(_) => Action::Continue,
///     })
///     .watch()?;
/// drop(writer);
/// cx.poll(Wait::Block)?;
/// assert!(!registration.is_live());
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "an action takes effect when a closure returns it, or `Event::apply` gets it"]
#[non_exhaustive]
pub enum Action {
    /// Leaves the registration as it is. With [`Interest::ONESHOT`] it waits for no event until it is armed
    /// again.
    #[default]
    Continue,
    /// Arms the present interest again; see [`Event::rearm`].
    Rearm,
    /// Replaces the interest.
    Interest(Interest),
    /// Removes the handler.
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
    pub(crate) fn version(self) -> u32 {
        (self.rest >> 32) as u32
    }

    /// Returns the token of the registration, as [`Registration::token`](crate::Registration::token).
    #[inline]
    #[must_use]
    pub fn token(self) -> Token {
        Token::from_bits(self.token)
    }

    /// Returns all readiness that the system has reported, within the interest. Empty if a polled handler was
    /// called for work that its [`poll`](crate::Pollable::poll) has found.
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

    /// Returns whether [`Handler::readable`](crate::Handler::readable) is due: there is something to read, the peer has hung up or shut down its writing half,
    /// or the descriptor has an error, and the interest is in reading.
    #[inline]
    #[must_use]
    pub fn is_readable(self) -> bool {
        self.readiness().wakes_reader(self.interest())
    }

    /// Returns whether [`Handler::writable`](crate::Handler::writable) is due: there is room to write, or the descriptor has an error, and the interest is in
    /// writing; for a hang-up too if the interest is not in reading.
    #[inline]
    #[must_use]
    pub fn is_writable(self) -> bool {
        self.readiness().wakes_writer(self.interest())
    }

    /// Returns whether [`Handler::priority`](crate::Handler::priority) is due: there is an exceptional condition, and the interest is in it; for a hang-up or an
    /// error too if there is no other interest.
    #[inline]
    #[must_use]
    pub fn is_priority(self) -> bool {
        self.readiness().wakes_priority(self.interest())
    }

    /// Returns `true` if a direction other than reading may be due. Most handlers need only this test.
    #[inline]
    pub(crate) fn concerns_more_than_reading(self) -> bool {
        self.interest()
            .intersects(Interest::WRITE.union(Interest::PRIORITY))
    }
}

impl_debug!(Event, "Event": |it| token = it.token(), readiness = it.readiness(), interest = it.interest());
