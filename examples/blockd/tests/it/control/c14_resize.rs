//! C14: the present client and the next one see that a disk grows or shrinks.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::json;
use vhost::vhost_user::{VhostUserFrontend, VhostUserProtocolFeatures};

use super::Controlled;
use crate::client::{Client, pattern};
use crate::images::{Image, failing_with};
use crate::raw::{DATA, Raw};

const MIB: u64 = 1 << 20;

/// Returns the size in the configuration space.
fn size(raw: &mut Raw) -> u64 {
    let config = raw.config();
    512 * u64::from_le_bytes(config[..8].try_into().unwrap())
}

/// Connects a client with a channel for the daemon's messages.
fn with_channel(controlled: &Controlled) -> (Raw, UnixStream) {
    let mut raw = Raw::ready_with(controlled.daemon.socket(), VhostUserProtocolFeatures::BACKEND_REQ);
    let (own, daemons) = UnixStream::pair().unwrap();
    own.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    raw.frontend.set_backend_request_fd(&daemons).unwrap();
    (raw, own)
}

/// Waits for the message that the configuration has changed.
fn wait_changed(channel: &mut UnixStream) {
    let mut message = [0; 12];
    channel.read_exact(&mut message).unwrap();
    let words: Vec<u32> = message
        .chunks(4)
        .map(|word| u32::from_ne_bytes(word.try_into().unwrap()))
        .collect();
    // VHOST_USER_BACKEND_CONFIG_CHANGE_MSG, version 1, no body.
    assert_eq!(words, [2, 1, 0]);
}

fn resize(controlled: &Controlled, size: &str, shrink: bool) {
    let command = json!({"command": "resize", "name": "first", "size": size, "shrink": shrink});
    controlled.tell(&command);
}

fn image(bytes: u64) -> tempfile::NamedTempFile {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(bytes).unwrap();
    image
}

#[test]
fn c14_the_present_client_is_told_and_uses_the_new_size() {
    let image = image(MIB);
    for disk in [format!("path={}", image.path().display()), "ram=1M".to_owned()] {
        let controlled = Controlled::start(&disk);
        let (mut raw, mut channel) = with_channel(&controlled);
        assert_eq!(size(&mut raw), MIB);
        raw.put(DATA, &pattern(1, 512));
        let beyond = MIB / 512;
        assert_eq!(raw.request(1, beyond, &[(DATA, 512)], 0), 1, "beyond the end");
        resize(&controlled, "2M", false);
        wait_changed(&mut channel);
        assert_eq!(size(&mut raw), 2 * MIB);
        assert_eq!(raw.request(1, beyond, &[(DATA, 512)], 0), 0);
        assert_eq!(raw.read_sector(beyond), pattern(1, 512));
        assert_eq!(raw.read_sector(beyond + 1), [0; 512]);
        resize(&controlled, "1M", true);
        wait_changed(&mut channel);
        assert_eq!(size(&mut raw), MIB);
        assert_eq!(raw.request(1, beyond, &[(DATA, 512)], 0), 1);
        drop(raw);
        let client = Client::simple(controlled.daemon.socket());
        assert_eq!(client.capacity(), MIB);
    }
    assert_eq!(image.as_file().metadata().unwrap().len(), MIB);
}

#[test]
fn c14_the_next_client_sees_an_image_that_has_grown() {
    let image = image(MIB);
    let controlled = Controlled::start(&format!("path={}", image.path().display()));
    let client = Client::simple(controlled.daemon.socket());
    assert_eq!(client.capacity(), MIB);
    image.as_file().set_len(3 * MIB).unwrap();
    assert_eq!(client.capacity(), MIB);
    drop(client);
    let mut client = Client::simple(controlled.daemon.socket());
    assert_eq!(client.capacity(), 3 * MIB);
    client.write(0, 3 * MIB - 4096, &pattern(1, 4096)).unwrap();
    assert_eq!(client.read(0, 3 * MIB - 4096, 4096).unwrap(), pattern(1, 4096));
}

#[test]
fn c14_the_size_that_an_image_has_by_now_is_adopted() {
    let image = image(MIB);
    let controlled = Controlled::start(&format!("path={}", image.path().display()));
    let (mut raw, mut channel) = with_channel(&controlled);
    image.as_file().set_len(5 * MIB).unwrap();
    // The daemon does not truncate an image that another program has extended.
    let error = controlled.refused(&json!({"command": "resize", "name": "first", "size": "2M"}));
    assert!(error.contains("--shrink"), "{error}");
    resize(&controlled, "auto", false);
    wait_changed(&mut channel);
    assert_eq!(size(&mut raw), 5 * MIB);
    assert_eq!(image.as_file().metadata().unwrap().len(), 5 * MIB);
}

/// Clients without a channel, with a closed channel, and with a channel that they do not read.
#[test]
fn c14_clients_that_cannot_be_told_are_served_all_the_same() {
    let controlled = Controlled::start("ram=1M");
    let mut raw = Raw::ready(controlled.daemon.socket());
    resize(&controlled, "2M", false);
    assert_eq!(size(&mut raw), 2 * MIB);
    drop(raw);

    let (mut raw, channel) = with_channel(&controlled);
    drop(channel);
    resize(&controlled, "3M", false);
    resize(&controlled, "4M", false);
    assert_eq!(size(&mut raw), 4 * MIB);
    drop(raw);

    let (mut raw, channel) = with_channel(&controlled);
    let mut line = controlled.connect();
    for round in 0..2000 {
        let size = if round % 2 == 0 { "5M" } else { "4M" };
        line.tell(&json!({"command": "resize", "name": "first", "size": size, "shrink": true}));
    }
    assert_eq!(size(&mut raw), 4 * MIB);
    assert_eq!(raw.read_sector(0), [0; 512]);
    drop(channel);
}

/// A client that passes an invalid channel affects only itself.
#[test]
fn c14_a_channel_that_is_none_is_refused() {
    let controlled = Controlled::start("ram=1M");
    let none = VhostUserProtocolFeatures::BACKEND_REQ;
    for round in 0..2 {
        let mut raw = Raw::ready_with(controlled.daemon.socket(), none);
        let (datagram, file) = (
            std::os::unix::net::UnixDatagram::unbound().unwrap(),
            tempfile::tempfile().unwrap(),
        );
        let refused = if round == 0 {
            raw.frontend.set_backend_request_fd(&datagram)
        } else {
            raw.frontend.set_backend_request_fd(&file)
        };
        assert!(refused.is_err());
        resize(&controlled, "2M", false);
    }
    controlled.daemon.serves();
}

/// A write waits in the system while the disk shrinks. Afterwards neither the image nor the next client has
/// any of its data beyond the end.
#[test]
fn c14_a_write_that_waits_while_the_disk_shrinks_does_not_extend_it_again() {
    let image = Image::new(2 << 20);
    let faults = ["pwrite64,pwritev,pwritev2:delay_enter=2s"];
    let directory = tempfile::tempdir().unwrap();
    let control = directory.path().join("ctl");
    let args = ["--engine", "threads", "--control", &control.display().to_string()];
    let Some(daemon) = failing_with(&faults, &format!("{},name=first", image.disk()), &args) else {
        return;
    };
    let controlled = Controlled { daemon, control };
    let mut raw = Raw::ready(controlled.daemon.socket());
    raw.offer_request(1, 3000, &[(DATA, 512)], 0);
    let taken = || controlled.tell(&json!({"command": "list"}))["exports"][0]["in_flight"] == 1;
    while !taken() {}
    let resize = |size: &str, shrink: bool| {
        let command = json!({"command": "resize", "name": "first", "size": size, "shrink": shrink});
        controlled.tell(&command)
    };
    resize("1M", true);
    raw.wait_used(1);
    let len = || std::fs::metadata(image.path()).unwrap().len();
    assert_eq!(len(), 1 << 20);
    resize("2M", false);
    assert_eq!(raw.read_sector(3000), [0; 512]);
    drop(raw);
}
