//! Counts units of work, so that tests assert costs without a clock.

use std::cell::Cell;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// Counts one unit of work on this thread.
pub fn step() {
    COUNT.set(COUNT.get() + 1);
}

/// Returns the number of steps that `run` takes.
pub fn count<R>(run: impl FnOnce() -> R) -> u64 {
    let before = COUNT.get();
    run();
    COUNT.get() - before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_this_thread_alone_are_counted() {
        step();
        let steps = count(|| {
            step();
            std::thread::spawn(step).join().map(|()| step())
        });
        assert_eq!(steps, 2);
    }
}
