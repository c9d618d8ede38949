//! Contexts on every backend, polled directly and through a foreign loop.

use std::cell::{Cell, RefCell};
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::{Arc, Once};
use std::time::Duration;

use aio_backend_epoll::Epoll;
use aio_backend_ladder::Ladder;
use aio_backend_ppoll::Ppoll;
use aio_backend_uring::Uring;
use aio_context::{Backend, Builder, ClockId, Context, Embedded, ManualClock, PollParams, Wait};
use rustix::event::{PollFd, PollFlags, Timespec};

/// Makes contexts of one kind and polls them in one way. [`everywhere!`](crate::everywhere) runs a test on each of [`ALL`](Self::ALL).
#[derive(Clone, Copy, Debug)]
pub struct Bench {
    /// The name of the kind.
    pub name: &'static str,
    /// Makes a backend.
    pub backend: fn() -> Box<dyn Backend>,
    /// `true` if a foreign loop polls, with prepare, check and dispatch.
    pub foreign: bool,
    /// Polls once, and returns `true` if there was progress.
    pub turn: fn(&Context, Wait) -> bool,
    /// The polling parameters that contexts begin with.
    pub params: PollParams,
    /// `true` if contexts time every callback, so that slow ones are reported.
    pub timed: bool,
}

/// Makes a test of each function: on every backend, and through a foreign loop on a backend that supports it.
#[macro_export]
macro_rules! everywhere {
    ($($test:ident)*) => {
        $(mod $test {
            use $crate::Bench;

            #[test]
            fn on_ppoll() {
                super::$test(Bench::PPOLL);
            }
            #[test]
            fn on_epoll() {
                super::$test(Bench::EPOLL);
            }
            #[test]
            fn on_a_ladder_at_0() {
                super::$test(Bench::LADDER_AT_0);
            }
            #[test]
            fn on_a_ladder_at_64() {
                super::$test(Bench::LADDER_AT_64);
            }
            #[test]
            fn on_uring() {
                super::$test(Bench::URING);
            }
            #[test]
            fn in_a_foreign_loop() {
                super::$test(Bench::FOREIGN);
            }
        })*
    };
}

/// Like [`everywhere!`](crate::everywhere), with every backend in a foreign loop, and all of it with polling
/// off and on, and with every callback timed.
#[macro_export]
macro_rules! thoroughly {
    ($($test:ident)*) => {
        $(mod $test {
            use $crate::{Bench, poll_embedded};

            fn on_all(change: impl Fn(Bench) -> Bench) {
                for bench in Bench::DIRECT {
                    println!("{}", bench.name);
                    super::$test(change(bench));
                }
            }
            #[test]
            fn plain() {
                on_all(|bench| bench);
            }
            #[test]
            fn plain_and_polling() {
                on_all(Bench::polling);
            }
            #[test]
            fn m2_plain_polling_and_timed() {
                on_all(|bench| bench.polling().timed());
            }
            #[test]
            fn g1_in_a_foreign_loop() {
                on_all(|bench| bench.inside(poll_embedded));
            }
            #[test]
            fn g1_in_a_foreign_loop_with_polling_on() {
                on_all(|bench| bench.inside(poll_embedded).polling());
            }
        })*
    };
}

fn report_once(error: &io::Error) {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        let _ = writeln!(io::stderr(), "skipped: no io_uring, epoll in its place: {error}");
    });
}

impl Bench {
    /// ppoll alone.
    pub const PPOLL: Self = Self::polled("ppoll", || Box::new(Ppoll::new()));
    /// epoll alone.
    pub const EPOLL: Self = Self::polled("epoll", || {
        Box::new(Epoll::new().expect("there is a descriptor left"))
    });
    /// A ladder that is always at its upper level.
    pub const LADDER_AT_0: Self = Self::polled("ladder-at-0", || {
        Box::new(Ladder::new(Ppoll::new(), Epoll::new, 0))
    });
    /// A ladder with the usual threshold.
    pub const LADDER_AT_64: Self = Self::polled("ladder-at-64", || {
        Box::new(Ladder::new(Ppoll::new(), Epoll::new, 64))
    });
    /// io_uring alone. If it is not available, epoll replaces it.
    pub const URING: Self = Self::polled("uring", || match Uring::new() {
        Ok(uring) => Box::new(uring),
        Err(error) => {
            report_once(&error);
            (Self::EPOLL.backend)()
        }
    });
    /// In a foreign loop.
    pub const FOREIGN: Self = Self {
        name: "foreign",
        foreign: true,
        turn: poll_embedded,
        ..Self::LADDER_AT_64
    };
    /// The benches that are polled directly: every backend.
    pub const DIRECT: [Self; 5] = [
        Self::PPOLL,
        Self::EPOLL,
        Self::LADDER_AT_0,
        Self::LADDER_AT_64,
        Self::URING,
    ];
    /// All benches.
    pub const ALL: [Self; 6] = [
        Self::PPOLL,
        Self::EPOLL,
        Self::LADDER_AT_0,
        Self::LADDER_AT_64,
        Self::URING,
        Self::FOREIGN,
    ];

    const fn polled(name: &'static str, backend: fn() -> Box<dyn Backend>) -> Self {
        Self {
            name,
            backend,
            foreign: false,
            turn: poll_directly,
            params: PollParams::OFF,
            timed: false,
        }
    }

    /// Returns the same backend in a foreign loop that polls with `turn`.
    #[must_use]
    pub const fn inside(self, turn: fn(&Context, Wait) -> bool) -> Self {
        Self {
            foreign: true,
            turn,
            ..self
        }
    }

    /// Returns the same bench with polling on.
    #[must_use]
    pub const fn polling(self) -> Self {
        Self {
            // Other tests run on the same cores.
            params: PollParams::up_to(Duration::from_micros(50)).with_exclusive_core(true),
            ..self
        }
    }

    /// Returns the same bench with every callback timed. None is slow.
    #[must_use]
    pub const fn timed(self) -> Self {
        Self { timed: true, ..self }
    }

    /// Returns a builder of a context on this backend.
    pub fn builder(&self) -> Builder {
        let builder = Context::builder()
            .backend((self.backend)())
            .poll_params(self.params);
        if self.timed {
            builder.slow_callback_limit(Duration::MAX)
        } else {
            builder
        }
    }

    /// Returns a context on this backend.
    ///
    /// # Panics
    /// If no descriptor is left.
    pub fn context(&self) -> Context {
        self.builder().build().expect("there is a descriptor left")
    }

    /// Returns a context on a simulated clock, which advances instead of a wait.
    ///
    /// # Panics
    /// If no descriptor is left.
    pub fn simulated(&self) -> (Context, Arc<ManualClock>) {
        let (builder, clock) = self.on_simulated_time();
        (builder.build().expect("there is a descriptor left"), clock)
    }

    /// Like [`simulated`](Self::simulated), before the context is built.
    pub fn on_simulated_time(&self) -> (Builder, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new());
        clock.advance(Duration::from_secs(1));
        CLOCK.set(Some(clock.clone()));
        (self.builder().monotonic(clock.clone()), clock)
    }

    /// Polls once, and returns `true` if there was progress.
    ///
    /// # Panics
    /// If the backend fails.
    pub fn poll(&self, cx: &Context, wait: Wait) -> bool {
        (self.turn)(cx, wait)
    }

    /// Polls until there is progress.
    ///
    /// # Panics
    /// If the backend fails.
    pub fn block(&self, cx: &Context) -> bool {
        self.poll(cx, Wait::Block)
    }

    /// Polls without waiting.
    ///
    /// # Panics
    /// If the backend fails.
    pub fn check(&self, cx: &Context) -> bool {
        self.poll(cx, Wait::NoBlock)
    }

    /// Polls without waiting until nothing is left to do.
    ///
    /// # Panics
    /// If the backend fails.
    pub fn settle(&self, cx: &Context) {
        for _ in 0..3 {
            while self.check(cx) {}
        }
    }
}

fn poll_directly(cx: &Context, wait: Wait) -> bool {
    cx.poll(wait).expect("the backend works")
}

/// Runs an iteration of a foreign loop: prepare, wait for the one descriptor, check, dispatch.
///
/// # Panics
/// If the backend fails.
pub fn poll_embedded(cx: &Context, wait: Wait) -> bool {
    let embedded = cx.embed().expect("this backend can be embedded");
    let limit = embedded.prepare_ms();
    let limit = limited(cx, &embedded, limit, wait);
    wait_for(&embedded, limit);
    embedded.check().expect("the backend works") && embedded.dispatch()
}

/// Returns the milliseconds that a foreign loop waits for a context that allows `limit`. If there is nothing
/// else to wait for, simulated time passes in here.
pub fn limited(cx: &Context, embedded: &Embedded, limit: i32, wait: Wait) -> i32 {
    let at_most = |most: Duration| {
        let most = i32::try_from(most.as_millis()).unwrap_or(i32::MAX);
        if limit < 0 { most } else { limit.min(most) }
    };
    let limit = match wait {
        Wait::NoBlock => 0,
        Wait::Block => limit,
        Wait::AtMost(most) => at_most(most),
        Wait::Until(at) => at_most(at.since(cx.now(ClockId::Monotonic))),
    };
    if limit > 0 && is_simulated() && (is_readable(embedded) || passes(limit)) {
        0
    } else {
        limit
    }
}

thread_local! {
    /// The clock of this test's contexts, if it is simulated.
    static CLOCK: RefCell<Option<Arc<ManualClock>>> = const { RefCell::new(None) };
}

fn is_simulated() -> bool {
    CLOCK.with_borrow(Option::is_some)
}

/// Lets simulated time pass for a foreign loop that would wait. Returns `true` if the clock is simulated.
fn passes(ms: i32) -> bool {
    CLOCK.with_borrow(|clock| {
        clock
            .as_ref()
            .inspect(|clock| clock.advance(Duration::from_millis(ms.unsigned_abs().into())))
            .is_some()
    })
}

/// Returns `true` if a descriptor is readable now.
///
/// # Panics
/// If it is not open.
pub fn is_readable(fd: impl AsFd) -> bool {
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

/// A counter that closures share.
#[derive(Clone, Debug, Default)]
pub struct Count(Rc<Cell<u32>>);

impl Count {
    /// Increments the counter, and returns its new value.
    pub fn up(&self) -> u32 {
        self.0.set(self.0.get() + 1);
        self.0.get()
    }

    /// Returns the value of the counter.
    pub fn get(&self) -> u32 {
        self.0.get()
    }
}
