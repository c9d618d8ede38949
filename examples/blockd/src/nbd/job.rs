//! [`Job`]: a request that a thread or the ring executes.

use std::sync::atomic::{AtomicBool, Ordering};

use super::request::{Kind, Request};
use crate::disk::{Disk, DiskError, Extent, STEP};

/// The most extents of a reply.
const MOST_EXTENTS: usize = 256;

/// A request, and the data that it writes.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) request: Request,
    pub(super) data: Vec<u8>,
}

/// The result of a request.
#[derive(Debug)]
pub(super) enum Payload {
    Nothing,
    Data(Vec<u8>),
    Extents(Vec<Extent>),
}

impl Job {
    /// Executes the request. If it is cancelled meanwhile, a part of it is done, and the payload must not be
    /// used.
    ///
    /// # Errors
    /// The error of the disk.
    pub(super) fn execute(self, disk: &Disk, cancelled: &AtomicBool) -> Result<Payload, DiskError> {
        let Self { request, mut data } = self;
        let len = u64::from(request.len);
        let goes_on = || !cancelled.load(Ordering::Relaxed);
        match request.kind {
            Kind::Read => {
                data.resize(request.len as usize, 0);
                let mut at = request.at;
                for part in data.chunks_mut(STEP as usize).take_while(|_| goes_on()) {
                    disk.read_into(at, part)?;
                    at += part.len() as u64;
                }
                return Ok(Payload::Data(data));
            }
            Kind::Write => {
                let mut at = request.at;
                for part in data.chunks(STEP as usize).take_while(|_| goes_on()) {
                    disk.write_from(at, part)?;
                    at += part.len() as u64;
                }
            }
            Kind::Flush => disk.flush()?,
            Kind::Trim | Kind::WriteZeroes { .. } => {
                let mut done = 0;
                while done < len && goes_on() {
                    done += clear(disk, &request, done)?.0;
                }
            }
            Kind::BlockStatus { .. } => return extents(disk, &request).map(Payload::Extents),
            Kind::Cache => disk.prefetch(request.at, len)?,
        }
        if request.fua && request.kind != Kind::Flush && goes_on() {
            disk.flush()?;
        }
        Ok(Payload::Nothing)
    }
}

/// Executes the next step of a trim or write-zeroes after `done` bytes. Returns the bytes that it has
/// cleared, and its cost.
pub(super) fn clear(disk: &Disk, request: &Request, done: u64) -> Result<(u64, u64), DiskError> {
    let (at, left) = (request.at + done, u64::from(request.len) - done);
    let cleared = match request.kind {
        Kind::WriteZeroes { unmap } => disk.write_zeroes(at, left, unmap)?,
        _ => disk.discard(at, left)?,
    };
    Ok((cleared.bytes, cleared.cost))
}

/// Returns the extents of a range, from its beginning. They may end before the range does.
pub(super) fn extents(disk: &Disk, request: &Request) -> Result<Vec<Extent>, DiskError> {
    let most = match request.kind {
        Kind::BlockStatus { one: true } => 1,
        _ => MOST_EXTENTS,
    };
    let (mut at, mut left) = (request.at, u64::from(request.len));
    let mut extents: Vec<Extent> = Vec::new();
    while left > 0 {
        let next = disk.extent(at, left)?;
        at += next.len;
        left -= next.len;
        let count = extents.len();
        match extents.last_mut() {
            Some(last) if last.is_hole == next.is_hole => last.len += next.len,
            _ if count == most => break,
            _ => extents.push(next),
        }
    }
    Ok(extents)
}
