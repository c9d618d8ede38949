//! Reads and writes of whole blocks of an image. Each block has a version, so that a lost write is found.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use hdrhistogram::Histogram;
use vm_memory::{Bytes as _, VolatileSlice};

use super::{Client, Contents, Measured, POISON, Waits};

/// The bytes of a block that are made, written or compared at a time. They fit into the nearest cache, so the client is not
/// the slowest part of large requests.
const PART: usize = 4096;
const POISON_BYTE: u8 = POISON as u8;

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
        let mut image = Vec::with_capacity(self.versions.len() * self.block);
        for block in 0..self.versions.len() {
            self.parts_of(block, |_, part| {
                image.extend_from_slice(part);
                true
            });
        }
        image
    }

    /// Calls `each` with the contents of a block, in parts with their offsets, until it returns `false`. Returns
    /// what it has returned last.
    fn parts_of(&self, block: usize, mut each: impl FnMut(usize, &[u8]) -> bool) -> bool {
        let base = (block as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.versions[block];
        let mut part = [0; PART];
        (0..self.block).step_by(PART).all(|at| {
            let part = &mut part[..PART.min(self.block - at)];
            for (word, bytes) in (at as u64 / 8..).zip(part.chunks_exact_mut(8)) {
                let word = base.wrapping_add(word.wrapping_mul(0x0123_4567_89ab_cdef));
                bytes.copy_from_slice(&word.to_ne_bytes());
            }
            each(at, part)
        })
    }

    /// Writes the contents of a block to `place`.
    fn write_to(&self, place: VolatileSlice<'_>, block: usize) -> anyhow::Result<()> {
        let mut written = Ok(());
        self.parts_of(block, |at, part| {
            written = place.write_slice(part, at);
            written.is_ok()
        });
        Ok(written?)
    }

    /// Returns `true` if `place` has the contents of a block. It compares every byte.
    fn is_at(&self, place: VolatileSlice<'_>, block: usize) -> anyhow::Result<bool> {
        let (mut seen, mut read) = ([0; PART], Ok(()));
        let is_same = self.parts_of(block, |at, part| {
            let seen = &mut seen[..part.len()];
            read = place.read_slice(seen, at);
            read.is_ok() && *seen == *part
        });
        read?;
        Ok(is_same)
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
            blocks.write_to(self.place(slot), block)?;
            self.queue_write(at, blocks.block, slot)?;
        } else {
            // Poison, so that a word that the read leaves unwritten is detected.
            for at in (0..blocks.block).step_by(PART) {
                let part = PART.min(blocks.block - at);
                self.place(slot).write_slice(&[POISON_BYTE; PART][..part], at)?;
            }
            self.queue_read(at, slot)?;
        }
        Ok(block)
    }

    fn verify_block(&self, blocks: &Blocks, slot: usize, block: usize) -> anyhow::Result<()> {
        ensure!(
            blocks.is_at(self.place(slot), block)?,
            "block {block} was read, and has other contents than were written"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_a_block_is_compared_and_each_version_has_other_contents() {
        for size in [512, 4096, 3 * PART + 512] {
            let mut blocks = Blocks::new(4 * size as u64, size);
            let mut memory = vec![POISON_BYTE; size];
            let mut image = blocks.image();
            assert_eq!(image.len(), 4 * size);
            assert!(!blocks.is_at(VolatileSlice::from(&mut memory[..]), 2).unwrap());
            blocks.write_to(VolatileSlice::from(&mut memory[..]), 2).unwrap();
            assert_eq!(memory, image[2 * size..3 * size]);
            for at in [0, size / 2, size - 1] {
                memory[at] ^= 1;
                assert!(
                    !blocks.is_at(VolatileSlice::from(&mut memory[..]), 2).unwrap(),
                    "byte {at} of {size}"
                );
                memory[at] ^= 1;
            }
            assert!(blocks.is_at(VolatileSlice::from(&mut memory[..]), 2).unwrap());
            assert!(
                !blocks
                    .is_at(VolatileSlice::from(&mut image[size..2 * size]), 2)
                    .unwrap()
            );
            blocks.versions[2] += 1;
            assert!(!blocks.is_at(VolatileSlice::from(&mut memory[..]), 2).unwrap());
        }
    }

    #[test]
    fn a_place_that_is_too_short_is_an_error() {
        let blocks = Blocks::new(8192, 4096);
        let mut memory = vec![0; 512];
        assert!(blocks.write_to(VolatileSlice::from(&mut memory[..]), 0).is_err());
        assert!(blocks.is_at(VolatileSlice::from(&mut memory[..]), 0).is_err());
    }
}
