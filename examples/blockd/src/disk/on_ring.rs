//! Requests to an image on a ring: one operation after the other, each chosen by the result of the one
//! before.
//!
//! The loop makes no system call on an image here, because each can wait, even `lseek` or `fstat`. So the
//! choice of a step does not depend on holes of the file, as it does on threads. Before a hole is made at the
//! end of a file, the ring queries the size of the file.

use std::io;

use aio_context::{Allocation, Operation};
use rustix::io::Errno;

use super::clear::{Clearing, Stretch};
use super::image::{FlushStart, Image, RingFile};
use super::{Disk, DiskError, Medium};

/// The way in which a range is cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clear {
    /// Its storage is released, if the medium can.
    Discard,
    /// The range is zeroed.
    Zeroes {
        /// Its storage may be released.
        unmap: bool,
    },
}

/// The means of zeroing that is tried next. If the system refuses one, the next one follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Means {
    /// Query the size of the file first: a hole must not have to extend the file.
    #[default]
    Size,
    Hole,
    ZeroRange,
    Write,
}

/// The progress of a request on the ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RingProgress {
    /// The number of bytes that were transferred or cleared.
    pub(crate) done: u64,
    /// Set when all changes of the request are on the medium.
    pub(crate) is_flushed: bool,
    means: Means,
}

/// The meaning of the result of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The result is a number of bytes that were read.
    Transferred,
    /// The result is a number of bytes that were written, of those up to this position.
    Written { end: u64 },
    /// The result is the size of the file, which must reach this position for a hole.
    Size { end: u64 },
    /// The operation cleared `bytes` bytes, up to this position, or the system refuses this means.
    Zeroed { bytes: u64, end: u64 },
    /// The operation discarded this number of bytes, or discards have no effect.
    Discarded(u64),
}

/// The next step of a request.
#[derive(Debug)]
pub(crate) enum RingStep {
    /// Execute this operation. [`Disk::accept`] accepts its result.
    Operation(Operation, Outcome),
    /// This number of bytes needs no operation.
    Nothing(u64),
    /// Only a thread can execute the step.
    Threads,
}

impl Disk {
    /// Returns the file with which a ring transfers a part of an image: `len` bytes from `at`, in memory
    /// whose addresses and lengths are multiples of `alignment`. Returns `None` if only a thread can transfer
    /// it.
    pub(crate) fn ring_file(&self, writes: bool, at: u64, len: u64, alignment: u64) -> Option<RingFile> {
        match &self.medium {
            Medium::File(image) => image.ring_file(writes, at, len, alignment),
            Medium::Ram(_) | Medium::Null => None,
        }
    }

    /// Begins a flush on the ring.
    pub(crate) fn begin_flush(&self) -> FlushStart {
        match &self.medium {
            Medium::File(image) if !self.access.read_only => image.begin_flush(),
            _ => FlushStart::Unneeded,
        }
    }

    /// Returns the next step of clearing a range that is not empty.
    ///
    /// # Errors
    /// [`DiskError`] if the disk is read-only or smaller.
    pub(crate) fn next_to_clear(
        &self,
        how: Clear,
        at: u64,
        len: u64,
        progress: RingProgress,
    ) -> Result<RingStep, DiskError> {
        self.check_write(at, len)?;
        let Medium::File(image) = &self.medium else {
            return Ok(RingStep::Threads);
        };
        Ok(match how {
            Clear::Discard if !self.access.discard => RingStep::Nothing(len),
            Clear::Discard => image.next_to_discard(at, len),
            Clear::Zeroes { unmap } => {
                let unmap = unmap && self.access.discard;
                image.next_to_zero(at, len, unmap, progress.means)
            }
        })
    }

    /// Accepts the result of an operation.
    ///
    /// # Errors
    /// The error of the operation, unless another means can replace it; or an error if the file has ended.
    pub(crate) fn accept(
        &self,
        progress: &mut RingProgress,
        outcome: Outcome,
        result: io::Result<usize>,
    ) -> io::Result<()> {
        let is_executed =
            !matches!(&result, Err(error) if Errno::from_io_error(error) == Some(Errno::CANCELED));
        if let Outcome::Written { end } | Outcome::Zeroed { end, .. } = outcome
            && is_executed
        {
            self.has_written_on_ring(end)?;
        }
        match (outcome, result) {
            (Outcome::Transferred | Outcome::Written { .. }, Ok(0)) => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "it has become shorter than it was when it was opened",
                ));
            }
            (Outcome::Transferred | Outcome::Written { .. }, Ok(count)) => progress.done += count as u64,
            (Outcome::Transferred | Outcome::Written { .. }, Err(error))
                if error.kind() == io::ErrorKind::Interrupted => {}
            // The operation was not executed, and another means would not be executed either.
            (_, Err(error)) if Errno::from_io_error(&error) == Some(Errno::CANCELED) => return Err(error),
            (Outcome::Transferred | Outcome::Written { .. }, Err(error)) => return Err(error),
            (Outcome::Size { end }, Ok(size)) if size as u64 >= end => progress.means = Means::Hole,
            (Outcome::Size { .. }, _) => progress.means = Means::ZeroRange,
            (Outcome::Zeroed { bytes, .. }, Ok(_)) => {
                progress.done += bytes;
                if progress.means == Means::Hole {
                    progress.means = Means::Size;
                }
            }
            (Outcome::Zeroed { .. }, Err(_)) => {
                progress.means = match progress.means {
                    Means::Size | Means::Hole => Means::ZeroRange,
                    Means::ZeroRange | Means::Write => Means::Write,
                };
            }
            (Outcome::Discarded(bytes), result) => {
                if let (Err(error), Medium::File(image)) = (result, &self.medium) {
                    image.report_discard(&error);
                }
                progress.done += bytes;
            }
        }
        Ok(())
    }
}

impl Image {
    fn next_to_discard(&self, at: u64, len: u64) -> RingStep {
        if self.is_device() {
            // The ring has no operation for this.
            return RingStep::Threads;
        }
        match self.clearing(at, len).long() {
            Some(stretch) => self.allocate(at, Allocation::PunchHole, stretch, Outcome::Discarded),
            None => RingStep::Nothing(len),
        }
    }

    fn next_to_zero(&self, at: u64, len: u64, unmap: bool, means: Means) -> RingStep {
        let step = self.clearing(at, len);
        let stretch = self.quick_stretch(step).filter(|stretch| stretch.from == at);
        // A block device does not grow.
        let first = match (unmap, self.is_device()) {
            (false, _) => Means::ZeroRange,
            (true, true) => Means::Hole,
            (true, false) => Means::Size,
        };
        match (stretch, means.max(first)) {
            (Some(stretch), Means::Size) => {
                let end = stretch.from + stretch.len;
                RingStep::Operation(Operation::size(self.file()), Outcome::Size { end })
            }
            (Some(stretch), Means::Hole) => self.zero(at, Allocation::PunchHole, stretch),
            (Some(stretch), Means::ZeroRange) if self.zeroes_quickly() => {
                self.zero(at, Allocation::ZeroRange, stretch)
            }
            _ if self.is_direct() => RingStep::Threads,
            _ => {
                let zeroes = vec![0; step.write_len(true) as usize];
                let end = at + zeroes.len() as u64;
                RingStep::Operation(
                    Operation::write(self.file(), at, zeroes),
                    Outcome::Written { end },
                )
            }
        }
    }

    /// Returns the stretch of the next step. Steps on files are long, because only other requests to the same
    /// file wait for them. On a device they are short, because each can take long.
    fn quick_stretch(&self, step: Clearing) -> Option<Stretch> {
        if self.is_device() {
            step.middle()
        } else {
            step.long()
        }
    }

    fn zero(&self, at: u64, how: Allocation, stretch: Stretch) -> RingStep {
        let end = stretch.from + stretch.len;
        self.allocate(at, how, stretch, |bytes| Outcome::Zeroed { bytes, end })
    }

    fn allocate(
        &self,
        at: u64,
        how: Allocation,
        stretch: Stretch,
        outcome: impl FnOnce(u64) -> Outcome,
    ) -> RingStep {
        let operation = Operation::allocate(self.file(), how, stretch.from, stretch.len);
        RingStep::Operation(operation, outcome(stretch.cleared(at).bytes))
    }
}

#[cfg(test)]
mod tests;
