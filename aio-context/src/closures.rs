//! [`On`]: a handler made of closures, for when a type of one's own is too much.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use aio_backend::Interest;
use aio_handlers::GroupId;

use crate::{Context, Handler, Registration, WatchError};

type Callback<F> = Box<dyn Fn(&F, &Context)>;
type Invalidated<F> = Box<dyn Fn(&F, &Context, io::Error)>;

/// Closures for a descriptor, to be completed by [`watch`](On::watch). Made by [`Context::on`].
#[must_use = "nothing is watched before `watch()`"]
pub struct On<'cx, F> {
    cx: &'cx Context,
    group: GroupId,
    parts: Closures<F>,
}

/// The handler that [`On::watch`] makes. It comes back in a [`WatchError`] if it is not registered, and can be
/// [watched](Context::watch) or put in the place of another one later.
pub struct Closures<F> {
    owner: F,
    readable: Option<Callback<F>>,
    writable: Option<Callback<F>>,
    invalidated: Option<Invalidated<F>>,
}

impl Context {
    /// Begins a handler made of closures for `owner`'s descriptor; the context owns `owner` until the registration ends.
    ///
    /// ```
    /// use std::io::ErrorKind;
    /// use std::net::TcpListener;
    /// use aio_context::Context;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let (cx, listener) = (Context::new()?, TcpListener::bind("127.0.0.1:0")?);
    /// listener.set_nonblocking(true)?; // the handler accepts until `WouldBlock`
    /// let on = cx.on(listener).readable(|listener, _cx| {
    ///     loop {
    ///         match listener.accept() {
    ///             Ok((_client, from)) => println!("{from} is here"),
    ///             Err(why) if why.kind() == ErrorKind::WouldBlock => return,
    ///             Err(why) => return eprintln!("cannot accept: {why}"),
    ///         }
    ///     }
    /// });
    /// let registration = on.watch()?;
    /// # drop(registration); Ok(()) }
    /// ```
    pub fn on<F: AsFd + 'static>(&self, owner: F) -> On<'_, F> {
        let parts = Closures {
            owner,
            readable: None,
            writable: None,
            invalidated: None,
        };
        On {
            cx: self,
            group: GroupId::DEFAULT,
            parts,
        }
    }
}

impl<F: AsFd + 'static> On<'_, F> {
    /// Called when there is something to read. A closure that reads or accepts until `WouldBlock` needs a non-blocking
    /// descriptor; see [`Context::watch`].
    pub fn readable(mut self, run: impl Fn(&F, &Context) + 'static) -> Self {
        self.parts.readable = Some(Box::new(run));
        self
    }

    /// Called when there is room to write.
    pub fn writable(mut self, run: impl Fn(&F, &Context) + 'static) -> Self {
        self.parts.writable = Some(Box::new(run));
        self
    }

    /// Called when the descriptor cannot be watched any longer.
    pub fn invalidated(mut self, run: impl Fn(&F, &Context, io::Error) + 'static) -> Self {
        self.parts.invalidated = Some(Box::new(run));
        self
    }

    /// Makes it a member of `group`, which can be [paused](Context::pause).
    pub fn group(mut self, group: GroupId) -> Self {
        self.group = group;
        self
    }

    /// Registers it, with an interest in whatever there is a closure for.
    ///
    /// # Errors
    /// As [`Context::watch`].
    pub fn watch(self) -> Result<Registration, WatchError<Closures<F>>> {
        let interest = self.parts.interest();
        self.cx.watch_in(self.group, Rc::new(self.parts), interest)
    }
}

impl<F> Closures<F> {
    /// An interest in whatever there is a closure for.
    #[must_use]
    pub fn interest(&self) -> Interest {
        let mut interest = Interest::NONE;
        interest.set(Interest::READ, self.readable.is_some());
        interest.set(Interest::WRITE, self.writable.is_some());
        interest
    }

    /// The descriptor's owner.
    #[must_use]
    pub fn owner(&self) -> &F {
        &self.owner
    }

    /// Gives the descriptor's owner back.
    #[must_use]
    pub fn into_owner(self) -> F {
        self.owner
    }
}

impl<F: AsFd + 'static> Handler for Closures<F> {
    fn readable(&self, cx: &Context) {
        if let Some(run) = &self.readable {
            run(&self.owner, cx);
        }
    }

    fn writable(&self, cx: &Context) {
        if let Some(run) = &self.writable {
            run(&self.owner, cx);
        }
    }

    fn invalidated(&self, cx: &Context, why: io::Error) {
        if let Some(run) = &self.invalidated {
            run(&self.owner, cx, why);
        }
    }
}

impl<F: AsFd> AsFd for Closures<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.owner.as_fd()
    }
}

impl<F> fmt::Debug for Closures<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Closures")
            .field("interest", &self.interest())
            .finish_non_exhaustive()
    }
}

impl<F> fmt::Debug for On<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("On")
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}
