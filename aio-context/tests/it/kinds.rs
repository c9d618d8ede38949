//! The kinds of contexts that tests run on. Another crate that runs the same tests has others.

pub(crate) use aio_testing::everywhere;
#[allow(unused_imports, reason = "one of the suites needs it")]
pub(crate) use aio_testing::thoroughly;
