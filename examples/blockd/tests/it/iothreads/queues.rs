//! One export whose queues are on several threads. They are stopped, moved in memory and started while
//! requests are executed.

use std::collections::VecDeque;

use fastrand::Rng;
use serde_json::json;
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vmm_sys_util::eventfd::EFD_NONBLOCK;

use super::Threads;
use crate::client::{Client, Indexes, STALLED, Waits, eventfd, is_signalled, pattern};
use crate::images::Image;
use crate::raw::{HEADER, NEXT, Raw};
use crate::seed;

const SECTOR: usize = 512;
/// Sectors of each queue.
const PART: u64 = 64;
const SLOTS: u16 = 5;
const STEPS: usize = 400;

/// A queue, and the records of its client.
struct Lane {
    raw: Raw,
    /// The seeds of the sectors that it has written.
    written: Vec<Option<u64>>,
    /// Requests that were offered and are not known to be complete: slot, sector, and the seed of a write.
    offered: VecDeque<(u16, u64, Option<u64>)>,
    next_slot: u16,
    is_stopped: bool,
}

impl Lane {
    fn new(raw: Raw, written: &[Option<u64>]) -> Self {
        Self {
            raw,
            written: written.to_vec(),
            offered: VecDeque::new(),
            next_slot: 0,
            is_stopped: false,
        }
    }

    /// Returns the sector of the disk. Each queue has a part of the disk for itself.
    fn sector(&self, sector: u64) -> u64 {
        self.raw.queue as u64 * PART + sector
    }

    /// Offers a request, and first waits for earlier ones where that is necessary.
    fn offer(&mut self, random: &mut Rng) {
        let sector = random.u64(..PART);
        if !self.can_offer(sector) {
            self.finish();
        }
        self.offer_at(sector, random);
    }

    /// Returns `true` if no other request of the same sector is outstanding, which this one could overtake.
    fn can_offer(&self, sector: u64) -> bool {
        let is_used = self.offered.iter().any(|(_, other, _)| *other == sector);
        self.offered.len() < usize::from(SLOTS) && !is_used
    }

    fn offer_at(&mut self, sector: u64, random: &mut Rng) {
        let slot = self.next_slot;
        self.next_slot = (slot + 1) % SLOTS;
        let seed = random.bool().then(|| random.u64(..));
        let head = match seed {
            Some(seed) => self
                .raw
                .prepare_write(slot, self.sector(sector), &pattern(seed, SECTOR)),
            None => self.raw.prepare_read(slot, self.sector(sector)),
        };
        self.offered.push_back((slot, sector, seed));
        self.raw.offer_as_a_driver(head, false);
    }

    /// Waits for all requests, and compares the data that were read. The requests of a stopped queue wait
    /// until it is started.
    fn finish(&mut self) {
        if self.is_stopped {
            self.start();
        }
        self.raw.wait_used(self.raw.offered());
        for (slot, sector, seed) in std::mem::take(&mut self.offered) {
            let contents = self.raw.contents(slot);
            match seed {
                Some(seed) => self.written[sector as usize] = Some(seed),
                None => {
                    let expected = self.written[sector as usize];
                    let expected = expected.map_or(vec![0; SECTOR], |seed| pattern(seed, SECTOR));
                    assert_eq!(contents, expected, "queue {} sector {sector}", self.raw.queue);
                }
            }
        }
    }

    /// Stops the queue. After the reply the device does not access the memory of the queue: requests that are
    /// offered then are not executed.
    fn stop(&mut self, random: &mut Rng) {
        let base = self.raw.frontend.get_vring_base(self.raw.queue).unwrap();
        let used = self.raw.used();
        assert_eq!(base, u32::from(used), "all that were taken are complete");
        self.is_stopped = true;
        let ring = self.raw.used_ring();
        let sector = random.u64(..PART);
        if self.can_offer(sector) {
            self.offer_at(sector, random);
        }
        self.raw.frontend.get_features().unwrap();
        assert_eq!(self.raw.used_ring(), ring, "written after the queue has stopped");
    }

    fn start(&mut self) {
        self.raw.set_up(self.raw.used());
        self.is_stopped = false;
    }
}

/// Random requests on all queues, between messages about one queue and about all.
fn stop_and_start(random: &mut Rng, daemon: &Threads, queues: usize, written: &mut [Vec<Option<u64>>]) {
    let all = Raw::queues(daemon.controlled.daemon.socket(), queues);
    let lanes = all.into_iter().zip(&*written);
    let mut lanes: Vec<Lane> = lanes.map(|(raw, written)| Lane::new(raw, written)).collect();
    let mut areas = 0;
    for _ in 0..STEPS {
        let at = random.usize(..queues);
        match random.u8(..17) {
            0 => {
                if !lanes[at].is_stopped {
                    lanes[at].stop(random);
                }
            }
            1 if lanes[at].is_stopped => lanes[at].start(),
            2 => {
                share_again(&lanes);
                // The former mappings are removed before the reply.
                assert_eq!(daemon.controlled.daemon.mapped_regions(), queues + areas);
            }
            3 => {
                let raw = &mut lanes[at].raw;
                raw.frontend.set_vring_enable(raw.queue, false).unwrap();
                let ring = raw.used_ring();
                raw.frontend.get_features().unwrap();
                assert_eq!(raw.used_ring(), ring, "written while the queue is disabled");
                raw.frontend.set_vring_enable(raw.queue, true).unwrap();
                // Enabling starts a stopped queue.
                lanes[at].is_stopped = false;
            }
            4 => {
                let raw = &mut lanes[at].raw;
                raw.call = eventfd(EFD_NONBLOCK);
                raw.frontend.set_vring_call(raw.queue, &raw.call).unwrap();
            }
            5 => lanes[at].finish(),
            6 => {
                let max = ["0", "20us"][random.usize(..2)];
                let poll = json!({"command": "set-poll", "name": "first", "poll": {"max": max}});
                daemon.controlled.tell(&poll);
            }
            7 => {
                // From now on requests complete in any order, and are tracked in a new area.
                areas = 1;
                lanes[0].raw.get_inflight(queues as u16);
                lanes[0].raw.share_inflight().unwrap();
            }
            _ => lanes[at].offer(random),
        }
    }
    for (lane, written) in lanes.iter_mut().zip(written) {
        lane.finish();
        written.clone_from(&lane.written);
    }
}

/// Shares the same memory again. The daemon maps it again, and stops using the former mapping.
fn share_again(lanes: &[Lane]) {
    let regions: Vec<_> = lanes.iter().map(|lane| lane.raw.region()).collect();
    lanes[0].raw.frontend.set_mem_table(&regions).unwrap();
}

#[test]
fn queues_of_one_export_stop_and_start_on_several_threads_while_requests_are_executed() {
    let mut random = seed();
    for threads in [1, 2, 4] {
        let image = Image::new(1 << 20);
        for disk in ["ram=1M".to_owned(), image.disk()] {
            let daemon = Threads::start_with(&format!("{disk},iothread=all"), threads);
            let mut written = vec![vec![None; PART as usize]; 4];
            for queues in [1, 3, 4] {
                stop_and_start(&mut random, &daemon, queues, &mut written);
            }
            daemon.controlled.daemon.has_let_go();
            assert_eq!(daemon.controlled.daemon.stop(), "", "{disk}, {threads} threads");
        }
    }
}

/// Two queues on two threads, busy at the same time.
#[test]
fn two_queues_on_two_threads_are_counted_for_one_export() {
    let daemon = Threads::start_with("ram=1M,iothread=1+0", 2);
    let socket = daemon.controlled.daemon.socket();
    let mut client = Client::connect(socket, 2, Indexes::With, Waits::ForEvents);
    for round in 0..50_u64 {
        for queue in [0, 1] {
            client.write(queue, round * 512, &pattern(round, 512)).unwrap();
            assert_eq!(
                client.read(1 - queue, round * 512, 512).unwrap(),
                pattern(round, 512)
            );
        }
    }
    let list = daemon.list();
    assert_eq!(list["exports"][0]["thread"], "io1+main");
    assert_eq!(list["exports"][0]["serving"], 2);
    let stats = daemon.controlled.tell(&json!({"command": "stats"}));
    let queues = stats["exports"][0]["queues"].as_array().unwrap();
    assert_eq!(stats["exports"].as_array().unwrap().len(), 1);
    assert_eq!(stats["exports"][0]["clients"], 1);
    for (index, queue) in queues.iter().enumerate() {
        assert_eq!(queue["queue"], index);
        assert_eq!(queue["kinds"]["write"]["requests"], 50);
        assert_eq!(queue["kinds"]["read"]["requests"], 50);
    }
    // Both loops have executed requests.
    for index in [0, 1] {
        assert!(stats["loops"][index]["events"].as_u64().unwrap() > 0);
    }
    drop(client);
    daemon.remove("first");
    let next = daemon.controlled.control.with_file_name("next.sock");
    daemon.add(&format!(
        "ram=1M,name=next,socket={},iothread=0+1",
        next.display()
    ));
    assert_eq!(daemon.threads(), [("next".to_owned(), "main+io1".to_owned())]);
    assert_eq!(daemon.controlled.daemon.stop(), "");
}

/// A queue that fails on its thread stops alone, and its client is notified.
#[test]
fn a_queue_that_fails_on_another_thread_stops_alone() {
    let daemon = Threads::start_with("ram=1M,iothread=1+0", 2);
    let mut queues = Raw::queues(daemon.controlled.daemon.socket(), 4);
    for failing in 0..4 {
        let error = eventfd(EFD_NONBLOCK);
        let raw = &mut queues[failing];
        raw.frontend.set_vring_err(failing, &error).unwrap();
        raw.read_sector(0);
        let used = raw.used();
        raw.describe(0, HEADER, 16, NEXT, 0);
        raw.offer(0);
        assert!(is_signalled(&error, STALLED));
        for other in (0..4).filter(|other| *other != failing) {
            queues[other].read_sector(0);
        }
        assert_eq!(daemon.list()["exports"][0]["serving"], 3);
        Raw::share_all(&queues);
        assert_eq!(daemon.list()["exports"][0]["serving"], 3, "memory starts it not");
        let raw = &mut queues[failing];
        assert_eq!(raw.frontend.get_vring_base(failing).unwrap(), u32::from(used));
        raw.continue_at(used);
        raw.set_up(used);
        raw.read_sector(0);
        assert_eq!(daemon.list()["exports"][0]["serving"], 4);
    }
    let log = daemon.controlled.daemon.stop();
    assert_eq!(
        log.matches("has stopped until the client sets it up again")
            .count(),
        4,
        "{log}"
    );
}
