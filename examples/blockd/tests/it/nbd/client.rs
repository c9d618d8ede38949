//! A small NBD client of our own. Every field can be set, also to values that no real client sends.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// The time limit of every wait.
const LONG: Duration = Duration::from_secs(30);

pub(crate) const READ: u16 = 0;
pub(crate) const WRITE: u16 = 1;
pub(crate) const DISC: u16 = 2;
pub(crate) const FLUSH: u16 = 3;
pub(crate) const TRIM: u16 = 4;
pub(crate) const WRITE_ZEROES: u16 = 6;
pub(crate) const BLOCK_STATUS: u16 = 7;
pub(crate) const FUA: u16 = 1;
pub(crate) const NO_HOLE: u16 = 2;

pub(crate) const LIST: u32 = 3;
pub(crate) const GO: u32 = 7;
const STRUCTURED_REPLY: u32 = 8;
const SET_META_CONTEXT: u32 = 10;
const ACK: u32 = 1;
const ERROR: u32 = 1 << 31;

pub(crate) trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// A reply to one request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) cookie: u64,
    /// The error number, or the result of the request.
    pub(crate) result: Result<Vec<u8>, u32>,
}

/// A connection.
pub(crate) struct Client {
    pub(crate) stream: Box<dyn Stream>,
    next_cookie: u64,
    /// The bytes that each outstanding request reads.
    reads: HashMap<u64, usize>,
    pub(crate) size: u64,
    pub(crate) flags: u16,
}

impl Client {
    /// Connects, up to the options of the handshake.
    pub(crate) fn begin(stream: impl Stream + 'static) -> Self {
        let mut client = Self {
            stream: Box::new(stream),
            next_cookie: 1,
            reads: HashMap::new(),
            size: 0,
            flags: 0,
        };
        assert_eq!(client.bytes(18), [&b"NBDMAGICIHAVEOPT"[..], &[0, 3]].concat());
        client.stream.write_all(&[0, 0, 0, 3]).unwrap();
        client
    }

    pub(crate) fn unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        Self::begin(stream)
    }

    pub(crate) fn tcp(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        Self::begin(stream)
    }

    /// Connects to an export, with simple replies.
    pub(crate) fn simple(path: &Path, name: &str) -> Self {
        Self::unix(path).choose(name)
    }

    /// Connects to an export, with structured replies and block status.
    pub(crate) fn structured(path: &Path, name: &str) -> Self {
        let mut client = Self::unix(path);
        assert_eq!(client.option(STRUCTURED_REPLY, &[]).last().unwrap().0, ACK);
        let context = b"base:allocation";
        let query = [&string(name)[..], &[0, 0, 0, 1], &[0, 0, 0, 15], context].concat();
        assert_eq!(client.option(SET_META_CONTEXT, &query).len(), 2);
        client.choose(name)
    }

    pub(crate) fn choose(mut self, name: &str) -> Self {
        let replies = self.option(GO, &[&string(name)[..], &[0, 0]].concat());
        assert_eq!(replies.last().unwrap().0, ACK, "{replies:?}");
        let export = &replies[0].1;
        self.size = u64::from_be_bytes(export[2..10].try_into().unwrap());
        self.flags = u16::from_be_bytes(export[10..12].try_into().unwrap());
        self
    }

    /// Sends an option. Returns the types and data of the replies.
    pub(crate) fn option(&mut self, option: u32, data: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let len = (data.len() as u32).to_be_bytes();
        let message = [&b"IHAVEOPT"[..], &option.to_be_bytes(), &len, data].concat();
        self.stream.write_all(&message).unwrap();
        let mut replies = Vec::new();
        loop {
            assert_eq!(self.u64(), 0x0003_e889_0455_65a9);
            assert_eq!(self.u32(), option);
            let kind = self.u32();
            let len = self.u32() as usize;
            replies.push((kind, self.bytes(len)));
            if kind == ACK || kind & ERROR != 0 {
                return replies;
            }
        }
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.bytes(2).try_into().unwrap())
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.bytes(4).try_into().unwrap())
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.bytes(8).try_into().unwrap())
    }

    /// Returns the cookie and the bytes of a request.
    pub(crate) fn message(&mut self, command: u16, flags: u16, at: u64, len: usize) -> (u64, Vec<u8>) {
        let cookie = self.next_cookie;
        self.next_cookie += 1;
        if command == READ {
            self.reads.insert(cookie, len);
        }
        let message = [
            &0x2560_9513u32.to_be_bytes()[..],
            &flags.to_be_bytes(),
            &command.to_be_bytes(),
            &cookie.to_be_bytes(),
            &at.to_be_bytes(),
            &(len as u32).to_be_bytes(),
        ];
        (cookie, message.concat())
    }

    /// Sends a request. Returns its cookie.
    pub(crate) fn start(&mut self, command: u16, flags: u16, at: u64, len: usize) -> u64 {
        let (cookie, message) = self.message(command, flags, at, len);
        self.stream.write_all(&message).unwrap();
        cookie
    }

    pub(crate) fn start_write(&mut self, flags: u16, at: u64, data: &[u8]) -> u64 {
        let (cookie, message) = self.message(WRITE, flags, at, data.len());
        self.stream.write_all(&[&message, data].concat()).unwrap();
        cookie
    }

    /// Returns the next reply, with all of its chunks.
    pub(crate) fn next_reply(&mut self) -> Reply {
        let mut result = Ok(Vec::new());
        loop {
            let magic = self.u32();
            if magic == 0x6744_6698 {
                let (error, cookie) = (self.u32(), self.u64());
                let len = self.reads.remove(&cookie).filter(|_| error == 0);
                let result = if error == 0 {
                    Ok(self.bytes(len.unwrap_or(0)))
                } else {
                    Err(error)
                };
                return Reply { cookie, result };
            }
            assert_eq!(magic, 0x668e_33ef);
            let (flags, kind, cookie) = (self.u16(), self.u16(), self.u64());
            let len = self.u32() as usize;
            let payload = self.bytes(len);
            match kind {
                0 => {}
                1 => result = Ok(payload[8..].to_vec()),
                5 => result = Ok(payload[4..].to_vec()),
                _ => result = Err(u32::from_be_bytes(payload[..4].try_into().unwrap())),
            }
            if flags & 1 != 0 {
                self.reads.remove(&cookie);
                return Reply { cookie, result };
            }
        }
    }

    fn only_reply(&mut self, cookie: u64) -> Result<Vec<u8>, u32> {
        let reply = self.next_reply();
        assert_eq!(reply.cookie, cookie);
        reply.result
    }

    /// Executes a request without data.
    pub(crate) fn run(&mut self, command: u16, flags: u16, at: u64, len: usize) -> Result<Vec<u8>, u32> {
        let cookie = self.start(command, flags, at, len);
        self.only_reply(cookie)
    }

    pub(crate) fn read(&mut self, at: u64, len: usize) -> Result<Vec<u8>, u32> {
        self.run(READ, 0, at, len)
    }

    pub(crate) fn write(&mut self, at: u64, data: &[u8]) -> Result<(), u32> {
        let cookie = self.start_write(0, at, data);
        self.only_reply(cookie).map(drop)
    }

    pub(crate) fn flush(&mut self) -> Result<(), u32> {
        self.run(FLUSH, 0, 0, 0).map(drop)
    }

    /// Returns the extents: their lengths, and whether they are holes.
    pub(crate) fn status(&mut self, at: u64, len: usize) -> Vec<(u32, bool)> {
        let extents = self.run(BLOCK_STATUS, 0, at, len).unwrap();
        let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
        extents
            .chunks_exact(8)
            .map(|extent| (number(&extent[..4]), number(&extent[4..]) == 3))
            .collect()
    }

    /// Waits until the server has closed the connection.
    pub(crate) fn is_closed(&mut self) {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => assert_eq!(rest, [0; 0]),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
    }
}

pub(crate) fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat()
}
