//! Random messages about a queue, beside a small model of its states.
//!
//! The model stores the settings that the client has sent, and determines whether the queue must be serving
//! now. If so, every offered request is completed and called, without any further message. If not, the device
//! does not access the ring.

use std::time::Duration;

use fastrand::Rng;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserHeaderFlag};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EFD_NONBLOCK;

use crate::client::{eventfd, is_signalled};
use crate::daemon::Daemon;
use crate::images::Image;
use crate::raw::{EVENT_IDX, PROTOCOL, Raw, USER, VERSION_1};

/// The addresses of the client's memory in its own address space. The rings are at the same offsets in both.
const USERS: [u64; 2] = [USER, USER + (1 << 32)];
const SLOTS: u16 = 5;

/// The settings that the client has sent.
#[derive(Debug)]
struct Model {
    features: u64,
    /// The address of the memory, if it is shared.
    memory: Option<u64>,
    /// The addresses of the rings.
    rings: u64,
    base: u16,
    started: bool,
    enabled: bool,
}

impl Model {
    fn is_serving(&self) -> bool {
        let enabled = self.enabled || self.features & PROTOCOL == 0;
        self.started && enabled && self.memory == Some(self.rings)
    }
}

/// A step that a client may take at any time.
#[derive(Clone, Copy, Debug)]
enum Step {
    Size,
    Addresses,
    Base,
    Kick { is_new: bool },
    Call { is_new: bool },
    Error,
    Enable,
    Disable,
    Stop,
    Features(u64),
    Table { user: u64 },
    Remove,
    Add { user: u64 },
    Reset,
    Track,
    Offer,
    ForgetKicks,
}

fn step(random: &mut Rng) -> Step {
    let is_new = random.bool();
    let user = USERS[random.usize(..2)];
    match random.u8(..25) {
        0 => Step::Size,
        1 => Step::Addresses,
        2 => Step::Base,
        3..6 => Step::Kick { is_new },
        6 => Step::Call { is_new },
        7 => Step::Error,
        8..11 => Step::Enable,
        11 => Step::Disable,
        12 => Step::Stop,
        13 => {
            let bits = [0, EVENT_IDX, PROTOCOL, PROTOCOL, PROTOCOL | EVENT_IDX];
            Step::Features(VERSION_1 | bits[random.usize(..bits.len())])
        }
        14 => Step::Table { user },
        15 => Step::Remove,
        16 => Step::Add { user },
        17 => Step::Reset,
        18 => Step::ForgetKicks,
        19 => Step::Track,
        _ => Step::Offer,
    }
}

struct Scene {
    raw: Raw,
    model: Model,
    /// Requests offered since the last step at which the queue was serving.
    waiting: u16,
    next_slot: u16,
}

impl Scene {
    fn new(daemon: &Daemon) -> Self {
        let mut raw = Raw::connect(daemon.socket());
        let features = VERSION_1 | PROTOCOL;
        raw.reconnect(daemon.socket(), features, 0);
        let model = Model {
            features,
            memory: Some(USER),
            rings: USER,
            base: 0,
            started: true,
            enabled: true,
        };
        Self {
            raw,
            model,
            waiting: 0,
            next_slot: 0,
        }
    }

    fn region(&self, user: u64) -> VhostUserMemoryRegionInfo {
        VhostUserMemoryRegionInfo {
            userspace_addr: user,
            ..self.raw.region()
        }
    }

    fn addresses(&self) -> VringConfigData {
        let moved = self.model.rings - USER;
        let mut addresses = Raw::addresses();
        addresses.desc_table_addr += moved;
        addresses.used_ring_addr += moved;
        addresses.avail_ring_addr += moved;
        addresses
    }

    /// Updates the position that the queue must have if it is serving.
    fn settle(&mut self) {
        if self.model.is_serving() {
            self.model.base = self.raw.offered();
        }
    }

    fn take(&mut self, step: Step, random: &mut Rng) {
        let (used, offered) = (self.raw.used(), self.raw.offered());
        match step {
            Step::Size => self.raw.frontend.set_vring_num(0, 16).unwrap(),
            Step::Addresses => {
                self.model.rings = USERS[random.usize(..2)];
                self.raw.frontend.set_vring_addr(0, &self.addresses()).unwrap();
            }
            Step::Base => {
                self.model.base = used + random.u16(..=offered - used);
                self.raw.frontend.set_vring_base(0, self.model.base).unwrap();
            }
            Step::Kick { is_new } => {
                if is_new {
                    self.raw.kick = eventfd(EFD_NONBLOCK);
                }
                self.model.started = true;
                self.raw.frontend.set_vring_kick(0, &self.raw.kick).unwrap();
            }
            Step::Call { is_new } => {
                if is_new {
                    self.raw.call = eventfd(EFD_NONBLOCK);
                }
                self.raw.frontend.set_vring_call(0, &self.raw.call).unwrap();
            }
            Step::Error => {
                let error = eventfd(EFD_NONBLOCK);
                self.raw.frontend.set_vring_err(0, &error).unwrap();
            }
            Step::Enable | Step::Disable if self.model.features & PROTOCOL == 0 => {}
            Step::Enable => {
                (self.model.enabled, self.model.started) = (true, true);
                self.raw.frontend.set_vring_enable(0, true).unwrap();
            }
            Step::Disable => {
                self.model.enabled = false;
                self.raw.frontend.set_vring_enable(0, false).unwrap();
            }
            Step::Stop => {
                self.model.started = false;
                let base = self.raw.frontend.get_vring_base(0).unwrap();
                assert_eq!(base, u32::from(self.model.base));
            }
            Step::Features(features) => {
                self.model.features = features;
                self.raw.frontend.set_features(features).unwrap();
                self.raw.frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
            }
            Step::Table { .. } | Step::Remove | Step::Add { .. } => self.change_memory(step),
            Step::Reset => {
                (self.model.enabled, self.model.started) = (false, false);
                self.raw.frontend.reset_owner().unwrap();
            }
            Step::Track => {
                if self.raw.inflight.is_none() || random.bool() {
                    self.raw.get_inflight(1);
                }
                self.raw.share_inflight().unwrap();
            }
            Step::ForgetKicks => {
                // A serving queue needs its kicks.
                if !self.model.is_serving() {
                    drop(self.raw.kick.read());
                }
            }
            Step::Offer => self.offer(),
        }
    }

    fn change_memory(&mut self, step: Step) {
        match step {
            Step::Table { user } => {
                self.model.memory = Some(user);
                self.raw.frontend.set_mem_table(&[self.region(user)]).unwrap();
            }
            Step::Remove => {
                if let Some(user) = self.model.memory.take() {
                    let region = self.region(user);
                    self.raw.frontend.remove_mem_region(&region).unwrap();
                }
            }
            Step::Add { user } if self.model.memory.is_none() => {
                self.model.memory = Some(user);
                let region = self.region(user);
                self.raw.frontend.add_mem_region(&region).unwrap();
            }
            _ => {}
        }
    }

    /// Offers a request like a driver, unless all slots are in use.
    fn offer(&mut self) {
        if self.waiting == SLOTS {
            return;
        }
        self.raw.ask_for_call();
        drop(self.raw.call.read());
        let head = self.raw.prepare_read(self.next_slot, 0);
        self.next_slot = (self.next_slot + 1) % SLOTS;
        self.waiting += 1;
        let event_idx = self.model.features & EVENT_IDX != 0;
        self.raw.offer_as_a_driver(head, event_idx);
    }

    /// Sends a message and waits for its reply. Then all messages before it have been handled, and the loop
    /// has completed an iteration.
    fn synchronize(&mut self) {
        for _ in 0..3 {
            let flags = VhostUserConfigFlags::WRITABLE;
            self.raw.frontend.get_config(0, 8, flags, &[0; 8]).unwrap();
        }
    }

    fn check(&mut self) {
        if self.model.is_serving() {
            self.raw.wait_used(self.raw.offered());
            if self.waiting > 0 {
                assert!(
                    is_signalled(&self.raw.call, Duration::from_secs(10)),
                    "completed and not called"
                );
                self.waiting = 0;
            }
            self.settle();
            return;
        }
        self.synchronize();
        let (before, used) = (self.raw.used_ring(), self.raw.used());
        assert_eq!(
            used,
            self.raw.offered().wrapping_sub(self.waiting),
            "served while it must not be"
        );
        self.synchronize();
        assert_eq!(
            self.raw.used_ring(),
            before,
            "the ring is written while it must not be"
        );
    }
}

/// Runs random steps against a queue of a daemon with this disk.
fn run(disk: &str, args: &[&str]) {
    let mut random = crate::seed();
    let daemon = Daemon::start(disk, args);
    for _ in 0..10 {
        let mut scene = Scene::new(&daemon);
        let mut steps = Vec::new();
        for _ in 0..200 {
            let step = step(&mut random);
            steps.push(step);
            println!("{step:?} in {:?}, {} waiting", scene.model, scene.waiting);
            scene.take(step, &mut random);
            scene.check();
        }
    }
    let log = daemon.stop();
    assert!(!log.contains("the connection ends"), "{log}");
}

#[test]
fn c27_a_queue_comes_back_whatever_is_said_in_between() {
    run("ram=1M", &[]);
}

#[test]
fn c27_a_polled_queue_comes_back_whatever_is_said_in_between() {
    run("ram=1M", &["--poll-max", "100us"]);
}

/// Requests are executed beside the loop of the queue, and are tracked.
#[test]
fn c27_a_queue_of_an_image_comes_back_whatever_is_said_in_between() {
    for engine in ["auto", "uring", "threads"] {
        for polling in ["0", "100us"] {
            let image = Image::new(1 << 20);
            println!("{engine}, {polling}");
            run(&image.disk(), &["--engine", engine, "--poll-max", polling]);
        }
    }
}

/// A step that starts a queue.
type Start<'a> = &'a dyn Fn(&mut Raw);

/// A completion may have been published by a daemon that was killed before it called, or while no descriptor
/// for calls was set. So each start calls, even without a completion and without a request for a call by the
/// driver.
#[test]
fn c27_each_start_calls_the_driver() {
    for features in [VERSION_1 | PROTOCOL, VERSION_1 | PROTOCOL | EVENT_IDX] {
        let daemon = Daemon::start("ram=1M", &[]);
        let mut raw = Raw::connect(daemon.socket());
        raw.reconnect(daemon.socket(), features, 0);
        raw.ask_for_call();
        raw.read_sector(0);
        let starts: [(&str, Start<'_>); 6] = [
            ("stopped and kicked", &|raw| {
                assert_eq!(raw.frontend.get_vring_base(0).unwrap(), 1);
                raw.frontend.set_vring_kick(0, &raw.kick).unwrap();
            }),
            ("stopped and enabled", &|raw| {
                assert_eq!(raw.frontend.get_vring_base(0).unwrap(), 1);
                raw.frontend.set_vring_enable(0, true).unwrap();
            }),
            ("disabled and enabled", &|raw| {
                raw.frontend.set_vring_enable(0, false).unwrap();
                raw.frontend.set_vring_enable(0, true).unwrap();
            }),
            ("in another table", &|raw| {
                raw.frontend.set_mem_table(&[raw.region()]).unwrap();
            }),
            ("with another descriptor", &|raw| {
                raw.call = eventfd(EFD_NONBLOCK);
                raw.frontend.set_vring_call(0, &raw.call).unwrap();
            }),
            ("in another connection", &|raw| {
                raw.reconnect(daemon.socket(), features, 1)
            }),
        ];
        for (how, start) in starts {
            println!("{how}");
            drop(raw.call.read());
            start(&mut raw);
            raw.wait_called();
        }
    }
}
