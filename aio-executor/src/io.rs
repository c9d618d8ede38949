//! The traits of `futures-io` for [`AsyncFd`], so that protocol crates that use them run on a context.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context as Polling, Poll};

use aio_context::Interest;
use futures_io::{AsyncRead, AsyncWrite};
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};

use crate::AsyncFd;

/// Reads like the owner of the descriptor.
impl<F: AsFd> AsyncRead for AsyncFd<F>
where
    for<'a> &'a F: Read,
{
    fn poll_read(
        self: Pin<&mut Self>,
        polling: &mut Polling<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_io(Interest::READ, polling, |mut owner| owner.read(buffer))
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        polling: &mut Polling<'_>,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_io(Interest::READ, polling, |mut owner| owner.read_vectored(buffers))
    }
}

/// Writes like the owner of the descriptor. Closing shuts down the writing side of a socket; any other
/// descriptor is closed when this is dropped.
impl<F: AsFd> AsyncWrite for AsyncFd<F>
where
    for<'a> &'a F: Write,
{
    fn poll_write(self: Pin<&mut Self>, polling: &mut Polling<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_io(Interest::WRITE, polling, |mut owner| owner.write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        polling: &mut Polling<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_io(Interest::WRITE, polling, |mut owner| owner.write_vectored(slices))
    }

    fn poll_flush(self: Pin<&mut Self>, polling: &mut Polling<'_>) -> Poll<io::Result<()>> {
        self.poll_io(Interest::WRITE, polling, |mut owner| owner.flush())
    }

    fn poll_close(mut self: Pin<&mut Self>, polling: &mut Polling<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.as_mut().poll_flush(polling))?;
        Poll::Ready(match shutdown(self.as_fd(), Shutdown::Write) {
            Ok(()) | Err(Errno::NOTSOCK | Errno::NOTCONN) => Ok(()),
            Err(why) => Err(why.into()),
        })
    }
}
