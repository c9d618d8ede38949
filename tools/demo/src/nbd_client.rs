//! An NBD client that reads and writes blocks at random positions, several requests at a time, and checks
//! every byte.
//!
//! It handles all replies that have arrived, and then sends the same number of requests together. It sleeps
//! until replies arrive.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use hdrhistogram::Histogram;

/// The bytes of a request.
pub(crate) const BLOCK: usize = 4096;
/// The greatest number of requests under way.
const DEEPEST: usize = 64;
const REQUEST: [u8; 4] = 0x2560_9513_u32.to_be_bytes();
const REPLY: [u8; 4] = 0x6744_6698_u32.to_be_bytes();
const REPLY_LEN: usize = 16;
/// The time after which a reply counts as missing.
const STALLED: Duration = Duration::from_secs(5);

/// The kind of requests of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) writes: bool,
    pub(crate) depth: usize,
}

/// The results of a run.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) requests: u64,
    pub(crate) elapsed: Duration,
    /// In nanoseconds.
    pub(crate) latency: Histogram<u64>,
}

/// A connection to an export.
pub(crate) struct NbdClient {
    stream: UnixStream,
    blocks: u64,
    random: fastrand::Rng,
    /// The block and the start time of each request under way.
    slots: Vec<(u64, Instant)>,
    out: Vec<u8>,
    /// Received replies. The first `handled` bytes are handled.
    input: Vec<u8>,
    handled: usize,
    filled: usize,
    /// `true` if the disk keeps writes.
    keeps: bool,
}

impl NbdClient {
    /// Connects and chooses an export.
    pub(crate) fn connect(socket: &Path, export: &str) -> anyhow::Result<Self> {
        let mut stream =
            UnixStream::connect(socket).with_context(|| format!("cannot connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(STALLED))?;
        let mut opening = [0; 18];
        stream.read_exact(&mut opening)?;
        ensure!(
            opening.starts_with(b"NBDMAGICIHAVEOPT"),
            "this is not an NBD server"
        );
        let len = export.len() as u32;
        let choice = [
            &[0, 0, 0, 3][..],
            b"IHAVEOPT",
            &7_u32.to_be_bytes(),
            &(len + 6).to_be_bytes(),
            &len.to_be_bytes(),
            export.as_bytes(),
            &[0, 0],
        ]
        .concat();
        stream.write_all(&choice)?;
        let mut size = None;
        loop {
            let mut header = [0; 20];
            stream.read_exact(&mut header)?;
            let number =
                |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
            let mut data = vec![0; number(16) as usize];
            stream.read_exact(&mut data)?;
            match (number(12), data.as_slice()) {
                (1, _) => break,
                (3, [0, 0, info @ ..]) => {
                    size = info.first_chunk().map(|size| u64::from_be_bytes(*size));
                }
                (3, _) => {}
                (error, text) => bail!(
                    "the server refuses {export:?}: {error:#x} {}",
                    String::from_utf8_lossy(text)
                ),
            }
        }
        let size = size.context("the server does not say how large the disk is")?;
        Ok(Self {
            stream,
            blocks: size / BLOCK as u64,
            random: fastrand::Rng::new(),
            slots: Vec::new(),
            out: Vec::new(),
            input: vec![0; 2 * DEEPEST * (BLOCK + REPLY_LEN)],
            handled: 0,
            filled: 0,
            keeps: true,
        })
    }

    /// Sets whether reads must return the written data. The work of the comparison is the same in both cases.
    pub(crate) fn expect_contents(&mut self, keeps: bool) {
        self.keeps = keeps;
    }

    /// Writes the pattern to all blocks.
    pub(crate) fn fill(&mut self) -> anyhow::Result<()> {
        for block in 0..self.blocks {
            self.slots = vec![(block, Instant::now())];
            self.put_request(true, 0);
            self.send()?;
            while self.next_reply(true)?.is_none() {
                self.receive()?;
            }
        }
        Ok(())
    }

    /// Executes the job for `time`.
    pub(crate) fn run(&mut self, job: Job, time: Duration) -> anyhow::Result<Measured> {
        let began = Instant::now();
        let mut latency = Histogram::new(3)?;
        self.slots = vec![(0, began); job.depth.min(DEEPEST)];
        for slot in 0..self.slots.len() {
            self.begin(job.writes, slot, began);
        }
        let mut outstanding = self.slots.len();
        while outstanding > 0 {
            self.send()?;
            self.receive()?;
            let now = Instant::now();
            let goes_on = now - began < time;
            while let Some(slot) = self.next_reply(job.writes)? {
                latency.record((now - self.slots[slot].1).as_nanos() as u64)?;
                if goes_on {
                    self.begin(job.writes, slot, now);
                } else {
                    outstanding -= 1;
                }
            }
        }
        Ok(Measured {
            requests: latency.len(),
            elapsed: began.elapsed(),
            latency,
        })
    }

    fn begin(&mut self, writes: bool, slot: usize, now: Instant) {
        self.slots[slot] = (self.random.u64(..self.blocks), now);
        self.put_request(writes, slot);
    }

    fn put_request(&mut self, writes: bool, slot: usize) {
        let block = self.slots[slot].0;
        self.out.extend(REQUEST);
        self.out.extend([0, 0, 0, u8::from(writes)]);
        self.out.extend((slot as u64).to_be_bytes());
        self.out.extend((block * BLOCK as u64).to_be_bytes());
        self.out.extend((BLOCK as u32).to_be_bytes());
        if writes {
            for word in words(block) {
                self.out.extend(word.to_ne_bytes());
            }
        }
    }

    fn send(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(&self.out).context("the server has gone")?;
        self.out.clear();
        Ok(())
    }

    /// Receives the bytes that have arrived; waits for at least one.
    fn receive(&mut self) -> anyhow::Result<()> {
        self.input.copy_within(self.handled..self.filled, 0);
        (self.handled, self.filled) = (0, self.filled - self.handled);
        let count = self.stream.read(&mut self.input[self.filled..]);
        let count = count.with_context(|| format!("no reply within {STALLED:?}"))?;
        ensure!(count > 0, "the server has ended the connection");
        self.filled += count;
        Ok(())
    }

    /// Returns the slot of the next reply, if it has arrived completely. Fails if it is wrong.
    fn next_reply(&mut self, writes: bool) -> anyhow::Result<Option<usize>> {
        let arrived = &self.input[self.handled..self.filled];
        let len = REPLY_LEN + if writes { 0 } else { BLOCK };
        let Some((header, data)) = arrived
            .get(..len)
            .and_then(|all| all.split_first_chunk::<REPLY_LEN>())
        else {
            return Ok(None);
        };
        ensure!(
            header[..4] == REPLY && header[4..8] == [0; 4],
            "a request has failed: {header:?}"
        );
        let (_, cookie) = header.split_at(8);
        let slot = u64::from_be_bytes(cookie.try_into()?) as usize;
        let block = self.slots.get(slot).context("a reply to no request")?.0;
        if !writes {
            let is_right = data
                .chunks_exact(8)
                .zip(words(block))
                .fold(true, |right, (bytes, word)| right & (bytes == word.to_ne_bytes()));
            ensure!(is_right || !self.keeps, "block {block} has wrong bytes");
        }
        self.handled += len;
        Ok(Some(slot))
    }
}

/// Returns the contents of a block: words that encode their position.
fn words(block: u64) -> impl Iterator<Item = u64> {
    let base = (block + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..(BLOCK / 8) as u64).map(move |at| base.wrapping_add(at.wrapping_mul(0x0123_4567_89ab_cdef)))
}
