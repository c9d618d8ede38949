//! [`Arrived`]: whether a message has arrived completely, and can be answered. All functions here peek: the
//! data stay in the socket.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, RecvMsg, ReturnFlags};
use vhost::vhost_user::message::{MAX_ATTACHED_FD_ENTRIES, MAX_MSG_SIZE};

use crate::concerned::HEADER_LEN;

/// The next message in the socket.
#[derive(Debug, PartialEq)]
pub(crate) enum Arrived {
    Nothing,
    Part,
    Message {
        code: u32,
    },
    End,
    /// The message is not valid, or the client does not read replies.
    Malformed(&'static str),
}

/// Determines the state of the next message in a socket.
pub(crate) fn arrived(socket: &UnixStream) -> io::Result<Arrived> {
    let mut header = [0; HEADER_LEN];
    // More bytes may arrive at any moment. A peek that returns fewer bytes than this count has reached
    // attached descriptors.
    let before = unread(socket)?;
    let peeked = match peek(socket, &mut header) {
        Ok(Peeked { len: 0, .. }) => return Ok(Arrived::End),
        Ok(Peeked {
            dropped: Some(why), ..
        }) => return Ok(Arrived::Malformed(why)),
        Ok(Peeked { len, dropped: None }) => len,
        Err(Errno::AGAIN) => return Ok(Arrived::Nothing),
        Err(Errno::CONNRESET) => return Ok(Arrived::End),
        Err(error) => return Err(error.into()),
    };
    if peeked < HEADER_LEN && before >= HEADER_LEN {
        return Ok(Arrived::Malformed(
            "a message has descriptors that are not attached to its beginning",
        ));
    }
    let code = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
    let body = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]) as usize;
    // This precedes the count of bytes, so that all bytes that a client sent before it disconnected are
    // counted.
    let state = poll_state(socket)?;
    let complete = peeked == HEADER_LEN && unread(socket)? - HEADER_LEN >= body;
    if peeked == HEADER_LEN && body > MAX_MSG_SIZE {
        return Ok(Arrived::Malformed("a message is longer than the protocol allows"));
    }
    Ok(
        match (
            complete,
            state.contains(PollFlags::RDHUP),
            state.contains(PollFlags::OUT),
        ) {
            (false, true, _) => Arrived::End,
            (false, false, _) => Arrived::Part,
            (true, true, _) | (true, _, true) => Arrived::Message { code },
            (true, false, false) => Arrived::Malformed("the client does not read replies"),
        },
    )
}

/// Returns the number of bytes in a socket, including those behind attached descriptors, at which a peek
/// ends.
fn unread(socket: &UnixStream) -> io::Result<usize> {
    let count = rustix::io::ioctl_fionread(socket)?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// The beginning of the data in a socket.
struct Peeked {
    len: usize,
    /// The reason for which a descriptor of the message would be dropped. The protocol's library must not
    /// read such a message: it would block until the next one.
    dropped: Option<&'static str>,
}

/// Peeks at the beginning of the message in a socket, and at its descriptors. The duplicates that the system
/// makes of the descriptors are closed at once.
fn peek(socket: &UnixStream, header: &mut [u8]) -> Result<Peeked, Errno> {
    let mut count = 0;
    let received = peek_with(socket, header, |_duplicate| count += 1)?;
    // The buffer may have space for one descriptor more than the library's.
    let is_cut = received.flags.contains(ReturnFlags::CTRUNC);
    let dropped = if count > MAX_ATTACHED_FD_ENTRIES || is_cut && count == MAX_ATTACHED_FD_ENTRIES {
        Some("a message has more descriptors than the protocol allows")
    } else if is_cut {
        Some(
            "the process has no descriptors left for those of the client; raise the hard limit of open files \
             (ulimit -Hn, or LimitNOFILE of a service)",
        )
    } else {
        None
    };
    Ok(Peeked {
        len: received.bytes,
        dropped,
    })
}

/// Returns a duplicate of the descriptor of the next message in a socket, if it carries exactly one. The
/// message stays in the socket.
pub(crate) fn only_descriptor(socket: &UnixStream) -> Option<OwnedFd> {
    let mut descriptors = Vec::new();
    peek_with(socket, &mut [0], |duplicate| descriptors.push(duplicate)).ok()?;
    let only = descriptors.pop()?;
    descriptors.is_empty().then_some(only)
}

/// Peeks at the first bytes in a socket without waiting, and passes duplicates of their descriptors to `each`.
fn peek_with(socket: &UnixStream, bytes: &mut [u8], each: impl FnMut(OwnedFd)) -> Result<RecvMsg, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_ATTACHED_FD_ENTRIES))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = loop {
        let mut bytes = [IoSliceMut::new(bytes)];
        match rustix::net::recvmsg(socket, &mut bytes, &mut ancillary, flags) {
            Err(Errno::INTR) => {}
            received => break received?,
        }
    };
    let descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    descriptors.flatten().for_each(each);
    Ok(received)
}

/// Returns flags that tell whether a reply can be sent without blocking, and whether the client has
/// disconnected. A stream socket is writable while most of its buffer is free, which is many times the
/// longest reply.
pub(crate) fn poll_state(socket: &UnixStream) -> io::Result<PollFlags> {
    let mut fds = [PollFd::new(socket, PollFlags::OUT | PollFlags::RDHUP)];
    loop {
        match poll(
            &mut fds,
            Some(&Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            }),
        ) {
            Ok(_) => return Ok(fds[0].revents()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn message(code: u32, body: &[u8]) -> Vec<u8> {
        [
            &code.to_ne_bytes()[..],
            &1u32.to_ne_bytes(),
            &(body.len() as u32).to_ne_bytes(),
            body,
        ]
        .concat()
    }

    /// Bytes that arrive between the count and the peek must not be taken for descriptors in the middle of a
    /// header.
    #[test]
    fn a_message_may_arrive_byte_by_byte_while_the_socket_is_checked() {
        let (mut client, mut server) = UnixStream::pair().unwrap();
        let (whole, messages) = (message(1, &[]), 10_000);
        let sent = whole.clone();
        let sender = std::thread::spawn(move || {
            for byte in (0..messages).flat_map(|_| &sent) {
                client.write_all(&[*byte]).unwrap();
            }
            client
        });
        for _ in 0..messages {
            loop {
                match arrived(&server).unwrap() {
                    Arrived::Nothing | Arrived::Part => std::thread::yield_now(),
                    found => break assert_eq!(found, Arrived::Message { code: 1 }),
                }
            }
            server.read_exact(&mut whole.clone()).unwrap();
        }
        drop(sender.join().unwrap());
        assert_eq!(arrived(&server).unwrap(), Arrived::End);
    }

    #[test]
    fn a_message_counts_when_it_is_complete() {
        let (mut client, server) = UnixStream::pair().unwrap();
        assert_eq!(arrived(&server).unwrap(), Arrived::Nothing);
        let whole = message(2, &[0; 8]);
        for byte in &whole[..whole.len() - 1] {
            client.write_all(&[*byte]).unwrap();
            assert_eq!(arrived(&server).unwrap(), Arrived::Part);
        }
        client.write_all(&whole[whole.len() - 1..]).unwrap();
        let whole = Arrived::Message { code: 2 };
        assert_eq!(arrived(&server).unwrap(), whole);
        assert_eq!(arrived(&server).unwrap(), whole, "a peek leaves the message");
    }

    #[test]
    fn an_end_is_an_end_even_behind_a_part() {
        let (mut client, mut server) = UnixStream::pair().unwrap();
        client.write_all(&[1, 0]).unwrap();
        drop(client);
        assert_eq!(arrived(&server).unwrap(), Arrived::End);
        server.read_exact(&mut [0; 2]).unwrap();
        assert_eq!(arrived(&server).unwrap(), Arrived::End);
    }

    #[test]
    fn a_message_before_the_end_counts() {
        let (mut client, server) = UnixStream::pair().unwrap();
        client.write_all(&message(3, &[])).unwrap();
        drop(client);
        assert_eq!(arrived(&server).unwrap(), Arrived::Message { code: 3 });
    }

    #[test]
    fn impossible_lengths_are_malformed() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let mut bytes = message(2, &[]);
        bytes[8..12].copy_from_slice(&(MAX_MSG_SIZE as u32 + 1).to_ne_bytes());
        client.write_all(&bytes).unwrap();
        assert!(matches!(arrived(&server).unwrap(), Arrived::Malformed(_)));
    }

    #[test]
    fn a_client_that_does_not_read_is_not_answered() {
        let (mut client, mut server) = UnixStream::pair().unwrap();
        client.write_all(&message(1, &[])).unwrap();
        assert_eq!(arrived(&server).unwrap(), Arrived::Message { code: 1 });
        server.set_nonblocking(true).unwrap();
        while server.write(&[0; 4096]).is_ok() {}
        assert!(matches!(arrived(&server).unwrap(), Arrived::Malformed(_)));
    }
}
