//! A queue in arbitrary guest memory, beside a second, simpler reading of what its chains are.

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use rustix::event::EventfdFlags;
use rustix::fs::MemfdFlags;
use vm_memory::Bytes as _;

use crate::chain::{Buffer, Chain, LONGEST_CHAIN};
use crate::disk::{Disk, Source};
use crate::limit::LineLimit;
use crate::link::Link;
use crate::memory::{Memory, Place};
use crate::request::Device;
use crate::ring::{Ring, RingAddresses};
use crate::vring::{Vring, Wiring};

/// Two regions that touch: a buffer may lie in both, a table must not.
const FIRST: usize = 0x4000;
const SECOND: usize = 0x1000;
const ALL: usize = FIRST + SECOND;
/// Where the client says that guest address 0 is.
const USER: u64 = 1 << 40;
const AVAILABLE: u64 = 0x100;
const USED: u64 = 0x200;
const DISK: u64 = 1 << 16;
/// The guest may make the device feed itself; it is stopped after so many turns.
const TURNS: usize = 4;

/// The first byte chooses the queue's size and features, the second where it goes on, the rest is the guest's memory.
///
/// # Panics
/// If a chain is read in another way than the reference reads it, or the queue loses count of its requests.
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
    let mut chain = Chain::default();
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
    serve(ring, memory, base, how);
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

/// Runs the queue for a few turns on a small disk, with bytes around the guest's memory and the disk's that must not change.
fn serve(ring: Ring, memory: Memory, base: u8, how: u8) {
    let (Ok(disk), Ok((socket, _client))) = (
        Disk::open(&Source::Ram(DISK), how & 0x80 != 0),
        UnixStream::pair(),
    ) else {
        return;
    };
    let Ok(kick) = rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC) else {
        return;
    };
    let memory = Rc::new(memory);
    let vring = Vring::new(
        ring,
        base.into(),
        Wiring {
            index: 0,
            kick: Rc::new(kick.into()),
            call: Rc::default(),
            error: Rc::default(),
            memory: memory.clone(),
            device: Rc::new(Device::new(disk, "fuzz")),
            chain: Rc::new(RefCell::new(Chain::default())),
            link: Rc::new(Link::new(LineLimit::new("fuzz".into(), None), socket)),
            write_through: how & 0x40 != 0,
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
    // Whatever it was, the memory is still readable to its last byte.
    let last = memory.whole(ALL as u64 - 1, 1);
    assert!(last.is_some_and(|byte| byte.read_obj::<u8>(0).is_ok()));
}

type Buffers = (Vec<Buffer>, Vec<Buffer>);

/// What the specification says a chain is, in the plainest way: follow it through the bytes.
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
