//! Survives what a client does to the file behind memory that it shares: cut short, its pages are gone, and touching them
//! is a bus error that would end the daemon.
//!
//! Every mapping of a client's memory has a [`Guard`]. A bus error inside it puts empty private pages over the whole
//! mapping and marks it as lost, so that the interrupted access goes on; whoever works for that client then finds
//! [`Guard::is_lost`] and cuts it. A bus error anywhere else ends the process as ever.
//!
//! Looking at the file's length before each access would not do, because the client can cut it a moment later, and seals
//! do not reach files that are no memfd, nor huge pages that have run out.
#![allow(unsafe_code, reason = "a signal handler, and one mapping put over another")]

use std::ffi::c_void;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, compiler_fence};

use libc::{SIGBUS, c_int, siginfo_t};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use vm_memory::MmapRegion;

/// More mappings than this cannot be guarded at a time, by the whole process.
const MOST_GUARDS: usize = 8192;
/// A slot that somebody is filling. No mapping begins at this address.
const CLAIMED: usize = 1;

/// All guarded mappings, where a signal handler can find them without a lock.
static SLOTS: [Slot; MOST_GUARDS] = [const { Slot::new() }; MOST_GUARDS];
/// How many mappings have been lost: what is looked at on the fast path.
static LOSSES: AtomicU32 = AtomicU32::new(0);

/// The place of one mapping; `start` is 0 while there is none.
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

/// Watches over one mapping until it is dropped, which must happen before the mapping goes.
#[derive(Debug)]
pub(crate) struct Guard {
    slot: &'static Slot,
}

impl Guard {
    /// Watches over `map`.
    ///
    /// # Errors
    /// If there are too many guards, or the system does not let bus errors be handled.
    pub(crate) fn over(map: &MmapRegion) -> io::Result<Self> {
        handle_bus_errors()?;
        let claim = |slot: &&Slot| {
            let claimed = slot
                .start
                .compare_exchange(0, CLAIMED, Ordering::Acquire, Ordering::Relaxed);
            claimed.is_ok()
        };
        let slot = SLOTS.iter().find(claim).ok_or_else(|| {
            io::Error::other(format!("more than {MOST_GUARDS} memory regions of all clients"))
        })?;
        slot.len.store(map.size(), Ordering::Relaxed);
        slot.lost.store(false, Ordering::Relaxed);
        slot.start.store(map.as_ptr() as usize, Ordering::Release);
        Ok(Self { slot })
    }

    /// Whether its pages are gone, and empty ones in their place.
    pub(crate) fn is_lost(&self) -> bool {
        self.slot.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.slot.start.store(0, Ordering::Release);
    }
}

/// Changes whenever a mapping is lost. The thread that touched it sees the change at once.
#[inline]
pub(crate) fn losses() -> u32 {
    // The handler interrupts this very thread: only the compiler could move this before what was touched.
    compiler_fence(Ordering::SeqCst);
    LOSSES.load(Ordering::Relaxed)
}

/// Installs the handler, once. The standard library's own, for stack overflows, would end the process at the second
/// bus error, so it is replaced, not called as well; on Linux a stack overflow is another signal.
fn handle_bus_errors() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| {
        vmm_sys_util::signal::register_signal_handler(SIGBUS, on_bus_error).map_err(|error| error.errno())
    });
    installed.map_err(io::Error::from_raw_os_error)
}

/// Only loads, stores and system calls: it may interrupt anything.
extern "C" fn on_bus_error(signal: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel gives a handler that is installed with SA_SIGINFO a valid description of the signal, and one of
    // a fault (a positive code) has an address.
    let at = unsafe {
        let info = &*info;
        (info.si_code > 0).then(|| info.si_addr() as usize)
    };
    if !at.is_some_and(put_empty_pages) {
        // Nobody's mapping, so a fault of this program or somebody's kill: what would happen without this handler.
        drop(signal_hook::low_level::emulate_default_handler(signal));
    }
}

/// Replaces the guarded mapping around an address; false if there is none.
fn put_empty_pages(at: usize) -> bool {
    let found = SLOTS.iter().find(|slot| {
        let start = slot.start.load(Ordering::Acquire);
        start > CLAIMED && at.wrapping_sub(start) < slot.len.load(Ordering::Relaxed)
    });
    let Some(slot) = found else { return false };
    let start = slot.start.load(Ordering::Relaxed);
    let len = slot.len.load(Ordering::Relaxed);
    let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
    let empty =
        // SAFETY: the range is a mapping that its `MmapRegion` owns and will unmap, whatever lies there by then; it is
        // accessed by volatile and atomic operations only, for which any contents and any change are fine.
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
        for _ in 0..MOST_GUARDS + 1 {
            let map = MmapRegion::new(0x1000).unwrap();
            assert!(!Guard::over(&map).unwrap().is_lost());
        }
        assert!(!put_empty_pages(0));
        assert!(!put_empty_pages(CLAIMED));
        assert!(!put_empty_pages(usize::MAX));
    }
}
