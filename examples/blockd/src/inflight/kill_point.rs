//! The points at which tests end a daemon like a kill: after any store to a region. Empty in ordinary builds.

#[cfg(not(test))]
#[inline(always)]
pub(super) fn after_store() {}

#[cfg(test)]
pub(crate) use planted::live;
#[cfg(test)]
pub(super) use planted::{after_store, stores};

#[cfg(test)]
mod planted {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    thread_local! {
        /// The number of stores until the daemon of this thread is killed, and the number of stores so far.
        static UNTIL_KILL: Cell<Option<u32>> = const { Cell::new(None) };
        static STORES: Cell<u32> = const { Cell::new(0) };
    }

    struct Killed;

    /// Ends the daemon if this was the last store before its kill.
    pub(in super::super) fn after_store() {
        STORES.set(STORES.get() + 1);
        match UNTIL_KILL.get() {
            Some(1) => {
                UNTIL_KILL.set(None);
                resume_unwind(Box::new(Killed));
            }
            left => UNTIL_KILL.set(left.map(|left| left - 1)),
        }
    }

    /// Runs a daemon until it ends or is killed after `until_kill` stores. Returns `true` if it was killed.
    pub(crate) fn live(until_kill: Option<u32>, daemon: impl FnOnce()) -> bool {
        UNTIL_KILL.set(until_kill);
        let lived = catch_unwind(AssertUnwindSafe(daemon));
        UNTIL_KILL.set(None);
        match lived {
            Ok(()) => false,
            Err(why) if why.is::<Killed>() => true,
            Err(why) => resume_unwind(why),
        }
    }

    /// Returns the number of stores of this thread so far.
    pub(in super::super) fn stores() -> u32 {
        STORES.get()
    }
}
