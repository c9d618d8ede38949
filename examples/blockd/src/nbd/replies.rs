//! Replies to requests, simple and structured.

use super::negotiation::CONTEXT_ID;
use super::outbox::Outbox;
use super::request::{Kind, Refusal, Request};
use super::wire::{self, MOST_STRING, chunk, state};
use crate::disk::Extent;

/// The bytes of the header of a simple reply.
const SIMPLE_LEN: usize = 16;
/// The bytes of the header of a chunk with data, including their position.
const DATA_LEN: usize = 28;

/// The format of the replies on one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Format {
    pub(super) structured: bool,
}

impl Format {
    /// Replies to a request that has succeeded and has no data in its reply, or to a read of no bytes.
    #[inline]
    pub(super) fn succeed(self, out: &mut Outbox, request: &Request) {
        if self.structured && request.kind == Kind::Read {
            self.end_data(out, request.cookie);
        } else {
            out.put(&wire::simple_reply(0, request.cookie));
        }
    }

    /// Replies to a request that has failed.
    pub(super) fn fail(self, out: &mut Outbox, cookie: u64, refusal: &Refusal) {
        let errno = refusal.errno() as u32;
        if !self.structured {
            out.put(&wire::simple_reply(errno, cookie));
            return;
        }
        let mut text = refusal.to_string();
        text.truncate(text.floor_char_boundary(MOST_STRING));
        let len = 6 + text.len() as u32;
        out.put(&wire::chunk_header(chunk::FLAG_DONE, chunk::ERROR, cookie, len));
        out.put(&errno.to_be_bytes());
        out.put(&(text.len() as u16).to_be_bytes());
        out.put(text.as_bytes());
    }

    /// Returns the number of bytes before the data of a read.
    #[inline]
    pub(super) fn data_header_len(self) -> usize {
        if self.structured { DATA_LEN } else { SIMPLE_LEN }
    }

    /// Writes the bytes before the data of a read. With `is_all`, nothing follows the data, so they cannot
    /// fail any more.
    #[inline]
    pub(super) fn begin_data(self, header: &mut [u8], request: &Request, is_all: bool) {
        if self.structured {
            let flags = if is_all { chunk::FLAG_DONE } else { 0 };
            // Reads are much shorter than 32 bits allow.
            let len = 8 + request.len;
            header[..20].copy_from_slice(&wire::chunk_header(
                flags,
                chunk::OFFSET_DATA,
                request.cookie,
                len,
            ));
            header[20..].copy_from_slice(&request.at.to_be_bytes());
        } else {
            header.copy_from_slice(&wire::simple_reply(0, request.cookie));
        }
    }

    /// Ends the data of a read that began without `is_all`.
    pub(super) fn end_data(self, out: &mut Outbox, cookie: u64) {
        if self.structured {
            out.put(&wire::chunk_header(chunk::FLAG_DONE, chunk::NONE, cookie, 0));
        }
    }

    /// Replies with the allocation of a range. Only clients with structured replies query it.
    pub(super) fn extents(self, out: &mut Outbox, request: &Request, extents: &[Extent]) {
        let len = 4 + 8 * extents.len() as u32;
        let header = wire::chunk_header(chunk::FLAG_DONE, chunk::BLOCK_STATUS, request.cookie, len);
        out.put(&header);
        out.put(&CONTEXT_ID.to_be_bytes());
        for extent in extents {
            let flags = if extent.is_hole {
                state::HOLE | state::ZERO
            } else {
                0
            };
            // An extent is at most as long as the request.
            out.put(&(extent.len as u32).to_be_bytes());
            out.put(&flags.to_be_bytes());
        }
    }
}
