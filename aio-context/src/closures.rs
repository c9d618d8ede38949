//! [`On`]: a handler made of closures, without a type of its own.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;

use aio_backend::Interest;
use aio_handlers::GroupId;

use crate::macros::{impl_as_fd, impl_debug};
use crate::{Action, Context, Event, Handler, Pollable, Polled, Registration, WatchError};

type Callback<F> = Box<dyn Fn(&F, &Context)>;
type Ready<F> = Box<dyn Fn(&F, &Context, Event) -> Action>;
type Poll<F> = Box<dyn Fn(&F) -> bool>;
type PollMode<F> = Box<dyn Fn(&F)>;
type Invalidated<F> = Box<dyn Fn(&F, &Context, io::Error)>;

/// A builder of a handler made of closures, to be completed by [`watch`](On::watch). Made by [`Context::on`].
///
/// Each closure is called for its own direction. Without another [`interest`](On::interest) the loop waits
/// for the directions that have a closure; [`ready`](On::ready) counts as reading.
///
/// ```
/// use std::io::Read;
/// use aio_context::{Action, Context, Wait};
///
/// # fn main() -> std::io::Result<()> {
/// let (cx, (reader, writer)) = (Context::new()?, std::io::pipe()?);
/// cx.on(reader)
///     .oneshot() // one event, and another one after each `Action::Rearm`
///     .ready(|mut reader, _cx, event| {
///         println!("{:?}", event.readiness());
///         match reader.read(&mut [0; 512]) {
///             Ok(0) | Err(_) => Action::Remove,
///             Ok(_) => Action::Rearm,
///         }
///     })
///     .watch()?
///     .detach();
/// drop(writer);
/// cx.poll(Wait::Block)?;
/// # Ok(()) }
/// ```
#[must_use = "nothing is watched before `watch()`"]
pub struct On<'cx, F> {
    cx: &'cx Context,
    group: GroupId,
    /// `None`: the directions that have a closure.
    interest: Option<Interest>,
    modes: Interest,
    parts: Closures<F>,
}

/// The handler that [`On::watch`] makes. If it is not registered, a [`WatchError`] contains it. It can be
/// [watched](Context::watch) or replace another handler later.
///
/// # Examples
/// ```
/// use std::io::ErrorKind;
/// use std::rc::Rc;
/// use aio_context::{Context, Interest};
///
/// # fn main() -> std::io::Result<()> {
/// let (cx, (reader, _writer)) = (Context::new()?, std::io::pipe()?);
/// let reader = Rc::new(reader);
/// let first = cx.on(reader.clone()).readable(|_, _| ()).watch()?;
/// // A descriptor has one handler. The second one comes back, and can take the place of the first.
/// let refused = cx.on(reader).readable(|_, _| ()).watch().unwrap_err();
/// assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
/// let closures = refused.into_inner();
/// assert_eq!(closures.interest(), Interest::READ);
/// first.replace_with(closures, Interest::READ)?;
/// # Ok(()) }
/// ```
pub struct Closures<F> {
    owner: F,
    readable: Option<Callback<F>>,
    writable: Option<Callback<F>>,
    invalidated: Option<Invalidated<F>>,
    more: Option<Box<More<F>>>,
}

/// The closures that few handlers have.
struct More<F> {
    ready: Option<Ready<F>>,
    priority: Option<Callback<F>>,
    poll: Option<Poll<F>>,
    poll_ready: Option<Callback<F>>,
    poll_begin: Option<PollMode<F>>,
    poll_end: Option<PollMode<F>>,
}

impl Context {
    /// Begins a handler made of closures for `owner`'s descriptor. The context owns `owner` until the
    /// registration ends.
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
            more: None,
        };
        On {
            cx: self,
            group: GroupId::DEFAULT,
            interest: None,
            modes: Interest::NONE,
            parts,
        }
    }
}

impl<F: AsFd + 'static> On<'_, F> {
    /// Sets the closure to call when there is something to read. A closure that reads or accepts until
    /// `WouldBlock` needs a non-blocking descriptor; see [`Context::watch`].
    pub fn readable(mut self, run: impl Fn(&F, &Context) + 'static) -> Self {
        self.parts.readable = Some(Box::new(run));
        self
    }

    /// Sets the closure to call when there is room to write.
    pub fn writable(mut self, run: impl Fn(&F, &Context) + 'static) -> Self {
        self.parts.writable = Some(Box::new(run));
        self
    }

    /// Sets the closure to call when there is an exceptional condition, such as urgent data; see
    /// [`Interest::PRIORITY`].
    pub fn priority(mut self, run: impl Fn(&F, &Context) + 'static) -> Self {
        self.more().priority = Some(Box::new(run));
        self
    }

    /// Sets the closure to call for every readiness, instead of `readable`, `writable` and `priority`. It
    /// gets the [`Event`], and returns what to do with the registration: an [`Action`], or `()` for
    /// [`Action::Continue`].
    pub fn ready<A: Into<Action>>(mut self, run: impl Fn(&F, &Context, Event) -> A + 'static) -> Self {
        let run = move |owner: &F, cx: &Context, event| run(owner, cx, event).into();
        self.more().ready = Some(Box::new(run));
        self
    }

    /// Makes the loop poll the handler in user space; see [`Pollable::poll`].
    pub fn polled(mut self, poll: impl Fn(&F) -> bool + 'static) -> Self {
        self.more().poll = Some(Box::new(poll));
        self
    }

    /// Sets the closure to call for work that [`polled`](Self::polled) has found; see
    /// [`Pollable::poll_ready`]. Without it the closure for reading is called, or that of
    /// [`ready`](Self::ready) with an empty readiness.
    pub fn poll_ready(mut self, run: impl Fn(&F, &Context) + 'static) -> Self {
        self.more().poll_ready = Some(Box::new(run));
        self
    }

    /// Sets the closure to call when the loop begins to poll a [`polled`](Self::polled) handler; see
    /// [`Pollable::poll_begin`].
    pub fn poll_begin(mut self, run: impl Fn(&F) + 'static) -> Self {
        self.more().poll_begin = Some(Box::new(run));
        self
    }

    /// Sets the closure to call when the loop stops polling a [`polled`](Self::polled) handler; see
    /// [`Pollable::poll_end`].
    pub fn poll_end(mut self, run: impl Fn(&F) + 'static) -> Self {
        self.more().poll_end = Some(Box::new(run));
        self
    }

    fn more(&mut self) -> &mut More<F> {
        let none = More {
            ready: None,
            priority: None,
            poll: None,
            poll_ready: None,
            poll_begin: None,
            poll_end: None,
        };
        self.parts.more.get_or_insert_with(|| Box::new(none))
    }

    /// Waits for `interest`, regardless of the closures.
    pub fn interest(mut self, interest: Interest) -> Self {
        self.interest = Some(interest);
        self
    }

    /// Waits for no event at first: [`Registration::set_interest`] begins to wait.
    pub fn silent(self) -> Self {
        self.interest(Interest::NONE)
    }

    /// Waits for edges: see [`Interest::EDGE`].
    pub fn edge(mut self) -> Self {
        self.modes |= Interest::EDGE;
        self
    }

    /// Waits for one event, and for another one after each [`Action::Rearm`] or [`Registration::rearm`]; see
    /// [`Interest::ONESHOT`].
    pub fn oneshot(mut self) -> Self {
        self.modes |= Interest::ONESHOT;
        self
    }

    /// Sets the closure to call when the descriptor cannot be watched any longer.
    pub fn invalidated(mut self, run: impl Fn(&F, &Context, io::Error) + 'static) -> Self {
        self.parts.invalidated = Some(Box::new(run));
        self
    }

    /// Makes the handler a member of `group`, which can be [paused](Context::pause).
    pub fn group(mut self, group: GroupId) -> Self {
        self.group = group;
        self
    }

    /// Makes the handler without registering it, to replace another one; see [`Event::replace`] and
    /// [`Registration::replace`]. The interest and the group are not part of it.
    #[must_use]
    pub fn into_handler(self) -> Rc<Closures<F>> {
        Rc::new(self.parts)
    }

    /// Registers the handler.
    ///
    /// # Errors
    /// As [`Context::watch`].
    pub fn watch(self) -> Result<Registration, WatchError<Closures<F>>> {
        let interest = self.interest.unwrap_or_else(|| self.parts.interest()) | self.modes;
        let is_polled = self.parts.get(|more| more.poll.as_ref()).is_some();
        let add = |handler: Rc<Closures<F>>| {
            let entry = if is_polled {
                Polled(handler).into()
            } else {
                handler.into()
            };
            self.cx.0.add(self.cx, entry, interest, self.group)
        };
        WatchError::offer(Rc::new(self.parts), add).map(|token| Registration::new(self.cx, token))
    }
}

impl<F> Closures<F> {
    /// Returns an interest in all directions that have a closure. The closure of [`On::ready`] counts as
    /// reading.
    #[must_use]
    pub fn interest(&self) -> Interest {
        let mut interest = Interest::NONE;
        let reads = self.readable.is_some() || self.get(|more| more.ready.as_ref()).is_some();
        interest.set(Interest::READ, reads);
        interest.set(Interest::WRITE, self.writable.is_some());
        interest.set(
            Interest::PRIORITY,
            self.get(|more| more.priority.as_ref()).is_some(),
        );
        interest
    }

    /// Returns one of the closures that few handlers have.
    fn get<'a, T: ?Sized>(&'a self, one: impl FnOnce(&'a More<F>) -> Option<&'a Box<T>>) -> Option<&'a T> {
        self.more.as_deref().and_then(one).map(|closure| &**closure)
    }

    /// Returns the descriptor's owner.
    #[must_use]
    pub fn owner(&self) -> &F {
        &self.owner
    }

    /// Takes the handler apart and returns the descriptor's owner.
    #[must_use]
    pub fn into_owner(self) -> F {
        self.owner
    }
}

impl<F: AsFd + 'static> Handler for Closures<F> {
    fn ready(&self, cx: &Context, event: Event) {
        if let Some(run) = self.get(|more| more.ready.as_ref()) {
            return event.apply(cx, run(&self.owner, cx, event));
        }
        event.deliver(self, cx);
    }

    fn readable(&self, cx: &Context) {
        self.readable.as_ref().inspect(|run| run(&self.owner, cx));
    }

    fn writable(&self, cx: &Context) {
        self.writable.as_ref().inspect(|run| run(&self.owner, cx));
    }

    fn priority(&self, cx: &Context) {
        let run = self.get(|more| more.priority.as_ref());
        run.inspect(|run| run(&self.owner, cx));
    }

    fn invalidated(&self, cx: &Context, why: io::Error) {
        if let Some(run) = &self.invalidated {
            run(&self.owner, cx, why);
        }
    }
}

/// [`On::watch`] registers it as a polled handler if there is a closure that polls. Without such a closure,
/// polling a [`Polled`] one never finds work.
impl<F: AsFd + 'static> Pollable for Closures<F> {
    fn poll(&self) -> bool {
        self.get(|more| more.poll.as_ref())
            .is_some_and(|poll| poll(&self.owner))
    }

    fn poll_ready(&self, cx: &Context) {
        if let Some(run) = self.get(|more| more.poll_ready.as_ref()) {
            return run(&self.owner, cx);
        }
        let Some(run) = self.get(|more| more.ready.as_ref()) else {
            return self.readable(cx);
        };
        let number = self.owner.as_fd().as_raw_fd();
        if let Some(event) = cx.0.event_of_work(number, |entry| entry.is(self)) {
            event.apply(cx, run(&self.owner, cx, event));
        }
    }

    fn poll_begin(&self) {
        let run = self.get(|more| more.poll_begin.as_ref());
        run.inspect(|run| run(&self.owner));
    }

    fn poll_end(&self) {
        let run = self.get(|more| more.poll_end.as_ref());
        run.inspect(|run| run(&self.owner));
    }
}

impl_as_fd!(impl[F: AsFd] Closures<F>, owner);

impl_debug!(impl[F] Closures<F>, "Closures": |it| interest = it.interest());

impl_debug!(impl[F] On<'_, F>, "On": |it| group = it.group);
