//! The entry point for fuzzing: bytes that encode a sequence. The target is in `fuzz/`; its seeds are
//! replayed by `tests/seeds.rs`.

use crate::{Bytes, Setup, Waiter, run, sequence};

/// The most operations of a sequence made of bytes.
const MOST: usize = 120;

/// Runs the sequence that `data` encodes: the first byte is the set-up, the rest are choices.
///
/// # Panics
/// If the loop differs from the reference.
pub fn operations(data: &[u8]) {
    let Some((setup, choices)) = data.split_first() else {
        return;
    };
    let (waiters, setup) = (Waiter::ALL, usize::from(*setup));
    let setup = Setup::new(waiters[setup % waiters.len()], setup / waiters.len());
    let ops = sequence(&mut Bytes(choices), MOST);
    if let Err(difference) = run(setup, None, &ops) {
        panic!("{difference}");
    }
}
