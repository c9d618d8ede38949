//! The vocabulary of the tests, here and in `aio-glib`: a [`Bench`] of contexts, and [`Kick`], a descriptor that can be made ready at will.

use std::cell::{Cell, RefCell};
use std::io::{self, PipeWriter, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aio_backend::conformance::disturb;
use aio_backend_epoll::Epoll;
use aio_backend_ladder::Ladder;
use aio_backend_ppoll::Ppoll;
use aio_context::{
    Backend, Builder, Context, Handler, Interest, ManualClock, PollParams, Pollable, Registration, Wait,
};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd};

/// Makes contexts of one kind and polls them in one way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bench {
    pub(crate) backend: Make,
    pub(crate) turn: Turn,
    /// The loop that polls is another one, which does not busy-poll.
    pub(crate) foreign: bool,
    /// The polling parameters that contexts begin with.
    pub(crate) params: PollParams,
    /// The same, for the reference loop.
    #[allow(dead_code, reason = "one of the suites replays traces on it")]
    pub(crate) waiter: aio_reference::Waiter,
}

/// Polls once.
pub(crate) type Turn = fn(&Context, Wait) -> bool;

/// Makes a backend.
pub(crate) type Make = fn() -> Box<dyn Backend>;

/// All backends.
pub(crate) const BACKENDS: [(&str, Make); 4] = [
    ("ppoll", ppoll),
    ("epoll", epoll),
    ("ladder at 0", ladder_at_0),
    ("ladder at 64", ladder_at_64),
];

pub(crate) fn ppoll() -> Box<dyn Backend> {
    Box::new(Ppoll::new())
}

pub(crate) fn epoll() -> Box<dyn Backend> {
    Box::new(Epoll::new().expect("there is a descriptor left"))
}

pub(crate) fn ladder_at_0() -> Box<dyn Backend> {
    Box::new(Ladder::new(Ppoll::new(), Epoll::new, 0))
}

pub(crate) fn ladder_at_64() -> Box<dyn Backend> {
    Box::new(Ladder::new(Ppoll::new(), Epoll::new, 64))
}

impl Bench {
    /// A bench for contexts that are polled directly.
    #[allow(dead_code, reason = "one of the suites has foreign loops only")]
    pub(crate) const fn direct(backend: Make, waiter: aio_reference::Waiter) -> Self {
        Self {
            backend,
            turn: poll_directly,
            foreign: false,
            params: PollParams::OFF,
            waiter,
        }
    }

    /// A bench for contexts in a foreign loop of this kind.
    pub(crate) const fn foreign(backend: Make, turn: Turn) -> Self {
        Self {
            backend,
            turn,
            foreign: true,
            params: PollParams::OFF,
            waiter: aio_reference::Waiter::Foreign,
        }
    }

    /// The same with polling on.
    pub(crate) const fn polling(self) -> Self {
        let params = PollParams::up_to(Duration::from_micros(50));
        Self { params, ..self }
    }

    pub(crate) fn builder(&self) -> Builder {
        Context::builder()
            .backend((self.backend)())
            .poll_params(self.params)
    }

    pub(crate) fn context(&self) -> Context {
        self.builder().build().expect("there is a descriptor left")
    }

    /// A context on a simulated clock, which advances instead of a wait.
    pub(crate) fn simulated(&self) -> (Context, Arc<ManualClock>) {
        let (builder, clock) = self.on_simulated_time();
        (builder.build().expect("there is a descriptor left"), clock)
    }

    /// As [`simulated`](Self::simulated), before the context is built.
    pub(crate) fn on_simulated_time(&self) -> (Builder, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new());
        clock.advance(Duration::from_secs(1));
        CLOCK.set(Some(clock.clone()));
        (self.builder().monotonic(clock.clone()), clock)
    }

    /// Polls once. A blocking poll that does not return within a minute is a failure.
    pub(crate) fn poll(&self, cx: &Context, wait: Wait) -> bool {
        (self.turn)(cx, wait)
    }

    pub(crate) fn block(&self, cx: &Context) -> bool {
        self.poll(cx, Wait::Block)
    }

    pub(crate) fn check(&self, cx: &Context) -> bool {
        self.poll(cx, Wait::NoBlock)
    }
}

#[allow(dead_code, reason = "one of the suites has foreign loops only")]
pub(crate) fn poll_directly(cx: &Context, wait: Wait) -> bool {
    cx.poll(wait).expect("the backend works")
}

/// Runs an iteration of a foreign loop: prepare, wait for the one descriptor, check, dispatch.
pub(crate) fn poll_embedded(cx: &Context, wait: Wait) -> bool {
    let embedded = cx.embed().expect("this backend can be embedded");
    let limit = embedded.prepare_ms();
    let limit = match wait {
        Wait::NoBlock => 0,
        Wait::Block => limit,
        Wait::AtMost(most) => {
            let most = i32::try_from(most.as_millis()).unwrap_or(i32::MAX);
            if limit < 0 { most } else { limit.min(most) }
        }
    };
    // Simulated time passes only if there is nothing else to wait for.
    let limit = if limit > 0 && is_simulated() && (is_readable(&embedded) || passes(limit)) {
        0
    } else {
        limit
    };
    wait_for(&embedded, limit);
    embedded.check().expect("the backend works") && embedded.dispatch()
}

thread_local! {
    /// The clock of this test's contexts, if it is a simulated one.
    static CLOCK: RefCell<Option<Arc<ManualClock>>> = const { RefCell::new(None) };
}

pub(crate) fn is_simulated() -> bool {
    CLOCK.with_borrow(Option::is_some)
}

/// Lets simulated time pass, for a foreign loop that would wait.
pub(crate) fn passes(ms: i32) -> bool {
    CLOCK.with_borrow(|clock| {
        clock
            .as_ref()
            .inspect(|clock| clock.advance(Duration::from_millis(ms.unsigned_abs().into())))
            .is_some()
    })
}

pub(crate) fn is_readable(fd: impl AsFd) -> bool {
    wait_for(fd, 0) == 1
}

fn wait_for(fd: impl AsFd, ms: i32) -> usize {
    let timeout = (ms >= 0).then(|| Timespec {
        tv_sec: (ms / 1000).into(),
        tv_nsec: (ms % 1000 * 1_000_000).into(),
    });
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    rustix::event::poll(&mut fds, timeout.as_ref()).expect("poll works")
}

type OnReady = Rc<dyn Fn(&Kick, &Context)>;

/// A descriptor that is readable after a kick, with a log of its callbacks.
pub(crate) struct Kick {
    fd: OwnedFd,
    pub(crate) count: Cell<u32>,
    pub(crate) on_ready: RefCell<Option<OnReady>>,
    /// The result of `poll`, if it is set; otherwise `poll` returns whether the handler was kicked.
    pub(crate) has_work: Cell<Option<bool>>,
    pub(crate) log: RefCell<Vec<&'static str>>,
    /// The number of calls of `poll`.
    pub(crate) polls: Cell<u32>,
}

impl Kick {
    pub(crate) fn new() -> Rc<Self> {
        let fd =
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("there is a descriptor left");
        Rc::new(Self {
            fd,
            count: Cell::new(0),
            on_ready: RefCell::new(None),
            has_work: Cell::new(None),
            log: RefCell::default(),
            polls: Cell::new(0),
        })
    }

    /// A kick that runs `code` when it is ready, after it has been cleared.
    pub(crate) fn with(code: impl Fn(&Self, &Context) + 'static) -> Rc<Self> {
        let kick = Self::new();
        *kick.on_ready.borrow_mut() = Some(Rc::new(code));
        kick
    }

    pub(crate) fn kick(&self) {
        rustix::io::write(&self.fd, &1u64.to_ne_bytes()).expect("an eventfd can be written");
    }

    pub(crate) fn is_set(&self) -> bool {
        is_readable(&self.fd)
    }

    pub(crate) fn clear(&self) -> bool {
        rustix::io::read(&self.fd, &mut [0u8; 8]).is_ok()
    }

    pub(crate) fn number(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// A writer to the same counter for another thread.
    pub(crate) fn writer(&self) -> OwnedFd {
        self.fd.try_clone().expect("there is a descriptor left")
    }

    fn serve(&self, cx: &Context) {
        self.clear();
        self.count.set(self.count.get() + 1);
        let code = self.on_ready.borrow().clone();
        if let Some(code) = code {
            code(self, cx);
        }
    }
}

impl AsFd for Kick {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Handler for Kick {
    fn readable(&self, cx: &Context) {
        self.log.borrow_mut().push("readable");
        self.serve(cx);
    }
    fn invalidated(&self, _: &Context, _: io::Error) {
        self.log.borrow_mut().push("broken");
    }
}

impl Pollable for Kick {
    fn poll(&self) -> bool {
        self.polls.set(self.polls.get() + 1);
        self.has_work.get().unwrap_or_else(|| self.is_set())
    }
    fn poll_ready(&self, cx: &Context) {
        self.log.borrow_mut().push("poll_ready");
        self.serve(cx);
    }
    fn poll_begin(&self) {
        self.log.borrow_mut().push("begin");
    }
    fn poll_end(&self) {
        self.log.borrow_mut().push("end");
    }
}

/// A polled handler for the descriptor of the first, which behaves as the second.
pub(crate) struct Twin(pub(crate) Rc<Kick>, pub(crate) Rc<Kick>);

impl AsFd for Twin {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Handler for Twin {}

impl Pollable for Twin {
    fn poll(&self) -> bool {
        self.1.poll()
    }
    fn poll_ready(&self, cx: &Context) {
        self.1.poll_ready(cx);
    }
    fn poll_begin(&self) {
        self.1.poll_begin();
    }
    fn poll_end(&self) {
        self.1.poll_end();
    }
}

pub(crate) fn watch(cx: &Context, kick: &Rc<Kick>) -> Registration {
    cx.watch(kick.clone(), Interest::READ).expect("it can be watched")
}

pub(crate) fn watch_polled(cx: &Context, kick: &Rc<Kick>) -> Registration {
    cx.watch_polled(kick.clone(), Interest::READ)
        .expect("it can be watched")
}

/// A handler whose number can be closed without a removal.
pub(crate) struct Number {
    fd: Rc<disturb::Number>,
    writer: PipeWriter,
    /// The errors with which the handler was invalidated.
    pub(crate) errors: RefCell<Vec<String>>,
}

impl Number {
    pub(crate) fn new() -> Rc<Self> {
        let (reader, writer) = io::pipe().expect("there is a descriptor left");
        Rc::new(Self {
            fd: disturb::Number::of(reader),
            writer,
            errors: RefCell::default(),
        })
    }

    /// As [`new`](Self::new), and closed already.
    pub(crate) fn closed() -> Rc<Self> {
        let number = Self::new();
        number.close();
        number
    }

    /// Closes it as a `close(2)` from elsewhere would.
    pub(crate) fn close(&self) {
        self.fd.close();
    }

    pub(crate) fn kick(&self) {
        (&self.writer).write_all(b"x").expect("the reader is there");
    }
}

impl AsFd for Number {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Handler for Number {
    fn readable(&self, _: &Context) {
        rustix::io::read(self, &mut [0; 1]).expect("it is readable");
    }
    fn invalidated(&self, _: &Context, why: io::Error) {
        self.errors.borrow_mut().push(why.to_string());
    }
}

/// A counter that closures share.
#[derive(Clone, Default)]
pub(crate) struct Count(Rc<Cell<u32>>);

impl Count {
    pub(crate) fn up(&self) -> u32 {
        self.0.set(self.0.get() + 1);
        self.0.get()
    }
    pub(crate) fn get(&self) -> u32 {
        self.0.get()
    }
}

/// How many descriptors this process has open.
pub(crate) fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd")
        .expect("/proc is there")
        .count()
}
