//! A client that writes its rings itself, with any contents.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserInflight};
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, MmapRegion, VolatileMemory};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::client::{eventfd, is_signalled, readable, shared};

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// The guest address of the memory. Its structures are at fixed places.
pub(crate) const GUEST: u64 = 0x10_0000;
pub(crate) const USER: u64 = 0x5555_0000_0000;
const LEN: usize = 1 << 20;
pub(crate) const SIZE: u16 = 16;
const AVAILABLE: usize = 0x1000;
const USED: usize = 0x2000;
/// The guest addresses of the header, status and data of requests.
pub(crate) const HEADER: u64 = GUEST + 0x4000;
pub(crate) const STATUS: u64 = GUEST + 0x5000;
pub(crate) const DATA: u64 = GUEST + 0x6000;
/// The guest address of an indirect table.
pub(crate) const TABLE: u64 = GUEST + 0x8000;

pub(crate) const VERSION_1: u64 = 1 << 32;
const INDIRECT_DESC: u64 = 1 << 28;
pub(crate) const EVENT_IDX: u64 = 1 << 29;
pub(crate) const PROTOCOL: u64 = 1 << 30;

/// Connects and accepts these features.
fn negotiate(socket: &Path, queues: u64, features: u64, more: VhostUserProtocolFeatures) -> Frontend {
    let mut frontend = Frontend::connect(socket, queues).unwrap();
    frontend.set_owner().unwrap();
    let offered = frontend.get_features().unwrap();
    assert_eq!(offered & features, features);
    let protocol = frontend.get_protocol_features().unwrap();
    let wanted = VhostUserProtocolFeatures::MQ
        | VhostUserProtocolFeatures::CONFIG
        | VhostUserProtocolFeatures::REPLY_ACK
        | more;
    assert!(protocol.contains(wanted));
    frontend.set_protocol_features(wanted).unwrap();
    frontend.set_features(features).unwrap();
    frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    frontend
}

/// A connected client with one queue, or one queue of a client with several.
pub(crate) struct Raw {
    pub(crate) frontend: Frontend,
    /// The index of the queue.
    pub(crate) queue: usize,
    /// The offset in guest memory of the memory of this queue from that of the first one.
    shift: u64,
    pub(crate) file: File,
    pub(crate) memory: MmapRegion,
    pub(crate) kick: EventFd,
    pub(crate) call: EventFd,
    /// The area in which the daemon tracks outstanding requests, if it does.
    pub(crate) inflight: Option<(VhostUserInflight, File)>,
    available: u16,
}

impl Raw {
    /// Connects and shares memory, but sets up no queue.
    pub(crate) fn connect(socket: &Path) -> Self {
        Self::connect_with(socket, VhostUserProtocolFeatures::empty())
    }

    /// Like [`connect`](Self::connect), with more protocol features.
    pub(crate) fn connect_with(socket: &Path, more: VhostUserProtocolFeatures) -> Self {
        let frontend = negotiate(socket, 1, VERSION_1 | INDIRECT_DESC | PROTOCOL, more);
        let raw = Self::of(frontend, 0);
        raw.frontend.set_mem_table(&[raw.region()]).unwrap();
        raw
    }

    /// Returns a queue of a client, with memory that is not shared yet.
    fn of(frontend: Frontend, queue: usize) -> Self {
        let (file, memory) = shared(LEN);
        Self {
            frontend,
            queue,
            shift: queue as u64 * (2 * LEN as u64),
            file,
            memory,
            kick: eventfd(EFD_NONBLOCK),
            call: eventfd(EFD_NONBLOCK),
            inflight: None,
            available: 0,
        }
    }

    /// Connects a client with `count` queues, at most eight, and sets them up. Each has a region of memory
    /// for itself.
    pub(crate) fn queues(socket: &Path, count: usize) -> Vec<Self> {
        let features = VERSION_1 | INDIRECT_DESC | PROTOCOL;
        let more = VhostUserProtocolFeatures::INFLIGHT_SHMFD;
        let frontend = negotiate(socket, count as u64, features, more);
        let mut queues: Vec<Self> = (0..count)
            .map(|queue| Self::of(frontend.clone(), queue))
            .collect();
        Self::share_all(&queues);
        for raw in &mut queues {
            raw.set_up(0);
            raw.frontend.set_vring_enable(raw.queue, true).unwrap();
        }
        queues
    }

    /// Shares the memory of all queues of a client.
    pub(crate) fn share_all(queues: &[Self]) {
        let regions: Vec<_> = queues.iter().map(Self::region).collect();
        queues[0].frontend.set_mem_table(&regions).unwrap();
    }

    /// Connects and sets up the queue.
    pub(crate) fn ready(socket: &Path) -> Self {
        Self::ready_with(socket, VhostUserProtocolFeatures::empty())
    }

    /// Like [`ready`](Self::ready), with more protocol features.
    pub(crate) fn ready_with(socket: &Path, more: VhostUserProtocolFeatures) -> Self {
        let mut raw = Self::connect_with(socket, more);
        raw.set_up(0);
        raw.frontend.set_vring_enable(0, true).unwrap();
        raw
    }

    /// Ends the connection, even if a child that another thread has forked still has the descriptor until it
    /// executes its program.
    pub(crate) fn disconnect(self) {
        self.shut_down();
    }

    pub(crate) fn shut_down(&self) {
        // SAFETY: the frontend owns the descriptor and outlives the borrow.
        let socket = unsafe { BorrowedFd::borrow_raw(self.frontend.as_raw_fd()) };
        // The daemon may have ended.
        rustix::net::shutdown(socket, rustix::net::Shutdown::Both).unwrap_or_default();
    }

    /// Connects to another daemon with the same memory, descriptors and rings.
    pub(crate) fn reconnect(&mut self, socket: &Path, features: u64, base: u16) {
        let more = VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS | VhostUserProtocolFeatures::INFLIGHT_SHMFD;
        // A daemon serves one client at a time.
        self.shut_down();
        self.frontend = negotiate(socket, 1, features, more);
        self.frontend.set_mem_table(&[self.region()]).unwrap();
        if self.inflight.is_some() {
            self.share_inflight().unwrap();
        }
        self.set_up(base);
        if features & PROTOCOL != 0 {
            self.frontend.set_vring_enable(0, true).unwrap();
        }
    }

    /// Gets an area for in-flight tracking from the daemon. It is shared at the next [`reconnect`](Self::reconnect).
    pub(crate) fn get_inflight(&mut self, queues: u16) {
        let wanted = VhostUserInflight::new(0, 0, queues, SIZE);
        self.inflight = Some(self.frontend.get_inflight_fd(&wanted).unwrap());
    }

    /// Shares the area for in-flight tracking.
    pub(crate) fn share_inflight(&mut self) -> vhost::Result<()> {
        let (area, file) = self.inflight.as_ref().unwrap();
        self.frontend.set_inflight_fd(area, file.as_raw_fd())
    }

    pub(crate) fn region(&self) -> VhostUserMemoryRegionInfo {
        VhostUserMemoryRegionInfo {
            guest_phys_addr: GUEST + self.shift,
            memory_size: LEN as u64,
            userspace_addr: USER + self.shift,
            mmap_offset: 0,
            mmap_handle: self.file.as_raw_fd(),
        }
    }

    pub(crate) fn addresses() -> VringConfigData {
        VringConfigData {
            queue_max_size: SIZE,
            queue_size: SIZE,
            flags: 0,
            desc_table_addr: USER,
            used_ring_addr: USER + USED as u64,
            avail_ring_addr: USER + AVAILABLE as u64,
            log_addr: None,
        }
    }

    pub(crate) fn set_up(&mut self, base: u16) {
        let mut addresses = Self::addresses();
        addresses.desc_table_addr += self.shift;
        addresses.used_ring_addr += self.shift;
        addresses.avail_ring_addr += self.shift;
        self.frontend.set_vring_num(self.queue, SIZE).unwrap();
        self.frontend.set_vring_addr(self.queue, &addresses).unwrap();
        self.frontend.set_vring_base(self.queue, base).unwrap();
        self.frontend.set_vring_kick(self.queue, &self.kick).unwrap();
        self.frontend.set_vring_call(self.queue, &self.call).unwrap();
    }

    pub(crate) fn put(&self, guest: u64, bytes: &[u8]) {
        self.memory
            .as_volatile_slice()
            .write_slice(bytes, (guest - GUEST) as usize)
            .unwrap();
    }

    pub(crate) fn get(&self, guest: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory
            .as_volatile_slice()
            .read_slice(&mut bytes, (guest - GUEST) as usize)
            .unwrap();
        bytes
    }

    /// Writes a descriptor into the queue's table, or into one elsewhere.
    pub(crate) fn describe(&self, index: u16, addr: u64, len: u32, flags: u16, next: u16) {
        self.describe_in(GUEST, index, addr, len, flags, next);
    }

    pub(crate) fn describe_in(&self, table: u64, index: u16, addr: u64, len: u32, flags: u16, next: u16) {
        let at = (table - GUEST) as usize + usize::from(index) * 16;
        self.memory
            .as_volatile_slice()
            .write_obj(
                Descriptor::new(addr.wrapping_add(self.shift), len, flags, next),
                at,
            )
            .unwrap();
    }

    pub(crate) fn header(&self, kind: u32, sector: u64) {
        self.put(
            HEADER,
            &[&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat(),
        );
    }

    fn index(&self, at: usize) -> &AtomicU16 {
        self.memory.get_atomic_ref(at).unwrap()
    }

    /// Returns `true` if the daemon replies, so the connection is open.
    pub(crate) fn is_connected(&mut self) -> bool {
        self.frontend.get_features().is_ok()
    }

    /// Offers the chain at `head` and kicks.
    pub(crate) fn offer(&mut self, head: u16) {
        let slot = usize::from(self.available % SIZE);
        self.index(AVAILABLE + 4 + 2 * slot)
            .store(head, Ordering::Relaxed);
        self.available = self.available.wrapping_add(1);
        self.set_available(self.available);
    }

    /// Offers the chain at 0, truncates the memory's file to `left` bytes, and kicks. The memory beyond these
    /// bytes must not be accessed any more.
    pub(crate) fn cut_short_and_offer(&mut self, left: u64) {
        let slot = usize::from(self.available % SIZE);
        self.index(AVAILABLE + 4 + 2 * slot).store(0, Ordering::Relaxed);
        self.available = self.available.wrapping_add(1);
        if left > AVAILABLE as u64 {
            self.file.set_len(left).unwrap();
            self.index(AVAILABLE + 2).store(self.available, Ordering::Release);
        } else {
            // A polling daemon may take the request before its memory is lost.
            self.index(AVAILABLE + 2).store(self.available, Ordering::Release);
            self.file.set_len(left).unwrap();
        }
        self.kick.write(1).unwrap();
    }

    /// Prepares a read of a sector in one of five slots. Returns the head of its chain.
    pub(crate) fn prepare_read(&self, slot: u16, sector: u64) -> u16 {
        self.prepare(slot, 0, sector, &[0xa5; 512])
    }

    /// Prepares a write of a sector in one of five slots. Returns the head of its chain.
    pub(crate) fn prepare_write(&self, slot: u16, sector: u64, contents: &[u8]) -> u16 {
        self.prepare(slot, 1, sector, contents)
    }

    fn prepare(&self, slot: u16, kind: u64, sector: u64, contents: &[u8]) -> u16 {
        let at = u64::from(slot);
        let (header, status, data) = (HEADER + 16 * at, STATUS + at, DATA + 512 * at);
        self.put(header, &[kind.to_le_bytes(), sector.to_le_bytes()].concat());
        self.put(status, &[0xff]);
        self.put(data, contents);
        let head = 3 * slot;
        let to_device = if kind == 0 { WRITE } else { 0 };
        self.describe(head, header, 16, NEXT, head + 1);
        self.describe(head + 1, data, 512, NEXT | to_device, head + 2);
        self.describe(head + 2, status, 1, WRITE, 0);
        head
    }

    /// Returns the data that a slot's read has returned. Panics unless it is complete.
    pub(crate) fn contents(&self, slot: u16) -> Vec<u8> {
        assert_eq!(self.get(STATUS + u64::from(slot), 1), [0], "slot {slot}");
        self.get(DATA + 512 * u64::from(slot), 512)
    }

    /// Offers a chain, and kicks if the device needs it, like a driver. `event_idx` tells whether event
    /// indexes are in use.
    pub(crate) fn offer_as_a_driver(&mut self, head: u16, event_idx: bool) {
        let slot = usize::from(self.available % SIZE);
        self.index(AVAILABLE + 4 + 2 * slot)
            .store(head, Ordering::Relaxed);
        let before = self.available;
        self.available = before.wrapping_add(1);
        self.index(AVAILABLE + 2).store(self.available, Ordering::SeqCst);
        std::sync::atomic::fence(Ordering::SeqCst);
        let is_kick_wanted = if event_idx {
            self.index(USED + 4 + 8 * usize::from(SIZE))
                .load(Ordering::SeqCst)
                == before
        } else {
            self.index(USED).load(Ordering::SeqCst) & 1 == 0
        };
        if is_kick_wanted {
            self.kick.write(1).unwrap();
        }
    }

    /// Makes later requests begin at this position.
    pub(crate) fn continue_at(&mut self, position: u16) {
        self.available = position;
        self.index(AVAILABLE + 2).store(position, Ordering::Release);
    }

    /// Returns all bytes that the device may write of its own accord.
    pub(crate) fn used_ring(&self) -> Vec<u8> {
        self.get(GUEST + USED as u64, 6 + 8 * usize::from(SIZE))
    }

    /// Returns the number of chains offered so far.
    pub(crate) fn offered(&self) -> u16 {
        self.available
    }

    /// Requests a call once the device has used the next chain, if event indexes are in use.
    pub(crate) fn ask_for_call(&self) {
        let event = self.index(AVAILABLE + 4 + 2 * usize::from(SIZE));
        event.store(self.used(), Ordering::SeqCst);
    }

    /// Waits for a call and takes it.
    pub(crate) fn wait_called(&self) {
        assert!(is_signalled(&self.call, Duration::from_secs(10)), "no call");
        self.call.read().unwrap();
    }

    /// Sets the available index to any value, and kicks.
    pub(crate) fn set_available(&self, index: u16) {
        self.index(AVAILABLE + 2).store(index, Ordering::Release);
        self.kick.write(1).unwrap();
    }

    pub(crate) fn used(&self) -> u16 {
        self.index(USED + 2).load(Ordering::Acquire)
    }

    /// Returns the head and the number of bytes written of the used entry at a position.
    pub(crate) fn used_entry(&self, position: u16) -> (u32, u32) {
        let at = GUEST + (USED + 4) as u64 + 8 * u64::from(position % SIZE);
        let entry = self.get(at, 8);
        let half = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().unwrap());
        (half(0), half(4))
    }

    /// Waits until the device has used `index` chains.
    pub(crate) fn wait_used(&self, index: u16) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.used() != index {
            assert!(
                Instant::now() < deadline,
                "the device has used {} chains, not {index}",
                self.used()
            );
            std::thread::yield_now();
        }
    }

    /// Shares more memory, of `len` bytes at a guest address. Needs the protocol feature of memory slots.
    pub(crate) fn share(&mut self, guest: u64, len: usize) -> (File, MmapRegion) {
        let (file, memory) = shared(len);
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: guest,
            memory_size: len as u64,
            userspace_addr: USER + guest,
            mmap_offset: 0,
            mmap_handle: file.as_raw_fd(),
        };
        self.frontend.add_mem_region(&region).unwrap();
        (file, memory)
    }

    /// Offers a request: its header, buffers at any addresses for the device to read or to write, and the
    /// status. The descriptors of the buffers are in an indirect table.
    pub(crate) fn offer_request(&mut self, kind: u32, sector: u64, buffers: &[(u64, u32)], flags: u16) {
        self.header(kind, sector);
        self.put(STATUS, &[0xff]);
        let last = buffers.len() as u16 + 1;
        self.describe_in(TABLE, 0, HEADER, 16, NEXT, 1);
        for (index, (guest, len)) in (1..).zip(buffers) {
            self.describe_in(TABLE, index, *guest, *len, NEXT | flags, index + 1);
        }
        self.describe_in(TABLE, last, STATUS, 1, WRITE, 0);
        self.describe(0, TABLE, 16 * (u32::from(last) + 1), INDIRECT, 0);
        self.offer(0);
    }

    /// Offers a request like [`offer_request`](Self::offer_request), and waits for its status.
    pub(crate) fn request(&mut self, kind: u32, sector: u64, buffers: &[(u64, u32)], flags: u16) -> u8 {
        let next = self.available.wrapping_add(1);
        self.offer_request(kind, sector, buffers, flags);
        self.wait_used(next);
        self.get(STATUS, 1)[0]
    }

    /// Returns the configuration space.
    pub(crate) fn config(&mut self) -> Vec<u8> {
        let room = [0; 60];
        let (_, config) = self
            .frontend
            .get_config(0, 60, VhostUserConfigFlags::empty(), &room)
            .unwrap();
        config
    }

    /// Sends one request in the usual way: a read of a sector. Panics unless it is served.
    pub(crate) fn read_sector(&mut self, sector: u64) -> Vec<u8> {
        self.header(0, sector);
        self.put(STATUS, &[0xff]);
        self.put(DATA, &[0xa5; 512]);
        self.describe(0, HEADER, 16, NEXT, 1);
        self.describe(1, DATA, 512, NEXT | WRITE, 2);
        self.describe(2, STATUS, 1, WRITE, 0);
        let next = self.available.wrapping_add(1);
        self.offer(0);
        self.wait_used(next);
        assert_eq!(self.get(STATUS, 1), [0]);
        assert_eq!(self.used_entry(next.wrapping_sub(1)), (0, 513));
        self.get(DATA, 512)
    }

    /// Waits until the daemon has ended the connection.
    pub(crate) fn wait_closed(&self) {
        // SAFETY: the frontend owns the descriptor and outlives the borrow.
        let socket = unsafe { BorrowedFd::borrow_raw(self.frontend.as_raw_fd()) };
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(readable(&socket, left), "the connection goes on");
            let mut bytes = [0; 64];
            let peek = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
            match rustix::net::recv(socket, &mut bytes, peek) {
                Ok((_, 0)) | Err(rustix::io::Errno::CONNRESET) => return,
                // This is a reply that was not read.
                Ok(_) => drop(rustix::net::recv(
                    socket,
                    &mut bytes,
                    rustix::net::RecvFlags::DONTWAIT,
                )),
                Err(error) => panic!("{error}"),
            }
        }
    }
}
