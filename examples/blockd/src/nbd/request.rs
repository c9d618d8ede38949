//! The meaning of a request, checked against the export.

use std::ops::Range;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
};

use super::negotiation::{Agreement, MOST_TRANSFER};
use super::stats::OTHER;
use super::wire::{Errno, RequestHeader, command, command_flag};
use crate::disk::DiskError;

/// The operation on a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
    Flush,
    Trim,
    WriteZeroes {
        /// Whether the storage may be released.
        unmap: bool,
    },
    BlockStatus {
        /// Whether the reply has only one extent.
        one: bool,
    },
    /// The range will be read soon.
    Cache,
}

/// A request that can be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Identifies the request in its reply.
    pub(super) cookie: u64,
    pub(super) kind: Kind,
    pub(super) at: u64,
    pub(super) len: u32,
    /// Set if the written data must be on the medium before the reply.
    pub(super) fua: bool,
}

impl Request {
    /// Returns the range that it writes, zeroes or trims; `None` for other requests.
    pub(super) fn written(&self) -> Option<Range<u64>> {
        let writes = matches!(self.kind, Kind::Write | Kind::Trim | Kind::WriteZeroes { .. });
        writes.then(|| self.at..self.at + u64::from(self.len))
    }
}

/// The reason for which a request fails.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("request type {0} is not supported")]
    Command(u16),
    #[error("flags {flags:#x} are not valid in a request of type {command}")]
    Flags { command: u16, flags: u16 },
    #[error("a read or write has at most {MOST_TRANSFER} bytes, not {0}")]
    TooLong(u32),
    #[error("block status was not negotiated")]
    NoContext,
    #[error("block status of no bytes")]
    Empty,
    #[error(transparent)]
    Read(DiskError),
    /// The error of a request that writes or zeroes.
    #[error(transparent)]
    Write(DiskError),
}

impl Refusal {
    /// Returns the error of a request of this kind.
    pub(super) fn of(kind: Kind, error: DiskError) -> Self {
        match kind {
            Kind::Write | Kind::WriteZeroes { .. } => Self::Write(error),
            _ => Self::Read(error),
        }
    }

    /// Returns the error number for the client.
    pub(super) fn errno(&self) -> Errno {
        match self {
            Self::Write(DiskError::Outside { .. }) => Errno::NoSpc,
            Self::Read(DiskError::ReadOnly) | Self::Write(DiskError::ReadOnly) => Errno::Perm,
            Self::Read(DiskError::File(error)) | Self::Write(DiskError::File(error)) if is_full(error) => {
                Errno::NoSpc
            }
            Self::Read(DiskError::Outside { .. })
            | Self::Command(_)
            | Self::Flags { .. }
            | Self::TooLong(_)
            | Self::NoContext
            | Self::Empty => Errno::Inval,
            Self::Read(_) | Self::Write(_) => Errno::Io,
        }
    }
}

/// Returns `true` if there is no storage left.
fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// The meaning of a request header.
#[derive(Debug)]
pub(super) enum Asked {
    /// Execute the request. For a write, `len` bytes follow the header.
    Execute(Request),
    /// The request fails.
    Refuse {
        refusal: Refusal,
        /// The number of bytes that follow the header.
        payload: u32,
    },
    Disconnect,
}

impl Asked {
    /// Checks a request of a client.
    #[inline]
    pub(super) fn check(header: &RequestHeader, agreement: &Agreement) -> Self {
        let payload = if header.command == command::WRITE {
            header.len
        } else {
            0
        };
        match Request::check(header, agreement) {
            Ok(Some(request)) => Self::Execute(request),
            Ok(None) => Self::Disconnect,
            Err(refusal) => Self::Refuse { refusal, payload },
        }
    }
}

impl Request {
    /// Returns the type of the virtio-blk request with the same effect, and the bytes that were moved or
    /// cleared.
    #[inline]
    pub(super) fn figures(&self, failed: bool) -> (u32, u64) {
        let kind = match self.kind {
            Kind::Read => VIRTIO_BLK_T_IN,
            Kind::Write => VIRTIO_BLK_T_OUT,
            Kind::Flush => VIRTIO_BLK_T_FLUSH,
            Kind::Trim => VIRTIO_BLK_T_DISCARD,
            Kind::WriteZeroes { .. } => VIRTIO_BLK_T_WRITE_ZEROES,
            Kind::BlockStatus { .. } | Kind::Cache => return (OTHER, 0),
        };
        let moves = self.kind != Kind::Flush && !failed;
        (kind, if moves { self.len.into() } else { 0 })
    }

    /// Returns the request, or `None` if the client disconnects.
    #[inline]
    fn check(header: &RequestHeader, agreement: &Agreement) -> Result<Option<Self>, Refusal> {
        let RequestHeader {
            flags,
            command,
            cookie,
            at,
            len,
        } = *header;
        let has = |flag| flags & flag != 0;
        let (kind, allowed) = match command {
            command::READ if agreement.structured => (Kind::Read, command_flag::DF),
            command::READ => (Kind::Read, 0),
            command::WRITE => (Kind::Write, 0),
            command::DISC => return Ok(None),
            command::FLUSH => (Kind::Flush, 0),
            command::TRIM => (Kind::Trim, 0),
            command::CACHE => (Kind::Cache, 0),
            command::WRITE_ZEROES => {
                let unmap = !has(command_flag::NO_HOLE);
                (Kind::WriteZeroes { unmap }, command_flag::NO_HOLE)
            }
            command::BLOCK_STATUS => {
                let one = has(command_flag::REQ_ONE);
                (Kind::BlockStatus { one }, command_flag::REQ_ONE)
            }
            unknown => return Err(Refusal::Command(unknown)),
        };
        // Every command may have FUA.
        if flags & !(allowed | command_flag::FUA) != 0 {
            return Err(Refusal::Flags { command, flags });
        }
        let request = Self {
            cookie,
            kind,
            at,
            len,
            fua: has(command_flag::FUA),
        };
        request.check_range(agreement)?;
        Ok(Some(request))
    }

    #[inline]
    fn check_range(&self, agreement: &Agreement) -> Result<(), Refusal> {
        let disk = &agreement.export.device.disk;
        let len = u64::from(self.len);
        match self.kind {
            Kind::Read | Kind::Write if self.len > MOST_TRANSFER => return Err(Refusal::TooLong(self.len)),
            Kind::BlockStatus { .. } if !agreement.status => return Err(Refusal::NoContext),
            Kind::BlockStatus { .. } if self.len == 0 => return Err(Refusal::Empty),
            // The offset and the length are reserved.
            Kind::Flush => return Ok(()),
            _ => {}
        }
        let checked = match self.kind {
            Kind::Write | Kind::Trim | Kind::WriteZeroes { .. } => disk.check_write(self.at, len),
            _ => disk.check(self.at, len),
        };
        checked.map_err(|error| Refusal::of(self.kind, error))
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::super::catalog::tests::export;
    use super::*;
    use crate::disk::Source;

    const SIZE: u64 = 1 << 20;

    fn agreement(read_only: bool) -> Agreement {
        Agreement {
            export: Rc::new(export("a", &Source::Ram(SIZE), read_only)),
            structured: true,
            status: true,
        }
    }

    fn header(command: u16, flags: u16, at: u64, len: u32) -> RequestHeader {
        RequestHeader {
            flags,
            command,
            cookie: 9,
            at,
            len,
        }
    }

    fn check(header: RequestHeader) -> Result<Kind, (Errno, u32)> {
        result(Asked::check(&header, &agreement(false)))
    }

    fn result(asked: Asked) -> Result<Kind, (Errno, u32)> {
        match asked {
            Asked::Execute(request) => Ok(request.kind),
            Asked::Refuse { refusal, payload } => Err((refusal.errno(), payload)),
            Asked::Disconnect => panic!("no request"),
        }
    }

    #[test]
    fn requests_within_the_disk_are_executed() {
        assert_eq!(check(header(command::READ, 0, 0, 4096)), Ok(Kind::Read));
        assert_eq!(
            check(header(command::READ, command_flag::DF, SIZE - 1, 1)),
            Ok(Kind::Read)
        );
        assert_eq!(
            check(header(command::WRITE, command_flag::FUA, SIZE, 0)),
            Ok(Kind::Write)
        );
        assert_eq!(check(header(command::FLUSH, 0, 7, 7)), Ok(Kind::Flush));
        assert_eq!(
            check(header(command::TRIM, command_flag::FUA, 0, 1 << 20)),
            Ok(Kind::Trim)
        );
        assert_eq!(check(header(command::CACHE, 0, 0, 1)), Ok(Kind::Cache));
        let zeroes = |flags| check(header(command::WRITE_ZEROES, flags, 0, 512));
        assert_eq!(zeroes(0), Ok(Kind::WriteZeroes { unmap: true }));
        assert_eq!(
            zeroes(command_flag::NO_HOLE),
            Ok(Kind::WriteZeroes { unmap: false })
        );
        let status = check(header(command::BLOCK_STATUS, command_flag::REQ_ONE, 0, 512));
        assert_eq!(status, Ok(Kind::BlockStatus { one: true }));
        assert!(matches!(
            Asked::check(&header(command::DISC, 0, 0, 0), &agreement(false)),
            Asked::Disconnect
        ));
    }

    #[test]
    fn requests_beyond_the_end_fail() {
        for (at, len) in [
            (SIZE, 1),
            (SIZE - 1, 2),
            (u64::MAX, 1),
            (u64::MAX - 1, 2),
            (0, 1 << 21),
        ] {
            assert_eq!(check(header(command::READ, 0, at, len)), Err((Errno::Inval, 0)));
            assert_eq!(
                check(header(command::WRITE, 0, at, len)),
                Err((Errno::NoSpc, len))
            );
            assert_eq!(
                check(header(command::WRITE_ZEROES, 0, at, len)),
                Err((Errno::NoSpc, 0))
            );
            assert_eq!(check(header(command::TRIM, 0, at, len)), Err((Errno::Inval, 0)));
            assert_eq!(
                check(header(command::BLOCK_STATUS, 0, at, len)),
                Err((Errno::Inval, 0))
            );
            assert_eq!(check(header(command::CACHE, 0, at, len)), Err((Errno::Inval, 0)));
        }
    }

    #[test]
    fn unknown_commands_and_flags_fail() {
        let inval = Err((Errno::Inval, 0));
        for unknown in [8, 99, u16::MAX] {
            assert_eq!(check(header(unknown, 0, 0, 512)), inval);
        }
        assert_eq!(check(header(command::READ, command_flag::NO_HOLE, 0, 512)), inval);
        assert_eq!(
            check(header(command::WRITE, command_flag::DF, 0, 512)),
            Err((Errno::Inval, 512))
        );
        assert_eq!(check(header(command::WRITE_ZEROES, 1 << 4, 0, 512)), inval);
        assert_eq!(check(header(command::FLUSH, 1 << 15, 0, 0)), inval);
        assert_eq!(check(header(command::BLOCK_STATUS, 0, 0, 0)), inval);
        assert_eq!(check(header(command::READ, 0, 0, MOST_TRANSFER + 1)), inval);
        let too_long = check(header(command::WRITE, 0, 0, u32::MAX));
        assert_eq!(too_long, Err((Errno::Inval, u32::MAX)));
        let without = Agreement {
            structured: false,
            status: false,
            ..agreement(false)
        };
        let status = Asked::check(&header(command::BLOCK_STATUS, 0, 0, 512), &without);
        assert_eq!(result(status), inval);
        let unfragmented = Asked::check(&header(command::READ, command_flag::DF, 0, 512), &without);
        assert_eq!(result(unfragmented), inval);
    }

    #[test]
    fn a_read_only_export_is_not_written() {
        let read_only = agreement(true);
        for command in [command::WRITE, command::TRIM, command::WRITE_ZEROES] {
            let asked = Asked::check(&header(command, 0, 0, 512), &read_only);
            assert_eq!(result(asked).unwrap_err().0, Errno::Perm);
        }
        for command in [
            command::READ,
            command::FLUSH,
            command::CACHE,
            command::BLOCK_STATUS,
        ] {
            assert!(result(Asked::check(&header(command, 0, 0, 512), &read_only)).is_ok());
        }
    }

    #[test]
    fn errors_of_a_file_have_numbers() {
        let errno = |kind, error: i32| {
            let error = std::io::Error::from_raw_os_error(error);
            Refusal::of(kind, DiskError::File(error)).errno()
        };
        for full in [libc::ENOSPC, libc::EDQUOT, libc::EFBIG] {
            assert_eq!(errno(Kind::Write, full), Errno::NoSpc);
        }
        assert_eq!(errno(Kind::Read, libc::EIO), Errno::Io);
        assert_eq!(
            Refusal::of(Kind::Flush, DiskError::FlushFailed).errno(),
            Errno::Io
        );
    }
}
