//! [`Home`]: which thread a context lives on, and whether that thread will look at its inbox before it waits.
//!
//! A thread that gives its own context something to do need not notify it, unless how long to wait has been decided already.

use std::sync::atomic::{AtomicBool, Ordering};

use aio_notify::HomeThread;

/// The home thread's state. Only the home thread writes it, and only there is it meaningful to read.
#[derive(Debug)]
pub(crate) struct Home {
    thread: HomeThread,
    flags: Flags,
}

/// Written in every iteration. Far from what other threads read when they give the context something to do: cache lines of 64
/// bytes, fetched in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Flags {
    /// A foreign loop is waiting on behalf of the context.
    foreign: AtomicBool,
    /// An iteration has decided how long to wait, and has not waited yet.
    deciding: AtomicBool,
}

impl Home {
    /// This thread is the home.
    pub(crate) fn here() -> Self {
        Self {
            thread: HomeThread::here(),
            flags: Flags::default(),
        }
    }

    /// Whether this is the home thread.
    pub(crate) fn is_here(&self) -> bool {
        self.thread.is_here()
    }

    /// Whether this is the home thread, and it looks at the inbox before it decides how long to wait.
    #[inline]
    pub(crate) fn will_look(&self) -> bool {
        self.is_here() && !self.is_about_to_wait()
    }

    /// Whether how long to wait has been decided already. Asked on the home thread.
    #[inline]
    pub(crate) fn is_about_to_wait(&self) -> bool {
        self.flags.deciding.load(Ordering::Relaxed) || self.flags.foreign.load(Ordering::Relaxed)
    }

    pub(crate) fn set_foreign(&self, waits: bool) {
        self.flags.foreign.store(waits, Ordering::Relaxed);
    }

    /// From here until the guard is dropped whoever makes the wait shorter on this thread, from a callback of polling, has to
    /// notify.
    #[inline]
    pub(crate) fn decide(&self) -> Deciding<'_> {
        let deciding = &self.flags.deciding;
        let before = deciding.load(Ordering::Relaxed);
        deciding.store(true, Ordering::Relaxed);
        Deciding(deciding, before)
    }
}

/// Restores what was before, as an outer iteration may be deciding, too.
pub(crate) struct Deciding<'a>(&'a AtomicBool, bool);

impl Drop for Deciding<'_> {
    fn drop(&mut self) {
        self.0.store(self.1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n1_only_the_home_thread_will_look_and_only_before_it_has_decided() {
        let home = Home::here();
        assert!(home.will_look());
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(!home.will_look()));
        });
        let outer = home.decide();
        drop(home.decide());
        assert!(!home.will_look(), "the outer one is still deciding");
        drop(outer);
        assert!(home.will_look());
        home.set_foreign(true);
        assert!(!home.will_look());
        home.set_foreign(false);
        assert!(home.will_look());
    }
}
