//! Numbers and headers of the NBD protocol. All numbers on the wire are big-endian.

/// The first bytes of the server: `NBDMAGIC`.
pub(super) const INIT_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// The first bytes of a newstyle handshake and of each option: `IHAVEOPT`.
pub(super) const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// The first bytes of a reply to an option.
pub(super) const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// The first bytes of a request.
pub(super) const REQUEST_MAGIC: u32 = 0x2560_9513;
/// The first bytes of a simple reply.
pub(super) const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// The first bytes of a chunk of a structured reply.
pub(super) const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

/// The most bytes of the name of an export, of a query, or of an error message.
pub(super) const MOST_STRING: usize = 4096;

/// Handshake flags. The client's flags have the same values.
pub(super) mod handshake {
    pub(in super::super) const FIXED_NEWSTYLE: u16 = 1 << 0;
    pub(in super::super) const NO_ZEROES: u16 = 1 << 1;
}

/// Options of the handshake.
pub(super) mod option {
    pub(in super::super) const EXPORT_NAME: u32 = 1;
    pub(in super::super) const ABORT: u32 = 2;
    pub(in super::super) const LIST: u32 = 3;
    pub(in super::super) const STARTTLS: u32 = 5;
    pub(in super::super) const INFO: u32 = 6;
    pub(in super::super) const GO: u32 = 7;
    pub(in super::super) const STRUCTURED_REPLY: u32 = 8;
    pub(in super::super) const LIST_META_CONTEXT: u32 = 9;
    pub(in super::super) const SET_META_CONTEXT: u32 = 10;
}

/// Replies to options.
pub(super) mod reply {
    pub(in super::super) const ACK: u32 = 1;
    pub(in super::super) const SERVER: u32 = 2;
    pub(in super::super) const INFO: u32 = 3;
    pub(in super::super) const META_CONTEXT: u32 = 4;
    pub(in super::super) const ERR_UNSUP: u32 = 1 << 31 | 1;
    pub(in super::super) const ERR_INVALID: u32 = 1 << 31 | 3;
    pub(in super::super) const ERR_UNKNOWN: u32 = 1 << 31 | 6;
}

/// Kinds of information about an export.
pub(super) mod info {
    pub(in super::super) const EXPORT: u16 = 0;
    pub(in super::super) const NAME: u16 = 1;
    pub(in super::super) const DESCRIPTION: u16 = 2;
    pub(in super::super) const BLOCK_SIZE: u16 = 3;
}

/// Transmission flags.
pub(super) mod transmission {
    pub(in super::super) const HAS_FLAGS: u16 = 1 << 0;
    pub(in super::super) const READ_ONLY: u16 = 1 << 1;
    pub(in super::super) const SEND_FLUSH: u16 = 1 << 2;
    pub(in super::super) const SEND_FUA: u16 = 1 << 3;
    pub(in super::super) const SEND_TRIM: u16 = 1 << 5;
    pub(in super::super) const SEND_WRITE_ZEROES: u16 = 1 << 6;
    pub(in super::super) const SEND_DF: u16 = 1 << 7;
    pub(in super::super) const CAN_MULTI_CONN: u16 = 1 << 8;
    pub(in super::super) const SEND_CACHE: u16 = 1 << 10;
}

/// Types of requests.
pub(super) mod command {
    pub(in super::super) const READ: u16 = 0;
    pub(in super::super) const WRITE: u16 = 1;
    pub(in super::super) const DISC: u16 = 2;
    pub(in super::super) const FLUSH: u16 = 3;
    pub(in super::super) const TRIM: u16 = 4;
    pub(in super::super) const CACHE: u16 = 5;
    pub(in super::super) const WRITE_ZEROES: u16 = 6;
    pub(in super::super) const BLOCK_STATUS: u16 = 7;
}

/// Flags of requests.
pub(super) mod command_flag {
    pub(in super::super) const FUA: u16 = 1 << 0;
    pub(in super::super) const NO_HOLE: u16 = 1 << 1;
    pub(in super::super) const DF: u16 = 1 << 2;
    pub(in super::super) const REQ_ONE: u16 = 1 << 3;
}

/// Types of the chunks of a structured reply, and their flag.
pub(super) mod chunk {
    pub(in super::super) const FLAG_DONE: u16 = 1 << 0;
    pub(in super::super) const NONE: u16 = 0;
    pub(in super::super) const OFFSET_DATA: u16 = 1;
    pub(in super::super) const BLOCK_STATUS: u16 = 5;
    pub(in super::super) const ERROR: u16 = 1 << 15 | 1;
}

/// Flags of an extent in the metadata context `base:allocation`.
pub(super) mod state {
    pub(in super::super) const HOLE: u32 = 1 << 0;
    pub(in super::super) const ZERO: u32 = 1 << 1;
}

/// Error numbers of replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errno {
    Perm = 1,
    Io = 5,
    Inval = 22,
    NoSpc = 28,
}

/// A reader of fields from the beginning of some bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    /// Returns the next `count` bytes, or `None` if there are fewer.
    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// Returns a string, which follows its length in 32 bits. `None` if it is incomplete or longer than the
    /// protocol allows.
    pub(super) fn string(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()? as usize;
        if len > MOST_STRING {
            return None;
        }
        self.bytes(len)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The error of a message without the first bytes of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} begins with {found:#x}")]
pub(super) struct WrongMagic {
    what: &'static str,
    found: u64,
}

/// The header of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OptionHeader {
    pub(super) option: u32,
    /// The number of bytes that follow the header.
    pub(super) len: u32,
}

impl OptionHeader {
    pub(super) const LEN: usize = 16;

    /// Returns the header at the beginning of `bytes`, or `None` if it is incomplete.
    ///
    /// # Errors
    /// If the first eight bytes show that it is not a header.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Self>, WrongMagic> {
        let mut fields = Fields(bytes);
        let Some(magic) = fields.u64() else {
            return Ok(None);
        };
        if magic != OPTION_MAGIC {
            return Err(WrongMagic {
                what: "an option",
                found: magic,
            });
        }
        let header = fields
            .u32()
            .zip(fields.u32())
            .map(|(option, len)| Self { option, len });
        Ok(header)
    }
}

/// The header of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestHeader {
    pub(super) flags: u16,
    pub(super) command: u16,
    /// Identifies the request in its reply.
    pub(super) cookie: u64,
    pub(super) at: u64,
    pub(super) len: u32,
}

impl RequestHeader {
    pub(super) const LEN: usize = 28;

    /// Returns the header at the beginning of `bytes`, or `None` if it is incomplete.
    ///
    /// # Errors
    /// If the first four bytes show that it is not a header.
    #[inline]
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Self>, WrongMagic> {
        let mut fields = Fields(bytes);
        let Some(magic) = fields.u32() else {
            return Ok(None);
        };
        if magic != REQUEST_MAGIC {
            return Err(WrongMagic {
                what: "a request",
                found: magic.into(),
            });
        }
        Ok(Self::after_magic(fields))
    }

    #[inline]
    fn after_magic(mut fields: Fields<'_>) -> Option<Self> {
        Some(Self {
            flags: fields.u16()?,
            command: fields.u16()?,
            cookie: fields.u64()?,
            at: fields.u64()?,
            len: fields.u32()?,
        })
    }
}

/// Returns the header of a simple reply.
pub(super) fn simple_reply(error: u32, cookie: u64) -> [u8; 16] {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&SIMPLE_REPLY_MAGIC.to_be_bytes());
    header[4..8].copy_from_slice(&error.to_be_bytes());
    header[8..].copy_from_slice(&cookie.to_be_bytes());
    header
}

/// Returns the header of a chunk of a structured reply.
pub(super) fn chunk_header(flags: u16, kind: u16, cookie: u64, len: u32) -> [u8; 20] {
    let mut header = [0; 20];
    header[..4].copy_from_slice(&STRUCTURED_REPLY_MAGIC.to_be_bytes());
    header[4..6].copy_from_slice(&flags.to_be_bytes());
    header[6..8].copy_from_slice(&kind.to_be_bytes());
    header[8..16].copy_from_slice(&cookie.to_be_bytes());
    header[16..].copy_from_slice(&len.to_be_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(command: u16) -> Vec<u8> {
        let mut bytes = REQUEST_MAGIC.to_be_bytes().to_vec();
        bytes.extend([0, 1]);
        bytes.extend(command.to_be_bytes());
        bytes.extend(7u64.to_be_bytes());
        bytes.extend(512u64.to_be_bytes());
        bytes.extend(4096u32.to_be_bytes());
        bytes
    }

    #[test]
    fn a_request_is_parsed_once_it_is_complete() {
        let bytes = request(command::WRITE);
        for len in 0..bytes.len() {
            assert_eq!(RequestHeader::parse(&bytes[..len]), Ok(None), "{len} bytes");
        }
        let header = RequestHeader {
            flags: command_flag::FUA,
            command: command::WRITE,
            cookie: 7,
            at: 512,
            len: 4096,
        };
        assert_eq!(RequestHeader::parse(&bytes), Ok(Some(header)));
        let more = [&bytes[..], b"data"].concat();
        assert_eq!(RequestHeader::parse(&more), Ok(Some(header)));
    }

    #[test]
    fn wrong_magic_is_found_before_the_rest_arrives() {
        let mut bytes = request(command::READ);
        bytes[3] ^= 1;
        assert!(RequestHeader::parse(&bytes[..4]).is_err());
        let mut option = OPTION_MAGIC.to_be_bytes();
        assert_eq!(OptionHeader::parse(&option), Ok(None));
        option[0] ^= 1;
        assert!(OptionHeader::parse(&option).is_err());
    }

    #[test]
    fn strings_are_complete_and_short() {
        let string = |len: u32, bytes: usize| {
            let all = [&len.to_be_bytes()[..], &vec![b'a'; bytes]].concat();
            Fields(&all).string().map(<[u8]>::len)
        };
        assert_eq!(string(3, 5), Some(3));
        assert_eq!(string(4096, 4096), Some(4096));
        assert_eq!(string(4097, 4097), None);
        assert_eq!(string(3, 2), None);
        assert_eq!(string(u32::MAX, 100), None);
    }
}
