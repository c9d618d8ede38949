//! A queue that is set up again while requests of its former use have not ended. Each request completes once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use vhost::VhostBackend;
use vmm_sys_util::eventfd::EFD_NONBLOCK;

use super::{FEATURES, Frozen, engines, marked};
use crate::client::{eventfd, is_signalled};
use crate::daemon::Daemon;
use crate::images::Image;
use crate::raw::{DATA, HEADER, NEXT, Raw, SIZE};

#[test]
fn c6_a_queue_that_fails_while_a_request_hangs_executes_it_once_it_is_set_up_again() {
    for engine in engines() {
        let Some(mut frozen) = Frozen::start(engine) else {
            return;
        };
        let error = eventfd(EFD_NONBLOCK);
        frozen.raw.frontend.set_vring_err(0, &error).unwrap();
        let written = frozen.hang_write();
        let used = frozen.raw.used();
        let read = frozen.raw.prepare_read(3, 9);
        frozen.raw.describe(read, DATA, 16, NEXT, SIZE);
        frozen.raw.offer(read);
        assert!(is_signalled(&error, Duration::from_secs(10)), "{engine}");
        // The driver corrects the request.
        frozen.raw.prepare_read(3, 9);
        let (frontend, kick) = (frozen.raw.frontend.clone(), frozen.raw.kick.try_clone().unwrap());
        let set_up = thread::spawn(move || frontend.set_vring_kick(0, &kick).unwrap());
        frozen.neighbour_is_served();
        assert!(!set_up.is_finished(), "{engine}: the write has not ended");
        assert_eq!(frozen.raw.used(), used, "{engine}");
        assert_eq!(marked(frozen.raw.area()), [written]);
        frozen.system.thaw();
        set_up.join().unwrap();
        frozen.raw.wait_used(used.wrapping_add(2));
        assert_eq!(
            frozen.raw.heads_since(used),
            [written, read].map(u32::from),
            "{engine}"
        );
        frozen.raw.wait_marked(&[]);
        assert_eq!(frozen.raw.read_sector(5), [7; 512]);
        assert_eq!(frozen.raw.used(), frozen.raw.offered(), "{engine}");
    }
}

#[test]
fn c6_a_client_that_comes_back_while_its_request_hangs_gets_one_completion() {
    for engine in engines() {
        let Some(mut frozen) = Frozen::start(engine) else {
            return;
        };
        let written = frozen.hang_write();
        let used = frozen.raw.used();
        let is_thawing = AtomicBool::new(false);
        thread::scope(|scope| {
            let (system, is_thawing) = (&frozen.system, &is_thawing);
            let (daemon, raw) = (frozen.daemon.as_ref().unwrap(), &mut frozen.raw);
            raw.shut_down();
            let beside = daemon.directory.path().join("beside.sock");
            scope.spawn(move || {
                Raw::ready(&beside).read_sector(0);
                is_thawing.store(true, Ordering::SeqCst);
                system.thaw();
            });
            raw.reconnect(daemon.socket(), FEATURES, used);
            assert!(
                is_thawing.load(Ordering::SeqCst),
                "{engine}: the write has not ended"
            );
        });
        frozen.raw.wait_used(used.wrapping_add(1));
        assert_eq!(frozen.raw.heads_since(used), [u32::from(written)], "{engine}");
        frozen.raw.wait_marked(&[]);
        assert_eq!(frozen.raw.read_sector(5), [7; 512]);
        assert_eq!(frozen.raw.used(), frozen.raw.offered(), "{engine}");
    }
}

/// Connects a client, with or without tracking of its requests.
fn connect(daemon: &Daemon, is_tracked: bool) -> Raw {
    match is_tracked {
        true => Raw::tracked(daemon.socket(), FEATURES),
        false => {
            let mut raw = Raw::ready(daemon.socket());
            raw.reconnect(daemon.socket(), FEATURES, 0);
            raw
        }
    }
}

/// QEMU 7.2 sets the base 0 for queues that it had not started when the daemon was killed.
#[test]
fn c6_a_client_that_comes_back_with_an_old_base_gets_no_completion_again() {
    let mut random = crate::seed();
    let image = Image::new(1 << 20);
    for (disk, is_tracked) in [
        ("ram=1M", true),
        ("ram=1M", false),
        (&image.disk(), true),
        (&image.disk(), false),
    ] {
        let daemon = Daemon::start(disk, &[]);
        let mut raw = connect(&daemon, is_tracked);
        for _ in 0..20 {
            raw.read_sector(1);
            let used = raw.used();
            let base = used.wrapping_sub(random.u16(..=SIZE));
            raw.reconnect(daemon.socket(), FEATURES, base);
            // The reply contains the position of the queue.
            let position = raw.frontend.get_vring_base(0).unwrap();
            assert_eq!((position, raw.used()), (used.into(), used), "base {base}");
            raw.reconnect(daemon.socket(), FEATURES, base);
        }
    }
}

/// A malformed request is outstanding in the rings, and in the area if it was marked. No start of its queue
/// skips it.
#[test]
fn c6_a_malformed_request_fails_its_queue_at_each_start_until_it_is_corrected() {
    for engine in engines().into_iter().chain(["sync"]) {
        for is_tracked in [true, false] {
            let image = Image::new(1 << 20);
            let daemon = Daemon::start(&image.disk(), &["--engine", engine]);
            let mut raw = connect(&daemon, is_tracked);
            let error = eventfd(EFD_NONBLOCK);
            raw.frontend.set_vring_err(0, &error).unwrap();
            raw.read_sector(1);
            let used = raw.used();
            let fails = |raw: &Raw| {
                assert!(is_signalled(&error, Duration::from_secs(10)), "{engine}");
                error.read().unwrap();
                assert_eq!(raw.used(), used, "{engine}: it has completed");
            };
            let head = raw.prepare_write(1, 5, &[7; 512]);
            // The header is too short; the status follows.
            raw.describe(head, HEADER + 16, 15, NEXT, head + 2);
            raw.offer(head);
            fails(&raw);
            if is_tracked && engine != "sync" {
                assert_eq!(marked(raw.area()), [head], "{engine}");
            }
            for _ in 0..3 {
                raw.frontend.set_vring_kick(0, &raw.kick).unwrap();
                fails(&raw);
                raw.reconnect(daemon.socket(), FEATURES, raw.offered());
                raw.frontend.set_vring_err(0, &error).unwrap();
            }
            raw.prepare_write(1, 5, &[7; 512]);
            raw.frontend.set_vring_kick(0, &raw.kick).unwrap();
            raw.wait_used(used.wrapping_add(1));
            assert_eq!(raw.read_sector(5), [7; 512], "{engine}");
        }
    }
}
