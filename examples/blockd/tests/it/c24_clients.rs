//! Properties on which clients of other projects and versions rely.

use vhost::VhostBackend;
use vhost::vhost_user::message::VhostUserConfigFlags;
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures};

use crate::daemon::Daemon;
use crate::process::{ready, terminate};
use crate::raw::{DATA, HEADER, NEXT, Raw, STATUS, VERSION_1, WRITE};

/// QEMU before 7.2 negotiates protocol features and then accepts features without bit 30. Its rings therefore
/// need not be enabled, and are not.
#[test]
fn c24_qemu_before_7_2_is_served_from_the_first_kick() {
    for polling in ["0", "100us"] {
        let daemon = Daemon::start("ram=1M", &["--poll-max", polling]);
        let mut raw = Raw::connect(daemon.socket());
        raw.frontend = Frontend::connect(daemon.socket(), 2).unwrap();
        let frontend = &mut raw.frontend;
        let features = frontend.get_features().unwrap();
        assert_ne!(features & 1 << 30, 0);
        let protocol = frontend.get_protocol_features().unwrap();
        let wanted = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK;
        frontend.set_protocol_features(protocol & wanted).unwrap();
        assert!(frontend.get_queue_num().unwrap() >= 2);
        frontend.set_owner().unwrap();
        frontend.set_vring_call(0, &raw.call).unwrap();
        let (_, config) = raw
            .frontend
            .get_config(0, 60, VhostUserConfigFlags::WRITABLE, &[0; 60])
            .unwrap();
        assert_eq!(config[..8], 2048u64.to_le_bytes());
        raw.frontend.set_features(VERSION_1).unwrap();
        raw.frontend.set_mem_table(&[raw.region()]).unwrap();
        raw.set_up(0);
        for sector in 0..20 {
            raw.read_sector(sector);
            raw.wait_called();
        }
        // The guest resets, and starts again.
        assert_eq!(raw.frontend.get_vring_base(0).unwrap(), 20);
        raw.frontend.set_features(VERSION_1).unwrap();
        raw.frontend.set_mem_table(&[raw.region()]).unwrap();
        raw.set_up(20);
        raw.read_sector(0);
    }
}

/// QEMU requests as many queues as the guest has processors, and does not start if there are fewer.
#[test]
fn c22_more_queues_are_offered_than_a_guest_has_processors() {
    let daemon = Daemon::start("ram=1M", &[]);
    let raw = Raw::connect(daemon.socket());
    let mut frontend = raw.frontend.clone();
    assert_eq!(frontend.get_queue_num().unwrap(), 256);
}

/// Queues that are offered and not set up cost only a little memory.
#[test]
fn c22_offered_queues_cost_nothing() {
    let holds = |more: &str| {
        let daemon = Daemon::start(&format!("ram=1M{more}"), &[]);
        let mut raw = Raw::ready(daemon.socket());
        raw.read_sector(0);
        daemon.holds()
    };
    let (few, many) = (holds(",queues=1"), holds(",queues=256"));
    println!("{few:?} with 1 queue, {many:?} with 256");
    assert_eq!(few.fixed_descriptors(), many.fixed_descriptors());
    assert!(many.anonymous_kib <= few.anonymous_kib + 512, "{few:?} {many:?}");
}

/// Returns the serial number that a guest reads.
fn serial(raw: &mut Raw) -> Vec<u8> {
    raw.header(8, 0);
    raw.put(STATUS, &[0xff]);
    raw.describe(0, HEADER, 16, NEXT, 1);
    raw.describe(1, DATA, 20, NEXT | WRITE, 2);
    raw.describe(2, STATUS, 1, WRITE, 0);
    raw.offer(0);
    raw.wait_used(raw.offered());
    assert_eq!(raw.get(STATUS, 1), [0]);
    let mut serial = raw.get(DATA, 20);
    serial.retain(|byte| *byte != 0);
    serial
}

#[test]
fn c25_serials_do_not_follow_the_order_of_options() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for image in ["a.raw", "b.raw"] {
        std::fs::write(at(image), [0; 4096]).unwrap();
    }
    let export =
        |image: &str, socket: &str| format!("path={},socket={}", at(image).display(), at(socket).display());
    let ram = format!("ram=1M,socket={},serial=mine", at("ram").display());
    let serials = |exports: [&str; 3], sockets: [&str; 3]| {
        let child = ready(&[
            "--export", exports[0], "--export", exports[1], "--export", exports[2],
        ]);
        let serials = sockets.map(|socket| serial(&mut Raw::ready(&at(socket))));
        terminate(child);
        serials
    };
    let (a, b) = (export("a.raw", "1"), export("b.raw", "2"));
    let before = serials([&a, &b, &ram], ["1", "2", "ram"]);
    assert_ne!(before[0], before[1]);
    assert_eq!(before[2], b"mine");
    let (a, b) = (export("a.raw", "2"), export("b.raw", "1"));
    let after = serials([&ram, &b, &a], ["2", "1", "ram"]);
    assert_eq!(before, after);
}
