//! A daemon that is killed after any store, beside a driver that records which of its requests are complete;
//! and regions of any contents.

mod hostile;

use std::fs::File;
use std::sync::Arc;

use vm_memory::VolatileMemory as _;

use super::kill_point::{after_store, stores};
use super::{InflightArea, Layout, Start, Tracking, live};
use crate::memory::Memory;
use crate::memory::tests::simple;
use crate::ring::{Ring, RingAddresses};

const SIZE: u16 = 8;
const USER: u64 = 0x7000_0000;
const GUEST: u64 = 0x1000;
const AT: RingAddresses = RingAddresses {
    descriptors: USER,
    available: USER + 0x1000,
    used: USER + 0x2000,
};

/// The state that outlives daemons: the rings, the area, and the records of the driver.
struct Scene {
    memory: Memory,
    area: File,
    layout: Layout,
    offered: u16,
    /// The position up to which the driver has read the used ring.
    seen: u16,
    free: Vec<u16>,
    /// The heads of incomplete requests, in the order in which they were offered.
    outstanding: Vec<u16>,
}

impl Scene {
    /// Returns a queue at this position without outstanding requests.
    fn at(position: u16) -> Self {
        let layout = Layout::of(2, SIZE, 2).unwrap();
        let scene = Self {
            memory: simple(0x4000),
            area: layout.make().unwrap(),
            layout,
            offered: position,
            seen: position,
            free: (0..SIZE).collect(),
            outstanding: Vec::new(),
        };
        scene.put(0x1002, position);
        scene.put(0x2002, position);
        scene
    }

    fn put(&self, at: u64, value: u16) {
        let place = self.memory.whole(GUEST + at, 2).unwrap();
        place.get_ref::<u16>(0).unwrap().store(value);
    }

    fn get(&self, at: u64) -> u16 {
        let place = self.memory.whole(GUEST + at, 2).unwrap();
        place.get_ref::<u16>(0).unwrap().load()
    }

    fn ring(&self) -> Ring {
        Ring::find(&self.memory, AT, SIZE.into(), false).unwrap()
    }

    fn map(&self) -> Arc<InflightArea> {
        let file = self.area.try_clone().unwrap();
        Arc::new(InflightArea::map(self.layout, file, 0, self.layout.bytes()).unwrap())
    }

    /// Offers a request, unless all heads are in use.
    fn offer(&mut self, random: &mut fastrand::Rng) {
        if self.free.is_empty() {
            return;
        }
        let head = self.free.swap_remove(random.usize(..self.free.len()));
        self.put(0x1004 + 2 * u64::from(self.offered % SIZE), head);
        self.offered = self.offered.wrapping_add(1);
        self.put(0x1002, self.offered);
        self.outstanding.push(head);
    }

    /// Takes the completions as the driver. Each must be of an incomplete request.
    fn take_completions(&mut self) {
        let used = self.get(0x2002);
        while self.seen != used {
            let head = self.get(0x2004 + 8 * u64::from(self.seen % SIZE));
            let at = self.outstanding.iter().position(|other| *other == head);
            let at = at.unwrap_or_else(|| panic!("{head} is completed again, of {:?}", self.outstanding));
            self.outstanding.remove(at);
            self.free.push(head);
            self.seen = self.seen.wrapping_add(1);
        }
    }
}

/// A daemon with one queue.
struct Daemon {
    ring: Ring,
    tracking: Tracking,
    next_available: u16,
    next_used: u16,
    begun: Vec<u16>,
}

impl Daemon {
    fn start(scene: &Scene, base: u16) -> Self {
        let ring = scene.ring();
        let start = Start::of(&ring, base, 1, Some(&scene.map())).unwrap();
        Self {
            next_available: start.next_available,
            next_used: ring.used_index(),
            tracking: start.tracking.unwrap(),
            ring,
            begun: Vec::new(),
        }
    }

    /// Returns all requests that this daemon will complete, in the order in which they were offered.
    fn to_complete(&self) -> Vec<u16> {
        let left = self.tracking.left.borrow().clone();
        let count = self.ring.available_index().wrapping_sub(self.next_available);
        let new = (0..count).map(|at| self.ring.available_entry(self.next_available.wrapping_add(at)));
        left.into_iter().chain(new).collect()
    }

    fn take(&mut self) -> Option<u16> {
        if self.ring.available_index() == self.next_available {
            return None;
        }
        let head = self.ring.available_entry(self.next_available);
        self.next_available = self.next_available.wrapping_add(1);
        Some(head)
    }

    /// Fills an entry of the used ring for each head and publishes them together.
    fn publish(&mut self, heads: &[u16]) {
        for head in heads {
            self.ring.set_used_entry(self.next_used, *head, 1);
            after_store();
            self.next_used = self.next_used.wrapping_add(1);
        }
        self.ring.publish(self.next_used);
        after_store();
    }

    fn complete_one(&mut self, head: u16, is_marked: bool) {
        let (ring, at) = (&self.ring, self.next_used);
        let used = at.wrapping_add(1);
        let publish = || {
            ring.set_used_entry(at, head, 1);
            after_store();
            ring.publish(used);
            after_store();
            used
        };
        match is_marked {
            true => self.tracking.complete(head, publish),
            false => self.tracking.complete_unmarked(head, publish),
        }
        self.next_used = used;
    }

    /// Takes one random step that a queue may take. Requests that a former daemon has left come first.
    fn step(&mut self, random: &mut fastrand::Rng) {
        if random.bool() && !self.begun.is_empty() {
            let head = self.begun.swap_remove(random.usize(..self.begun.len()));
            self.complete_one(head, true);
        } else if let Some(head) = self.tracking.first_left() {
            self.tracking.forget_first_left();
            self.begun.push(head);
        } else if self.begun.is_empty() && random.bool() {
            // The loop executes these requests at once.
            let count = random.usize(1..4);
            let heads: Vec<u16> = (0..count).map_while(|_| self.take()).collect();
            self.publish(&heads);
        } else if let Some(head) = self.take() {
            if random.u8(..3) == 0 {
                self.complete_one(head, false);
            } else {
                self.tracking.mark(head, self.next_used);
                self.begun.push(head);
            }
        }
    }
}

/// Returns the position that a client sets when it reconnects: the used index, the available index, or one in
/// between.
fn base(scene: &Scene, random: &mut fastrand::Rng) -> u16 {
    let outstanding = scene.outstanding.len() as u16;
    scene.seen.wrapping_add(match random.u8(..3) {
        0 => 0,
        1 => outstanding,
        _ => random.u16(..=outstanding),
    })
}

/// Runs a daemon that is killed after `until_kill` stores, or else ends after some steps.
fn run(scene: &mut Scene, random: &mut fastrand::Rng, until_kill: Option<u32>) -> bool {
    let base = base(scene, random);
    live(until_kill, || {
        let mut daemon = Daemon::start(scene, base);
        for _ in 0..random.u8(10..40) {
            for _ in 0..random.u8(..3) {
                scene.offer(random);
            }
            daemon.step(random);
            scene.take_completions();
        }
    })
}

/// Checks that the next daemon completes the incomplete requests, each once, in the order in which they were
/// offered.
fn check(scene: &mut Scene, random: &mut fastrand::Rng) {
    scene.take_completions();
    let base = base(scene, random);
    let daemon = Daemon::start(scene, base);
    assert_eq!(daemon.to_complete(), scene.outstanding);
}

/// In its first life the daemon is killed after each of its stores in turn. In its second life it is killed
/// at any point, also while it recovers.
#[test]
fn c6_a_daemon_killed_after_any_store_leaves_what_is_not_complete() {
    let seed = std::env::var("AIO_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("AIO_SEED={seed}");
    let mut kills = 0;
    for scenario in 0..20 {
        let begin = || {
            let mut random = fastrand::Rng::with_seed(seed.wrapping_add(scenario));
            let position = [0, 0xfffc, random.u16(..)][random.usize(..3)];
            (Scene::at(position), random)
        };
        let (mut scene, mut random) = begin();
        let before = stores();
        assert!(!run(&mut scene, &mut random, None));
        let stores = stores() - before;
        check(&mut scene, &mut random);
        for until_kill in 1..=stores {
            let (mut scene, mut random) = begin();
            assert!(run(&mut scene, &mut random, Some(until_kill)));
            check(&mut scene, &mut random);
            let second = random.u32(1..40);
            kills += 1 + u32::from(run(&mut scene, &mut random, Some(second)));
            check(&mut scene, &mut random);
            // The third daemon completes all requests.
            let base = base(&scene, &mut random);
            let mut daemon = Daemon::start(&scene, base);
            while !daemon.to_complete().is_empty() || !daemon.begun.is_empty() {
                daemon.step(&mut random);
            }
            scene.take_completions();
            assert!(scene.outstanding.is_empty());
        }
    }
    println!("{kills} kills");
    assert!(kills > 1000);
}

/// A request that is not marked must enter the list: without it, the next daemon takes an older head from the
/// list.
#[test]
fn c6_an_unmarked_request_that_does_not_enter_the_list_costs_a_mark() {
    for enters_list in [false, true] {
        let mut scene = Scene::at(0);
        let mut random = fastrand::Rng::with_seed(0);
        scene.offer(&mut random);
        let mut daemon = Daemon::start(&scene, 0);
        let again = daemon.take().unwrap();
        daemon.tracking.mark(again, daemon.next_used);
        daemon.complete_one(again, true);
        scene.take_completions();
        // The driver uses the same head again. It is in flight while the next request completes.
        let others = std::mem::replace(&mut scene.free, vec![again]);
        scene.offer(&mut random);
        scene.free.extend(others.iter().filter(|head| **head != again));
        scene.offer(&mut random);
        daemon.take().unwrap();
        daemon.tracking.mark(again, daemon.next_used);
        let second = daemon.take().unwrap();
        if enters_list {
            // The daemon is killed before the region has the new used index.
            assert!(live(Some(4), || daemon.complete_one(second, false)));
        } else {
            daemon.publish(&[second]);
        }
        scene.take_completions();
        assert_eq!(scene.outstanding, [again]);
        let next = Daemon::start(&scene, 0).to_complete();
        assert_eq!(next == scene.outstanding, enters_list, "{next:?}");
    }
}

/// A daemon of another kind may publish several completions together, before it removes their marks.
#[test]
fn c6_marks_of_a_batch_that_was_published_do_not_count() {
    for removed in 0..=3 {
        let mut scene = Scene::at(0xfffe);
        let mut random = fastrand::Rng::with_seed(removed);
        (0..6).for_each(|_| scene.offer(&mut random));
        let mut daemon = Daemon::start(&scene, 0xfffe);
        let heads: Vec<u16> = (0..5).map_while(|_| daemon.take()).collect();
        for head in &heads {
            daemon.tracking.mark(*head, daemon.next_used);
        }
        let batch = [heads[3], heads[0], heads[2]];
        for head in batch {
            daemon.tracking.enlist(head);
        }
        daemon.publish(&batch);
        for head in &batch[..removed as usize] {
            daemon.tracking.region.set_in_flight(*head, false);
        }
        drop(daemon);
        scene.take_completions();
        let next = Daemon::start(&scene, scene.offered);
        assert_eq!(next.tracking.left.borrow().clone(), [heads[1], heads[4]]);
        assert_eq!(next.to_complete(), scene.outstanding);
        assert_eq!(next.next_available, 0xfffe_u16.wrapping_add(5));
    }
}

/// A queue whose requests the loop executes stores nothing while it runs. Its first mark begins with the
/// right used index.
#[test]
fn c6_nothing_is_stored_while_nothing_is_in_flight() {
    let mut scene = Scene::at(0);
    let mut random = fastrand::Rng::with_seed(1);
    let mut daemon = Daemon::start(&scene, 0);
    let bytes = |scene: &Scene| hostile::contents(&scene.area);
    let before = bytes(&scene);
    for _ in 0..1000 {
        scene.offer(&mut random);
        let head = daemon.take().unwrap();
        daemon.complete_one(head, false);
        scene.take_completions();
    }
    assert_eq!(bytes(&scene), before);
    scene.offer(&mut random);
    let head = daemon.take().unwrap();
    daemon.tracking.mark(head, daemon.next_used);
    drop(daemon);
    assert_eq!(Daemon::start(&scene, 0).to_complete(), [head]);
}
