//! [`Outbox`]: replies that are not sent yet.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags};

/// The bytes of a buffer that collects replies. Pages of it that were never used take no memory.
const BUFFER: usize = 512 * 1024;
/// The most bytes that one reply takes in such a buffer.
pub(super) const MOST_SPACE: usize = BUFFER;
/// The most buffers of one system call.
const MOST_SLICES: usize = 64;

/// A buffer of replies.
#[derive(Debug)]
struct Buffer {
    bytes: Vec<u8>,
    filled: usize,
    /// Set while more replies can be appended.
    collects: bool,
}

/// Replies in the order in which they are sent.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    buffers: VecDeque<Buffer>,
    /// The number of bytes of the first buffer that were sent.
    sent: usize,
    /// The number of bytes that are not sent.
    len: usize,
    /// An empty buffer for later use.
    spare: Option<Vec<u8>>,
}

impl Outbox {
    /// Returns the number of bytes that are not sent.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends `len` bytes with any contents, at most [`MOST_SPACE`], for the caller to overwrite.
    #[inline]
    pub(super) fn space(&mut self, len: usize) -> &mut [u8] {
        debug_assert!(len <= MOST_SPACE, "{len} bytes");
        let fits = |buffer: &Buffer| buffer.collects && buffer.bytes.len() - buffer.filled >= len;
        if !self.buffers.back().is_some_and(fits) {
            let bytes = self.spare.take().unwrap_or_else(|| vec![0; BUFFER]);
            self.buffers.push_back(Buffer {
                bytes,
                filled: 0,
                collects: true,
            });
        }
        self.len += len;
        match self.buffers.back_mut() {
            Some(last) => {
                last.filled += len;
                &mut last.bytes[last.filled - len..last.filled]
            }
            None => &mut [],
        }
    }

    /// Removes the last `len` bytes, which must be from the last call of [`space`](Self::space).
    pub(super) fn take_back(&mut self, len: usize) {
        if let Some(last) = self.buffers.back_mut() {
            last.filled -= len;
            self.len -= len;
        }
    }

    /// Appends a copy of a few bytes.
    #[inline]
    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.space(bytes.len()).copy_from_slice(bytes);
    }

    /// Appends any number of bytes without a copy.
    pub(super) fn push(&mut self, bytes: Vec<u8>) {
        self.len += bytes.len();
        self.buffers.push_back(Buffer {
            filled: bytes.len(),
            bytes,
            collects: false,
        });
    }

    /// Sends as many bytes as the socket accepts. Returns `true` if all are sent.
    ///
    /// # Errors
    /// The error of the socket.
    pub(super) fn send(&mut self, socket: impl AsFd) -> io::Result<bool> {
        while !self.is_empty() {
            match self.send_once(&socket) {
                Ok(count) => self.remove(count),
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Removes all bytes, and returns them.
    #[cfg(test)]
    pub(super) fn take_all(&mut self) -> Vec<u8> {
        let buffers = std::mem::take(self).buffers;
        buffers
            .into_iter()
            .flat_map(|buffer| buffer.bytes[..buffer.filled].to_vec())
            .collect()
    }

    fn send_once(&self, socket: impl AsFd) -> Result<usize, Errno> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let mut skip = self.sent;
        let mut unsent = self.buffers.iter().map(|buffer| {
            let rest = &buffer.bytes[skip..buffer.filled];
            skip = 0;
            rest
        });
        if self.buffers.len() == 1
            && let Some(only) = unsent.next()
        {
            return rustix::net::send(socket, only, flags);
        }
        let slices: Vec<IoSlice<'_>> = unsent.take(MOST_SLICES).map(IoSlice::new).collect();
        rustix::net::sendmsg(socket, &slices, &mut SendAncillaryBuffer::default(), flags)
    }

    /// Removes bytes that were sent.
    fn remove(&mut self, mut count: usize) {
        self.len -= count;
        let mut buffers = self.buffers.len();
        while let Some(first) = self.buffers.front_mut() {
            let here = first.filled - self.sent;
            if count < here {
                self.sent += count;
                return;
            }
            count -= here;
            self.sent = 0;
            if first.collects && buffers == 1 {
                // The buffer stays, and can be filled again.
                first.filled = 0;
                return;
            }
            buffers -= 1;
            if let Some(first) = self.buffers.pop_front()
                && first.collects
            {
                self.spare = Some(first.bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    /// Any mix of replies arrives in order, even if the socket accepts only a part at a time.
    #[test]
    fn replies_arrive_in_order() {
        let mut random = fastrand::Rng::with_seed(7);
        let (server, mut client) = UnixStream::pair().unwrap();
        server.set_nonblocking(true).unwrap();
        let mut outbox = Outbox::default();
        let (mut expected, mut received) = (Vec::<u8>::new(), Vec::<u8>::new());
        for round in 0..300 {
            let len = [0, 1, 16, 5000, 300_000, MOST_SPACE][random.usize(..6)];
            let bytes: Vec<u8> = (0..len).map(|at| (at + round) as u8).collect();
            match random.u8(..4) {
                0 => outbox.push(bytes.clone()),
                1 => {
                    outbox.space(len / 2).fill(0xee);
                    outbox.take_back(len / 2);
                    outbox.put(&bytes);
                }
                _ => outbox.put(&bytes),
            }
            expected.extend(bytes);
            let is_sent = outbox.send(&server).unwrap();
            assert_eq!(is_sent, outbox.is_empty());
            let mut some = vec![0; random.usize(1..400_000)];
            while received.len() < expected.len() - outbox.len() && random.u8(..4) > 0 {
                let count = client.read(&mut some).unwrap();
                received.extend(&some[..count]);
            }
        }
        while received.len() < expected.len() {
            outbox.send(&server).unwrap();
            let mut some = [0; 65536];
            let count = client.read(&mut some).unwrap();
            received.extend(&some[..count]);
        }
        assert!(outbox.is_empty() && received == expected);
        assert!(
            outbox.buffers.len() <= 1,
            "{} buffers are kept",
            outbox.buffers.len()
        );
    }

    #[test]
    fn a_client_that_has_gone_is_an_error() {
        let (server, client) = UnixStream::pair().unwrap();
        drop(client);
        let mut outbox = Outbox::default();
        outbox.put(b"reply");
        assert!(outbox.send(&server).is_err());
    }
}
