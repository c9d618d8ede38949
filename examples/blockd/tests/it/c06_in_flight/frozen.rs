//! [`Frozen`]: a daemon whose image hangs.

use crate::daemon::Daemon;
use crate::images::c08_slow_images::Freezable;
use crate::raw::{Raw, SIZE};

use super::FEATURES;

/// An image that can be frozen, the daemon that serves it, and a client with event indexes.
pub(super) struct Frozen {
    pub(super) daemon: Option<Daemon>,
    pub(super) raw: Raw,
    pub(super) system: Freezable,
}

impl Frozen {
    /// Starts a daemon that tracks the client's requests. Returns `None` if no file system can be frozen
    /// here.
    pub(super) fn start(engine: &str) -> Option<Self> {
        let system = Freezable::mount()?;
        let daemon = Self::daemon(&system, engine);
        let raw = Raw::tracked(daemon.socket(), FEATURES);
        Some(Self {
            daemon: Some(daemon),
            raw,
            system,
        })
    }

    pub(super) fn daemon(system: &Freezable, engine: &str) -> Daemon {
        let directory = tempfile::tempdir().unwrap();
        let beside = format!("ram=1M,socket={}", directory.path().join("beside.sock").display());
        let disk = format!("path={}", system.image().display());
        Daemon::start_in(directory, &disk, &["--engine", engine, "--export", &beside])
    }

    /// Connects again, with this position.
    pub(super) fn reconnect(&mut self, base: u16) {
        let daemon = self.daemon.as_ref().unwrap();
        self.raw.reconnect(daemon.socket(), FEATURES, base);
    }

    /// Checks that another disk of the daemon is served, which happens after the daemon has seen the requests
    /// of this one.
    pub(super) fn neighbour_is_served(&self) {
        let directory = self.daemon.as_ref().unwrap().directory.path();
        Raw::ready(&directory.join("beside.sock")).read_sector(0);
    }

    /// Kills the daemon. The image is thawed, because a process does not end before the system has ended its calls.
    pub(super) fn kill(&mut self) {
        let daemon = self.daemon.take().unwrap();
        let pid = rustix::process::Pid::from_raw(daemon.id() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        self.system.thaw();
        drop(daemon);
    }

    /// Offers and completes reads of a sector in the slots from 1 on, until the places of all earlier
    /// requests in the available ring have been used again.
    pub(super) fn read_around(&mut self) {
        let raw = &mut self.raw;
        for round in 0..2 * SIZE {
            let slot = 1 + round % 4;
            let head = raw.prepare_read(slot, 9);
            let next = raw.used().wrapping_add(1);
            raw.offer(head);
            raw.wait_used(next);
            assert_eq!(raw.contents(slot), [0; 512]);
        }
    }

    /// Freezes the image, and offers a write, which hangs. The reads after it complete.
    pub(super) fn hang_write(&mut self) -> u16 {
        // This read puts the sector into the page cache.
        self.raw.read_sector(9);
        self.system.freeze();
        let written = self.raw.prepare_write(0, 5, &[7; 512]);
        self.raw.offer(written);
        self.read_around();
        self.raw.wait_marked(&[written]);
        written
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The daemon could not end while the file system is frozen.
            self.system.try_to_thaw();
        }
        drop(self.daemon.take());
    }
}
