//! The kinds of contexts on which tests of `aio-context` run here: every backend, in a main loop of GLib,
//! with polling off and on.

/// Makes tests of each function.
macro_rules! everywhere {
    ($($test:ident)*) => {
        $(mod $test {
            use crate::common::Bench;
            use crate::main_loop::poll_in_glib;

            #[test]
            fn g3_in_glib() {
                for bench in Bench::DIRECT {
                    println!("{}", bench.name);
                    super::$test(bench.inside(poll_in_glib));
                }
            }
            #[test]
            fn g3_in_glib_with_polling_on() {
                for bench in Bench::DIRECT {
                    println!("{}", bench.name);
                    super::$test(bench.inside(poll_in_glib).polling());
                }
            }
        })*
    };
}
pub(crate) use everywhere;
pub(crate) use everywhere as thoroughly;
