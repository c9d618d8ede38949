//! [`HomeProcess`]: tells the process of a loop from a child that has inherited the loop by `fork`.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// The number of forks between the first process and this one.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// The process to which a value belongs.
///
/// A child that was made by `fork` of the C library is another process. Checking costs one load, and no system call. A child that was
/// made by a raw `clone` system call is not recognised.
///
/// ```
/// use aio_notify::HomeProcess;
///
/// let home = HomeProcess::here();
/// assert!(home.is_here());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HomeProcess(u32);

impl HomeProcess {
    /// Returns the calling process.
    #[must_use]
    pub fn here() -> Self {
        count_forks();
        Self(FORKS.load(Ordering::Relaxed))
    }

    /// Returns whether this is the calling process.
    #[inline]
    #[must_use]
    pub fn is_here(self) -> bool {
        FORKS.load(Ordering::Relaxed) == self.0
    }
}

unsafe extern "C" {
    fn pthread_atfork(
        prepare: Option<extern "C" fn()>,
        parent: Option<extern "C" fn()>,
        child: Option<extern "C" fn()>,
    ) -> std::ffi::c_int;
}

/// Runs in each child, before `fork` returns there.
extern "C" fn forked() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// Begins to count forks. Without a `Once`, which a child could inherit while another thread holds it: if two
/// threads call this at the same time, each fork counts twice, which has the same effect.
fn count_forks() {
    static COUNTED: AtomicBool = AtomicBool::new(false);
    if COUNTED.load(Ordering::Acquire) {
        return;
    }
    // SAFETY: the declaration is that of POSIX. The handler is a function of this program, which lives as long as the program (the C
    // library drops the handlers of a shared object that is unloaded); it takes nothing, cannot unwind, and does nothing but add to an
    // atomic number, which is allowed in a child of a program with several threads.
    let registered = unsafe { pthread_atfork(None, None, Some(forked)) };
    // Without memory for it no fork is counted, and another call tries again.
    COUNTED.store(registered == 0, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r15_each_fork_is_another_process() {
        let parent = HomeProcess::here();
        assert!(parent.is_here() && parent == HomeProcess::here());
        // The numbers of a child, and of its child.
        let child = HomeProcess(parent.0 + 1);
        let grandchild = HomeProcess(parent.0 + 2);
        assert!(!child.is_here() && !grandchild.is_here() && child != grandchild);
    }
}
