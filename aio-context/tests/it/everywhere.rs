//! The kinds of contexts that tests run on.

/// Makes a test of each function: on every backend, and through a foreign loop.
macro_rules! everywhere {
    ($($test:ident)*) => {
        $(mod $test {
            use aio_reference::Waiter;

            use crate::common::{self, Bench};

            #[test]
            fn on_ppoll() {
                super::$test(Bench::direct(common::ppoll, Waiter::Ppoll));
            }
            #[test]
            fn on_epoll() {
                super::$test(Bench::direct(common::epoll, Waiter::Epoll));
            }
            #[test]
            fn on_a_ladder_at_0() {
                super::$test(Bench::direct(common::ladder_at_0, Waiter::LadderAt0));
            }
            #[test]
            fn on_a_ladder_at_64() {
                super::$test(Bench::direct(common::ladder_at_64, Waiter::LadderAt64));
            }
            #[test]
            fn in_a_foreign_loop() {
                super::$test(Bench::foreign(common::ladder_at_64, common::poll_embedded));
            }
        })*
    };
}
pub(crate) use everywhere;

/// As `everywhere!`, with every backend in a foreign loop, and all of it with polling off and on.
#[allow(unused_macros, reason = "one of the suites needs it")]
macro_rules! thoroughly {
    ($($test:ident)*) => {
        $(mod $test {
            use aio_reference::Waiter;

            use crate::common::{self, BACKENDS, Bench};

            const DIRECT: [(common::Make, Waiter); 4] = [
                (common::ppoll, Waiter::Ppoll),
                (common::epoll, Waiter::Epoll),
                (common::ladder_at_0, Waiter::LadderAt0),
                (common::ladder_at_64, Waiter::LadderAt64),
            ];

            #[test]
            fn plain() {
                for (backend, waiter) in DIRECT {
                    println!("{waiter:?}");
                    super::$test(Bench::direct(backend, waiter));
                }
            }
            #[test]
            fn plain_and_polling() {
                for (backend, waiter) in DIRECT {
                    println!("{waiter:?}");
                    super::$test(Bench::direct(backend, waiter).polling());
                }
            }
            #[test]
            fn g1_in_a_foreign_loop() {
                for (name, backend) in BACKENDS {
                    println!("{name}");
                    super::$test(Bench::foreign(backend, common::poll_embedded));
                }
            }
            #[test]
            fn g1_in_a_foreign_loop_with_polling_on() {
                for (name, backend) in BACKENDS {
                    println!("{name}");
                    super::$test(Bench::foreign(backend, common::poll_embedded).polling());
                }
            }
        })*
    };
}
#[allow(unused_imports, reason = "one of the suites needs it")]
pub(crate) use thoroughly;
