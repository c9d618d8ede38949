//! The conformance kit: every promise of the [`Backend`] contract as a test.
//!
//! A crate that has a backend writes, in a file of its own under `tests/`,
//!
//! ```ignore
//! aio_backend::conformance!(my_backend, || MyBackend::new());
//! ```
//!
//! and has one test for each of the [`PROMISES`], and a [random walk](walk()) that compares the backend, step by step, with a
//! model of what it was told. A promise that is broken panics with a sentence that says what was expected.
//!
//! The kit makes system calls, starts threads and sends signals to them; it is a test tool and nothing else.

mod fixtures;
mod oracle;
mod promises;
mod walk;

pub use oracle::Oracle;
pub use promises::PROMISES;
pub use walk::walk;

use crate::Backend;

/// One promise of the contract.
#[derive(Clone, Copy, Debug)]
pub struct Promise {
    /// Its name, which is also the name of its test.
    pub id: &'static str,
    /// What is promised.
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
    println!("{}", promise.text);
    (promise.run)(backend);
}

/// Makes a module of tests, one for each promise of the backend contract, and one random walk.
///
/// The expression is called once for each test and makes an empty backend.
#[macro_export]
macro_rules! conformance {
    ($name:ident, $make:expr) => {
        $crate::conformance!(@tests $name, $make,
            readiness_of_a_pipe
            readiness_of_a_socket
            readiness_of_an_eventfd
            readiness_of_a_terminal
            a_regular_file_is_always_ready
            level_triggered_until_consumed
            modify_changes_what_is_reported
            silence_covers_everything_and_can_be_left
            remove_and_use_the_number_again
            another_descriptor_of_the_same_file_is_another_registration
            unknown_tokens_are_errors
            shares_are_kept_and_let_go
            timeout_zero_only_looks
            timeout_of_50_us
            timeout_of_5_ms
            timeout_not_a_millisecond_late
            no_timeout_waits_for_an_event
            a_timeout_beyond_all_time_is_no_error
            interruptions_are_no_errors
            hang_up_is_told
            errors_are_told
            five_thousand_descriptors
            nobody_starves_past_one_batch
            a_full_list_gets_nothing
            drain_hands_everything_over
            rebalance_loses_nothing
            what_stands_for_all_is_readable_when_something_is_ready
        );
    };
    (@tests $name:ident, $make:expr, $($promise:ident)*) => {
        mod $name {
            #[allow(unused_imports, reason = "the expression may use what is in scope outside")]
            use super::*;

            $(#[test]
            fn $promise() {
                $crate::conformance::check(stringify!($promise), &mut ($make)());
            })*

            #[test]
            fn a_random_walk() {
                $crate::conformance::walk(&mut ($make)());
            }

            #[test]
            fn every_promise_has_its_test() {
                let tested = [$(stringify!($promise)),*];
                let promised: Vec<_> = $crate::conformance::PROMISES.iter().map(|promise| promise.id).collect();
                assert_eq!(tested[..], promised[..]);
            }
        }
    };
}
