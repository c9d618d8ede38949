//! [`Input`]: bytes of the client that are not processed yet.

use std::io::IoSliceMut;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::RecvFlags;

/// The most bytes. Pages that were never used take no memory.
pub(super) const CAPACITY: usize = 256 * 1024;
/// The least space worth a system call if there can be more space.
const LITTLE: usize = 64 * 1024;

/// Bytes in the order of their arrival.
#[derive(Debug)]
pub(super) struct Input {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

/// The result of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// The socket may have more bytes.
    Full,
    /// The socket had no more bytes.
    All,
    Nothing,
    /// The client has closed its side.
    End,
}

impl Input {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; CAPACITY],
            start: 0,
            end: 0,
        }
    }

    /// Returns the bytes.
    #[inline]
    pub(super) fn data(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Removes bytes from the beginning.
    #[inline]
    pub(super) fn consume(&mut self, count: usize) {
        self.start += count;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Removes all bytes.
    pub(super) fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    /// Appends bytes, as far as there is space. Returns the number of appended bytes.
    #[cfg(test)]
    pub(super) fn put(&mut self, bytes: &[u8]) -> usize {
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let count = bytes.len().min(CAPACITY - self.end);
        self.bytes[self.end..self.end + count].copy_from_slice(&bytes[..count]);
        self.end += count;
        count
    }

    /// Receives bytes: first into `direct`, while [`data`](Self::data) is empty, then into the buffer, which
    /// must not be full. Returns the number of bytes in `direct`.
    ///
    /// # Errors
    /// The error of the socket.
    pub(super) fn receive(
        &mut self,
        socket: impl AsFd,
        direct: &mut [u8],
    ) -> Result<(usize, Received), Errno> {
        if CAPACITY - self.end < LITTLE {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let room = &mut self.bytes[self.end..];
        let most = direct.len() + room.len();
        let received = loop {
            let received = if direct.is_empty() {
                rustix::net::recv(&socket, &mut *room, RecvFlags::DONTWAIT).map(|(count, _)| count)
            } else {
                let mut slices = [IoSliceMut::new(direct), IoSliceMut::new(room)];
                rustix::io::readv(&socket, &mut slices)
            };
            match received {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok((0, Received::Nothing)),
                received => break received?,
            }
        };
        let in_direct = received.min(direct.len());
        self.end += received - in_direct;
        let state = match received {
            0 => Received::End,
            count if count == most => Received::Full,
            _ => Received::All,
        };
        Ok((in_direct, state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn bytes_come_in_their_order() {
        let mut random = fastrand::Rng::with_seed(3);
        let (server, mut client) = UnixStream::pair().unwrap();
        server.set_nonblocking(true).unwrap();
        let mut input = Input::new();
        assert_eq!(input.receive(&server, &mut []), Ok((0, Received::Nothing)));
        let (mut next_sent, mut next_seen) = (0u8, 0u8);
        let mut check = |bytes: &[u8]| {
            for byte in bytes {
                assert_eq!(*byte, next_seen);
                next_seen = next_seen.wrapping_add(1);
            }
        };
        for _ in 0..2000 {
            let mut some = vec![0; random.usize(1..20_000)];
            for byte in &mut some {
                *byte = next_sent;
                next_sent = next_sent.wrapping_add(1);
            }
            client.write_all(&some).unwrap();
            let mut direct = vec![
                0;
                if input.data().is_empty() {
                    random.usize(..30_000)
                } else {
                    0
                }
            ];
            while input.data().len() < LITTLE && !some.is_empty() {
                let before = input.data().len();
                let (count, received) = input.receive(&server, &mut direct).unwrap();
                check(&direct[..count]);
                direct.clear();
                let all = count + input.data().len() - before;
                if received == Received::Nothing {
                    break;
                }
                some.truncate(some.len().saturating_sub(all));
            }
            let count = random.usize(..=input.data().len());
            check(&input.data()[..count]);
            input.consume(count);
        }
        drop(client);
        loop {
            let (_, received) = input.receive(&server, &mut []).unwrap();
            check(input.data());
            input.clear();
            if received == Received::End {
                break;
            }
        }
        assert_eq!(next_seen, next_sent);
    }
}
