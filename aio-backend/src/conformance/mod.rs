//! The conformance kit: every promise of the [`Backend`] contract as a test.
//!
//! A crate with a backend depends on this crate with the feature `conformance` for its tests, and has a file under `tests/` with one
//! line: `aio_backend::conformance!(mine, || MyBackend::new());` ([example](crate::conformance!#examples)).
//!
//! This makes a module `mine` with one test for each of the [`PROMISES`], such as `mine::level_triggered_until_consumed`, and a
//! [random walk](walk()) with an [`Oracle`] around the backend. The oracle compares every result with the kernel's state of each
//! single descriptor. If a promise is violated, the test panics with a sentence that states the expected and
//! the actual result; the output before it states the promise and its remedy. If the system allows too few
//! descriptors for a promise, its test prints a line that begins with `SKIPPED`.
//!
//! # Time
//! No wait may be early. Of many waits only the best must be in time, so that a busy machine does not fail a
//! backend. If the test of a promise takes longer than two minutes, it hangs: a line names it, and the
//! process aborts.
//!
//! # What it does not do
//! It does not measure speed, and it does not test calls that the contract excludes, such as two registrations of one descriptor
//! number. It is a test tool: it opens thousands of descriptors and raises the limit for them, starts threads, sends `SIGURG` to its
//! own process, and closes numbers that other values own.

pub mod disturb;
mod fixtures;
mod oracle;
mod promise;
mod promises;
mod recent;
mod walk;

use std::io::Write as _;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

pub use oracle::Oracle;
pub use promise::Promise;
pub use promises::PROMISES;
pub use walk::walk;

use crate::Backend;

/// The time after which a test of a promise counts as hanging.
const HANGS: Duration = Duration::from_secs(120);

/// Tests one promise of a new backend.
///
/// # Panics
/// If the backend violates the promise, or there is no promise `id`.
pub fn check(id: &str, backend: &mut dyn Backend) {
    let promise = PROMISES.iter().find(|promise| promise.id == id);
    let Some(promise) = promise else {
        panic!("there is no promise {id:?}")
    };
    println!("promised: {}", promise.text);
    println!("if it is broken: {}", promise.remedy);
    let (_alive, over) = mpsc::channel::<()>();
    let name = promise.id;
    std::thread::spawn(move || {
        if over.recv_timeout(HANGS) == Err(RecvTimeoutError::Timeout) {
            let line =
                "has not ended after two minutes; perhaps a wait does not return though something is ready";
            let _ = writeln!(std::io::stderr(), "{name} {line}");
            std::process::abort();
        }
    });
    (promise.run)(backend);
}

/// Makes a module of tests for a backend: one for each promise of the contract, and a random walk.
///
/// Each test calls the expression once, which makes an empty backend.
///
/// # Examples
/// In a file under `tests/`:
///
/// ```no_run
/// # use std::{io, time::Duration};
/// # use aio_backend::{Backend, Interest, ReadyList, Token, Watched};
/// #[derive(Debug)]
/// pub struct MyBackend { /* ... */ }
/// # impl MyBackend {
/// #     pub fn new() -> Self { Self {} }
/// # }
/// # impl Backend for MyBackend {
/// #     fn name(&self) -> &'static str { "mine" }
/// #     fn add(&mut self, _: Watched, _: Token, _: Interest) -> io::Result<()> { Ok(()) }
/// #     fn modify(&mut self, _: Token, _: Interest) -> io::Result<()> { Ok(()) }
/// #     fn remove(&mut self, _: Token) -> io::Result<()> { Ok(()) }
/// #     fn wait(&mut self, _: Option<Duration>, _: &mut ReadyList) -> io::Result<()> { Ok(()) }
/// #     fn watched(&self) -> usize { 0 }
/// #     fn visit(&self, _: &mut dyn FnMut(&Watched, Token, Interest)) {}
/// #     fn drain(&mut self, _: &mut dyn FnMut(Watched, Token, Interest)) {}
/// # }
///
/// aio_backend::conformance!(mine, || MyBackend::new());
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! conformance {
    ($name:ident, $make:expr) => {
        mod $name {
            #[allow(
                unused_imports,
                reason = "the expression may use names that are in scope outside"
            )]
            use super::*;

            $crate::__one_test_per_promise!($make, $crate::conformance::check);

            #[test]
            fn a_random_walk() {
                $crate::conformance::walk(&mut ($make)());
            }
        }
    };
}
