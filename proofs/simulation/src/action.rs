//! [`Action`]: the actions of peers and other threads.

use std::time::Duration;

use crate::target::FileId;

/// An action of a peer, of another thread, or of the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Action {
    Write(FileId),
    Read(FileId),
    HangUp(FileId),
    Fail(FileId),
    /// Work for the polled port of this number, in memory that both sides can read.
    Produce(u32),
    Schedule(u32),
    ScheduleIdle(u32),
    Cancel(u32),
    Delete(u32),
    /// The kernel ends the operation of this number.
    EndOperation(u64),
    Job,
    Notify,
    PollFor(Duration),
    Warp(Duration),
    StartClock,
}
