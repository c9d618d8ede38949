//! [`Concerned`]: the queues that a message can change.

use std::os::unix::net::UnixStream;

use rustix::net::RecvFlags;
use vhost::vhost_user::message::FrontendReq;

/// Bytes before the body of a message: request, flags, and the length of the body.
pub(crate) const HEADER_LEN: usize = 12;

/// The queues that a message can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Concerned {
    None,
    One(usize),
    All,
}

impl Concerned {
    /// Returns the queues that the message at the beginning of the socket can change. `code` is its type.
    pub(crate) fn by(code: u32, socket: &UnixStream) -> Self {
        use FrontendReq as Type;
        let Ok(message) = Type::try_from(code) else {
            return Self::All;
        };
        match message {
            Type::GET_FEATURES
            | Type::GET_PROTOCOL_FEATURES
            | Type::GET_QUEUE_NUM
            | Type::GET_CONFIG
            | Type::GET_MAX_MEM_SLOTS
            | Type::GET_INFLIGHT_FD
            | Type::SET_OWNER
            | Type::SET_BACKEND_REQ_FD => Self::None,
            Type::SET_VRING_KICK | Type::SET_VRING_CALL | Type::SET_VRING_ERR => {
                // The low eight bits are the index.
                first_word(socket).map_or(Self::All, |word| Self::One((word & 0xff) as usize))
            }
            Type::SET_VRING_NUM
            | Type::SET_VRING_ADDR
            | Type::SET_VRING_BASE
            | Type::GET_VRING_BASE
            | Type::SET_VRING_ENABLE => first_word(socket).map_or(Self::All, |word| Self::One(word as usize)),
            _ => Self::All,
        }
    }

    pub(crate) fn includes(self, queue: usize) -> bool {
        match self {
            Self::None => false,
            Self::One(one) => one == queue,
            Self::All => true,
        }
    }
}

/// Returns the first four bytes of the body of the message in the socket. `None` if they cannot be peeked at
/// because the client has sent header and body apart.
fn first_word(socket: &UnixStream) -> Option<u32> {
    let mut bytes = [0; HEADER_LEN + 4];
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let (len, _) = rustix::net::recv(socket, &mut bytes, flags).ok()?;
    let body = u32::from_ne_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
    let word = [bytes[12], bytes[13], bytes[14], bytes[15]];
    (len == bytes.len() && body >= 4).then(|| u32::from_ne_bytes(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn message(code: FrontendReq, body: &[u8]) -> Vec<u8> {
        let header = [code as u32, 1, body.len() as u32];
        let header = header.iter().flat_map(|word| word.to_ne_bytes());
        header.chain(body.iter().copied()).collect()
    }

    /// Returns the queues that a message with this body concerns.
    fn concerned(code: FrontendReq, body: &[u8]) -> Concerned {
        let (mut client, server) = UnixStream::pair().unwrap();
        client.write_all(&message(code, body)).unwrap();
        Concerned::by(code as u32, &server)
    }

    #[test]
    fn a_message_about_a_queue_concerns_no_other() {
        use FrontendReq as Type;
        let state = [5_u32.to_ne_bytes(), 1_u32.to_ne_bytes()].concat();
        for code in [
            Type::SET_VRING_NUM,
            Type::SET_VRING_BASE,
            Type::GET_VRING_BASE,
            Type::SET_VRING_ENABLE,
        ] {
            assert_eq!(concerned(code, &state), Concerned::One(5), "{code:?}");
        }
        assert_eq!(
            concerned(Type::SET_VRING_ADDR, &[7; 40]),
            Concerned::One(0x0707_0707)
        );
        // Bit 8 means that there is no descriptor.
        let descriptor = 0x1fe_u64.to_ne_bytes();
        for code in [Type::SET_VRING_KICK, Type::SET_VRING_CALL, Type::SET_VRING_ERR] {
            assert_eq!(concerned(code, &descriptor), Concerned::One(0xfe), "{code:?}");
        }
        assert!(Concerned::One(5).includes(5) && !Concerned::One(5).includes(6));
    }

    #[test]
    fn other_messages_concern_all_queues_unless_they_only_ask() {
        use FrontendReq as Type;
        for code in [
            Type::SET_FEATURES,
            Type::SET_PROTOCOL_FEATURES,
            Type::SET_MEM_TABLE,
            Type::ADD_MEM_REG,
            Type::REM_MEM_REG,
            Type::SET_LOG_BASE,
            Type::SET_CONFIG,
            Type::SET_INFLIGHT_FD,
            Type::RESET_OWNER,
            Type::RESET_DEVICE,
        ] {
            assert_eq!(concerned(code, &[0; 64]), Concerned::All, "{code:?}");
        }
        for code in [
            Type::GET_FEATURES,
            Type::GET_CONFIG,
            Type::GET_QUEUE_NUM,
            Type::GET_INFLIGHT_FD,
        ] {
            assert_eq!(concerned(code, &[0; 64]), Concerned::None, "{code:?}");
        }
        let (_client, server) = UnixStream::pair().unwrap();
        assert_eq!(Concerned::by(99, &server), Concerned::All, "an unknown one");
    }

    /// A body that cannot be peeked at, or is missing, may name any queue.
    #[test]
    fn a_message_about_a_queue_whose_number_is_not_there_concerns_all() {
        let code = FrontendReq::GET_VRING_BASE;
        assert_eq!(concerned(code, &[]), Concerned::All);
        assert_eq!(concerned(code, &[1; 3]), Concerned::All);
        let (mut client, server) = UnixStream::pair().unwrap();
        client.write_all(&message(code, &[])).unwrap();
        client
            .write_all(&message(FrontendReq::GET_FEATURES, &[]))
            .unwrap();
        let of_next = Concerned::by(code as u32, &server);
        assert_eq!(of_next, Concerned::All, "the next message is not a part of it");
    }
}
