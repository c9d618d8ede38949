//! The device as the vhost-user protocol sees it: features, memory, and the setting up and down of queues.
//!
//! Every message comes from the session, one after the other, on the loop's thread. A queue runs while it has addresses, a
//! kick descriptor and is enabled; when the memory changes, running queues go on in the new one where they were.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::rc::Rc;

use aio_context::{Interest, Registration, WeakContext};
use rustix::fs::OFlags;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandler, VhostUserProtocolFeatures};

use crate::chain::Chain;
use crate::features::{EVENT_IDX, FLUSH, PROTOCOL, config_space, offered, protocol};
use crate::link::Link;
use crate::memory::{MOST_REGIONS, Memory, Place};
use crate::request::Device;
use crate::ring::{Ring, RingAddresses, check_size};
use crate::vring::{Doorbell, Vring, Wiring};

/// One connection's device.
#[derive(Debug)]
pub(crate) struct Backend {
    context: WeakContext,
    device: Rc<Device>,
    chain: Rc<RefCell<Chain>>,
    link: Rc<Link>,
    offered: u64,
    accepted: Cell<u64>,
    memory: RefCell<Rc<Memory>>,
    queues: RefCell<Vec<Queue>>,
}

/// What the client has said about one queue, and the queue itself while it runs.
#[derive(Debug, Default)]
struct Queue {
    size: u32,
    addresses: Option<RingAddresses>,
    base: u16,
    kick: Option<Rc<File>>,
    call: Doorbell,
    error: Doorbell,
    enabled: bool,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    vring: Rc<Vring>,
    _registration: Registration,
}

impl Queue {
    /// Stops it where it is.
    fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            self.base = running.vring.stop();
        }
    }
}

impl Backend {
    pub(crate) fn new(
        context: WeakContext,
        device: Rc<Device>,
        chain: Rc<RefCell<Chain>>,
        link: Rc<Link>,
        queues: u16,
    ) -> Self {
        Self {
            offered: offered(&device.disk),
            context,
            device,
            chain,
            link,
            accepted: Cell::new(0),
            memory: RefCell::default(),
            queues: RefCell::new(
                std::iter::repeat_with(Queue::default)
                    .take(queues.into())
                    .collect(),
            ),
        }
    }

    /// Stops all queues and forgets everything: the connection is over.
    pub(crate) fn reset(&self) {
        for queue in &mut *self.queues.borrow_mut() {
            queue.stop();
            *queue = Queue::default();
        }
        self.memory.replace(Rc::default());
        self.accepted.set(0);
    }

    /// Changes a queue; it then runs if nothing is missing.
    fn change(&self, index: usize, change: impl FnOnce(&mut Queue) -> Result<()>) -> Result<()> {
        let mut queues = self.queues.borrow_mut();
        let queue = queues.get_mut(index).ok_or(Error::InvalidParam)?;
        change(queue)?;
        self.run_if_complete(index, queue)
    }

    fn run_if_complete(&self, index: usize, queue: &mut Queue) -> Result<()> {
        // Without protocol features there is no message to enable a queue.
        let enabled = queue.enabled || self.accepted.get() & PROTOCOL == 0;
        let (Some(kick), Some(addresses)) = (&queue.kick, queue.addresses) else {
            return Ok(());
        };
        if queue.running.is_some() || !enabled {
            return Ok(());
        }
        let memory = self.memory.borrow().clone();
        let event_idx = self.accepted.get() & EVENT_IDX != 0;
        let ring = Ring::find(&memory, addresses, queue.size, event_idx).map_err(refuse)?;
        let wiring = Wiring {
            index,
            kick: kick.clone(),
            call: queue.call.clone(),
            error: queue.error.clone(),
            memory,
            device: self.device.clone(),
            chain: self.chain.clone(),
            link: self.link.clone(),
            write_through: self.accepted.get() & FLUSH == 0,
        };
        let vring = Rc::new(Vring::new(ring, queue.base, wiring));
        let context = self.context.upgrade().ok_or(Error::BackendInternalError)?;
        let registration = context
            .watch_polled(vring.clone(), Interest::READ)
            .map_err(|why| Error::ReqHandlerError(why.into()))?;
        vring.start();
        queue.running = Some(Running {
            vring,
            _registration: registration,
        });
        Ok(())
    }

    /// Goes over to another memory, running queues included. A queue that does not lie in it does not run any more.
    fn move_to(&self, memory: Memory) -> Result<()> {
        let mut queues = self.queues.borrow_mut();
        let ran: Vec<usize> = (0..queues.len())
            .filter(|index| queues[*index].running.is_some())
            .collect();
        for index in &ran {
            queues[*index].stop();
        }
        self.memory.replace(Rc::new(memory));
        for index in ran {
            if let Err(error) = self.run_if_complete(index, &mut queues[index]) {
                tracing::warn!(export = self.link.export(), queue = index, %error, "stopped: its memory is gone");
            }
        }
        Ok(())
    }
}

/// An error of ours as an error of the protocol.
fn refuse(why: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::ReqHandlerError(io::Error::other(why))
}

fn refuse_because(why: &'static str) -> Error {
    Error::ReqHandlerError(io::Error::other(why))
}

/// The descriptor, if it is an eventfd as far as one can see. Anything else could make the loop wait for the client.
fn eventfd(file: File) -> Result<File> {
    use std::os::fd::AsRawFd;
    let link = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    match link {
        Ok(target) if target.as_os_str() != "anon_inode:[eventfd]" => Err(refuse_because(
            "a descriptor for kick, call or error must be an eventfd",
        )),
        _ => Ok(file),
    }
}

/// An eventfd that is never waited for, neither when it is empty nor when it is full.
fn bell(file: File) -> Result<File> {
    let file = eventfd(file)?;
    let flags = rustix::fs::fcntl_getfl(&file).map_err(refuse)?;
    rustix::fs::fcntl_setfl(&file, flags | OFlags::NONBLOCK).map_err(refuse)?;
    Ok(file)
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

    fn reset_owner(&self) -> Result<()> {
        self.reset();
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
        self.accepted.set(features);
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
        self.move_to(memory)?;
        Ok(None)
    }

    fn set_vring_num(&self, index: u32, num: u32) -> Result<()> {
        check_size(num).map_err(refuse)?;
        self.change(index as usize, |queue| {
            queue.size = num;
            Ok(())
        })
    }

    fn set_vring_addr(
        &self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptors: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        self.change(index as usize, |queue| {
            if queue.running.is_some() {
                return Err(Error::InvalidOperation("a running queue cannot be moved"));
            }
            queue.addresses = Some(RingAddresses {
                descriptors,
                available,
                used,
            });
            Ok(())
        })
    }

    fn set_vring_base(&self, index: u32, base: u32) -> Result<()> {
        let base = u16::try_from(base).map_err(|_| Error::InvalidParam)?;
        self.change(index as usize, |queue| {
            queue.stop();
            queue.base = base;
            Ok(())
        })
    }

    fn get_vring_base(&self, index: u32) -> Result<VhostUserVringState> {
        let mut queues = self.queues.borrow_mut();
        let queue = queues.get_mut(index as usize).ok_or(Error::InvalidParam)?;
        queue.stop();
        queue.kick = None;
        queue.call.take();
        Ok(VhostUserVringState::new(index, queue.base.into()))
    }

    fn set_vring_kick(&self, index: u8, fd: Option<File>) -> Result<()> {
        let kick = fd.ok_or_else(|| refuse_because("a queue needs a kick descriptor"))?;
        let kick = Rc::new(bell(kick)?);
        self.change(index.into(), |queue| {
            queue.stop();
            queue.kick = Some(kick);
            Ok(())
        })
    }

    fn set_vring_call(&self, index: u8, fd: Option<File>) -> Result<()> {
        let call = fd.map(bell).transpose()?;
        self.change(index.into(), |queue| {
            queue.call.replace(call);
            if let Some(running) = &queue.running {
                // A call may just have gone to the former descriptor.
                running.vring.call();
            }
            Ok(())
        })
    }

    fn set_vring_err(&self, index: u8, fd: Option<File>) -> Result<()> {
        let error = fd.map(bell).transpose()?;
        self.change(index.into(), |queue| {
            queue.error.replace(error);
            Ok(())
        })
    }

    fn get_protocol_features(&self) -> Result<VhostUserProtocolFeatures> {
        Ok(protocol())
    }

    fn set_protocol_features(&self, features: u64) -> Result<()> {
        if features & !protocol().bits() != 0 {
            return Err(Error::FeatureMismatch);
        }
        Ok(())
    }

    fn get_queue_num(&self) -> Result<u64> {
        Ok(self.queues.borrow().len() as u64)
    }

    fn set_vring_enable(&self, index: u32, enable: bool) -> Result<()> {
        self.change(index as usize, |queue| {
            if !enable {
                queue.stop();
            }
            queue.enabled = enable;
            Ok(())
        })
    }

    fn get_config(&self, offset: u32, size: u32, _flags: VhostUserConfigFlags) -> Result<Vec<u8>> {
        let queues = self.queues.borrow().len() as u16;
        let space = config_space(&self.device.disk, queues);
        let end = offset.checked_add(size).ok_or(Error::InvalidParam)?;
        space
            .get(offset as usize..end as usize)
            .map(<[u8]>::to_vec)
            .ok_or(Error::InvalidParam)
    }

    fn set_config(&self, _offset: u32, _buf: &[u8], _flags: VhostUserConfigFlags) -> Result<()> {
        Err(Error::InvalidOperation("the configuration cannot be changed"))
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
        let memory = self.memory.borrow().with(place(region), fd).map_err(refuse)?;
        self.move_to(memory)?;
        Ok(None)
    }

    fn remove_mem_region(&self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        let memory = self.memory.borrow().without(place(region)).map_err(refuse)?;
        self.move_to(memory)
    }

    // What follows belongs to features that are not offered.

    fn set_gpu_socket(&self, _gpu: GpuBackend) -> Result<()> {
        Err(Error::InvalidOperation("not a GPU"))
    }

    fn get_shared_object(&self, _uuid: VhostUserSharedMsg) -> Result<File> {
        Err(Error::InvalidOperation("shared objects were not offered"))
    }

    fn get_inflight_fd(&self, _inflight: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        Err(Error::InvalidOperation("INFLIGHT_SHMFD was not offered"))
    }

    fn set_inflight_fd(&self, _inflight: &VhostUserInflight, _file: File) -> Result<()> {
        Err(Error::InvalidOperation("INFLIGHT_SHMFD was not offered"))
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

    fn set_log_base(&self, _log: &VhostUserLog, _file: File) -> Result<()> {
        Err(Error::InvalidOperation("LOG_SHMFD was not offered"))
    }
}
