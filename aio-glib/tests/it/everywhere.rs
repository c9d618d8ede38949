//! The kinds of contexts that tests of `aio-context` run on here: every backend, in a main loop of GLib, with polling off and on.

/// Makes tests of each function.
macro_rules! everywhere {
    ($($test:ident)*) => {
        $(mod $test {
            use crate::common::{BACKENDS, Bench};
            use crate::main_loop::poll_in_glib;

            #[test]
            fn g3_in_glib() {
                for (name, backend) in BACKENDS {
                    println!("{name}");
                    super::$test(Bench::foreign(backend, poll_in_glib));
                }
            }
            #[test]
            fn g3_in_glib_with_polling_on() {
                for (name, backend) in BACKENDS {
                    println!("{name}");
                    super::$test(Bench::foreign(backend, poll_in_glib).polling());
                }
            }
        })*
    };
}
pub(crate) use everywhere;
pub(crate) use everywhere as thoroughly;
