//! Reads and writes as operations on the ring of the loop, straight from and to the client's memory.
//!
//! The other requests are for threads. A flush remembers its failure under a lock that only a thread can wait for; discards and zeroes need
//! system calls for which the ring has no operation. The kernel executes all of these on threads, too, so the ring would gain nothing.

use std::io;
use std::sync::Arc;

use aio_context::Operation;
use virtio_bindings::virtio_blk::{VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT};

use super::{Device, Done, MalformedRequest, Progress, Request, RequestError, part_of};
use crate::buffers::Bytes;
use crate::descriptor_chain::DescriptorChain;
use crate::disk::STEP;
use crate::guest_buffers::describe;
use crate::memory::Memory;

/// What is to be done next for a request.
#[derive(Debug)]
pub(crate) enum OnRing {
    /// This operation. [`Progress::transferred`] accepts its result.
    Operation(Operation),
    /// A thread has to execute the request.
    Threads,
    /// Nothing.
    Done(Done),
}

impl Progress {
    /// Accepts the result of an operation.
    ///
    /// # Errors
    /// That of the operation, or if the file has ended.
    pub(crate) fn transferred(&mut self, result: io::Result<usize>) -> io::Result<()> {
        match result {
            Ok(0) => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "it has become shorter than it was when it was opened",
            )),
            Ok(count) => {
                self.0 += count as u64;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Device {
    /// Returns the next step of the request in `chain`. With `write_through`, writes are for threads, because a flush follows them.
    ///
    /// # Errors
    /// [`MalformedRequest`] if no status can be reported.
    pub(crate) fn next_on_ring(
        &self,
        memory: &Arc<Memory>,
        chain: &DescriptorChain,
        write_through: bool,
        progress: Progress,
    ) -> Result<OnRing, MalformedRequest> {
        let (request, status) = Request::of(memory, chain)?;
        let (all, written) = match request.kind {
            // At most MOST_BYTES, so it fits.
            // What goes past the page cache needs aligned buffers, which the client's are not.
            _ if self.disk.is_direct() => return Ok(OnRing::Threads),
            VIRTIO_BLK_T_IN => (request.to_driver, request.to_driver.len() as u32),
            VIRTIO_BLK_T_OUT if !write_through => (request.from_driver, 0),
            _ => return Ok(OnRing::Threads),
        };
        match self.operation(memory, &request, all, progress) {
            Ok(Some(operation)) => Ok(OnRing::Operation(operation)),
            Ok(None) => {
                status.write(&[VIRTIO_BLK_S_OK as u8])?;
                Ok(OnRing::Done(Done {
                    written: written + 1,
                    error: None,
                    kind: request.kind,
                    bytes: all.len(),
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
        error: io::Error,
    ) -> Result<Done, MalformedRequest> {
        let (request, status) = Request::of(memory, chain)?;
        fail(request.kind, status, RequestError::Disk(error.into()))
    }

    /// Returns the operation for the next bytes of a transfer; `None` if there are none.
    fn operation(
        &self,
        memory: &Arc<Memory>,
        request: &Request<'_>,
        all: Bytes<'_>,
        progress: Progress,
    ) -> Result<Option<Operation>, RequestError> {
        let at = request.position(all.len())?;
        let reads = request.kind == VIRTIO_BLK_T_IN;
        let file = if reads {
            self.disk.file_to_read(at, all.len())?
        } else {
            self.disk.file_to_write(at, all.len())?
        };
        let part = part_of(all, progress.0).ok_or(RequestError::Length(all.len()))?;
        if part.is_empty() {
            return Ok(None);
        }
        let (memory, _) = describe(memory, part, STEP)?;
        let at = at + progress.0;
        Ok(Some(if reads {
            Operation::read(file, at, memory)
        } else {
            Operation::write(file, at, memory)
        }))
    }
}

fn fail(kind: u32, status: Bytes<'_>, error: RequestError) -> Result<Done, MalformedRequest> {
    status.write(&[VIRTIO_BLK_S_IOERR as u8])?;
    Ok(Done {
        written: 1,
        error: Some(error),
        kind,
        bytes: 0,
    })
}
