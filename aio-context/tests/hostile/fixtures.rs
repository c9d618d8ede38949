//! Fixtures of the hostile cases besides the common ones: a backend that counts its calls and can be disturbed, and a handler
//! that logs its events.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aio_context::{
    Backend, Builder, Context, Handler, Interest, ManualClock, Policy, PollParams, ReadyList, Token, Wait,
    Watched,
};
use aio_testing::{Layer, Layered};
use rustix::pipe::PipeFlags;

use crate::common::{Bench, is_readable};

/// A wait that may sleep, for a short time.
pub(crate) const MOMENT: Wait = Wait::AtMost(Duration::from_millis(2));

/// Returns `long` in a long run, otherwise `quick`.
pub(crate) fn scaled(quick: u64, long: u64) -> u64 {
    if std::env::var("AIO_HOSTILE").is_ok_and(|bounds| bounds == "long") {
        long
    } else {
        quick
    }
}

/// The numbers of calls of a backend, readable from any thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct BackendCalls {
    waits: Arc<AtomicU64>,
    sleeps: Arc<AtomicU64>,
    changes: Arc<AtomicU64>,
}

impl BackendCalls {
    /// Returns the number of waits that were begun, including those of timeout zero.
    pub(crate) fn waits(&self) -> u64 {
        self.waits.load(Ordering::Acquire)
    }

    /// Returns the number of waits that were begun and may sleep.
    pub(crate) fn sleeps(&self) -> u64 {
        self.sleeps.load(Ordering::Acquire)
    }

    /// Returns the number of changes of registrations.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }
}

/// Called before each wait with its number, from 1, and whether it may sleep. If it returns `true`, the wait ends at once.
type Before = Box<dyn FnMut(u64, bool) -> bool>;

/// A backend around another one.
struct Counted {
    inner: Box<dyn Backend>,
    calls: BackendCalls,
    before: Before,
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Counted").field(&self.inner).finish()
    }
}

impl Counted {
    fn change(&mut self) -> &mut dyn Backend {
        self.calls.changes.fetch_add(1, Ordering::AcqRel);
        &mut *self.inner
    }
}

impl Layer for Counted {
    type Inner = dyn Backend;

    fn inner(&self) -> &Self::Inner {
        &*self.inner
    }
    fn inner_mut(&mut self) -> &mut Self::Inner {
        &mut *self.inner
    }
    fn add(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()> {
        self.change().add(fd, token, interest)
    }
    fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        self.change().modify(token, interest)
    }
    fn remove(&mut self, token: Token) -> io::Result<()> {
        self.change().remove(token)
    }
    fn wait(&mut self, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        let number = self.calls.waits.fetch_add(1, Ordering::AcqRel) + 1;
        let is_sleep = timeout != Some(Duration::ZERO);
        self.calls.sleeps.fetch_add(is_sleep.into(), Ordering::AcqRel);
        if (self.before)(number, is_sleep) {
            return Ok(());
        }
        self.inner.wait(timeout, ready)
    }
}

/// Returns the builder of a context whose backend counts.
pub(crate) fn counted(bench: Bench) -> (Builder, BackendCalls) {
    disturbed(bench, |_, _| false)
}

/// Returns the builder of a context whose backend counts, and calls `before` before each wait; see [`Before`].
pub(crate) fn disturbed(
    bench: Bench,
    before: impl FnMut(u64, bool) -> bool + 'static,
) -> (Builder, BackendCalls) {
    let calls = BackendCalls::default();
    let backend = Counted {
        inner: (bench.backend)(),
        calls: calls.clone(),
        before: Box::new(before),
    };
    (Context::builder().backend(Box::new(Layered(backend))), calls)
}

/// Asserts that the loop sleeps. (The waits of a busy loop end at once.)
pub(crate) fn assert_sleeps(bench: Bench, cx: &Context, calls: &BackendCalls) {
    if bench.foreign {
        let embedded = cx.embed().unwrap();
        assert!(embedded.prepare() != Some(Duration::ZERO) && !is_readable(&embedded));
        assert!(!embedded.check().unwrap());
        return;
    }
    let before = calls.sleeps();
    assert!(!cx.poll(MOMENT).unwrap());
    let sleeps = calls.sleeps() - before;
    assert!(sleeps <= 2, "{sleeps} sleeps in one wait");
}

/// Returns the builder of a context that polls for as long as it may, up to `max`.
pub(crate) fn always(builder: Builder, max: Duration) -> Builder {
    let params = PollParams::up_to(max);
    let policy = Policy::by_name("always", params).unwrap();
    builder.policy(Box::new(policy)).poll_params(params)
}

/// Returns a context that polls for as long as it may, up to `max`, on a simulated clock, so that a busy machine uses up no
/// budget; `None` for a foreign loop, which does not poll.
pub(crate) fn polling(bench: Bench, max: Duration) -> Option<Context> {
    let builder = always(bench.builder(), max).monotonic(Arc::new(ManualClock::new()));
    (!bench.foreign).then(|| builder.build().unwrap())
}

/// Returns `true` if `begin` and `end` alternate in a log, and the last `begin` has its `end`.
pub(crate) fn is_balanced(log: &[&str]) -> bool {
    let mut begun = false;
    let fits = log.iter().all(|entry| match *entry {
        "begin" => !std::mem::replace(&mut begun, true),
        "end" => std::mem::replace(&mut begun, false),
        _ => true,
    });
    fits && !begun
}

/// Does nothing; a closure that calls this captures the value.
pub(crate) fn keeps<T>(_: &T) {}

/// Makes a non-blocking pipe: the reader and the writer.
pub(crate) fn pipe() -> (OwnedFd, OwnedFd) {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap()
}

/// Writes one byte.
pub(crate) fn feed(fd: impl AsFd) {
    assert_eq!(rustix::io::write(fd, b"x"), Ok(1));
}

/// Reads available data, once per call, and logs its callbacks, the end of a stream, and errors.
pub(crate) struct Tap<F> {
    pub(crate) fd: F,
    pub(crate) bytes: Cell<usize>,
    met: RefCell<Vec<String>>,
    /// The most bytes that it reads at a time.
    sip: usize,
}

impl<F: AsFd> Tap<F> {
    pub(crate) fn new(fd: F) -> Rc<Self> {
        Self::sipping(fd, 64)
    }

    pub(crate) fn sipping(fd: F, sip: usize) -> Rc<Self> {
        Rc::new(Self {
            fd,
            bytes: Cell::new(0),
            met: RefCell::default(),
            sip,
        })
    }

    /// Returns the events since the last call.
    pub(crate) fn met(&self) -> Vec<String> {
        self.met.take()
    }
}

impl<F: AsFd> AsFd for Tap<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl<F: AsFd + 'static> Handler for Tap<F> {
    fn readable(&self, _: &Context) {
        let mut buffer = [0; 64];
        let read = rustix::io::read(&self.fd, &mut buffer[..self.sip]);
        let mut met = self.met.borrow_mut();
        met.push("readable".to_owned());
        match read {
            Ok(0) => met.push("end".to_owned()),
            Ok(read) => self.bytes.set(self.bytes.get() + read),
            Err(error) => met.push(error.to_string()),
        }
    }
    fn writable(&self, _: &Context) {
        self.met.borrow_mut().push("writable".to_owned());
    }
    fn invalidated(&self, _: &Context, _: io::Error) {
        self.met.borrow_mut().push("broken".to_owned());
    }
}
