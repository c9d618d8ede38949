//! A trace on a context and on the reference loop of `proofs/reference`, side by side.

use aio_reference::Setup;

use crate::common::Bench;

/// Replays a trace, which must match its expectations and the reference.
pub(crate) fn check(bench: Bench, trace: &str) {
    let setup = Setup::by_name(&format!("{}/qemu-2020", bench.name)).expect("the names are the same");
    if let Err(why) = aio_reference::check(setup, trace) {
        panic!("{trace}\n{why}");
    }
}
