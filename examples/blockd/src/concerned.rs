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
    /// Those that the message at the beginning of the socket can change. `code` is its type.
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

/// The first four bytes of the body of the message in the socket, if they can be peeked at: not if the client has sent header and body apart.
fn first_word(socket: &UnixStream) -> Option<u32> {
    let mut bytes = [0; HEADER_LEN + 4];
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let (len, _) = rustix::net::recv(socket, &mut bytes, flags).ok()?;
    let body = u32::from_ne_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
    let word = [bytes[12], bytes[13], bytes[14], bytes[15]];
    (len == bytes.len() && body >= 4).then(|| u32::from_ne_bytes(word))
}
