//! Queues that are set up and never used: connections with their rings. Each connection keeps only its socket
//! open.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::Context as _;
use rustix::fs::MemfdFlags;
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// The number of queues of one idle connection.
pub(crate) const QUEUES: usize = 32;

const GUEST: u64 = 0x10_0000;
const USER: u64 = 0x5555_0000_0000;
const ENTRIES: u16 = 16;
/// The bytes of a queue: one page for table, available ring and used ring.
const PAGE: u64 = 4096;
const AVAILABLE: u64 = 1024;
const USED: u64 = 2048;
const LEN: u64 = PAGE * QUEUES as u64;

const VERSION_1: u64 = 1 << 32;
const PROTOCOL: u64 = 1 << 30;

/// A connected client without requests. It stays connected until it is dropped.
pub(crate) struct Idle {
    _frontend: Frontend,
    _memory: File,
}

impl Idle {
    pub(crate) fn connect(socket: &Path) -> anyhow::Result<Self> {
        Self::set_up(socket).with_context(|| format!("an idle connection to {}", socket.display()))
    }

    fn set_up(socket: &Path) -> anyhow::Result<Self> {
        let mut frontend = Frontend::connect(socket, QUEUES as u64)?;
        frontend.set_owner()?;
        frontend.get_features()?;
        frontend.set_features(VERSION_1 | PROTOCOL)?;
        let offered = frontend.get_protocol_features()?;
        frontend.set_protocol_features(offered & VhostUserProtocolFeatures::MQ)?;
        let memory: File = rustix::fs::memfd_create("idle", MemfdFlags::CLOEXEC)?.into();
        memory.set_len(LEN)?;
        frontend.set_mem_table(&[VhostUserMemoryRegionInfo {
            guest_phys_addr: GUEST,
            memory_size: LEN,
            userspace_addr: USER,
            mmap_offset: 0,
            mmap_handle: memory.as_raw_fd(),
        }])?;
        for queue in 0..QUEUES {
            let page = USER + PAGE * queue as u64;
            frontend.set_vring_num(queue, ENTRIES)?;
            frontend.set_vring_addr(
                queue,
                &VringConfigData {
                    queue_max_size: ENTRIES,
                    queue_size: ENTRIES,
                    flags: 0,
                    desc_table_addr: page,
                    used_ring_addr: page + USED,
                    avail_ring_addr: page + AVAILABLE,
                    log_addr: None,
                },
            )?;
            frontend.set_vring_base(queue, 0)?;
            // The server holds both descriptors. Ours are closed at the end of this iteration.
            frontend.set_vring_call(queue, &EventFd::new(EFD_NONBLOCK)?)?;
            frontend.set_vring_kick(queue, &EventFd::new(EFD_NONBLOCK)?)?;
            frontend.set_vring_enable(queue, true)?;
        }
        // This request has a reply, so the server has handled all earlier requests when the reply arrives.
        frontend.get_features()?;
        Ok(Self {
            _frontend: frontend,
            _memory: memory,
        })
    }
}
