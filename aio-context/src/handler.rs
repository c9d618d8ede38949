//! The traits that the owner of a descriptor implements: [`Handler`], [`Pollable`], and [`Exclusive`] for `&mut self`.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;

use aio_backend::Token;
use aio_handlers::Running;
use aio_notify::Counter;
use aio_pollctl::PolledHandler;
use aio_pollset::{EndOwed, PollSet, Source};

use crate::context::Mailbox;
use crate::macros::{impl_as_fd, impl_debug};
use crate::stats::Timing;
use crate::{Context, Event};

/// The callbacks for a descriptor that is ready.
///
/// All calls come on the home thread. Readiness is level-triggered, so a handler need not consume everything: it is called
/// again. It must tolerate spurious calls (`EAGAIN`): a nested poll may have served the event already.
///
/// A callback may do anything: watch, remove, replace, pause, poll again, drop the last handle, panic. Because a nested poll
/// may enter it again, it takes `&self`; see [`Exclusive`] for state that needs `&mut`. `as_fd` is no callback: it is called
/// while the context changes its registrations, and may not use the context.
///
/// ```
/// use std::cell::Cell;
/// use std::io::{self, Read as _, Write as _};
/// use std::os::fd::{AsFd, BorrowedFd};
/// use std::rc::Rc;
/// use aio_context::{Context, Handler, Interest, Wait};
///
/// struct Counter {
///     pipe: io::PipeReader,
///     bytes: Cell<usize>,
/// }
///
/// impl AsFd for Counter {
///     fn as_fd(&self) -> BorrowedFd<'_> {
///         self.pipe.as_fd()
///     }
/// }
///
/// impl Handler for Counter {
///     fn readable(&self, _cx: &Context) {
///         let read = (&self.pipe).read(&mut [0; 64]).unwrap_or(0);
///         self.bytes.set(self.bytes.get() + read);
///     }
/// }
///
/// # fn main() -> io::Result<()> {
/// let cx = Context::new()?;
/// let (pipe, mut writer) = io::pipe()?;
/// let counter = Rc::new(Counter { pipe, bytes: Cell::new(0) });
/// let registration = cx.watch(counter.clone(), Interest::READ)?;
/// writer.write_all(b"hello")?;
/// cx.poll(Wait::Block)?;
/// assert_eq!(counter.bytes.get(), 5);
/// drop(registration); // the handler is removed
/// # Ok(()) }
/// ```
#[doc(alias = "aio_set_fd_handler")]
#[expect(unused_variables, reason = "named for implementations")]
pub trait Handler: AsFd + 'static {
    /// Called when the descriptor is ready. Unless overridden, this calls [`readable`](Self::readable),
    /// [`writable`](Self::writable) and [`priority`](Self::priority), each if it is due, in this order, and none after one
    /// that removes, replaces or pauses the handler.
    ///
    /// Override it to get the whole [readiness](Event::readiness) in one call, or to reach the handler's own registration:
    /// `event` can [remove](Event::remove) or [replace](Event::replace) the handler, and [change](Event::set_interest) or
    /// [re-arm](Event::rearm) its interest. An override replaces all calls of the three other functions except that of
    /// [`Pollable::poll_ready`].
    #[inline]
    fn ready(&self, cx: &Context, event: Event) {
        event.deliver(self, cx);
    }

    /// Called when there is something to read, the peer hung up or shut down its writing half, or the descriptor has an
    /// error.
    fn readable(&self, cx: &Context) {}

    /// Called when there is room to write, or the descriptor has an error; also on a hang-up if the interest is to write
    /// only.
    fn writable(&self, cx: &Context) {}

    /// Called when there is an exceptional condition, such as urgent data; also on a hang-up or an error if there is no
    /// other interest. Requires [`Interest::PRIORITY`](crate::Interest::PRIORITY).
    fn priority(&self, cx: &Context) {}

    /// Called when the registration has ended without a removal: other code closed the descriptor, or the system refused to
    /// watch it any longer. The handler is already removed.
    fn invalidated(&self, cx: &Context, why: io::Error) {}

    /// Returns `true` if this handler must not be entered again while one of its callbacks runs. Its events wait meanwhile.
    fn exclusive(&self) -> bool {
        false
    }
}

/// A handler that can also be polled in user space for work (busy polling).
///
/// `poll`, `poll_begin` and `poll_end` must not wait: a poll of the context that is nested in one of them serves the work
/// that is ready, and returns.
///
/// ```
/// use std::cell::Cell;
/// use std::io;
/// use std::os::fd::{AsFd, BorrowedFd};
/// use std::rc::Rc;
/// use std::time::Duration;
/// use aio_context::{Context, Handler, Interest, PollParams, Pollable, Polled, Wait};
///
/// /// A ring in memory. Its peer writes `kick` only while the loop does not poll it.
/// struct Ring {
///     kick: io::PipeReader,
///     filled: Cell<u32>,
///     served: Cell<u32>,
/// }
///
/// impl AsFd for Ring {
///     fn as_fd(&self) -> BorrowedFd<'_> {
///         self.kick.as_fd()
///     }
/// }
///
/// impl Handler for Ring {
///     fn readable(&self, _cx: &Context) {
///         self.served.set(self.served.get() + self.filled.take());
///     }
/// }
///
/// impl Pollable for Ring {
///     fn poll(&self) -> bool {
///         self.filled.get() > 0 // and poll_ready, which calls `readable`, does the work
///     }
/// }
///
/// # fn main() -> io::Result<()> {
/// let cx = Context::new()?;
/// cx.set_poll_params(PollParams::up_to(Duration::from_micros(50)));
/// let (kick, _peer) = io::pipe()?;
/// let ring = Rc::new(Ring { kick, filled: Cell::new(3), served: Cell::new(0) });
/// let _registration = cx.watch(Polled(ring.clone()), Interest::READ)?;
/// while ring.served.get() == 0 {
///     cx.poll(Wait::AtMost(Duration::from_millis(1)))?;
/// }
/// assert_eq!(ring.served.get(), 3); // without a kick
/// # Ok(()) }
/// ```
pub trait Pollable: Handler {
    /// Returns `true` if there is work. Called many times in a row: it must be cheap and have no side effects. Never called
    /// while another callback of the same handler runs.
    fn poll(&self) -> bool;

    /// Does the work, after [`poll`](Self::poll) returned `true`. Unless overridden, the same as
    /// [`readable`](Handler::readable).
    fn poll_ready(&self, cx: &Context) {
        self.readable(cx);
    }

    /// Called when the loop begins to poll: producers of work need not kick the descriptor from now on.
    fn poll_begin(&self) {}

    /// Called when the loop is about to sleep: work needs a kick again. [`poll`](Self::poll) is called one last time
    /// afterwards, so that work published meanwhile is not lost.
    fn poll_end(&self) {}
}

/// The callbacks of a handler whose state needs `&mut self`; see [`Exclusive`].
///
/// # Examples
/// ```
/// use std::io::{PipeWriter, Write as _};
/// use std::rc::Rc;
/// use aio_context::{Context, Exclusive, HandlerMut, Interest, Wait};
///
/// /// Writes a text as far as there is room.
/// struct Rest(&'static [u8]);
///
/// impl HandlerMut<PipeWriter> for Rest {
///     fn writable(&mut self, mut pipe: &PipeWriter, cx: &Context) {
///         match pipe.write(self.0) {
///             Ok(written) if written < self.0.len() => self.0 = &self.0[written..],
///             _ => _ = cx.token_of(pipe).map(|token| cx.unwatch(token)),
///         }
///     }
/// }
///
/// # fn main() -> std::io::Result<()> {
/// let (cx, (_reader, writer)) = (Context::new()?, std::io::pipe()?);
/// let rest = Rc::new(Exclusive::new(writer, Rest(b"hello")));
/// let registration = cx.watch(rest, Interest::WRITE)?;
/// cx.poll(Wait::Block)?;
/// assert!(!registration.is_live());
/// # Ok(()) }
/// ```
#[expect(unused_variables, reason = "named for implementations")]
pub trait HandlerMut<F>: 'static {
    /// As [`Handler::ready`]; `owner` is the descriptor's owner.
    #[inline]
    fn ready(&mut self, owner: &F, cx: &Context, event: Event) {
        event.deliver_mut(self, owner, cx);
    }
    /// As [`Handler::readable`]; `owner` is the descriptor's owner.
    fn readable(&mut self, owner: &F, cx: &Context) {}
    /// As [`Handler::writable`]; `owner` is the descriptor's owner.
    fn writable(&mut self, owner: &F, cx: &Context) {}
    /// As [`Handler::priority`]; `owner` is the descriptor's owner.
    fn priority(&mut self, owner: &F, cx: &Context) {}
    /// As [`Handler::invalidated`].
    fn invalidated(&mut self, cx: &Context, why: io::Error) {}
}

/// A [`Handler`] made of a descriptor and a state that is used by `&mut`.
///
/// While one of its callbacks runs, the handler is excluded: a nested poll does not call it, and its events are delivered
/// afterwards. The descriptor's owner is stored beside the state, because the loop needs it while the state is in use.
///
/// ```
/// use std::io::{self, Read as _, Write as _};
/// use std::rc::Rc;
/// use aio_context::{Context, Exclusive, HandlerMut, Interest, Wait};
///
/// struct Text(String);
///
/// impl HandlerMut<io::PipeReader> for Text {
///     fn readable(&mut self, pipe: &io::PipeReader, _cx: &Context) {
///         let mut bytes = [0; 64];
///         let read = (&*pipe).read(&mut bytes).unwrap_or(0);
///         self.0 += &String::from_utf8_lossy(&bytes[..read]);
///     }
/// }
///
/// # fn main() -> io::Result<()> {
/// let cx = Context::new()?;
/// let (reader, mut writer) = io::pipe()?;
/// let handler = Rc::new(Exclusive::new(reader, Text(String::new())));
/// let _registration = cx.watch(handler.clone(), Interest::READ)?;
/// writer.write_all(b"hello")?;
/// cx.poll(Wait::Block)?;
/// assert_eq!(handler.with(|text| text.0.len()), Some(5));
/// # Ok(()) }
/// ```
pub struct Exclusive<F, H> {
    owner: F,
    state: RefCell<H>,
}

impl<F: AsFd + 'static, H: HandlerMut<F>> Exclusive<F, H> {
    /// Makes a handler for `owner`'s descriptor with `state`.
    pub fn new(owner: F, state: H) -> Self {
        Self {
            owner,
            state: RefCell::new(state),
        }
    }

    /// Calls `use_it` with the state and returns its result. `None` while a callback of the handler runs. The handler is
    /// excluded meanwhile, as during its own callbacks.
    pub fn with<R>(&self, use_it: impl FnOnce(&mut H) -> R) -> Option<R> {
        let _entered = Running::enter(self)?;
        self.call(use_it)
    }

    fn call<R>(&self, use_it: impl FnOnce(&mut H) -> R) -> Option<R> {
        let state = self.state.try_borrow_mut().ok();
        state.map(|mut state| use_it(&mut state))
    }
}

impl<F: AsFd + 'static, H: HandlerMut<F>> Handler for Exclusive<F, H> {
    fn ready(&self, cx: &Context, event: Event) {
        self.call(|state| state.ready(&self.owner, cx, event));
    }
    fn readable(&self, cx: &Context) {
        self.call(|state| state.readable(&self.owner, cx));
    }
    fn writable(&self, cx: &Context) {
        self.call(|state| state.writable(&self.owner, cx));
    }
    fn priority(&self, cx: &Context) {
        self.call(|state| state.priority(&self.owner, cx));
    }
    fn invalidated(&self, cx: &Context, why: io::Error) {
        self.call(|state| state.invalidated(cx, why));
    }
    fn exclusive(&self) -> bool {
        true
    }
}

impl_as_fd!(impl[F: AsFd, H] Exclusive<F, H>, owner);

impl_debug!(impl[F: std::fmt::Debug, H] Exclusive<F, H>, "Exclusive": |it| owner = it.owner);

/// A [`Pollable`] handler that is to be polled, for [`Context::watch`] and the functions that replace handlers.
///
/// # Examples
/// See [`Pollable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Polled<H>(pub H);

/// A handler as a context stores it: made from an `Rc` of a [`Handler`], or from one that is to be [`Polled`].
///
/// Functions that register handlers take any type that converts into an `Entry`, and return the value if they fail.
///
/// ```
/// use std::io;
/// use std::rc::Rc;
/// use aio_context::{Context, Entry, Interest, NotTaken, Registration};
///
/// /// Registers a handler of any kind, to be served when its descriptor is readable.
/// fn serve<H: Into<Entry> + Clone>(cx: &Context, handler: H) -> Result<Registration, NotTaken<H>> {
///     cx.watch(handler, Interest::READ)
/// }
/// # let (cx, (reader, _writer)) = (Context::new()?, io::pipe()?);
/// # let handler = cx.on(reader).readable(|_, _| ()).into_handler();
/// # drop(serve(&cx, handler.clone())?);
/// # drop(serve(&cx, aio_context::Polled(handler))?);
/// # Ok::<(), io::Error>(())
/// ```
// There can be many thousands of entries, so the parts that few of them need are stored elsewhere.
pub struct Entry {
    pub(crate) handler: Rc<dyn Handler>,
    more: Option<Box<More>>,
}

/// The parts of an entry that only polled or timed handlers need.
#[derive(Default)]
struct More {
    polled: Option<PolledEntry>,
    timing: Option<Rc<Timing>>,
}

/// The parts of an entry that only polled handlers need.
pub(crate) struct PolledEntry {
    /// The handler itself.
    pub(crate) own: Rc<dyn Join>,
    /// See [`Handler::exclusive`].
    pub(crate) is_exclusive: bool,
    /// The polling policy's state for this handler.
    pub(crate) policy: PolledHandler,
    /// The polling time for other threads, once there is a handle to it.
    pub(crate) shown: Option<Arc<Counter>>,
}

/// A polled handler, or a [`Source`](crate::Source), that joins the poll set with its own type.
pub(crate) trait Join: Handler {
    /// Joins `set`. Returns the `poll_end` that is due for the handler that it replaces.
    fn join(self: Rc<Self>, token: Token, set: &PollSet) -> EndOwed<'_>;
    /// Does the work that polling has found.
    fn poll_ready(&self, cx: &Context);
    fn poll_end(&self);
    /// Returns the name of a source.
    fn name(&self) -> Option<&'static str> {
        None
    }
    /// Called when the group of a source was paused.
    fn paused(&self) {}
    /// Called when the group of a source was resumed.
    fn resumed(&self) {}
}

impl<H: Pollable> Join for H {
    fn join(self: Rc<Self>, token: Token, set: &PollSet) -> EndOwed<'_> {
        set.join(token, Adapter(self))
    }
    fn poll_ready(&self, cx: &Context) {
        Pollable::poll_ready(self, cx);
    }
    fn poll_end(&self) {
        Pollable::poll_end(self);
    }
}

/// A handler as a source of the poll set.
struct Adapter<H>(Rc<H>);

impl<H: Pollable> Source for Adapter<H> {
    #[inline]
    fn poll(&self) -> bool {
        self.0.poll()
    }
    #[inline]
    fn poll_begin(&self) {
        self.0.poll_begin();
    }
    #[inline]
    fn poll_end(&self) {
        Pollable::poll_end(&*self.0);
    }
}

impl<H: Handler> From<Rc<H>> for Entry {
    #[inline]
    fn from(handler: Rc<H>) -> Self {
        Self { handler, more: None }
    }
}

impl<H: Pollable> From<Polled<Rc<H>>> for Entry {
    fn from(polled: Polled<Rc<H>>) -> Self {
        Self::of_polled(polled.0)
    }
}

impl_debug!(Entry, "Entry": |it| is_polled = it.polled().is_some());

impl Entry {
    pub(crate) fn of_polled(handler: Rc<dyn Join>) -> Self {
        let polled = PolledEntry {
            is_exclusive: handler.exclusive(),
            own: handler.clone(),
            policy: PolledHandler::default(),
            shown: None,
        };
        let (polled, timing) = (Some(polled), None);
        let more = Some(Box::new(More { polled, timing }));
        Self { handler, more }
    }

    /// Returns the owner of the descriptor.
    pub(crate) fn owner(&self) -> Rc<dyn AsFd> {
        self.handler.clone()
    }

    /// Returns `true` if its events need more than a call: it is polled, timed, or exclusive.
    #[inline]
    pub(crate) fn is_special(&self) -> bool {
        self.more.is_some() || self.handler.exclusive()
    }

    pub(crate) fn polled(&self) -> Option<&PolledEntry> {
        self.more.as_ref()?.polled.as_ref()
    }

    pub(crate) fn polled_mut(&mut self) -> Option<&mut PolledEntry> {
        self.more.as_mut()?.polled.as_mut()
    }

    /// Returns the polled interface of the handler.
    pub(crate) fn pollable(&self) -> Option<&Rc<dyn Join>> {
        self.polled().map(|polled| &polled.own)
    }

    /// Returns the counters that time its callbacks, if they are timed.
    pub(crate) fn timing(&self) -> Option<Rc<Timing>> {
        self.more.as_ref()?.timing.clone()
    }

    pub(crate) fn set_timing(&mut self, timing: Option<Rc<Timing>>) {
        if timing.is_some() || self.more.is_some() {
            self.more.get_or_insert_default().timing = timing;
        }
    }

    /// Returns `true` if it is this very handler, not merely an equal one.
    pub(crate) fn is<H: ?Sized>(&self, handler: &H) -> bool {
        std::ptr::addr_eq(Rc::as_ptr(&self.handler), handler)
    }

    /// Returns `true` if it has the same handler as `other`.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.is(&*other.handler)
    }
}

/// The placeholder for the loop's own descriptors in the registry. No handler serves them.
pub(crate) struct Silent(pub(crate) Arc<Mailbox>);

impl_as_fd!(Silent, 0);

impl Handler for Silent {}
