//! [`Signals`]: signals as callbacks of the loop, by a signalfd.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use aio_context::{Context, GroupId, Handler, Interest, Registration};
use nix::libc;

use crate::Signal;
use crate::signal_set::{SignalFd, SignalSet};

/// A signal that was received.
///
/// # Examples
/// ```
/// use std::{cell::Cell, rc::Rc};
/// use aio_context::{Context, Wait};
/// use aio_sources::{Signal, Signals};
///
/// # fn main() -> std::io::Result<()> {
/// let (cx, last) = (Context::new()?, Rc::new(Cell::new(None)));
/// let seen = last.clone();
/// let _signals = Signals::new(&cx, &[Signal::USR1], move |_cx, received| seen.set(Some(received)))?;
/// // `kill -USR1` of the own process.
/// # nix::sys::signal::raise(nix::sys::signal::Signal::SIGUSR1)?;
/// cx.poll(Wait::Block)?;
/// let received = last.get().expect("a signal came");
/// assert_eq!((received.signal, received.value), (Signal::USR1, None));
/// assert_eq!(received.process, std::process::id());
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received {
    /// The signal. The system merges further signals of the same kind that arrive before the callback, except
    /// real-time signals.
    pub signal: Signal,
    /// The id of the process that sent it; 0 if the kernel sent it.
    pub process: u32,
    /// The user of that process.
    pub user: u32,
    /// The value that came with it, from `sigqueue`, a timer or a message queue.
    pub value: Option<i32>,
}

/// Calls back for signals. Dropping it removes the callback.
///
/// The signals are blocked in the thread that makes this, so that they wait to be read instead of
/// interrupting. Threads inherit that: **make it before other threads are started**, or a signal to the
/// process may reach a thread that does not block it. The signals stay blocked after this is dropped. In
/// processes started by [`Command`](std::process::Command) none of them is blocked.
///
/// ```
/// use std::cell::Cell;
/// use std::rc::Rc;
/// use aio_context::{Context, Wait};
/// use aio_sources::{Signal, Signals};
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// let goes_on = Rc::new(Cell::new(true));
/// let flag = goes_on.clone();
/// let _signals = Signals::new(&cx, &[Signal::TERM, Signal::INT], move |_cx, received| {
///     eprintln!("{:?}: the end", received.signal);
///     flag.set(false);
/// })?;
/// # nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM)?;
/// while goes_on.get() {
///     cx.poll(Wait::Block)?;
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "dropped at once, the signals call nothing"]
pub struct Signals {
    _registration: Registration,
}

impl Signals {
    /// Blocks `signals` in this thread, and calls `receive` for each one that arrives: those with lower
    /// numbers first, and [real-time signals](Signal::realtime) of one number in the order in which they were
    /// sent.
    ///
    /// # Errors
    /// `InvalidInput` for `KILL` and `STOP`, which no process can block, for numbers that are not signals or
    /// belong to the C library, and for real-time signals without the feature `realtime-signals`; the
    /// system's errors for one more descriptor.
    pub fn new(
        cx: &Context,
        signals: &[Signal],
        receive: impl Fn(&Context, Received) + 'static,
    ) -> io::Result<Self> {
        Self::new_in(cx, GroupId::DEFAULT, signals, receive)
    }

    /// As [`new`](Self::new), as a member of `group`, which can be [paused](Context::pause). Signals that
    /// arrive during a pause stay
    /// pending until it ends.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn new_in(
        cx: &Context,
        group: GroupId,
        signals: &[Signal],
        receive: impl Fn(&Context, Received) + 'static,
    ) -> io::Result<Self> {
        let set = SignalSet::of(signals)?;
        let fd = set.open()?;
        let registration = cx.watch_in(group, Rc::new(Receiver { fd, receive }), Interest::READ)?;
        set.block()?;
        Ok(Self {
            _registration: registration,
        })
    }

    /// Blocks `signals` in this thread, and in those that it starts afterwards. For a program that makes its
    /// `Signals` on
    /// another thread, such as an [`IoThread`](crate::IoThread): `main` calls this first.
    ///
    /// # Errors
    /// `InvalidInput` for signals that [`new`](Self::new) refuses.
    pub fn block(signals: &[Signal]) -> io::Result<()> {
        SignalSet::of(signals)?.block()
    }
}

struct Receiver<F> {
    fd: SignalFd,
    receive: F,
}

impl<F: Fn(&Context, Received) + 'static> Handler for Receiver<F> {
    /// Reads one signal. If there are more, this is called again, unless it was removed.
    fn readable(&self, cx: &Context) {
        match self.fd.read() {
            Ok(Some(info)) => {
                let has_value = matches!(
                    info.ssi_code,
                    libc::SI_QUEUE | libc::SI_TIMER | libc::SI_MESGQ | libc::SI_ASYNCIO
                );
                let received = Received {
                    signal: Signal::from_raw(info.ssi_signo.cast_signed()),
                    process: info.ssi_pid,
                    user: info.ssi_uid,
                    value: has_value.then_some(info.ssi_int),
                };
                (self.receive)(cx, received);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "cannot read a signal"),
        }
    }
}

impl<F> AsFd for Receiver<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
