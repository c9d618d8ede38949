//! The back-end of the vhost-user protocol: features, memory, and the messages about queues.
//!
//! The session passes one message at a time, on the loop's thread. [`crate::queue`] defines the effect of a message on a
//! queue.

mod parking;
mod refusal;

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;

use aio_context::WeakContext;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandler, VhostUserProtocolFeatures};

use refusal::{no_queue, refuse, refuse_because};

use crate::channel::Channel;
use crate::connection::Connection;
use crate::dirty_log::DirtyLog;
use crate::eventfd;
use crate::features::{CONFIG_WCE, WCE_AT, config_space, offered, protocol};
use crate::host::Host;
use crate::inflight::{InflightArea, Layout};
use crate::limit::Kind;
use crate::memory::{MOST_REGIONS, Memory, Place};
use crate::queue::{Message, Queue, Shared, StartError};
use crate::remote_hosts::RemoteHosts;
use crate::ring::{RingAddresses, check_size};

/// The back-end of one connection.
#[derive(Debug)]
pub(crate) struct Backend {
    offered: u64,
    shared: Shared,
    queues: RefCell<Vec<Queue>>,
    /// The protocol features that the client has accepted.
    protocol: Cell<u64>,
    /// The number of other loops that have not yet replied that they have stopped queues.
    parking: Cell<usize>,
    /// Set when the current message cannot start its queue.
    is_refused: Cell<bool>,
    /// The descriptor of the current message, if it makes a channel.
    expected: RefCell<Option<UnixStream>>,
    /// The channel for messages that the daemon sends of its own accord.
    channel: RefCell<Option<Channel>>,
}

impl Backend {
    pub(crate) fn new(
        context: WeakContext,
        (host, others): (Rc<Host>, Rc<RemoteHosts>),
        connection: Rc<Connection>,
        queues: u16,
    ) -> Self {
        let queues = std::iter::repeat_with(Queue::default).take(queues.into());
        Self {
            offered: offered(&host.device.disk),
            queues: RefCell::new(queues.collect()),
            protocol: Cell::default(),
            parking: Cell::default(),
            is_refused: Cell::default(),
            expected: RefCell::default(),
            channel: RefCell::default(),
            shared: Shared {
                context,
                host,
                others,
                connection,
                accepted: Cell::new(0),
                write_cache: Cell::new(true),
                log: RefCell::default(),
                inflight: RefCell::default(),
                memory: RefCell::default(),
            },
        }
    }

    /// Logs that a queue could not be started again.
    fn report(&self, index: usize, started: std::result::Result<(), StartError>) {
        if let Err(error) = started {
            let line = format_args!("queue {index} has stopped: {error}");
            self.shared.connection.log(Kind::Queues, line);
        }
    }

    /// Stops all queues and resets the state to that of a new connection.
    pub(crate) fn reset(&self) {
        for queue in &mut *self.queues.borrow_mut() {
            queue.suspend();
            *queue = Queue::default();
        }
        if let Some(cx) = self.shared.context.upgrade() {
            self.shared.others.end(&cx);
        }
        self.shared.memory.replace(Arc::default());
        self.shared.accepted.set(0);
        self.shared.write_cache.set(true);
        self.shared.log.replace(None);
        self.shared.inflight.replace(None);
        self.protocol.set(0);
        self.channel.replace(None);
    }

    /// Returns the number of queues that this loop serves now.
    pub(crate) fn serving(&self) -> u16 {
        let queues = self.queues.borrow();
        let serving = queues.iter().filter(|queue| queue.is_serving_here());
        // There are at most 256.
        serving.count() as u16
    }

    /// Stores the descriptor of a message that makes a channel, before the protocol's library handles the
    /// message.
    pub(crate) fn expect_channel(&self, socket: Option<UnixStream>) {
        self.expected.replace(socket);
    }

    /// Notifies the client that the configuration has changed. A client without a channel reads it when it
    /// connects.
    pub(crate) fn configuration_has_changed(&self) {
        if self.protocol.get() & VhostUserProtocolFeatures::CONFIG.bits() == 0 {
            return;
        }
        let sent = self.channel.borrow().as_ref().map(Channel::send_config_change);
        if let Some(Err(error)) = sent {
            let line = format_args!("the client cannot be notified that its disk has changed: {error}");
            self.shared.connection.log(Kind::Ended, line);
            self.channel.replace(None);
        }
    }

    /// Passes a message to a queue. Returns the position of the queue.
    fn send(&self, index: impl Into<u32>, message: Message) -> Result<u16> {
        let index = index.into() as usize;
        let mut queues = self.queues.borrow_mut();
        let count = queues.len();
        let queue = queues.get_mut(index).ok_or_else(|| no_queue(index, count))?;
        if let Err(error) = queue.handle(index, message, &self.shared) {
            let line = format_args!("queue {index} cannot start: {error}");
            self.shared.connection.log(Kind::Queues, line);
            self.is_refused.set(true);
            return Err(refuse(error));
        }
        Ok(queue.position())
    }

    /// Returns `true` if the last message was refused because it would have started a queue that cannot
    /// start. The connection continues.
    pub(crate) fn take_refusal(&self) -> bool {
        self.is_refused.take()
    }

    /// Changes state that all queues depend on. Serving queues are suspended meanwhile.
    fn change(&self, change: impl FnOnce(&Shared)) {
        let mut queues = self.queues.borrow_mut();
        for queue in &mut *queues {
            queue.suspend();
        }
        change(&self.shared);
        for (index, queue) in queues.iter_mut().enumerate() {
            self.report(index, queue.resume(index, &self.shared));
        }
    }

    /// Writes the cached data to the medium. From now on each write is on the medium before it completes, and
    /// it includes all earlier writes, so the next write reports a failure of this flush.
    fn flush(&self) {
        let device = self.shared.host.device.clone();
        let flush = move || drop(device.disk.flush());
        match &self.shared.host.workers {
            None => flush(),
            Some(workers) => drop(workers.pool.run(flush, |_, _| ())),
        }
    }

    fn inflight_layout(&self, of: &VhostUserInflight) -> Result<Layout> {
        let queues = self.queues.borrow().len();
        Layout::of(of.num_queues, of.queue_size, queues).map_err(refuse)
    }

    fn replace_memory(&self, memory: Memory) {
        self.change(|shared| drop(shared.memory.replace(Arc::new(memory))));
    }
}

/// Accepts an eventfd for kicks, calls or errors.
fn accept_eventfd(file: File) -> Result<File> {
    eventfd::accept(file).map_err(Error::ReqHandlerError)
}

fn place(region: &VhostUserMemoryRegion) -> Place {
    Place {
        guest: region.guest_phys_addr,
        user: region.user_addr,
        len: region.memory_size,
        offset: region.mmap_offset,
    }
}

impl VhostUserBackendReqHandler for Backend {
    fn set_owner(&self) -> Result<()> {
        Ok(())
    }

    /// Handles a deprecated message. The specification recommends to disable all rings and to keep all other
    /// state.
    fn reset_owner(&self) -> Result<()> {
        for (index, queue) in self.queues.borrow_mut().iter_mut().enumerate() {
            queue
                .handle(index, Message::Reset, &self.shared)
                .map_err(refuse)?;
        }
        Ok(())
    }

    fn reset_device(&self) -> Result<()> {
        Err(Error::InvalidOperation("RESET_DEVICE was not offered"))
    }

    fn get_features(&self) -> Result<u64> {
        Ok(self.offered)
    }

    fn set_features(&self, features: u64) -> Result<()> {
        if features & !self.offered != 0 {
            return Err(Error::FeatureMismatch);
        }
        if features != self.shared.accepted.get() {
            self.change(|shared| shared.accepted.set(features));
        }
        Ok(())
    }

    fn set_mem_table(
        &self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy: Option<bool>,
    ) -> Result<Option<Vec<vhost::VhostUserMemoryRegionBase>>> {
        let mut memory = Memory::default();
        for (region, file) in regions.iter().zip(files) {
            memory = memory.with(place(region), file).map_err(refuse)?;
        }
        self.replace_memory(memory);
        Ok(None)
    }

    fn set_vring_num(&self, index: u32, num: u32) -> Result<()> {
        check_size(num).map_err(refuse)?;
        self.send(index, Message::Size(num)).map(drop)
    }

    fn set_vring_addr(
        &self,
        index: u32,
        flags: VhostUserVringAddrFlags,
        descriptors: u64,
        used: u64,
        available: u64,
        log: u64,
    ) -> Result<()> {
        let addresses = RingAddresses {
            descriptors,
            available,
            used,
        };
        let used_log = flags
            .contains(VhostUserVringAddrFlags::VHOST_VRING_F_LOG)
            .then_some(log);
        self.send(index, Message::Addresses(addresses, used_log))
            .map(drop)
    }

    fn set_vring_base(&self, index: u32, base: u32) -> Result<()> {
        let base = u16::try_from(base).map_err(|_| Error::InvalidParam)?;
        self.send(index, Message::Base(base)).map(drop)
    }

    fn get_vring_base(&self, index: u32) -> Result<VhostUserVringState> {
        let position = self.send(index, Message::Stop)?;
        Ok(VhostUserVringState::new(index, position.into()))
    }

    fn set_vring_kick(&self, index: u8, fd: Option<File>) -> Result<()> {
        let kick = fd.ok_or_else(|| refuse_because("a queue needs a kick descriptor"))?;
        let kick = Arc::new(accept_eventfd(kick)?);
        self.send(index, Message::Kick(kick)).map(drop)
    }

    fn set_vring_call(&self, index: u8, fd: Option<File>) -> Result<()> {
        let call = fd.map(accept_eventfd).transpose()?;
        self.send(index, Message::Call(call)).map(drop)
    }

    fn set_vring_err(&self, index: u8, fd: Option<File>) -> Result<()> {
        let error = fd.map(accept_eventfd).transpose()?;
        self.send(index, Message::Error(error)).map(drop)
    }

    fn get_protocol_features(&self) -> Result<VhostUserProtocolFeatures> {
        Ok(protocol())
    }

    fn set_protocol_features(&self, features: u64) -> Result<()> {
        if features & !protocol().bits() != 0 {
            return Err(Error::FeatureMismatch);
        }
        self.protocol.set(features);
        Ok(())
    }

    /// Stores the channel. The library has checked that the descriptor is a stream socket. Its own proxy for
    /// the channel cannot send this daemon's message.
    fn set_backend_req_fd(&self, _proxy: vhost::vhost_user::Backend) {
        self.channel.replace(self.expected.take().map(Channel::new));
    }

    fn get_queue_num(&self) -> Result<u64> {
        Ok(self.queues.borrow().len() as u64)
    }

    fn set_vring_enable(&self, index: u32, enable: bool) -> Result<()> {
        let message = if enable { Message::Enable } else { Message::Disable };
        self.send(index, message).map(drop)
    }

    fn get_config(&self, offset: u32, size: u32, _flags: VhostUserConfigFlags) -> Result<Vec<u8>> {
        let queues = self.queues.borrow().len() as u16;
        let space = config_space(
            &self.shared.host.device.disk,
            queues,
            self.shared.write_cache.get(),
        );
        let end = offset.checked_add(size).ok_or(Error::InvalidParam)?;
        space
            .get(offset as usize..end as usize)
            .map(<[u8]>::to_vec)
            .ok_or(Error::InvalidParam)
    }

    /// Turns the write cache on or off. The driver can change only that byte.
    fn set_config(&self, offset: u32, bytes: &[u8], _flags: VhostUserConfigFlags) -> Result<()> {
        let (WCE_AT, &[on @ (0 | 1)]) = (offset, bytes) else {
            return Err(Error::InvalidOperation(
                "only the write cache of the configuration can be changed, to 0 or 1",
            ));
        };
        if self.shared.accepted.get() & CONFIG_WCE == 0 {
            return Err(Error::InvalidOperation(
                "VIRTIO_BLK_F_CONFIG_WCE was not accepted",
            ));
        }
        let on = on == 1;
        if on != self.shared.write_cache.get() {
            self.change(|shared| shared.write_cache.set(on));
            if !on {
                self.flush();
            }
        }
        Ok(())
    }

    fn get_max_mem_slots(&self) -> Result<u64> {
        Ok(MOST_REGIONS as u64)
    }

    fn add_mem_region(
        &self,
        region: &VhostUserSingleMemoryRegion,
        fd: File,
        _postcopy: Option<bool>,
    ) -> Result<Option<vhost::VhostUserMemoryRegionBase>> {
        let memory = self
            .shared
            .memory
            .borrow()
            .with(place(region), fd)
            .map_err(refuse)?;
        self.replace_memory(memory);
        Ok(None)
    }

    fn remove_mem_region(&self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        let memory = self
            .shared
            .memory
            .borrow()
            .without(place(region))
            .map_err(refuse)?;
        self.replace_memory(memory);
        Ok(())
    }

    fn set_log_base(&self, log: &VhostUserLog, file: File) -> Result<()> {
        let log = DirtyLog::map(file, log.mmap_offset, log.mmap_size).map_err(refuse)?;
        self.change(|shared| drop(shared.log.replace(Some(Arc::new(log)))));
        Ok(())
    }

    fn get_inflight_fd(&self, wanted: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        let layout = self.inflight_layout(wanted)?;
        let file = layout.make().map_err(refuse)?;
        let made = VhostUserInflight::new(layout.bytes(), 0, wanted.num_queues, wanted.queue_size);
        Ok((made, file))
    }

    fn set_inflight_fd(&self, given: &VhostUserInflight, file: File) -> Result<()> {
        let layout = self.inflight_layout(given)?;
        let area = InflightArea::map(layout, file, given.mmap_offset, given.mmap_size).map_err(refuse)?;
        self.change(|shared| drop(shared.inflight.replace(Some(Arc::new(area)))));
        Ok(())
    }

    // The following messages belong to features that are not offered.

    fn set_gpu_socket(&self, _gpu: GpuBackend) -> Result<()> {
        Err(Error::InvalidOperation("not a GPU"))
    }

    fn get_shared_object(&self, _uuid: VhostUserSharedMsg) -> Result<File> {
        Err(Error::InvalidOperation("shared objects were not offered"))
    }

    fn set_device_state_fd(
        &self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _fd: File,
    ) -> Result<Option<File>> {
        Err(Error::InvalidOperation("DEVICE_STATE was not offered"))
    }

    fn check_device_state(&self) -> Result<()> {
        Err(Error::InvalidOperation("DEVICE_STATE was not offered"))
    }

    fn get_shmem_config(&self) -> Result<VhostUserShMemConfig> {
        Err(Error::InvalidOperation("SHMEM was not offered"))
    }
}
