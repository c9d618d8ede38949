//! [`Kernel`]: the system calls themselves, except those of a ring.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use aio_backend::{Interest, Readiness};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::calls::{POLL_MAX, Sys, asked};
use crate::config::Config;
use crate::ring::KernelRing;

/// The kernel itself.
///
/// # Examples
/// ```
/// use std::io::Write;
/// use std::os::fd::AsFd;
/// use aio_backend::{Interest, Readiness};
/// use aio_backend_uring::sys::{Kernel, Sys};
///
/// let (reader, mut writer) = std::io::pipe()?;
/// writer.write_all(b"x")?;
/// let mut answers = [Readiness::empty()];
/// Kernel.poll(&[(reader.as_fd(), Interest::READ)], &mut answers)?;
/// assert_eq!(answers, [Readiness::IN]);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Kernel;

impl Sys for Kernel {
    type Ring = KernelRing;

    fn setup(&self, config: &Config) -> io::Result<KernelRing> {
        KernelRing::new(config)
    }

    #[inline]
    fn find(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        rustix::io::fcntl_getfd(fd)?;
        Ok(())
    }

    fn poll(&self, fds: &[(BorrowedFd<'_>, Interest)], answers: &mut [Readiness]) -> io::Result<()> {
        match fds.len() {
            0 => Ok(()),
            1 => poll::<1>(fds, answers),
            2..=8 => poll::<8>(fds, answers),
            _ => poll::<POLL_MAX>(fds, answers),
        }
    }

    fn is_socket(&self, fd: BorrowedFd<'_>) -> bool {
        let status = rustix::fs::fstat(fd);
        status.is_ok_and(|status| rustix::fs::FileType::from_raw_mode(status.st_mode).is_socket())
    }

    #[inline]
    fn now(&self) -> Instant {
        Instant::now()
    }
}

/// As [`Sys::poll`], for up to `N` descriptors, which are on the stack.
fn poll<const N: usize>(fds: &[(BorrowedFd<'_>, Interest)], answers: &mut [Readiness]) -> io::Result<()> {
    const NOW: &Timespec = &Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut polled: [PollFd<'_>; N] = std::array::from_fn(|place| {
        // Places beyond the last descriptor are not passed to the kernel.
        let (fd, interest) = fds[place.min(fds.len() - 1)];
        PollFd::from_borrowed_fd(
            fd,
            PollFlags::from_bits_retain(asked(interest.mask()).to_system() as _),
        )
    });
    let polled = &mut polled[..fds.len()];
    rustix::io::retry_on_intr(|| rustix::event::poll(polled, Some(NOW)))?;
    for (answer, polled) in answers.iter_mut().zip(polled) {
        *answer = Readiness::from_system(polled.revents().bits() as u32);
    }
    Ok(())
}
