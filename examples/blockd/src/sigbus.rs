//! Handles bus errors (SIGBUS) in a client's memory, so that the process survives them.
//!
//! A client can truncate the file behind memory that it shares. The pages are then lost, and an access to
//! them raises SIGBUS, which would end the daemon. Therefore every mapping of a client's memory has a
//! [`Protection`]. The handler of SIGBUS maps empty private pages over the whole mapping and marks it as
//! lost, and the interrupted access continues. The queue that made the access then detects this by
//! [`Protection::is_lost`] and ends the connection. Any other SIGBUS ends the process as usual.
//!
//! A check of the file's length before each access is not enough, because the client can truncate the file a
//! moment later. Seals exist for memfds only, and do not prevent a shortage of huge pages.
#![allow(unsafe_code, reason = "a signal handler, and one mapping put over another")]

use std::ffi::c_void;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, compiler_fence};

use libc::{SIGBUS, c_int, siginfo_t};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use vm_memory::MmapRegion;

/// The most mappings of the whole process that are protected at the same time.
const MOST_MAPPINGS: usize = 32_768;
/// The start of a slot that a thread is filling. No mapping begins at this address.
const CLAIMED: usize = 1;

/// All protected mappings. The signal handler reads them without a lock.
static SLOTS: [Slot; MOST_MAPPINGS] = [const { Slot::new() }; MOST_MAPPINGS];
/// The number of lost mappings. Every request compares it.
static LOSSES: AtomicU32 = AtomicU32::new(0);

/// The range of one mapping. `start` is 0 while there is none.
#[derive(Debug)]
struct Slot {
    start: AtomicUsize,
    len: AtomicUsize,
    lost: AtomicBool,
}

impl Slot {
    const fn new() -> Self {
        Self {
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            lost: AtomicBool::new(false),
        }
    }
}

/// The protection of one mapping against SIGBUS. It must be dropped before the mapping is.
#[derive(Debug)]
pub(crate) struct Protection {
    slot: &'static Slot,
}

impl Protection {
    /// Starts to protect `map`.
    ///
    /// # Errors
    /// If the process has too many mappings, or the system refuses the signal handler.
    pub(crate) fn of(map: &MmapRegion) -> io::Result<Self> {
        install_handler()?;
        let claim = |slot: &&Slot| {
            // With many clients most slots are claimed, and a load costs less than an attempt.
            if slot.start.load(Ordering::Relaxed) != 0 {
                return false;
            }
            let claimed = slot
                .start
                .compare_exchange(0, CLAIMED, Ordering::Acquire, Ordering::Relaxed);
            claimed.is_ok()
        };
        let slot = SLOTS.iter().find(claim).ok_or_else(|| {
            io::Error::other(format!(
                "all clients together have more than {MOST_MAPPINGS} memory regions"
            ))
        })?;
        slot.len.store(map.size(), Ordering::Relaxed);
        slot.lost.store(false, Ordering::Relaxed);
        slot.start.store(map.as_ptr() as usize, Ordering::Release);
        Ok(Self { slot })
    }

    /// Returns `true` if the mapping has lost its pages and has empty ones instead.
    pub(crate) fn is_lost(&self) -> bool {
        self.slot.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Protection {
    fn drop(&mut self) {
        self.slot.start.store(0, Ordering::Release);
    }
}

/// Returns the number of mappings lost so far. The thread whose access lost a mapping sees the new number at
/// once.
#[inline]
pub(crate) fn losses() -> u32 {
    // The handler runs on the thread of the access, so only the compiler could move this load before the access.
    compiler_fence(Ordering::SeqCst);
    LOSSES.load(Ordering::Relaxed)
}

/// Installs the handler, once. It replaces the standard library's handler, which would end the process at the
/// second SIGBUS. That handler reports stack overflows, which raise another signal on Linux.
fn install_handler() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| {
        vmm_sys_util::signal::register_signal_handler(SIGBUS, on_sigbus).map_err(|error| error.errno())
    });
    installed.map_err(io::Error::from_raw_os_error)
}

/// Handles SIGBUS. It may interrupt any code, so it consists of loads, stores and system calls.
extern "C" fn on_sigbus(signal: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel passes a valid description of the signal to a handler that is installed with
    // SA_SIGINFO, and the description of a fault (a positive code) has an address.
    let at = unsafe {
        let info = &*info;
        (info.si_code > 0).then(|| info.si_addr() as usize)
    };
    if !at.is_some_and(map_empty_pages) {
        // This is a fault of this program, or a signal from another process, so the default action follows.
        drop(signal_hook::low_level::emulate_default_handler(signal));
    }
}

/// Replaces the pages of the protected mapping that contains an address. Returns `false` if there is none.
fn map_empty_pages(at: usize) -> bool {
    let found = SLOTS.iter().find(|slot| {
        let start = slot.start.load(Ordering::Acquire);
        start > CLAIMED && at.wrapping_sub(start) < slot.len.load(Ordering::Relaxed)
    });
    let Some(slot) = found else { return false };
    let start = slot.start.load(Ordering::Relaxed);
    let len = slot.len.load(Ordering::Relaxed);
    let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
    let empty =
        // SAFETY: the range is a mapping that its `MmapRegion` owns and will unmap with its contents of that
        // time. It is accessed by volatile and atomic operations only, which allow any contents and any
        // change.
        unsafe { mmap_anonymous(start as *mut c_void, len, ProtFlags::READ | ProtFlags::WRITE, flags) };
    if empty.is_err() {
        return false;
    }
    slot.lost.store(true, Ordering::Relaxed);
    LOSSES.fetch_add(1, Ordering::Relaxed);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;
    use crate::memory::tests::{file, place};
    use vm_memory::Bytes;

    #[test]
    fn a_file_cut_short_is_survived_again_and_again() {
        for _ in 0..3 {
            let shared = file(0x4000);
            let other = file(0x1000);
            let memory = Memory::default()
                .with(place(0, 0, 0x4000), shared.try_clone().unwrap())
                .unwrap()
                .with(place(0x8000, 0x8000, 0x1000), other)
                .unwrap();
            memory.whole(0x3000, 4).unwrap().write_obj(7u32, 0).unwrap();
            memory.whole(0x8000, 4).unwrap().write_obj(8u32, 0).unwrap();
            shared.set_len(0x1000).unwrap();
            let before = losses();
            assert!(!memory.is_lost());
            assert_eq!(memory.whole(0x3000, 4).unwrap().read_obj::<u32>(0).unwrap(), 0);
            memory.whole(0x2000, 4).unwrap().write_obj(1u32, 0).unwrap();
            assert!(memory.is_lost());
            assert_ne!(losses(), before);
            assert_eq!(
                memory.whole(0x8000, 4).unwrap().read_obj::<u32>(0).unwrap(),
                8,
                "another region is as it was"
            );
        }
    }

    #[test]
    fn slots_are_used_again() {
        for _ in 0..MOST_MAPPINGS + 1 {
            let map = MmapRegion::new(0x1000).unwrap();
            assert!(!Protection::of(&map).unwrap().is_lost());
        }
        assert!(!map_empty_pages(0));
        assert!(!map_empty_pages(CLAIMED));
        assert!(!map_empty_pages(usize::MAX));
    }
}
