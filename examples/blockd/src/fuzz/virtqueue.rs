//! A queue in arbitrary guest memory, compared with a second, simpler parser of descriptor chains.

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;

use rustix::event::EventfdFlags;
use rustix::fs::MemfdFlags;
use vm_memory::Bytes as _;

use crate::buffers::Buffer;
use crate::connection::Connection;
use crate::descriptor_chain::{DescriptorChain, LONGEST_CHAIN};
use crate::disk::{Disk, Source};
use crate::inflight::{InflightArea, Layout, Start, Tracking};
use crate::limit::LineLimit;
use crate::memory::{Memory, Place};
use crate::request::Device;
use crate::ring::{Ring, RingAddresses};
use crate::vring::{Vring, VringConfig};

/// Two adjacent regions: a buffer may lie in both, but an indirect table must not.
const FIRST: usize = 0x4000;
const SECOND: usize = 0x1000;
const ALL: usize = FIRST + SECOND;
/// The client's virtual address of guest address 0.
const USER: u64 = 1 << 40;
const AVAILABLE: u64 = 0x100;
const USED: u64 = 0x200;
const DISK: u64 = 1 << 16;
/// The number of turns. A queue whose requests write to its rings could run for ever without this limit.
const TURNS: usize = 4;

/// Runs a queue in a guest's memory. The first byte selects the queue's size and features, the second its
/// position. The other bytes are the memory. With a flag in the first byte, the second region also is the
/// in-flight region that a former daemon has left.
///
/// # Panics
/// If the parsers disagree about a chain, or if the queue's count of requests is wrong.
pub fn virtqueue(data: &[u8]) {
    let (&[how, base], contents) = data.split_at_checked(2).map_or((&[0, 0], data), |(start, rest)| {
        (start.try_into().unwrap_or(&[0, 0]), rest)
    });
    let mut image = vec![0; ALL];
    let len = contents.len().min(ALL);
    image[..len].copy_from_slice(&contents[..len]);
    let Some(memory) = memory_of(&image) else { return };
    let size = 1u16 << (how % 5);
    let addresses = RingAddresses {
        descriptors: USER,
        available: USER + AVAILABLE,
        used: USER + USED,
    };
    let Ok(ring) = Ring::find(&memory, addresses, size.into(), how & 0x20 != 0) else {
        return;
    };
    let mut chain = DescriptorChain::default();
    for head in 0..=size {
        let seen = chain
            .collect(&ring, &memory, head)
            .ok()
            .map(|()| (chain.readable.clone(), chain.writable.clone()));
        assert_eq!(
            seen,
            reference(&image, size, head),
            "the chain at {head} of {size}"
        );
    }
    let start = match how & 0x10 {
        0 => Start::untracked(&ring, base.into()),
        _ => match tracked(&ring, base, &image[FIRST..]) {
            Some(start) => start,
            None => return,
        },
    };
    serve(ring, memory, start, how);
}

/// Returns the start of a queue with in-flight tracking, whose region has these contents. `None` if the
/// contents are refused.
fn tracked(ring: &Ring, base: u8, contents: &[u8]) -> Option<Start> {
    let layout = Layout::of(1, ring.size(), 1).expect("a queue that exists");
    let file = layout.make().ok()?;
    let bytes = &contents[..layout.bytes() as usize];
    std::os::unix::fs::FileExt::write_all_at(&file, bytes, 0).ok()?;
    let area = InflightArea::map(layout, file, 0, layout.bytes()).ok()?;
    let start = Start::of(ring, base.into(), 0, Some(&area)).ok()?;
    let left = start.tracking.as_ref().map_or(0, Tracking::count_left);
    let outstanding = ring.available_index().wrapping_sub(ring.used_index());
    assert!(
        left <= ring.size() && left <= outstanding,
        "{left} requests are left of {outstanding}"
    );
    Some(start)
}

fn memory_of(image: &[u8]) -> Option<Memory> {
    let file: File = rustix::fs::memfd_create("guest", MemfdFlags::CLOEXEC)
        .ok()?
        .into();
    std::os::unix::fs::FileExt::write_all_at(&file, image, 0).ok()?;
    let place = |guest: usize, len: usize| Place {
        guest: guest as u64,
        user: USER + guest as u64,
        len: len as u64,
        offset: guest as u64,
    };
    let memory = Memory::default()
        .with(place(0, FIRST), file.try_clone().ok()?)
        .ok()?;
    memory.with(place(FIRST, SECOND), file).ok()
}

/// Runs the queue for a few turns on a small disk.
fn serve(ring: Ring, memory: Memory, start: Start, how: u8) {
    let (Ok(disk), Ok((socket, _client))) = (
        Disk::open(&Source::Ram(DISK), how & 0x80 != 0),
        UnixStream::pair(),
    ) else {
        return;
    };
    let Ok(kick) = rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC) else {
        return;
    };
    let memory = Arc::new(memory);
    let vring = Vring::new(
        ring,
        start,
        VringConfig {
            index: 0,
            kick: Arc::new(kick.into()),
            call: RefCell::default(),
            error: RefCell::default(),
            memory: memory.clone(),
            device: Arc::new(Device::new(disk, "fuzz")),
            workers: None,
            chain: Rc::new(RefCell::new(DescriptorChain::default())),
            stats: Rc::default(),
            log: None,
            used_log: None,
            connection: Rc::new(Connection::new(
                LineLimit::new("fuzz".into(), None),
                Arc::new(socket),
            )),
            write_through: how & 0x40 != 0,
            call_price: std::time::Duration::ZERO,
        },
    );
    let (first_available, first_used) = vring.positions();
    vring.start();
    for _ in 0..TURNS {
        vring.run();
    }
    let (next_available, next_used) = vring.positions();
    assert_eq!(
        next_available.wrapping_sub(first_available),
        next_used.wrapping_sub(first_used),
        "requests taken and requests reported"
    );
    // The memory is still readable up to its last byte.
    let last = memory.whole(ALL as u64 - 1, 1);
    assert!(last.is_some_and(|byte| byte.read_obj::<u8>(0).is_ok()));
}

type Buffers = (Vec<Buffer>, Vec<Buffer>);

/// Parses a chain as the specification defines it, byte by byte.
fn reference(image: &[u8], size: u16, head: u16) -> Option<Buffers> {
    let mut found = (Vec::new(), Vec::new());
    let mut table = &image[..usize::from(size) * 16];
    let mut index = head;
    let (mut steps, mut indirect) = (0, false);
    loop {
        let entry = table.get(usize::from(index) * 16..usize::from(index) * 16 + 16)?;
        let number = |range: std::ops::Range<usize>| {
            entry[range]
                .iter()
                .rev()
                .fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let (addr, len, flags, next) = (number(0..8), number(8..12), number(12..14), number(14..16));
        if flags & 4 != 0 {
            let (start, end) = (
                usize::try_from(addr).ok()?,
                usize::try_from(addr.checked_add(len)?).ok()?,
            );
            let one_region = end <= FIRST || (start >= FIRST && end <= ALL);
            if indirect || flags & 1 != 0 || len == 0 || len % 16 != 0 || !one_region {
                return None;
            }
            table = &image[start..end];
            (index, steps, indirect) = (0, 0, true);
            continue;
        }
        let buffer = Buffer {
            guest: addr,
            len: len as u32,
        };
        if flags & 2 != 0 {
            found.1.push(buffer);
        } else if found.1.is_empty() {
            found.0.push(buffer);
        } else {
            return None;
        }
        steps += 1;
        if flags & 1 == 0 {
            return Some(found);
        }
        if steps >= (table.len() / 16).min(LONGEST_CHAIN) {
            return None;
        }
        index = next as u16;
    }
}
