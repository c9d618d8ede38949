//! Which cores a task uses: one for the client, one for the server.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores of a pair that should not disturb each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    /// Where the measuring thread runs.
    pub(crate) client: usize,
    /// Where servers run.
    pub(crate) server: usize,
}

impl Cores {
    /// The first and the last core that this process may use; `None` if there is only one.
    pub(crate) fn pick() -> Option<Self> {
        let allowed = sched_getaffinity(None).ok()?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let client = cores.next()?;
        let server = cores.next_back()?;
        Some(Self { client, server })
    }
}

/// Binds the calling thread to a core; what it starts from now on inherits that.
pub(crate) fn pin(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    if let Err(error) = sched_setaffinity(None, &set) {
        eprintln!("cannot bind to core {core}: {error}; figures will spread more");
    }
}
