//! Requests of a client that fails, reconnects, and stops its queue at any time. Each request completes once.

use std::path::Path;
use std::time::Duration;

use fastrand::Rng;
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{FEATURES, engines};
use crate::client::{eventfd, is_signalled};
use crate::daemon::Daemon;
use crate::images::Image;
use crate::raw::{DATA, NEXT, Raw, SIZE};

const STEPS: u32 = 400;
const SLOTS: u16 = 5;

struct Driver<'a> {
    raw: Raw,
    socket: &'a Path,
    error: EventFd,
    /// The position up to which the client has read the used ring.
    seen: u16,
    free: Vec<u16>,
}

impl<'a> Driver<'a> {
    fn new(socket: &'a Path) -> Self {
        let driver = Self {
            raw: Raw::tracked(socket, FEATURES),
            socket,
            error: eventfd(EFD_NONBLOCK),
            seen: 0,
            free: (0..SLOTS).collect(),
        };
        driver.raw.frontend.set_vring_err(0, &driver.error).unwrap();
        driver
    }

    /// Takes the completions. Each must be of an outstanding request.
    fn take_completions(&mut self) {
        while self.seen != self.raw.used() {
            let slot = self.raw.used_entry(self.seen).0 as u16 / 3;
            assert!(!self.free.contains(&slot), "{slot} is completed again");
            self.free.push(slot);
            self.seen = self.seen.wrapping_add(1);
        }
    }

    fn take_free(&mut self, random: &mut Rng) -> Option<u16> {
        self.take_completions();
        let count = self.free.len();
        (count > 0).then(|| self.free.swap_remove(random.usize(..count)))
    }

    fn offer(&mut self, random: &mut Rng) {
        if let Some(slot) = self.take_free(random) {
            let sector = random.u64(..64);
            let head = match random.bool() {
                true => self.raw.prepare_read(slot, sector),
                false => self.raw.prepare_write(slot, sector, &[1; 512]),
            };
            self.raw.offer(head);
        }
    }

    /// Offers a malformed request, which makes the queue fail. The driver corrects it and sets up the queue
    /// again.
    fn offer_malformed(&mut self, random: &mut Rng) {
        if let Some(slot) = self.take_free(random) {
            self.raw.describe(3 * slot, DATA, 16, NEXT, SIZE);
            self.raw.offer(3 * slot);
            assert!(
                is_signalled(&self.error, Duration::from_secs(10)),
                "it has not failed"
            );
            self.error.read().unwrap();
            self.raw.prepare_read(slot, 1);
            self.raw.frontend.set_vring_kick(0, &self.raw.kick).unwrap();
        }
    }

    /// Connects again, with any base that a client could set.
    fn come_back(&mut self, random: &mut Rng) {
        let (used, offered) = (self.raw.used(), self.raw.offered());
        let base = [used, offered, 0][random.usize(..3)];
        self.raw.reconnect(self.socket, FEATURES, base);
        self.raw.frontend.set_vring_err(0, &self.error).unwrap();
    }

    fn settle(&mut self) {
        self.raw.wait_used(self.raw.offered());
        self.take_completions();
        assert_eq!(self.free.len(), usize::from(SLOTS));
    }

    fn step(&mut self, random: &mut Rng) {
        match random.u8(..16) {
            0 => self.offer_malformed(random),
            1 => self.come_back(random),
            2 => {
                self.raw.frontend.get_vring_base(0).unwrap();
                self.raw.frontend.set_vring_enable(0, true).unwrap();
            }
            3 => {
                self.raw.get_inflight(1);
                self.raw.share_inflight().unwrap();
            }
            4 => drop(self.raw.frontend.set_mem_table(&[self.raw.region()]).unwrap()),
            5 => self.settle(),
            _ => self.offer(random),
        }
    }
}

#[test]
fn c6_each_request_completes_once_whatever_the_client_does() {
    let mut random = crate::seed();
    for engine in engines().into_iter().chain(["sync"]) {
        for polling in ["0", "100us"] {
            let image = Image::new(1 << 20);
            let daemon = Daemon::start(&image.disk(), &["--engine", engine, "--poll-max", polling]);
            let mut driver = Driver::new(daemon.socket());
            for _ in 0..STEPS {
                driver.step(&mut random);
            }
            driver.settle();
        }
    }
}
