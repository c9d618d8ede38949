//! [`Config`]: the size of a ring, and the features of the kernel that it uses.

/// The parameters of a ring; see [`Uring::with_config`](crate::Uring::with_config).
///
/// ```
/// use aio_backend_uring::{Config, Uring};
///
/// match Uring::with_config(Config::new().submissions(16)) {
///     Ok(backend) => println!("{backend:?}"),
///     Err(error) => println!("{error}: {}", aio_backend::remedy(&error)),
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    pub(crate) submissions: u32,
    pub(crate) completions: u32,
    pub(crate) is_plain: bool,
    pub(crate) workers: u32,
    pub(crate) multishot_from: u32,
}

impl Config {
    /// Returns the default: 256 requests in a system call, room for 1,024 completions (32 KiB of memory), and
    /// up to 512 threads of the kernel for operations that wait. Level-triggered registrations get multishot
    /// requests only if one-shot requests do not suffice.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            submissions: 256,
            completions: 1024,
            is_plain: false,
            workers: 512,
            multishot_from: u32::MAX,
        }
    }

    /// Sets the number of requests that one system call submits, at least 1; the kernel rounds it up to a power of two, and reduces it
    /// to 32,768. It does not limit the number of descriptors.
    #[must_use]
    pub const fn submissions(mut self, submissions: u32) -> Self {
        self.submissions = if submissions == 0 { 1 } else { submissions };
        self
    }

    /// Sets the number of completions that there is room for; the kernel rounds it up to a power of two that
    /// is at least the number of submissions, and reduces it to 65,536. If more complete at once, the kernel
    /// keeps the remaining ones in its own lists, with an allocation for each.
    #[must_use]
    pub const fn completions(mut self, completions: u32) -> Self {
        self.completions = completions;
        self
    }

    /// Sets the largest number of threads on which the kernel executes operations on files and block devices that have to wait; zero for
    /// the kernel's default, which is four for each processor. The kernel starts them when it needs them, and ends idle ones.
    ///
    /// Operations that hang, such as those on a file server that does not answer, occupy one thread each.
    /// When all are occupied, other operations that have to wait for a file cannot proceed. The limit holds
    /// for the thread that uses the ring, with all its rings, from the first operation on.
    #[must_use]
    pub const fn workers(mut self, workers: u32) -> Self {
        self.workers = workers;
        self
    }

    /// Sets the number of due registrations in a wait from which level-triggered ones get multishot requests:
    /// 1 for always, `u32::MAX` for never. A registration is due if it is to be armed, for the first time or
    /// again. Only one that is armed again gets a multishot request.
    ///
    /// After an event, a one-shot request is armed again; a multishot request stays, and `poll(2)` verifies
    /// up to 64 at a time. The latter takes less for many events in a wait, and more for a single one. A
    /// multishot request stays until its registration changes. It is not the default, because a new
    /// registration may be served up to twice as late beside many that are always ready.
    #[must_use]
    pub const fn multishot_from(mut self, registrations: u32) -> Self {
        self.multishot_from = registrations;
        self
    }

    /// Uses no set-up flag that some kernels lack (`SINGLE_ISSUER`, `DEFER_TASKRUN`, `COOP_TASKRUN`,
    /// `TASKRUN_FLAG`, `SUBMIT_ALL`). The ring then works as on a kernel that lacks all of them: a check
    /// needs a system call, and [`Backend::peek`](aio_backend::Backend::peek) is unsupported.
    #[must_use]
    pub const fn plain(mut self) -> Self {
        self.is_plain = true;
        self
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}
