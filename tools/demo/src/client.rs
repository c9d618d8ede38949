//! The embedded client: a real driver that reads, checks every byte, and measures latencies.
//!
//! It reads sectors at random positions. Before each request it fills the buffer with poison, and afterwards
//! it compares the contents. The status alone proves nothing, because the driver presets it to success.

mod blocks;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use hdrhistogram::Histogram;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::MemfdFlags;
use virtio_driver::{
    EventFd, QueueNotifier, VhostUser, VirtioBlkFeatureFlags, VirtioBlkQueue, VirtioBlkTransport,
    VirtioFeatureFlags,
};
use vm_memory::{FileOffset, MmapRegion, VolatileMemory as _, VolatileSlice};

/// The latency after which a request counts as stalled.
const STALLED: Duration = Duration::from_secs(2);
const ENTRIES: u16 = 256;
/// The greatest depth. A read takes three entries of the queue.
pub(crate) const DEEPEST: usize = ENTRIES as usize / 3;
const SECTOR: usize = 512;
const WORDS: usize = SECTOR / 8;
const POISON: u64 = 0xa5a5_a5a5_a5a5_a5a5;

/// The contents of a disk. The client does the same work to check either kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contents {
    /// The bits of the pattern that the disk keeps: all or none.
    kept: u64,
}

impl Contents {
    /// Words that encode their position. The client writes them first.
    pub(crate) const PATTERN: Self = Self { kept: u64::MAX };
    /// The zeroes of a disk that discards all writes.
    pub(crate) const ZEROES: Self = Self { kept: 0 };

    fn sector(self, sector: u64) -> [u64; WORDS] {
        let mut words = [0; WORDS];
        let base = (sector + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for (word, at) in words.iter_mut().zip(0u64..) {
            *word = base.wrapping_add(at.wrapping_mul(0x0123_4567_89ab_cdef)) & self.kept;
        }
        words
    }
}

/// The way in which the client waits for completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    /// It spins on the ring.
    Spinning,
    /// It sleeps until its eventfd is written.
    ForEvents,
}

impl Waits {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Spinning => "spin",
            Self::ForEvents => "event",
        }
    }
}

pub(crate) use blocks::{Blocks, Job};

/// The number of writes to the server's eventfd, and the time that they took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Kicks {
    pub(crate) count: u64,
    pub(crate) time: Duration,
}

impl Kicks {
    /// Returns the kicks since `earlier`.
    fn since(self, earlier: Self) -> Self {
        Self {
            count: self.count - earlier.count,
            time: self.time - earlier.time,
        }
    }
}

/// The results of a run.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) requests: u64,
    pub(crate) kicks: Kicks,
    pub(crate) elapsed: Duration,
    pub(crate) latency: Histogram<u64>,
}

impl Measured {
    /// Returns the mean latency of the quickest `share` of the requests, in nanoseconds.
    pub(crate) fn mean_of_quickest(&self, share: f64) -> f64 {
        let wanted = (self.latency.len() as f64 * share).ceil() as u64;
        let (mut counted, mut sum) = (0, 0.0);
        for step in self.latency.iter_recorded() {
            let count = step.count_at_value().min(wanted - counted);
            counted += count;
            sum += count as f64 * step.value_iterated_to() as f64;
            if counted == wanted {
                break;
            }
        }
        if counted == 0 {
            f64::NAN
        } else {
            sum / counted as f64
        }
    }
}

/// A queue of a connected client. It uses the memory of the transport, so it is dropped first.
pub(crate) struct Client {
    queue: VirtioBlkQueue<'static, usize>,
    kick: Box<dyn QueueNotifier>,
    call: Arc<EventFd>,
    /// Shared by all queues of a client.
    _transport: Arc<Box<VirtioBlkTransport>>,
    buffer: MmapRegion,
    contents: Contents,
    waits: Waits,
    sectors: u64,
    /// The bytes of the buffer that each request has.
    room: usize,
    kicks: Kicks,
    random: fastrand::Rng,
}

impl Client {
    pub(crate) fn connect(socket: &Path, contents: Contents, waits: Waits) -> anyhow::Result<Self> {
        Self::connect_with(socket, contents, waits, (ENTRIES.into(), SECTOR))
    }

    /// Connects, with a buffer for a number of requests of a number of bytes each.
    fn connect_with(
        socket: &Path,
        contents: Contents,
        waits: Waits,
        buffer: (usize, usize),
    ) -> anyhow::Result<Self> {
        let mut queues = Self::connect_all(socket, contents, waits, buffer, 1)?;
        queues.pop().context("the device has no queue")
    }

    /// Connects one client with several queues. Each of them can be used by a thread.
    pub(crate) fn connect_queues(
        socket: &Path,
        contents: Contents,
        waits: Waits,
        count: usize,
    ) -> anyhow::Result<Vec<Self>> {
        Self::connect_all(socket, contents, waits, (ENTRIES.into(), SECTOR), count)
    }

    fn connect_all(
        socket: &Path,
        contents: Contents,
        waits: Waits,
        (slots, room): (usize, usize),
        count: usize,
    ) -> anyhow::Result<Vec<Self>> {
        let features = VirtioFeatureFlags::VERSION_1.bits()
            | VirtioFeatureFlags::RING_EVENT_IDX.bits()
            | VirtioBlkFeatureFlags::all().bits();
        let path = socket.to_str().context("the socket's path is not text")?;
        let mut transport: Box<VirtioBlkTransport> = Box::new(VhostUser::new(path, features)?);
        let queues = VirtioBlkQueue::setup_queues(&mut *transport, count, ENTRIES)?;
        let capacity: u64 = transport.get_config()?.capacity.into();
        let len = slots * room;
        let mut buffers = Vec::new();
        for _ in &queues {
            let file: File = rustix::fs::memfd_create("buffer", MemfdFlags::CLOEXEC)?.into();
            file.set_len(len as u64)?;
            let buffer = MmapRegion::from_file(FileOffset::new(file.try_clone()?, 0), len)
                .context("cannot map the buffer")?;
            transport.map_mem_region(buffer.as_ptr() as usize, len, file.as_raw_fd(), 0)?;
            buffers.push(buffer);
        }
        let transport = Arc::new(transport);
        let queues = queues.into_iter().zip(buffers).enumerate();
        let clients = queues.map(|(index, (mut queue, buffer))| {
            queue.set_used_notif_enabled(waits == Waits::ForEvents);
            Self {
                queue,
                kick: transport.get_submission_notifier(index),
                call: transport.get_completion_fd(index),
                _transport: transport.clone(),
                buffer,
                contents,
                waits,
                sectors: capacity,
                room,
                kicks: Kicks::default(),
                random: fastrand::Rng::new(),
            }
        });
        Ok(clients.collect())
    }

    /// Writes the expected contents to every sector.
    pub(crate) fn fill(&mut self) -> anyhow::Result<()> {
        let at_once = usize::from(ENTRIES);
        let mut done = Vec::new();
        for first in (0..self.sectors).step_by(at_once) {
            let count = at_once.min((self.sectors - first) as usize);
            for (place, sector) in (0..count).zip(first..) {
                self.place(place).copy_from(&self.contents.sector(sector));
            }
            self.queue_write(first * SECTOR as u64, count * SECTOR, 0)?;
            self.kick()?;
            self.await_some(&mut done)?;
            ensure!(
                done.drain(..).all(|(_, status)| status == 0),
                "the disk cannot be written"
            );
        }
        Ok(())
    }

    /// Keeps `depth` reads under way for `time`, and computes for `think` before each read that follows a
    /// completion. Fails if a read is wrong, is refused, or does not complete.
    pub(crate) fn run(&mut self, depth: usize, think: Duration, time: Duration) -> anyhow::Result<Measured> {
        let mut latency = Histogram::new_with_max(10_000_000_000, 3)?;
        let mut under_way = vec![(0, Instant::now()); depth];
        let (mut requests, mut left) = (0u64, depth);
        let kicks = self.kicks;
        let started = Instant::now();
        for (slot, request) in under_way.iter_mut().enumerate() {
            *request = (self.submit(slot)?, Instant::now());
        }
        self.kick()?;
        let mut done = Vec::with_capacity(depth);
        while left > 0 {
            self.await_some(&mut done)?;
            for (slot, status) in done.drain(..) {
                let (sector, since) = under_way[slot];
                ensure!(status == 0, "a read of sector {sector} ended with {status}");
                self.verify(slot, sector)?;
                let mut now = Instant::now();
                latency.saturating_record(now.duration_since(since).as_nanos() as u64);
                requests += 1;
                if !think.is_zero() {
                    now = spin_until(now + think);
                }
                if now.duration_since(started) < time {
                    under_way[slot] = (self.submit(slot)?, now);
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

    /// Reads at random moments, with a mean of `rate` times a second, independent of the server (an open loop).
    /// The latency of a request counts from the moment when it was due. The client spins.
    pub(crate) fn run_poisson(&mut self, rate: f64, time: Duration) -> anyhow::Result<Measured> {
        const SLOTS: usize = 64;
        let mut latency = Histogram::new_with_max(10_000_000_000, 3)?;
        let mut free: Vec<usize> = (0..SLOTS).collect();
        let mut under_way = vec![(0, Instant::now()); SLOTS];
        let mut done = Vec::with_capacity(SLOTS);
        let started = Instant::now();
        let (mut due, mut requests, mut now) = (started, 0u64, started);
        let kicks = self.kicks;
        while now.duration_since(started) < time || free.len() < SLOTS {
            while due <= now && now.duration_since(started) < time {
                let Some(slot) = free.pop() else { break };
                under_way[slot] = (self.submit(slot)?, due);
                self.kick()?;
                due += Duration::from_secs_f64(-(1.0 - self.random.f64()).ln() / rate);
            }
            done.extend(self.queue.completions().map(|done| (done.context, done.ret)));
            now = Instant::now();
            for (slot, status) in done.drain(..) {
                let (sector, since) = under_way[slot];
                ensure!(status == 0, "a read of sector {sector} ended with {status}");
                self.verify(slot, sector)?;
                latency.saturating_record(now.saturating_duration_since(since).as_nanos() as u64);
                requests += 1;
                free.push(slot);
            }
            ensure!(
                now.duration_since(started) < time + STALLED,
                "{} requests take longer than {STALLED:?}",
                SLOTS - free.len()
            );
            std::hint::spin_loop();
        }
        Ok(Measured {
            requests,
            kicks: self.kicks.since(kicks),
            elapsed: started.elapsed(),
            latency,
        })
    }

    fn place(&self, slot: usize) -> VolatileSlice<'_> {
        #[expect(clippy::expect_used, reason = "there is a place for every request")]
        let place = self
            .buffer
            .get_slice(slot * self.room, self.room)
            .expect("inside the buffer");
        place
    }

    /// Queues a write of `len` bytes that begin at the place of `slot`.
    fn queue_write(&mut self, at: u64, len: usize, slot: usize) -> anyhow::Result<()> {
        ensure!(slot * self.room + len <= self.buffer.len(), "beyond the buffer");
        let from = self.place(slot).ptr_guard().as_ptr();
        let queued =
            // SAFETY: the bytes are inside the buffer, which is shared with the device and lives as long as
            // the queue.
            unsafe { self.queue.write_raw(at, from, len, slot) };
        Ok(queued?)
    }

    /// Queues a read into the place of `slot`.
    fn queue_read(&mut self, at: u64, slot: usize) -> anyhow::Result<()> {
        let into = self.place(slot).ptr_guard_mut().as_ptr();
        let queued =
            // SAFETY: the place is a part of the buffer, which is shared with the device and lives as long as the queue.
            unsafe { self.queue.read_raw(at, into, self.room, slot) };
        Ok(queued?)
    }

    fn submit(&mut self, slot: usize) -> anyhow::Result<u64> {
        let sector = self.random.u64(..self.sectors);
        self.place(slot).copy_from(&[POISON; WORDS]);
        self.queue_read(sector * SECTOR as u64, slot)?;
        Ok(sector)
    }

    fn verify(&self, slot: usize, sector: u64) -> anyhow::Result<()> {
        let mut seen = [0; WORDS];
        self.place(slot).copy_to(&mut seen);
        ensure!(
            seen == self.contents.sector(sector),
            "sector {sector} was reported as read, but its buffer holds something else"
        );
        Ok(())
    }

    fn kick(&mut self) -> anyhow::Result<()> {
        // Without event indexes the driver lacks this fence between its index and the device's flag.
        fence(Ordering::SeqCst);
        if self.queue.avail_notif_needed() {
            let began = Instant::now();
            self.kick.notify()?;
            self.kicks.count += 1;
            self.kicks.time += began.elapsed();
        }
        Ok(())
    }

    /// Waits until further requests are done, and appends their slots and states.
    fn await_some(&mut self, done: &mut Vec<(usize, i32)>) -> anyhow::Result<()> {
        let mut rounds = 0u32;
        let mut deadline = None;
        let before = done.len();
        loop {
            done.extend(self.queue.completions().map(|done| (done.context, done.ret)));
            if done.len() > before {
                return Ok(());
            }
            match self.waits {
                Waits::Spinning => {
                    std::hint::spin_loop();
                    rounds += 1;
                    if rounds.is_multiple_of(1 << 16) {
                        let deadline = *deadline.get_or_insert_with(|| Instant::now() + STALLED);
                        ensure!(
                            Instant::now() < deadline,
                            "a request takes longer than {STALLED:?}"
                        );
                    }
                }
                Waits::ForEvents => self.sleep()?,
            }
        }
    }

    fn sleep(&self) -> anyhow::Result<()> {
        let timeout = Timespec {
            tv_sec: STALLED.as_secs().cast_signed(),
            tv_nsec: 0,
        };
        let mut fds = [PollFd::new(&*self.call, PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(0) => bail!("a request takes longer than {STALLED:?}, or its completion was not notified"),
            Ok(_) => {
                self.call.read()?;
                Ok(())
            }
            Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Spins until `until`, and returns the time at the end, which may be a little later.
fn spin_until(until: Instant) -> Instant {
    loop {
        let now = Instant::now();
        if now >= until {
            return now;
        }
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_pattern_encode_their_position() {
        let [one, other] = [0, 1].map(|sector| Contents::PATTERN.sector(sector));
        assert_ne!(one, other);
        assert_ne!(one[0], one[1]);
        assert_ne!(one[0], POISON);
        assert_eq!(Contents::ZEROES.sector(7), [0; WORDS]);
    }

    #[test]
    fn the_mean_of_the_quickest_leaves_the_slowest_out() {
        let mut latency = Histogram::new_with_max(10_000_000_000, 3).unwrap();
        for _ in 0..95 {
            latency.record(1000).unwrap();
        }
        for _ in 0..5 {
            latency.record(5_000_000).unwrap();
        }
        let measured = Measured {
            requests: 100,
            kicks: Kicks::default(),
            elapsed: Duration::from_secs(1),
            latency,
        };
        assert!((measured.mean_of_quickest(0.95) - 1000.0).abs() < 5.0);
        assert!(measured.mean_of_quickest(1.0) > 200_000.0);
    }
}
