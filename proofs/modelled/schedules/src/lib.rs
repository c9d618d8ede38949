//! Shared code of the tests that run whole contexts under model checkers.
//!
//! The tests are in `tests/schedules` (shuttle, random orders of many threads) and `tests/models` (loom,
//! every order of two). A feature chooses the checker. The tests run the real loop, on a `Fake` backend that
//! blocks where the checker can detect it. Nothing here depends on real time.
#![forbid(unsafe_code)]

mod backend;
mod clock;
#[cfg(feature = "shuttle")]
mod run;

pub use backend::Fake;
pub use clock::Ticking;
#[cfg(feature = "shuttle")]
pub use run::check;
