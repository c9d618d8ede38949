//! Reads and writes of whole blocks of an image. Each block has a version, so that a lost write is found.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use hdrhistogram::Histogram;

use super::{Client, Contents, Measured, POISON, Waits};

/// The kind of requests of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) writes: bool,
    /// `true` for consecutive blocks, `false` for random ones.
    pub(crate) in_order: bool,
    pub(crate) depth: usize,
    /// The bytes of a block.
    pub(crate) block: usize,
}

/// The blocks of an image, with their versions.
#[derive(Debug)]
pub(crate) struct Blocks {
    versions: Vec<u64>,
    block: usize,
    next: usize,
}

impl Blocks {
    /// Returns the blocks of image `image`, all with version zero.
    pub(crate) fn new(image: u64, block: usize) -> Self {
        Self {
            versions: vec![0; image as usize / block],
            block,
            next: 0,
        }
    }

    /// Returns the contents of a new image.
    pub(crate) fn image(&self) -> Vec<u8> {
        let words = |block| self.words(block).into_iter().flat_map(u64::to_ne_bytes);
        (0..self.versions.len()).flat_map(words).collect()
    }

    fn words(&self, block: usize) -> Vec<u64> {
        let base = (block as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.versions[block];
        let word = |at: usize| base.wrapping_add((at as u64).wrapping_mul(0x0123_4567_89ab_cdef));
        (0..self.block / 8).map(word).collect()
    }

    /// Returns the next block for a slot. At any time all slots have different blocks.
    fn pick(&mut self, slot: usize, job: Job, random: &mut fastrand::Rng) -> usize {
        let count = self.versions.len() / job.depth;
        let place = if job.in_order {
            self.next += 1;
            self.next / job.depth % count
        } else {
            random.usize(..count)
        };
        place * job.depth + slot
    }
}

impl Client {
    /// Connects a client whose requests are of one block each.
    pub(crate) fn connect_for_blocks(socket: &Path, waits: Waits, job: Job) -> anyhow::Result<Self> {
        Self::connect_with(socket, Contents::PATTERN, waits, (job.depth, job.block))
    }

    /// Keeps `depth` requests under way for `time`. Fails if a read is wrong, or if a request is refused or
    /// does not complete.
    pub(crate) fn run_blocks(
        &mut self,
        blocks: &mut Blocks,
        job: Job,
        time: Duration,
    ) -> anyhow::Result<Measured> {
        let mut latency = Histogram::new_with_max(10_000_000_000, 3)?;
        let started = Instant::now();
        let kicks = self.kicks;
        let mut under_way = Vec::new();
        for slot in 0..job.depth {
            under_way.push((self.submit_block(blocks, slot, job)?, Instant::now()));
        }
        self.kick()?;
        let (mut requests, mut left) = (0, job.depth);
        let mut done = Vec::with_capacity(job.depth);
        while left > 0 {
            self.await_some(&mut done)?;
            for (slot, status) in done.drain(..) {
                let (block, since) = under_way[slot];
                ensure!(status == 0, "a request for block {block} ended with {status}");
                let now = Instant::now();
                latency.saturating_record(now.duration_since(since).as_nanos() as u64);
                requests += 1;
                if !job.writes {
                    self.verify_block(blocks, slot, block)?;
                }
                if now.duration_since(started) < time {
                    under_way[slot] = (self.submit_block(blocks, slot, job)?, Instant::now());
                } else {
                    left -= 1;
                }
            }
            self.kick()?;
        }
        Ok(Measured {
            requests,
            kicks: self.kicks.since(kicks),
            elapsed: started.elapsed(),
            latency,
        })
    }

    /// Writes blocks one at a time, each followed by a flush, until `is_over` returns `true`. Returns the number
    /// of writes.
    pub(crate) fn write_and_flush(
        &mut self,
        blocks: &mut Blocks,
        job: Job,
        is_over: impl Fn() -> bool,
    ) -> anyhow::Result<u64> {
        let mut done = Vec::new();
        let mut count = 0;
        while !is_over() {
            self.submit_block(blocks, 0, job)?;
            self.kick()?;
            self.await_some(&mut done)?;
            self.queue.flush(0)?;
            self.kick()?;
            self.await_some(&mut done)?;
            ensure!(
                done.drain(..).all(|(_, status)| status == 0),
                "a write or flush failed"
            );
            count += 1;
        }
        Ok(count)
    }

    /// Begins to write a block for each slot.
    pub(crate) fn offer_writes(&mut self, blocks: &mut Blocks, job: Job) -> anyhow::Result<()> {
        for slot in 0..job.depth {
            self.submit_block(blocks, slot, job)?;
        }
        self.kick()
    }

    /// Waits until the writes that were [offered](Self::offer_writes) have ended.
    pub(crate) fn await_writes(&mut self, job: Job) -> anyhow::Result<()> {
        let mut done = Vec::new();
        while done.len() < job.depth {
            let before = done.len();
            self.await_some(&mut done)?;
            ensure!(
                done[before..].iter().all(|(_, status)| *status == 0),
                "a write has failed"
            );
        }
        Ok(())
    }

    fn submit_block(&mut self, blocks: &mut Blocks, slot: usize, job: Job) -> anyhow::Result<usize> {
        let block = blocks.pick(slot, job, &mut self.random);
        let at = (block * blocks.block) as u64;
        if job.writes {
            blocks.versions[block] += 1;
            self.place(slot).copy_from(&blocks.words(block));
            self.queue_write(at, blocks.block, slot)?;
        } else {
            // Poison, so that a word that the read leaves unwritten is detected.
            self.place(slot).copy_from(&vec![POISON; blocks.block / 8]);
            self.queue_read(at, slot)?;
        }
        Ok(block)
    }

    fn verify_block(&self, blocks: &Blocks, slot: usize, block: usize) -> anyhow::Result<()> {
        let mut seen = vec![0; blocks.block / 8];
        self.place(slot).copy_to(&mut seen);
        ensure!(
            seen == blocks.words(block),
            "block {block} was read, and has other contents than were written"
        );
        Ok(())
    }
}
