//! The conformance kit, also with queues for a few requests, without the features that only some kernels
//! have, and with multishot requests for every descriptor that is armed again.
//!
//! If the system has no `io_uring`, or forbids it, each test prints a line that begins with `skipped`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{self, Write as _};

use aio_backend::conformance::{check, walk};
use aio_backend_uring::{Config, Uring};

fn available(made: io::Result<Uring>) -> Option<Uring> {
    match made {
        Ok(backend) => Some(backend),
        Err(error) => {
            let remedy = aio_backend::remedy(&error);
            let _ = writeln!(io::stderr(), "skipped: no io_uring: {error}; {remedy}");
            None
        }
    }
}

fn check_if_available(id: &str, backend: &mut Option<Uring>) {
    if let Some(backend) = backend {
        check(id, backend);
    }
}

macro_rules! conformance {
    ($($name:ident: $config:expr;)*) => {
        $(mod $name {
            use super::*;

            aio_backend::__one_test_per_promise!(|| available(Uring::with_config($config)), check_if_available);

            #[test]
            fn a_random_walk() {
                if let Some(backend) = &mut available(Uring::with_config($config)) {
                    walk(backend);
                }
            }
        })*
    };
}

conformance! {
    usual: Config::new();
    tiny: Config::new().submissions(4).completions(4);
    plain: Config::new().plain();
    plain_and_tiny: Config::new().plain().submissions(1).completions(2);
    multishot: Config::new().multishot_from(1);
    multishot_plain_and_tiny: Config::new().plain().submissions(1).completions(2).multishot_from(1);
}
