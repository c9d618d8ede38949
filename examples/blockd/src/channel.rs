//! [`Channel`]: messages that the daemon sends to its client of its own accord (the back-end channel of the protocol).
//!
//! The protocol's library accepts the client's socket for the channel, but cannot send the one message that a
//! disk needs. So the daemon keeps a duplicate of the socket.

use std::io;
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::SendFlags;

/// `VHOST_USER_BACKEND_CONFIG_CHANGE_MSG`.
const CONFIG_CHANGE: u32 = 2;
/// Version 1 of the protocol, without a reply.
const FLAGS: u32 = 1;

/// A socket from which the client reads.
#[derive(Debug)]
pub(crate) struct Channel(UnixStream);

impl Channel {
    pub(crate) fn new(socket: UnixStream) -> Self {
        Self(socket)
    }

    /// Notifies the client that the configuration has changed. Never waits.
    ///
    /// # Errors
    /// If the client does not read the channel or has closed it. The channel cannot be used after that.
    pub(crate) fn send_config_change(&self) -> io::Result<()> {
        let message: Vec<u8> = [CONFIG_CHANGE, FLAGS, 0]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        loop {
            match rustix::net::send(&self.0, &message, flags) {
                Ok(count) if count == message.len() => return Ok(()),
                Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn c14_a_client_that_does_not_read_its_channel_is_an_error() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let channel = Channel::new(server);
        channel.send_config_change().unwrap();
        let mut message = [0; 12];
        client.read_exact(&mut message).unwrap();
        let words: Vec<u32> = message
            .chunks(4)
            .map(|word| u32::from_ne_bytes(word.try_into().unwrap()))
            .collect();
        assert_eq!(words, [2, 1, 0]);
        let mut sent = 0;
        let error = loop {
            match channel.send_config_change() {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert!(sent > 10);
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(client);
        let error = channel.send_config_change().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
