//! A real driver (libblkio's), and shared memory for its buffers.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::MemfdFlags;
use virtio_driver::{
    EventFd, QueueNotifier, VhostUser, VirtioBlkFeatureFlags, VirtioBlkQueue, VirtioBlkTransport,
    VirtioFeatureFlags,
};
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory};
use vmm_sys_util::eventfd::{self, EFD_CLOEXEC};

/// The latency after which a request counts as stalled.
pub(crate) const STALLED: Duration = Duration::from_secs(2);
/// Entries of each queue.
pub(crate) const QUEUE_SIZE: u16 = 64;
/// The contents of every buffer before a read. The status alone proves nothing, because the driver presets it
/// to success.
const POISON: u8 = 0xa5;

/// The way in which a client waits for completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    Spinning,
    ForEvents,
}

/// Whether event indexes are negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Indexes {
    With,
    Without,
}

pub(crate) const EVERY_WAY: [(Indexes, Waits); 4] = [
    (Indexes::With, Waits::Spinning),
    (Indexes::With, Waits::ForEvents),
    (Indexes::Without, Waits::Spinning),
    (Indexes::Without, Waits::ForEvents),
];

/// A connected client. The fields are dropped in this order, because the queues use the transport's memory.
pub(crate) struct Client {
    queues: Vec<Lane>,
    transport: Box<VirtioBlkTransport>,
    buffer: MmapRegion,
    waits: Waits,
}

/// A queue with its eventfds.
struct Lane {
    queue: VirtioBlkQueue<'static, usize>,
    kick: Box<dyn QueueNotifier>,
    call: Arc<EventFd>,
}

/// Returns an eventfd that no child inherits, such as a daemon that another test starts meanwhile.
pub(crate) fn eventfd(flags: i32) -> eventfd::EventFd {
    eventfd::EventFd::new(flags | EFD_CLOEXEC).unwrap()
}

/// Returns memory that can be shared.
pub(crate) fn shared(len: usize) -> (File, MmapRegion) {
    let file: File = rustix::fs::memfd_create("shared", MemfdFlags::CLOEXEC)
        .unwrap()
        .into();
    file.set_len(len as u64).unwrap();
    let map = MmapRegion::from_file(FileOffset::new(file.try_clone().unwrap(), 0), len).unwrap();
    (file, map)
}

impl Client {
    /// Connects with one queue and event indexes. The client waits for calls.
    pub(crate) fn simple(socket: &Path) -> Self {
        Self::connect(socket, 1, Indexes::With, Waits::ForEvents)
    }

    pub(crate) fn connect(socket: &Path, queues: usize, indexes: Indexes, waits: Waits) -> Self {
        let mut features = VirtioFeatureFlags::VERSION_1.bits() | VirtioBlkFeatureFlags::all().bits();
        if indexes == Indexes::With {
            features |= VirtioFeatureFlags::RING_EVENT_IDX.bits();
        }
        let transport = VhostUser::new(socket.to_str().unwrap(), features).expect("no connection");
        let mut transport: Box<VirtioBlkTransport> = Box::new(transport);
        let accepted = VirtioFeatureFlags::from_bits_truncate(transport.get_features());
        assert_eq!(
            accepted.contains(VirtioFeatureFlags::RING_EVENT_IDX),
            indexes == Indexes::With
        );
        let lanes = VirtioBlkQueue::setup_queues(&mut *transport, queues, QUEUE_SIZE).unwrap();
        let lanes = lanes.into_iter().enumerate().map(|(index, mut queue)| {
            queue.set_used_notif_enabled(waits == Waits::ForEvents);
            let kick = transport.get_submission_notifier(index);
            Lane {
                queue,
                kick,
                call: transport.get_completion_fd(index),
            }
        });
        let queues = lanes.collect();
        let (file, buffer) = shared(1 << 20);
        transport
            .map_mem_region(buffer.as_ptr() as usize, buffer.size(), file.as_raw_fd(), 0)
            .unwrap();
        Self {
            queues,
            transport,
            buffer,
            waits,
        }
    }

    pub(crate) fn features(&self) -> VirtioBlkFeatureFlags {
        VirtioBlkFeatureFlags::from_bits_truncate(self.transport.get_features())
    }

    pub(crate) fn capacity(&self) -> u64 {
        u64::from(self.transport.get_config().unwrap().capacity) * 512
    }

    /// Reads into a buffer that is poisoned before.
    pub(crate) fn read(&mut self, queue: usize, at: u64, len: usize) -> Result<Vec<u8>, i32> {
        self.start_read(queue, 0, at, len);
        self.finish(queue)?;
        Ok(self.contents(0, len))
    }

    pub(crate) fn write(&mut self, queue: usize, at: u64, data: &[u8]) -> Result<(), i32> {
        self.buffer.as_volatile_slice().write_slice(data, 0).unwrap();
        let from = self.buffer.as_ptr();
        let queued =
            // SAFETY: the buffer is mapped, shared with the device, longer than `data`, and lives until the
            // end.
            unsafe { self.queues[queue].queue.write_raw(at, from, data.len(), 0) };
        queued.unwrap();
        self.kick(queue);
        self.finish(queue)
    }

    pub(crate) fn flush(&mut self, queue: usize) -> Result<(), i32> {
        self.queues[queue].queue.flush(0).unwrap();
        self.kick(queue);
        self.finish(queue)
    }

    pub(crate) fn start_flush(&mut self, queue: usize, slot: usize) {
        self.queues[queue].queue.flush(slot).unwrap();
        self.kick(queue);
    }

    pub(crate) fn discard(&mut self, queue: usize, at: u64, len: u64) -> Result<(), i32> {
        self.queues[queue].queue.discard(at, len, 0).unwrap();
        self.kick(queue);
        self.finish(queue)
    }

    pub(crate) fn write_zeroes(&mut self, queue: usize, at: u64, len: u64, unmap: bool) -> Result<(), i32> {
        self.queues[queue].queue.write_zeroes(at, len, unmap, 0).unwrap();
        self.kick(queue);
        self.finish(queue)
    }

    /// Begins to read into the buffer from byte `slot * len`. Returns `true` if the device wanted a kick.
    pub(crate) fn start_read(&mut self, queue: usize, slot: usize, at: u64, len: usize) -> bool {
        let place = self.buffer.get_slice(slot * len, len).unwrap();
        place.copy_from(&vec![POISON; len]);
        let into = place.ptr_guard_mut().as_ptr();
        let queued =
            // SAFETY: the place is a part of the buffer, which is shared with the device and lives until the end.
            unsafe { self.queues[queue].queue.read_raw(at, into, len, slot) };
        queued.unwrap();
        self.kick(queue)
    }

    /// Begins to write from the buffer's byte `slot * data.len()`.
    pub(crate) fn start_write(&mut self, queue: usize, slot: usize, at: u64, data: &[u8]) {
        let place = self.buffer.get_slice(slot * data.len(), data.len()).unwrap();
        place.copy_from(data);
        let from = place.ptr_guard().as_ptr();
        let queued =
            // SAFETY: the place is a part of the buffer, which is shared with the device and lives until the end.
            unsafe { self.queues[queue].queue.write_raw(at, from, data.len(), slot) };
        queued.unwrap();
        self.kick(queue);
    }

    pub(crate) fn contents(&self, slot: usize, len: usize) -> Vec<u8> {
        let mut contents = vec![0; len];
        self.buffer
            .as_volatile_slice()
            .read_slice(&mut contents, slot * len)
            .unwrap();
        contents
    }

    fn kick(&mut self, queue: usize) -> bool {
        let lane = &mut self.queues[queue];
        // Without event indexes the driver has no fence between its index and the device's flag.
        fence(Ordering::SeqCst);
        let needed = lane.queue.avail_notif_needed();
        if needed {
            lane.kick.notify().unwrap();
        }
        needed
    }

    fn finish(&mut self, queue: usize) -> Result<(), i32> {
        let done = self.next_done(queue);
        assert!(self.poll_done(queue).is_none(), "one request, two completions");
        match done {
            (_, 0) => Ok(()),
            (_, error) => Err(error),
        }
    }

    /// Returns the slot and the status of the next request that is done.
    fn poll_done(&mut self, queue: usize) -> Option<(usize, i32)> {
        self.queues[queue]
            .queue
            .completions()
            .next()
            .map(|done| (done.context, done.ret))
    }

    /// Waits for the next request that is done. Returns its slot and its status.
    pub(crate) fn next_done(&mut self, queue: usize) -> (usize, i32) {
        let deadline = Instant::now() + STALLED;
        let mut rounds = 0u32;
        loop {
            if let Some(done) = self.poll_done(queue) {
                return done;
            }
            match self.waits {
                Waits::Spinning => {
                    rounds += 1;
                    std::hint::spin_loop();
                    if rounds.is_multiple_of(256) {
                        assert!(
                            Instant::now() < deadline,
                            "a request on queue {queue} has stalled (spinning)"
                        );
                        std::thread::yield_now();
                    }
                }
                Waits::ForEvents => {
                    let call = self.queues[queue].call.clone();
                    let left = deadline.saturating_duration_since(Instant::now());
                    assert!(
                        readable(&*call, left),
                        "a request on queue {queue} has stalled (no call)"
                    );
                    call.read().unwrap();
                }
            }
        }
    }
}

/// Returns `true` if the descriptor becomes readable within this time.
pub(crate) fn readable(fd: &impl AsFd, within: Duration) -> bool {
    let deadline = Instant::now() + within;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut fds = [PollFd::new(fd, PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
    }
}

/// Returns `true` if an eventfd gets a value within this time.
pub(crate) fn is_signalled(eventfd: &vmm_sys_util::eventfd::EventFd, within: Duration) -> bool {
    // SAFETY: the eventfd is borrowed for as long as this is.
    let borrowed = unsafe { BorrowedFd::borrow_raw(eventfd.as_raw_fd()) };
    readable(&borrowed, within)
}

/// Returns bytes that depend on their position.
pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|i| ((i / 8).wrapping_mul(0x9e37_79b9) ^ seed.wrapping_mul(31) ^ i) as u8)
        .collect()
}
