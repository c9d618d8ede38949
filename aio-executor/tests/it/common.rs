//! The vocabulary of the tests: a [`Bench`] of contexts, and shared records.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as Polling, Poll, Waker};
use std::time::Duration;

use aio_backend_epoll::Epoll;
use aio_backend_ladder::Ladder;
use aio_backend_ppoll::Ppoll;
use aio_context::{Backend, Context, ManualClock, PollParams, Wait};
use aio_executor::{ContextExt, JoinError, JoinHandle};
use rustix::event::{PollFd, PollFlags, Timespec};

/// Makes contexts of one kind and polls them in one way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bench {
    pub(crate) backend: fn() -> Box<dyn Backend>,
    pub(crate) polling: bool,
    pub(crate) foreign: bool,
}

pub(crate) fn ppoll() -> Box<dyn Backend> {
    Box::new(Ppoll::new())
}

pub(crate) fn epoll() -> Box<dyn Backend> {
    Box::new(Epoll::new().expect("there is a descriptor left"))
}

pub(crate) fn ladder() -> Box<dyn Backend> {
    Box::new(Ladder::new(Ppoll::new(), Epoll::new, 4))
}

/// Makes a test of each function: on every backend, with polling, and through a foreign loop.
macro_rules! everywhere {
    ($($test:ident)*) => {
        $(mod $test {
            use crate::common::{self, Bench};

            #[test]
            fn on_ppoll() {
                super::$test(Bench { backend: common::ppoll, polling: false, foreign: false });
            }
            #[test]
            fn on_epoll() {
                super::$test(Bench { backend: common::epoll, polling: false, foreign: false });
            }
            #[test]
            fn on_a_ladder() {
                super::$test(Bench { backend: common::ladder, polling: false, foreign: false });
            }
            #[test]
            fn while_polling() {
                super::$test(Bench { backend: common::epoll, polling: true, foreign: false });
            }
            #[test]
            fn while_polling_on_ppoll() {
                super::$test(Bench { backend: common::ppoll, polling: true, foreign: false });
            }
            #[test]
            fn in_a_foreign_loop() {
                super::$test(Bench { backend: common::epoll, polling: false, foreign: true });
            }
        })*
    };
}
pub(crate) use everywhere;

impl Bench {
    pub(crate) fn context(&self) -> Context {
        self.built(Context::builder())
    }

    /// A context whose monotonic clock the test sets.
    pub(crate) fn timed(&self) -> (Context, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new());
        (self.built(Context::builder().monotonic(clock.clone())), clock)
    }

    fn built(&self, builder: aio_context::Builder) -> Context {
        let params = if self.polling {
            PollParams::up_to(Duration::from_micros(32))
        } else {
            PollParams::OFF
        };
        let built = builder.backend((self.backend)()).poll_params(params).build();
        built.expect("there is a descriptor left")
    }

    /// Polls until there is progress.
    pub(crate) fn block(&self, cx: &Context) -> bool {
        if self.foreign {
            poll_embedded(cx, i32::MAX)
        } else {
            cx.poll(Wait::Block).expect("the backend works")
        }
    }

    /// Polls without waiting.
    pub(crate) fn check(&self, cx: &Context) -> bool {
        if self.foreign {
            poll_embedded(cx, 0)
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

    /// Polls until the task is done, and returns its result.
    pub(crate) fn join<T>(&self, cx: &Context, task: JoinHandle<T>) -> Result<T, JoinError> {
        while !task.is_finished() {
            self.block(cx);
        }
        result(task)
    }

    /// Polls until the future, as a task of the context, is done.
    pub(crate) fn run<T: 'static>(&self, cx: &Context, future: impl Future<Output = T> + 'static) -> T {
        self.join(cx, cx.spawn(future)).expect("it comes to an end")
    }
}

/// What a foreign loop does: prepare, wait for the one descriptor, check, dispatch.
fn poll_embedded(cx: &Context, longest_ms: i32) -> bool {
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

/// The result of a task that is done.
pub(crate) fn result<T>(mut task: JoinHandle<T>) -> Result<T, JoinError> {
    match Pin::new(&mut task).poll(&mut Polling::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("the task is not done"),
    }
}

/// A counter that closures share.
#[derive(Clone, Debug, Default)]
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

/// Counts its drops.
#[derive(Debug)]
pub(crate) struct Dropped(pub(crate) Count);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.up();
    }
}
