//! The conformance kit: every promise of the [`Backend`] contract as a test.
//!
//! A crate that has a backend depends on this one with the feature `conformance` for its tests, and writes, in a file of
//! its own under `tests/`,
//!
//! ```ignore
//! aio_backend::conformance!(mine, || MyBackend::new());
//! ```
//!
//! It has then a module `mine` with one test for each of the [`PROMISES`], such as `mine::level_triggered_until_consumed`,
//! and a [random walk](walk()) with an [`Oracle`] around the backend, which holds every answer against what the kernel says
//! of each descriptor alone. A promise that is broken panics with a sentence that says what was expected and what was seen.
//! A promise that cannot be tried, because the system allows too few descriptors, says so in a line that begins with
//! `SKIPPED`.
//!
//! # Time
//! No wait may be early, but that a wait is in time is asserted only of the best of many: a busy machine does not fail a
//! backend. A promise that takes longer than two minutes hangs; the process is then aborted, with a line that says which.
//!
//! # What it does not do
//! It does not measure speed, and it does not try what a backend is not promised, such as two registrations of one
//! descriptor number. It is a test tool: it opens thousands of descriptors and raises the limit for them, starts threads,
//! sends itself `SIGURG`, and closes numbers behind their owner's back.

pub mod disturb;
mod fixtures;
mod oracle;
mod promises;
mod walk;

use std::io::Write as _;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

pub use oracle::Oracle;
pub use promises::PROMISES;
pub use walk::walk;

use crate::Backend;

/// How long a promise may take until it counts as hanging.
const HANGS: Duration = Duration::from_secs(120);

/// One promise of the contract.
#[derive(Clone, Copy, Debug)]
pub struct Promise {
    /// Its name, which is also the name of its test.
    pub id: &'static str,
    /// What is promised. A number in parentheses is that of the contract's list.
    pub text: &'static str,
    /// Puts an empty backend to the test.
    ///
    /// # Panics
    /// If the promise is broken.
    pub run: fn(&mut dyn Backend),
}

/// Puts a new backend to the test of one promise.
///
/// # Panics
/// If the promise is broken, or unknown.
pub fn check(id: &str, backend: &mut dyn Backend) {
    let promise = PROMISES.iter().find(|promise| promise.id == id);
    let Some(promise) = promise else {
        panic!("there is no promise {id:?}")
    };
    println!("promised: {}", promise.text);
    let (_alive, over) = mpsc::channel::<()>();
    let name = promise.id;
    std::thread::spawn(move || {
        if over.recv_timeout(HANGS) == Err(RecvTimeoutError::Timeout) {
            let line = "hangs: a wait does not return though something is ready";
            let _ = writeln!(std::io::stderr(), "{name} {line}");
            std::process::abort();
        }
    });
    (promise.run)(backend);
}

/// Makes a module of tests for a backend: one for each promise of the contract, and a random walk.
///
/// The expression is called once for each test and makes an empty backend.
#[macro_export]
macro_rules! conformance {
    ($name:ident, $make:expr) => {
        mod $name {
            #[allow(
                unused_imports,
                reason = "the expression may use what is in scope outside"
            )]
            use super::*;

            $crate::__one_test_per_promise!($make);

            #[test]
            fn a_random_walk() {
                $crate::conformance::walk(&mut ($make)());
            }
        }
    };
}
