//! [`KernelRing`]: a ring of the kernel. The only module with `unsafe` code, all of it for functions of the crate `io-uring`.
#![allow(unsafe_code, reason = "io-uring has no safe function to submit a request")]

use std::fmt;
use std::io;
use std::time::Duration;

use aio_backend::Readiness;
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{Builder, EnterFlags, IoUring, cqueue, opcode, squeue};
use rustix::io::Errno;

use crate::calls::{Completion, Request, Ring};
use crate::config::Config;

/// The queues of a ring, which this process shares with the kernel.
///
/// Dropping it closes the ring and unmaps the queues. It submits nothing, so a forked child may do so.
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
    /// The kernel sets a flag when there is work that only an enter turns into completions.
    sees_all: bool,
}

/// The flags that some kernels lack, from the newest kernel on. All of 5.18 and later continue after a request that fails.
const FLAGS: [fn(&mut Builder) -> &mut Builder; 5] = [
    // 6.1: only this thread submits, and what completes is only turned into completions when it enters.
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
    // 5.19: this thread is not interrupted when something completes.
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
                Ok(ring) => return Self::of(ring, place < SEEING_ALL),
                Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => refused = error,
                Err(error) => return Err(error),
            }
        }
        Err(refused)
    }

    /// Checks that the kernel has what the backend needs: Linux 5.13 or later.
    fn of(ring: IoUring, sees_all: bool) -> io::Result<Self> {
        let has = ring.params();
        // The last one came with multishot poll requests.
        if has.is_feature_nodrop() && has.is_feature_ext_arg() && has.is_feature_resource_tagging() {
            Ok(Self { ring, sees_all })
        } else {
            Err(Errno::NOSYS.into())
        }
    }
}

impl Ring for KernelRing {
    fn sees_all(&self) -> bool {
        self.sees_all
    }

    #[inline]
    fn is_idle(&mut self) -> bool {
        let submissions = self.ring.submission();
        let has_work = submissions.taskrun() || submissions.cq_overflow();
        drop(submissions);
        !has_work && self.ring.completion().is_empty()
    }

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
                .user_data(key),
            Request::Cancel { key, target } => opcode::PollRemove::new(target).build().user_data(key),
        };
        // SAFETY: the entry has no pointer: a poll request has a number and flags, a cancellation the user data of a request. The kernel
        // copies the entry when it is submitted. A number that is not open, or means another file by then, is an error of the request
        // or a request about that file, and no access to memory.
        unsafe { self.ring.submission().push(&entry).is_ok() }
    }

    #[inline]
    fn pushed(&mut self) -> usize {
        self.ring.submission().len()
    }

    fn enter(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let pushed = self.ring.submission().len() as u32;
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

    #[inline]
    fn next(&mut self) -> Option<Completion> {
        let entry = self.ring.completion().next()?;
        Some(Completion {
            key: entry.user_data(),
            result: entry.result(),
            has_more: cqueue::more(entry.flags()),
        })
    }
}

/// Returns the bits to wait for.
///
/// io_uring leaves `POLLPRI` out when it compares what a wake-up is about with what a request waits for (`IO_ASYNC_POLL_COMMON` in
/// `io_uring/poll.c`), so such a request would sleep through urgent data. A wake-up of a socket for urgent data is also about `POLLRDBAND`,
/// which no protocol of today reports as a state.
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
            .finish()
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
