//! S1: operations on files, one at a time and 32 at a time: on the ring of a context, on threads, and on a bare ring.

use std::cell::Cell;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt as _;
use std::rc::Rc;
use std::sync::Arc;

use aio_context::{Buffers, Context, FileAction, Operation, Submit, Submitted, Wait};
use aio_sources::{FileIo, FileOperation};
use io_uring::types::Fd;
use io_uring::{EnterFlags, IoUring, opcode};

use crate::case::{Case, Run, timed};
use crate::ours::on_uring;

const BLOCK: usize = 4096;
/// The blocks of the file, all of which are in the page cache.
const BLOCKS: u64 = 64;

pub(crate) fn cases() -> Vec<Case> {
    let workloads = [Workload::Nop, Workload::Read];
    let all = workloads
        .into_iter()
        .flat_map(|workload| [(workload, 1), (workload, 32)]);
    all.map(|(workload, batch)| case(workload, batch)).collect()
}

#[derive(Clone, Copy)]
enum Workload {
    /// A read of no bytes: the cost of an operation that does nothing.
    Nop,
    Read,
}

impl Workload {
    fn name(self) -> &'static str {
        match self {
            Self::Nop => "nop",
            Self::Read => "read 4k page cache",
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::Nop => 0,
            Self::Read => BLOCK,
        }
    }

    fn file(self) -> anyhow::Result<Arc<File>> {
        let file = tempfile::tempfile()?;
        for block in 0..BLOCKS {
            file.write_all_at(&[block as u8; BLOCK], block * BLOCK as u64)?;
        }
        Ok(Arc::new(file))
    }
}

fn case(workload: Workload, batch: u64) -> Case {
    Case::new("S1", workload.name(), batch)
        .operations(batch)
        .by("floor-uring", move || bare(workload, batch))
        .by("aio-uring", move || {
            let cx = on_uring(Context::builder())?;
            ours(&cx.clone(), cx, Submitted::detach, workload, batch)
        })
        .by("aio-threads", move || {
            let cx = Context::new()?;
            let files = FileIo::on_threads(&cx, "bench", 4);
            ours(&cx, files, FileOperation::detach, workload, batch)
        })
}

/// Submits a batch, and polls until it is complete. Each completion returns its buffer.
fn ours<S: Submit + 'static>(
    cx: &Context,
    to: S,
    detach: fn(S::Handle),
    workload: Workload,
    batch: u64,
) -> anyhow::Result<Run> {
    let (cx, file) = (cx.clone(), workload.file()?);
    let buffers = Rc::new(Cell::new(vec![vec![0; workload.bytes()]; batch as usize]));
    let left = Rc::new(Cell::new(0));
    Ok(Box::new(move |times| {
        let mut at = 0;
        timed(times, || {
            left.set(batch);
            for _ in 0..batch {
                let mut all = buffers.take();
                let buffer = all.pop().unwrap_or_default();
                buffers.set(all);
                at = (at + 1) % BLOCKS;
                let operation = Operation::read(file.clone(), at * BLOCK as u64, buffer);
                let (buffers, left) = (buffers.clone(), left.clone());
                let submitted = to.submit(operation, move |_, ended| {
                    if let FileAction::Read {
                        into: Buffers::One(buffer),
                        ..
                    } = ended.operation.action
                    {
                        let mut all = buffers.take();
                        all.push(buffer);
                        buffers.set(all);
                    }
                    left.set(left.get() - 1);
                });
                if let Ok(submitted) = submitted {
                    detach(submitted);
                }
            }
            while left.get() > 0 {
                let _ = cx.poll(Wait::Block);
            }
        })
    }))
}

/// The same work on a bare ring, with one buffer for each operation.
fn bare(workload: Workload, batch: u64) -> anyhow::Result<Run> {
    let mut ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(64)?;
    let file = workload.file()?;
    let mut buffers = vec![vec![0_u8; workload.bytes()]; batch as usize];
    Ok(Box::new(move |times| {
        let mut at = 0;
        timed(times, || {
            for buffer in &mut buffers {
                at = (at + 1) % BLOCKS;
                let read =
                    opcode::Read::new(Fd(file.as_raw_fd()), buffer.as_mut_ptr(), workload.bytes() as u32);
                let read = read.offset(at * BLOCK as u64).build();
                // SAFETY: the buffer lives as long as the ring, and nothing else uses it before the
                // completions arrive, below.
                let _ = unsafe { ring.submission().push(&read) };
            }
            let mut left = batch;
            while left > 0 {
                let pushed = ring.submission().len() as u32;
                let flags = EnterFlags::GETEVENTS.bits();
                // SAFETY: there is no argument, and `pushed` entries are in the queue.
                let _ = unsafe { ring.submitter().enter::<()>(pushed, 1, flags, None) };
                left -= ring.completion().count() as u64;
            }
        })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_contestant_completes_its_batch() {
        for case in cases() {
            for contestant in case.contestants {
                match (contestant.make)() {
                    Ok(mut run) => assert!(!run(10).is_zero(), "{}", contestant.name),
                    Err(why) => println!("skipped: {}: {why}", contestant.name),
                }
            }
        }
    }
}
