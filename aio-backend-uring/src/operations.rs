//! [`Operations`]: the operations of a ring, from their submission to their completion. It owns their buffers meanwhile.
//!
//! An operation is in one of these states:
//!
//! | state | the operation is in | leads to |
//! |---|---|---|
//! | queued | its slot, and in `queued` | in the kernel, as soon as the submission queue has room; completed, if it is cancelled before |
//! | in the kernel | its slot | completed, by its completion; queued again, if a signal interrupted it |
//! | completed | `completed` | the caller |
//!
//! The kernel reads and writes the buffers of an operation from the enter that submits it to its completion. The slot
//! keeps the operation unchanged for all that time: no function gives a reference to it. If its completion does not
//! come, the operation is leaked, never dropped.
#![allow(unsafe_code, reason = "the kernel uses the buffers that this module keeps")]

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd};

use aio_backend::{Buffers, Completed, FileAction, NotSubmitted, Operation, Token};
use io_uring::types::{Fd, FsyncFlags};
use io_uring::{IoUring, opcode, squeue};
use rustix::io::Errno;

use crate::foreign::{ForeignMemory, Piece};
use crate::keys::Key;
use crate::status::Status;

/// The most times that an interrupted operation is submitted again.
const MOST_RETRIES: u8 = 100;
/// The longest transfer of the system.
const MOST_BYTES: usize = 0x7fff_f000;
/// The most buffers of a transfer.
const MOST_PIECES: usize = 1024;
/// The bit of the user data that is set only for operations.
pub(crate) const IS_OPERATION: u64 = 1 << 63;

/// One operation.
struct InFlight {
    operation: Operation,
    /// The pieces of several buffers, which the kernel reads when it takes the request.
    pieces: Vec<Piece>,
    /// The memory to which the kernel writes the requested size.
    status: Option<Box<Status>>,
    is_in_kernel: bool,
    is_cancelled: bool,
    retries: u8,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    /// Boxed, so that its address stays when slots are added. `None` if the slot is free, or its operation has ended.
    in_flight: Option<Box<InFlight>>,
}

/// The operations of a ring.
#[derive(Default)]
pub(crate) struct Operations {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// The operations that the submission queue had no room for, in order.
    queued: VecDeque<u32>,
    /// The user data of the operations to cancel, for which the submission queue had no room.
    to_cancel: VecDeque<u64>,
    in_kernel: usize,
    /// The number of completions that were accepted. It wraps.
    accepted: usize,
    completed: VecDeque<(Token, Completed)>,
}

impl Operations {
    /// Takes an operation, and puts it into the submission queue if there is room.
    pub(crate) fn submit(&mut self, ring: &mut IoUring, operation: Operation) -> Result<Token, NotSubmitted> {
        if let Some(why) = reason_to_refuse(&operation) {
            let error = io::Error::new(io::ErrorKind::Unsupported, why);
            return Err(NotSubmitted::new(operation, error));
        }
        let index = self.free.pop().unwrap_or(self.slots.len() as u32);
        if index as usize == self.slots.len() {
            self.slots.push(Slot::default());
        }
        let slot = &mut self.slots[index as usize];
        slot.in_flight = Some(Box::new(InFlight::new(operation)));
        let token = Token::new(index, slot.generation);
        self.queued.push_back(index);
        self.flush(ring);
        Ok(token)
    }

    /// Fills the submission queue. Call it whenever the queue may have room. While operations are left here, the
    /// submission queue is not empty.
    pub(crate) fn flush(&mut self, ring: &mut IoUring) {
        while let Some(&index) = self.queued.front() {
            let slot = &mut self.slots[index as usize];
            // Only operations are queued, so the slot has one.
            if let Some(in_flight) = &mut slot.in_flight {
                let key = key(Token::new(index, slot.generation));
                let entry = in_flight.entry().user_data(key);
                // SAFETY: the entry points to the buffers of the operation, its list of pieces or its status. They lie on the heap, and
                // the slot keeps the operation until its completion, or leaks it: `complete` and `leak` are the only functions that
                // take an operation in the kernel out of its slot, and nothing accesses it meanwhile. Foreign memory is valid
                // for as long as its owner, which is a part of the operation. Only this module submits requests with this
                // user data (`IS_OPERATION`, and the generation), so no other completion is taken for that of the operation.
                if unsafe { ring.submission().push(&entry) }.is_err() {
                    return;
                }
                in_flight.is_in_kernel = true;
                self.in_kernel += 1;
            }
            self.queued.pop_front();
        }
        while let Some(&target) = self.to_cancel.front() {
            let entry = opcode::AsyncCancel::new(target).build();
            let entry = entry.user_data(Key::Cancellation.to_bits());
            // SAFETY: the entry has no pointer.
            if unsafe { ring.submission().push(&entry) }.is_err() {
                return;
            }
            self.to_cancel.pop_front();
        }
    }

    /// Returns `true` if operations or cancellations wait for room in the submission queue.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.queued.is_empty() || !self.to_cancel.is_empty()
    }

    /// Cancels an operation. If it is not in the kernel, it ends at once.
    pub(crate) fn cancel(&mut self, ring: &mut IoUring, token: Token) {
        let slot = self.slots.get_mut(token.index() as usize);
        let Some(slot) = slot.filter(|slot| slot.generation == token.generation()) else {
            return;
        };
        match &mut slot.in_flight {
            Some(in_flight) if in_flight.is_cancelled => {}
            Some(in_flight) if in_flight.is_in_kernel => {
                in_flight.is_cancelled = true;
                self.to_cancel.push_back(key(token));
                self.flush(ring);
            }
            Some(_) => {
                self.queued.retain(|queued| *queued != token.index());
                self.end_queued(token);
            }
            None => {}
        }
    }

    /// Cancels all operations.
    pub(crate) fn cancel_all(&mut self, ring: &mut IoUring) {
        for index in mem::take(&mut self.queued) {
            self.end_queued(Token::new(index, self.slots[index as usize].generation));
        }
        for index in 0..self.slots.len() {
            let token = Token::new(index as u32, self.slots[index].generation);
            self.cancel(ring, token);
        }
    }

    /// Ends an operation that was taken out of the queue.
    fn end_queued(&mut self, token: Token) {
        if let Some(in_flight) = self.slots[token.index() as usize].in_flight.take() {
            let (result, operation) = (Err(Errno::CANCELED.into()), in_flight.operation);
            self.completed.push_back((token, Completed { result, operation }));
        }
    }

    /// Accepts the completion of the request with this user data.
    pub(crate) fn complete(&mut self, ring: &mut IoUring, user_data: u64, result: i32) {
        let index = user_data as u32;
        let Some(slot) = self.slots.get_mut(index as usize) else {
            return;
        };
        let token = Token::new(index, slot.generation);
        if key(token) != user_data {
            return;
        }
        let Some(mut in_flight) = slot.in_flight.take_if(|in_flight| in_flight.is_in_kernel) else {
            return;
        };
        self.in_kernel -= 1;
        self.accepted = self.accepted.wrapping_add(1);
        let interrupted = result == -Errno::INTR.raw_os_error();
        if interrupted && !in_flight.is_cancelled && in_flight.retries < MOST_RETRIES {
            in_flight.retries += 1;
            in_flight.is_in_kernel = false;
            slot.in_flight = Some(in_flight);
            self.queued.push_back(index);
            self.flush(ring);
            return;
        }
        let result = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
        let result = match &in_flight.status {
            Some(status) => result.and_then(|_| status.size()),
            None => result,
        };
        let operation = in_flight.operation;
        self.completed.push_back((token, Completed { result, operation }));
    }

    /// Leaks the buffers of all operations that are in the kernel: the kernel may access them at any time, and their
    /// completions cannot be awaited. The operations end without buffers.
    pub(crate) fn leak(&mut self) {
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            let Some(in_flight) = slot.in_flight.take_if(|in_flight| in_flight.is_in_kernel) else {
                continue;
            };
            let file = in_flight.operation.file.clone();
            let (token, action) = (
                Token::new(index as u32, slot.generation),
                in_flight.without_buffers(),
            );
            mem::forget(in_flight);
            let (result, operation) = (Err(Errno::TIMEDOUT.into()), Operation { file, action });
            self.completed.push_back((token, Completed { result, operation }));
            // Its completion may still come, so the slot is not used again.
            slot.generation = slot.generation.wrapping_add(1);
        }
        self.in_kernel = 0;
    }

    #[inline]
    pub(crate) fn has_completed(&self) -> bool {
        !self.completed.is_empty()
    }

    /// Returns an operation that has ended. Its slot is free for another one.
    pub(crate) fn next_completed(&mut self) -> Option<(Token, Completed)> {
        let (token, completed) = self.completed.pop_front()?;
        let slot = &mut self.slots[token.index() as usize];
        if slot.generation == token.generation() {
            slot.generation = slot.generation.wrapping_add(1);
            self.free.push(token.index());
        }
        Some((token, completed))
    }

    #[inline]
    pub(crate) fn accepted(&self) -> usize {
        self.accepted
    }

    pub(crate) fn in_kernel(&self) -> usize {
        self.in_kernel
    }

    /// Returns the number of operations that have not been returned yet.
    pub(crate) fn len(&self) -> usize {
        self.in_kernel + self.queued.len() + self.completed.len()
    }
}

/// Returns the reason why a ring does not execute an operation, if there is one.
fn reason_to_refuse(operation: &Operation) -> Option<&'static str> {
    match &operation.action {
        FileAction::Read { into: buffers, .. } | FileAction::Write { from: buffers, .. } => match buffers {
            Buffers::Foreign(memory) if !memory.is::<ForeignMemory>() => {
                Some("a ring reads and writes vectors and `ForeignMemory` only")
            }
            _ => None,
        },
        FileAction::Sync { .. } | FileAction::Allocate { .. } | FileAction::Size => None,
        _ => Some("a ring does not know this kind of operation"),
    }
}

/// Returns the user data of an operation. See [`crate::keys`].
fn key(token: Token) -> u64 {
    let generation = token.generation() & Key::LAST_SEQUENCE;
    IS_OPERATION | u64::from(generation) << 32 | u64::from(token.index())
}

impl InFlight {
    fn new(mut operation: Operation) -> Self {
        let pieces = match &mut operation.action {
            FileAction::Read {
                into: Buffers::Many(all),
                ..
            }
            | FileAction::Write {
                from: Buffers::Many(all),
                ..
            } => all.iter_mut().map(Piece::of).collect(),
            _ => Vec::new(),
        };
        let status = matches!(operation.action, FileAction::Size).then(Box::default);
        Self {
            operation,
            pieces,
            status,
            is_in_kernel: false,
            is_cancelled: false,
            retries: 0,
        }
    }

    /// Returns the request for the kernel, without its user data.
    fn entry(&mut self) -> squeue::Entry {
        let file = Fd(self.operation.file.as_fd().as_raw_fd());
        match &mut self.operation.action {
            FileAction::Read { at, into, flags } => {
                let (at, flags) = (offset(*at), flags.bits() as i32);
                match into {
                    Buffers::One(buffer) => {
                        let Piece { from, len } = Piece::of(buffer);
                        let len = len.min(MOST_BYTES) as u32;
                        opcode::Read::new(file, from, len)
                            .offset(at)
                            .rw_flags(flags)
                            .build()
                    }
                    several => {
                        let pieces = pieces_of(several, &self.pieces);
                        let (first, count) = (pieces.as_ptr().cast(), pieces.len().min(MOST_PIECES) as u32);
                        opcode::Readv::new(file, first, count)
                            .offset(at)
                            .rw_flags(flags)
                            .build()
                    }
                }
            }
            FileAction::Write { at, from, flags } => {
                let (at, flags) = (offset(*at), flags.bits() as i32);
                match from {
                    Buffers::One(buffer) => {
                        let len = buffer.len().min(MOST_BYTES) as u32;
                        opcode::Write::new(file, buffer.as_ptr(), len)
                            .offset(at)
                            .rw_flags(flags)
                            .build()
                    }
                    several => {
                        let pieces = pieces_of(several, &self.pieces);
                        let (first, count) = (pieces.as_ptr().cast(), pieces.len().min(MOST_PIECES) as u32);
                        opcode::Writev::new(file, first, count)
                            .offset(at)
                            .rw_flags(flags)
                            .build()
                    }
                }
            }
            FileAction::Sync { data_only } => {
                let flags = if *data_only {
                    FsyncFlags::DATASYNC
                } else {
                    FsyncFlags::empty()
                };
                opcode::Fsync::new(file).flags(flags).build()
            }
            FileAction::Allocate { how, at, len } => {
                let mode = how.mode() as i32;
                opcode::Fallocate::new(file, *len).offset(*at).mode(mode).build()
            }
            FileAction::Size => match &mut self.status {
                Some(status) => status.request(file),
                None => opcode::Nop::new().build(),
            },
            // No other action is accepted.
            _ => opcode::Nop::new().build(),
        }
    }

    /// Returns the action without the buffers.
    fn without_buffers(&self) -> FileAction {
        match self.operation.action {
            FileAction::Read { at, flags, .. } => FileAction::Read {
                at,
                flags,
                into: Buffers::default(),
            },
            FileAction::Write { at, flags, .. } => FileAction::Write {
                at,
                flags,
                from: Buffers::default(),
            },
            FileAction::Allocate { how, at, len } => FileAction::Allocate { how, at, len },
            FileAction::Sync { data_only } => FileAction::Sync { data_only },
            FileAction::Size => FileAction::Size,
            _ => FileAction::Sync { data_only: true },
        }
    }
}

impl Piece {
    fn of(buffer: &mut Vec<u8>) -> Self {
        Self {
            from: buffer.as_mut_ptr(),
            len: buffer.len(),
        }
    }
}

/// Returns the position in the form of the kernel, where the largest number means the current position. No file has a
/// position of that number.
fn offset(at: Option<u64>) -> u64 {
    at.map_or(u64::MAX, |at| at.min(u64::MAX - 1))
}

/// Returns the pieces of foreign memory, or those that were made for several buffers.
fn pieces_of<'a>(buffers: &'a Buffers, several: &'a [Piece]) -> &'a [Piece] {
    let foreign = match buffers {
        Buffers::Foreign(memory) => memory.downcast_ref::<ForeignMemory>(),
        Buffers::One(_) | Buffers::Many(_) => None,
    };
    foreign.map_or(several, ForeignMemory::pieces)
}

#[cfg(test)]
mod tests;
