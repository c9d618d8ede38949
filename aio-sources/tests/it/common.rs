//! The vocabulary of the tests: a [`Bench`] of contexts, a counter, and logged warnings.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Once;

use aio_backend_epoll::Epoll;
use aio_backend_ladder::Ladder;
use aio_backend_ppoll::Ppoll;
use aio_context::{Backend, Context, Wait};
use rustix::event::{PollFd, PollFlags, Timespec};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Makes contexts of one kind and polls them in one way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bench {
    pub(crate) backend: fn() -> Box<dyn Backend>,
    pub(crate) foreign: bool,
}

pub(crate) fn ppoll() -> Box<dyn Backend> {
    Box::new(Ppoll::new())
}

pub(crate) fn epoll() -> Box<dyn Backend> {
    Box::new(Epoll::new().expect("there is a descriptor left"))
}

pub(crate) fn ladder() -> Box<dyn Backend> {
    Box::new(Ladder::new(Ppoll::new(), Epoll::new, 0))
}

/// Makes a test of each function: on every backend, and through a foreign loop.
macro_rules! everywhere {
    ($($test:ident)*) => {
        $(mod $test {
            use crate::common::{self, Bench};

            #[test]
            fn on_ppoll() {
                super::$test(Bench { backend: common::ppoll, foreign: false });
            }
            #[test]
            fn on_epoll() {
                super::$test(Bench { backend: common::epoll, foreign: false });
            }
            #[test]
            fn on_a_ladder() {
                super::$test(Bench { backend: common::ladder, foreign: false });
            }
            #[test]
            fn in_a_foreign_loop() {
                super::$test(Bench { backend: common::epoll, foreign: true });
            }
        })*
    };
}
pub(crate) use everywhere;

impl Bench {
    pub(crate) fn context(&self) -> Context {
        let built = Context::builder().backend((self.backend)()).build();
        built.expect("there is a descriptor left")
    }

    /// Polls until there is progress.
    pub(crate) fn block(&self, cx: &Context) -> bool {
        if self.foreign {
            self.poll_embedded(cx, i32::MAX)
        } else {
            cx.poll(Wait::Block).expect("the backend works")
        }
    }

    /// Polls without waiting.
    pub(crate) fn check(&self, cx: &Context) -> bool {
        if self.foreign {
            self.poll_embedded(cx, 0)
        } else {
            cx.poll(Wait::NoBlock).expect("the backend works")
        }
    }

    /// Polls without waiting until nothing is left to do.
    pub(crate) fn settle(&self, cx: &Context) {
        for _ in 0..3 {
            while self.check(cx) {}
        }
    }

    /// What a foreign loop does: prepare, wait for the one descriptor, check, dispatch.
    fn poll_embedded(&self, cx: &Context, longest_ms: i32) -> bool {
        let embedded = cx.embed().expect("this backend can be embedded");
        let ms = embedded.prepare_ms();
        let ms = if ms < 0 { longest_ms } else { ms.min(longest_ms) };
        let timeout = Timespec {
            tv_sec: (ms / 1000).into(),
            tv_nsec: (ms % 1000 * 1_000_000).into(),
        };
        let mut fds = [PollFd::new(&embedded, PollFlags::IN)];
        rustix::event::poll(&mut fds, Some(&timeout)).expect("poll works");
        embedded.check().expect("the backend works") && embedded.dispatch()
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

thread_local! {
    static LOGGED: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Runs `work` and returns the warnings and errors that it logged on this thread.
pub(crate) fn warnings(work: impl FnOnce()) -> Vec<String> {
    // One subscriber for the whole process, so that no test changes another one's.
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Listener).expect("there is no other"));
    LOGGED.set(Some(Vec::new()));
    work();
    LOGGED.take().unwrap_or_default()
}

struct Listener;

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn event(&self, event: &Event<'_>) {
        LOGGED.with_borrow_mut(|logged| {
            if let Some(logged) = logged {
                let mut text = Text::default();
                event.record(&mut text);
                logged.push(text.0);
            }
        });
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0 += &format!("{field}={value:?} ");
    }
}
