//! [`KernelRing`]: a ring of the kernel, with the operations that it executes.
//!
//! The `unsafe` code is for functions of the crate `io-uring`, here and in [`operations`](crate::operations).
#![allow(unsafe_code, reason = "io-uring has no safe function to submit a request")]

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use aio_backend::{Completed, NotSubmitted, Operation, Readiness, Token};
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{Builder, EnterFlags, IoUring, cqueue, opcode, squeue};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec as PollTimeout, eventfd, poll};
use rustix::io::Errno;

use crate::calls::{Completion, Request, Ring};
use crate::config::Config;
use crate::operations::{IS_OPERATION, Operations};

/// The longest time that the end of a ring waits for its operations.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// The queues of a ring, which this process shares with the kernel.
///
/// Dropping it closes the ring and unmaps the queues. If operations are in flight, it first cancels them and waits for
/// up to a second until the kernel has released their buffers; buffers that the kernel still uses then are leaked. In a
/// forked child it submits nothing.
///
/// # Examples
/// ```
/// use aio_backend_uring::Config;
/// use aio_backend_uring::sys::{Kernel, Ring, Sys};
///
/// match Kernel.setup(&Config::new()) {
///     Ok(mut ring) => assert!(ring.is_idle() && ring.next().is_none()),
///     Err(error) => println!("{error}: {}", aio_backend::remedy(&error)),
/// }
/// ```
pub struct KernelRing {
    ring: IoUring,
    /// Set if the kernel sets a flag while there is work that only an enter turns into completions.
    sees_all: bool,
    /// The operations; `None` until the first one is submitted.
    operations: Option<Box<Operations>>,
    /// The most threads of the kernel that wait for files; zero for the kernel's default.
    workers: u32,
    /// The process that may use the ring.
    process: u32,
}

/// The flags that some kernels lack, from the newest kernel on. All of 5.18 and later continue after a request that fails.
const FLAGS: [fn(&mut Builder) -> &mut Builder; 5] = [
    // 6.1: only this thread submits, and the kernel makes completions only when it enters.
    |builder| {
        builder
            .setup_submit_all()
            .setup_taskrun_flag()
            .setup_single_issuer()
            .setup_defer_taskrun()
    },
    // 6.0
    |builder| {
        builder
            .setup_submit_all()
            .setup_taskrun_flag()
            .setup_single_issuer()
            .setup_coop_taskrun()
    },
    // 5.19: completions do not interrupt this thread.
    |builder| {
        builder
            .setup_submit_all()
            .setup_taskrun_flag()
            .setup_coop_taskrun()
    },
    |builder| builder.setup_submit_all(),
    |builder| builder,
];

/// The number of [`FLAGS`] with `TASKRUN_FLAG`.
const SEEING_ALL: usize = 3;

impl KernelRing {
    pub(crate) fn new(config: &Config) -> io::Result<Self> {
        let first = if config.is_plain { FLAGS.len() - 1 } else { 0 };
        let mut refused = io::Error::from(Errno::INVAL);
        for (place, flags) in FLAGS.iter().enumerate().skip(first) {
            let mut builder = IoUring::builder();
            builder
                .setup_clamp()
                .setup_cqsize(config.completions.max(config.submissions.next_power_of_two()));
            match flags(&mut builder).build(config.submissions) {
                Ok(ring) => return Self::of(ring, place < SEEING_ALL, config.workers),
                Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => refused = error,
                Err(error) => return Err(error),
            }
        }
        Err(refused)
    }

    /// Checks that the kernel has the features that the backend needs: Linux 5.13 or later.
    fn of(ring: IoUring, sees_all: bool, workers: u32) -> io::Result<Self> {
        let has = ring.params();
        // The last feature came with multishot poll requests.
        if has.is_feature_nodrop() && has.is_feature_ext_arg() && has.is_feature_resource_tagging() {
            Ok(Self {
                ring,
                sees_all,
                operations: None,
                workers,
                process: std::process::id(),
            })
        } else {
            Err(Errno::NOSYS.into())
        }
    }

    /// Sets the number of threads on which the kernel executes operations that would wait. If some operations hang, the
    /// others need more threads (rule S2).
    #[cold]
    fn allow_workers(&self) {
        // The first limit is for files. The second, for work without an end, stays as it is.
        let mut most = [self.workers, 0];
        if let Err(error) = self.ring.submitter().register_iowq_max_workers(&mut most) {
            tracing::debug!(%error, "the number of threads for operations stays at the kernel's default");
        }
    }

    /// Returns the number of operations that [`next_completed`](Ring::next_completed) has not returned.
    fn in_flight(&self) -> usize {
        self.operations.as_ref().map_or(0, |operations| operations.len())
    }
}

/// Returns `true` if an enter that fails with this error may succeed the next time.
fn is_passing(error: Errno) -> bool {
    matches!(error, Errno::TIME | Errno::INTR | Errno::BUSY | Errno::AGAIN)
}

impl Drop for KernelRing {
    fn drop(&mut self) {
        if std::process::id() == self.process {
            self.end_operations(&mut |_| {});
        }
    }
}

impl Ring for KernelRing {
    #[inline]
    fn sees_all(&self) -> bool {
        self.sees_all
    }

    #[inline]
    fn is_idle(&mut self) -> bool {
        self.sees_nothing(false)
    }

    #[inline]
    fn is_quiet(&mut self) -> bool {
        self.sees_nothing(true)
    }

    #[inline]
    fn push(&mut self, request: Request) -> bool {
        let entry: squeue::Entry = match request {
            Request::Poll {
                key,
                fd,
                readiness,
                is_multishot,
            } => opcode::PollAdd::new(Fd(fd), asked(readiness))
                .multi(is_multishot)
                .build()
                .user_data(key & !IS_OPERATION),
            Request::Cancel { key, target } => opcode::AsyncCancel::new(target)
                .build()
                .user_data(key & !IS_OPERATION),
        };
        // SAFETY: the entry has no pointer: a poll request has a number and flags, a cancellation the user data of a request. The kernel
        // copies the entry when it is submitted. A number that is not open, or means another file by then, is an error of the request
        // or a request about that file, and no access to memory.
        unsafe { self.ring.submission().push(&entry).is_ok() }
    }

    #[inline]
    fn pushed(&mut self) -> usize {
        let submissions = self.ring.submission();
        let pushed = submissions.len();
        // No request was pushed, so there is no position to publish.
        mem::forget(submissions);
        pushed
    }

    #[inline]
    fn enter(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let entered = self.enter_kernel(timeout);
        if let Some(operations) = &mut self.operations {
            operations.flush(&mut self.ring);
        }
        entered
    }

    fn make_eventfd(&mut self) -> io::Result<OwnedFd> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        self.ring.submitter().register_eventfd(eventfd.as_raw_fd())?;
        Ok(eventfd)
    }

    #[cold]
    fn has_work(&mut self) -> bool {
        const NOW: &PollTimeout = &PollTimeout {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let ring = self.ring.as_fd();
        // If `poll` fails, there may be work.
        poll(&mut [PollFd::from_borrowed_fd(ring, PollFlags::IN)], Some(NOW)) != Ok(0)
    }

    #[inline]
    fn next(&mut self) -> Option<Completion> {
        loop {
            let entry = self.ring.completion().next()?;
            if entry.user_data() & IS_OPERATION == 0 {
                return Some(Completion {
                    key: entry.user_data(),
                    result: entry.result(),
                    has_more: cqueue::more(entry.flags()),
                });
            }
            if let Some(operations) = &mut self.operations {
                operations.complete(&mut self.ring, entry.user_data(), entry.result());
            }
        }
    }

    fn submit(&mut self, operation: Operation) -> Result<Token, NotSubmitted> {
        if self.operations.is_none() {
            self.allow_workers();
        }
        let operations = self.operations.get_or_insert_default();
        operations.submit(&mut self.ring, operation)
    }

    fn cancel(&mut self, operation: Token) {
        if let Some(operations) = &mut self.operations {
            operations.cancel(&mut self.ring, operation);
        }
    }

    fn next_completed(&mut self) -> Option<(Token, Completed)> {
        self.operations.as_mut()?.next_completed()
    }

    #[inline]
    fn has_completed(&self) -> bool {
        self.operations
            .as_ref()
            .is_some_and(|operations| operations.has_completed())
    }

    #[inline]
    fn has_waiting(&self) -> bool {
        self.operations
            .as_ref()
            .is_some_and(|operations| operations.is_waiting())
    }

    #[inline]
    fn accepted(&self) -> usize {
        self.operations
            .as_ref()
            .map_or(0, |operations| operations.accepted())
    }

    fn end_operations(&mut self, other: &mut dyn FnMut(Completion)) {
        let Some(operations) = &mut self.operations else {
            return;
        };
        operations.cancel_all(&mut self.ring);
        let end = Instant::now() + END_TIMEOUT;
        while self
            .operations
            .as_ref()
            .is_some_and(|operations| operations.in_kernel() > 0)
        {
            let left = end.saturating_duration_since(Instant::now());
            let entered = if left.is_zero() {
                Err(Errno::TIME.into())
            } else {
                self.enter(Some(left))
            };
            while let Some(completion) = self.next() {
                other(completion);
            }
            let error = entered.err().and_then(|error| Errno::from_io_error(&error));
            if left.is_zero() || error.is_some_and(|error| !is_passing(error)) {
                break;
            }
        }
        if let Some(operations) = &mut self.operations {
            let left = operations.in_kernel();
            if left > 0 {
                tracing::warn!(
                    operations = left,
                    "the system has not ended operations in time; their buffers are leaked"
                );
                operations.leak();
            }
        }
    }
}

impl KernelRing {
    /// Returns `true` if there is no completion, no work that an enter would turn into one, and, if `counts_pushed`, no
    /// request to submit.
    #[inline]
    fn sees_nothing(&mut self, counts_pushed: bool) -> bool {
        let submissions = self.ring.submission();
        let has_pushed = counts_pushed && !submissions.is_empty();
        let has_work = submissions.taskrun() || submissions.cq_overflow();
        // No entry was pushed or taken, so there is no position to publish.
        mem::forget(submissions);
        if has_pushed || has_work {
            return false;
        }
        let completions = self.ring.completion();
        let is_empty = completions.is_empty();
        mem::forget(completions);
        is_empty
    }

    #[inline]
    fn enter_kernel(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let pushed = self.pushed() as u32;
        let submitter = self.ring.submitter();
        let flags = EnterFlags::GETEVENTS;
        let Some(timeout) = timeout.filter(|timeout| !timeout.is_zero()) else {
            let want = u32::from(timeout.is_none());
            // SAFETY: there is no argument, and the number of requests is that of the entries in the queue, which `push` has written.
            unsafe { submitter.enter::<SubmitArgs<'_, '_>>(pushed, want, flags.bits(), None)? };
            return Ok(());
        };
        let time = Timespec::new()
            .sec(timeout.as_secs())
            .nsec(timeout.subsec_nanos());
        let args = SubmitArgs::new().timespec(&time);
        let flags = flags | EnterFlags::EXT_ARG;
        // SAFETY: as above. With `EXT_ARG` the kernel reads a `struct io_uring_getevents_arg`, as which `SubmitArgs` is laid out, and
        // the time that it points to; both live until the call returns.
        unsafe { submitter.enter(pushed, 1, flags.bits(), Some(&args))? };
        Ok(())
    }
}

/// Returns the bits to wait for.
///
/// io_uring leaves `POLLPRI` out when it compares the events of a wake-up with those of a request
/// (`IO_ASYNC_POLL_COMMON` in `io_uring/poll.c`), so such a request would sleep through urgent data. A wake-up of a
/// socket for urgent data also has `POLLRDBAND`, which no protocol of today reports as a state.
fn asked(readiness: Readiness) -> u32 {
    const POLLRDBAND: u32 = 0x80;
    let bits = readiness.to_system();
    if readiness.contains(Readiness::PRI) {
        bits | POLLRDBAND
    } else {
        bits
    }
}

impl fmt::Debug for KernelRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelRing")
            .field("params", self.ring.params())
            .field("sees_all", &self.sees_all)
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_ring_and_a_full_one_differ_in_what_they_see() {
        let Ok(full) = KernelRing::new(&Config::new().submissions(3).completions(1)) else {
            eprintln!("skipped: io_uring is not available");
            return;
        };
        let params = full.ring.params();
        assert_eq!((params.sq_entries(), params.cq_entries()), (4, 4));
        let plain = KernelRing::new(&Config::new().plain()).unwrap();
        assert!(!plain.sees_all());
        assert!(!plain.ring.params().is_setup_single_issuer());
    }
}
