//! Requests as operations on the ring of the loop. Reads and writes transfer directly from and to the
//! client's memory.
//!
//! Threads execute the requests for which the ring cannot be used: transfers that the page cache has to
//! align, and discards of block devices.

use std::io;
use std::sync::Arc;

use aio_context::Operation;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
};

use super::{Device, Done, MalformedRequest, Progress, Request, RequestError, part_of};
use crate::buffers::Bytes;
use crate::descriptor_chain::DescriptorChain;
use crate::disk::{DiskError, Outcome, RingFile, RingProgress, RingStep, STEP, SharedWrites, has_shrunk};
use crate::guest_buffers::{Described, describe};
use crate::memory::Memory;

/// The next step of a request.
#[derive(Debug)]
pub(crate) enum OnRing {
    /// Execute this operation. [`Disk::accept`](crate::disk::Disk::accept) accepts its result.
    Operation(Operation, Outcome, Option<SharedWrites>),
    /// Flush the disk.
    Flush,
    /// Count this number of bytes as cleared.
    Nothing(u64),
    /// Pass the request to a thread.
    Threads,
    /// Complete the request.
    Done(Done),
}

impl From<RingStep> for OnRing {
    fn from(step: RingStep) -> Self {
        match step {
            RingStep::Operation(operation, outcome) => Self::Operation(operation, outcome, None),
            RingStep::Nothing(bytes) => Self::Nothing(bytes),
            RingStep::Threads => Self::Threads,
        }
    }
}

impl Device {
    /// Returns the next step of the request in `chain`. With `write_through`, a write is on the medium before it completes.
    ///
    /// # Errors
    /// [`MalformedRequest`] if no status can be reported.
    pub(crate) fn next_on_ring(
        &self,
        memory: &Arc<Memory>,
        chain: &DescriptorChain,
        write_through: bool,
        progress: RingProgress,
    ) -> Result<OnRing, MalformedRequest> {
        let (request, status) = Request::of(memory, chain)?;
        let next = match request.kind {
            VIRTIO_BLK_T_IN => self.next_transfer(memory, &request, request.to_driver, progress),
            VIRTIO_BLK_T_OUT => self.next_transfer(memory, &request, request.from_driver, progress),
            VIRTIO_BLK_T_FLUSH => Ok(None),
            VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES => self
                .next_clear(&request, progress)
                .map(|step| step.map(OnRing::from)),
            _ => return self.answer(memory, chain),
        };
        let is_read = request.kind == VIRTIO_BLK_T_IN;
        let flushes = request.kind == VIRTIO_BLK_T_FLUSH || write_through && !is_read;
        match next {
            Ok(Some(step)) => Ok(step),
            Ok(None) if flushes && !progress.is_flushed => Ok(OnRing::Flush),
            Ok(None) => {
                status.write(&[VIRTIO_BLK_S_OK as u8])?;
                // The length is at most MOST_BYTES, so it fits.
                let written = if is_read {
                    request.to_driver.len() as u32
                } else {
                    0
                };
                Ok(OnRing::Done(Done {
                    written: written + 1,
                    error: None,
                    kind: request.kind,
                    bytes: progress.done,
                }))
            }
            Err(error) => Ok(OnRing::Done(fail(request.kind, status, error)?)),
        }
    }

    /// Ends the request in `chain` with an error.
    ///
    /// # Errors
    /// [`MalformedRequest`] if no status can be reported.
    pub(crate) fn fail_on_ring(
        &self,
        memory: &Memory,
        chain: &DescriptorChain,
        error: DiskError,
    ) -> Result<Done, MalformedRequest> {
        let (request, status) = Request::of(memory, chain)?;
        fail(request.kind, status, RequestError::Disk(error))
    }

    /// Executes a request that does not concern the medium.
    fn answer(&self, memory: &Memory, chain: &DescriptorChain) -> Result<OnRing, MalformedRequest> {
        let step = self.serve(memory, chain, false, &mut Progress::default())?;
        Ok(step.done.map_or(OnRing::Threads, OnRing::Done))
    }

    /// Returns the operation for the next bytes of a transfer, or `None` if there are none.
    fn next_transfer(
        &self,
        memory: &Arc<Memory>,
        request: &Request<'_>,
        all: Bytes<'_>,
        progress: RingProgress,
    ) -> Result<Option<OnRing>, RequestError> {
        let at = request.position(all.len())?;
        let writes = request.kind == VIRTIO_BLK_T_OUT;
        if writes {
            self.disk.check_write(at, all.len())?;
        } else {
            self.disk.check(at, all.len())?;
        }
        let part = part_of(all, progress.done).ok_or(RequestError::Length(all.len()))?;
        if part.is_empty() {
            return Ok(None);
        }
        let Described {
            memory,
            len,
            alignment,
        } = describe(memory, part, STEP)?;
        let at = at + progress.done;
        let Some(RingFile { file, shared }) = self.disk.ring_file(writes, at, len, alignment) else {
            return Ok(Some(OnRing::Threads));
        };
        Ok(Some(match writes {
            true => {
                let outcome = Outcome::Written { end: at + len };
                OnRing::Operation(Operation::write(file, at, memory), outcome, shared)
            }
            false => OnRing::Operation(Operation::read(file, at, memory), Outcome::Transferred, shared),
        }))
    }
}

fn fail(kind: u32, status: Bytes<'_>, error: RequestError) -> Result<Done, MalformedRequest> {
    let code = match error {
        RequestError::Unsupported { .. } => VIRTIO_BLK_S_UNSUPP,
        _ => VIRTIO_BLK_S_IOERR,
    };
    status.write(&[code as u8])?;
    Ok(Done {
        written: 1,
        error: Some(error),
        kind,
        bytes: 0,
    })
}

/// Returns `true` if a thread can execute the request after this error of the ring: the system refuses a
/// direct transfer of this kind, or the disk has shrunk meanwhile.
pub(crate) fn is_for_threads(device: &Device, error: &io::Error) -> bool {
    let is_refused = device.disk.is_direct() && error.raw_os_error() == Some(libc::EINVAL);
    is_refused || has_shrunk(error)
}
