//! Queues of a disk in memory, without a loop.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;

use rustix::event::EventfdFlags;
use vm_memory::{Bytes as _, VolatileMemory as _};

use super::{REQUESTS_PER_TURN, Start, Vring, VringConfig};
use crate::connection::Connection;
use crate::descriptor_chain::DescriptorChain;
use crate::disk::{Disk, Source};
use crate::inflight::{InflightArea, Layout, live};
use crate::limit::LineLimit;
use crate::memory::Memory;
use crate::memory::tests::simple;
use crate::request::Device;
use crate::ring::{Ring, RingAddresses};

const GUEST: u64 = 0x1000;
const USER: u64 = 0x7000_0000;
const SIZE: u16 = 1024;
const AVAILABLE: u64 = 0x4000;
const USED: u64 = 0x5000;
const AT: RingAddresses = RingAddresses {
    descriptors: USER,
    available: USER + AVAILABLE,
    used: USER + USED,
};
/// The address of the header and status of all requests. Each is a read of no bytes.
const HEADER: u64 = GUEST + 0x8000;

/// A queue whose driver has offered requests at all heads from 0 on. A former daemon has left some of them.
struct Scene {
    vring: Rc<Vring>,
    memory: Arc<Memory>,
    area: File,
    kick: Arc<File>,
}

impl Scene {
    fn new(offered: u16, left: u16) -> Self {
        let memory = Arc::new(simple(0x1_0000));
        for head in 0..SIZE / 2 {
            describe(&memory, head, HEADER, 16, 1, SIZE / 2 + head);
            describe(&memory, SIZE / 2 + head, HEADER + 16, 1, 2, 0);
            put(&memory, AVAILABLE + 4 + 2 * u64::from(head), head);
        }
        put(&memory, AVAILABLE + 2, offered);
        let area = layout().make().unwrap();
        let former = start(&memory, &area).tracking.unwrap();
        (0..left).for_each(|head| former.mark(head, 0));
        Self::of(memory, area)
    }

    /// Returns the queue of the next daemon.
    fn again(self) -> Self {
        Self::of(self.memory, self.area)
    }

    fn of(memory: Arc<Memory>, area: File) -> Self {
        let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
        let kick: Arc<File> = Arc::new(rustix::event::eventfd(0, flags).unwrap().into());
        let (socket, _) = UnixStream::pair().unwrap();
        let config = VringConfig {
            index: 0,
            kick: kick.clone(),
            call: Default::default(),
            error: Default::default(),
            memory: memory.clone(),
            device: Arc::new(Device::new(
                Disk::open(&Source::Ram(1 << 20), false).unwrap(),
                "a",
            )),
            workers: None,
            chain: Rc::new(DescriptorChain::default().into()),
            connection: Rc::new(Connection::new(
                LineLimit::new("a".into(), None),
                Arc::new(socket),
            )),
            stats: Rc::default(),
            log: None,
            used_log: None,
            write_through: false,
            call_price: std::time::Duration::ZERO,
        };
        Self {
            vring: Vring::new(ring(&memory), start(&memory, &area), config),
            memory,
            area,
            kick,
        }
    }

    /// Runs the queue as often as it has scheduled itself. Returns the number of turns.
    fn run(&self) -> u32 {
        let mut turns = 0;
        while rustix::io::read(&*self.kick, &mut [0; 8]).is_ok() {
            self.vring.run();
            turns += 1;
        }
        turns
    }

    fn used(&self) -> u16 {
        let index = self.memory.whole(GUEST + USED + 2, 2).unwrap();
        index.read_obj(0).unwrap()
    }

    /// Returns the heads in the used ring, in the order of its entries.
    fn heads(&self) -> Vec<u32> {
        let head = |at: u16| {
            let entry = self.memory.whole(GUEST + USED + 4 + 8 * u64::from(at), 4);
            entry.unwrap().read_obj(0).unwrap()
        };
        (0..self.used()).map(head).collect()
    }

    fn marks(&self) -> u16 {
        let mut bytes = vec![0; self.area.metadata().unwrap().len() as usize];
        std::os::unix::fs::FileExt::read_exact_at(&self.area, &mut bytes, 0).unwrap();
        (0..usize::from(SIZE))
            .map(|head| u16::from(bytes[16 + 16 * head]))
            .sum()
    }
}

fn layout() -> Layout {
    Layout::of(1, SIZE, 1).unwrap()
}

fn ring(memory: &Memory) -> Ring {
    Ring::find(memory, AT, SIZE.into(), false).unwrap()
}

fn start(memory: &Memory, area: &File) -> Start {
    let map = InflightArea::map(layout(), area.try_clone().unwrap(), 0, layout().bytes()).unwrap();
    Start::of(&ring(memory), 0, 0, Some(&map)).unwrap()
}

fn put(memory: &Memory, at: u64, value: u16) {
    memory.whole(GUEST + at, 2).unwrap().write_obj(value, 0).unwrap();
}

fn describe(memory: &Memory, index: u16, at: u64, len: u32, flags: u16, next: u16) {
    let descriptor = virtio_queue::desc::split::Descriptor::new(at, len, flags, next);
    let place = memory.whole(GUEST + 16 * u64::from(index), 16).unwrap();
    place.get_ref(0).unwrap().store(descriptor);
}

/// The requests that were left take more than one turn, with and without polling. New requests come after
/// them.
#[test]
fn c6_what_was_left_is_executed_in_turns() {
    for (is_polled, new) in [(false, 0), (false, 3), (true, 0), (true, 3)] {
        let left = 2 * REQUESTS_PER_TURN as u16 + 1;
        let scene = Scene::new(left + new, left);
        assert_eq!((scene.used(), scene.marks()), (0, left));
        assert_eq!(scene.vring.positions(), (0, 0));
        if is_polled {
            aio_context::Pollable::poll_begin(&*scene.vring);
        }
        scene.vring.start();
        let turns = scene.run();
        assert_eq!(turns, 3, "polled: {is_polled}, {new} new");
        assert_eq!((scene.used(), scene.marks()), (left + new, 0));
        assert_eq!(scene.vring.positions(), (left + new, left + new));
    }
}

/// A held queue executes the requests that were left, and takes no new ones.
#[test]
fn c6_a_queue_that_is_held_takes_only_what_was_left() {
    for left in [1, REQUESTS_PER_TURN as u16 + 1] {
        let scene = Scene::new(left + 3, left);
        scene.vring.start();
        assert!(!scene.vring.hold());
        scene.run();
        assert!(scene.vring.hold());
        assert_eq!((scene.used(), scene.marks()), (left, 0));
        scene.vring.release();
        scene.run();
        assert_eq!(scene.used(), left + 3);
        assert_eq!(scene.vring.stop(), left + 3);
    }
}

/// A queue that stops before it has executed all requests leaves the rest.
#[test]
fn c6_a_queue_that_stops_leaves_the_rest() {
    let left = 2 * REQUESTS_PER_TURN as u16;
    let scene = Scene::new(left, left);
    scene.vring.run();
    let done = REQUESTS_PER_TURN as u16;
    assert_eq!((scene.used(), scene.marks()), (done, left - done));
    assert_eq!(scene.vring.stop(), done);
    scene.run();
    assert_eq!(scene.used(), done);
}

/// The queue is killed after each of its stores, and so is the next one. Each request completes once, and
/// those that were left complete first.
#[test]
fn c6_a_queue_killed_while_it_executes_what_was_left_completes_each_once() {
    const LEFT: u16 = 5;
    const ALL: u16 = LEFT + 3;
    let serve = |scene: &Scene| {
        scene.vring.start();
        scene.run();
    };
    let mut kills = 0;
    for first in 1.. {
        let scene = Scene::new(ALL, LEFT);
        if !live(Some(first), || serve(&scene)) {
            break;
        }
        kills += 1;
        let scene = scene.again();
        live(Some(first.div_ceil(2)), || serve(&scene));
        let scene = scene.again();
        serve(&scene);
        let heads = scene.heads();
        assert_eq!(
            heads,
            (0..u32::from(ALL)).collect::<Vec<_>>(),
            "killed after {first} stores"
        );
        assert_eq!((scene.used(), scene.marks()), (ALL, 0));
    }
    assert_eq!(kills, 4 * u32::from(LEFT));
}
