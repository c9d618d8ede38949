//! C9: an image that is slow, or hangs, and its neighbours on other threads.

use serde_json::json;

use crate::client::{Client, pattern};
use crate::control::Controlled;
use crate::images::{Image, failing_with};
use crate::raw::{DATA, Raw};

/// A daemon with two threads whose image, on the second one, completes writes late. A write of its client was taken.
fn with_late_write(delay: &str) -> Option<(Image, tempfile::TempDir, Controlled, Raw)> {
    let image = Image::new(1 << 20);
    let directory = tempfile::tempdir().unwrap();
    let control = directory.path().join("ctl");
    let path = control.display().to_string();
    let args = ["--engine", "threads", "--iothreads", "2", "--control", &path];
    let fault = format!("pwrite64:delay_enter={delay}");
    let daemon = failing_with(&[&fault], &format!("{},iothread=1", image.disk()), &args)?;
    let controlled = Controlled { daemon, control };
    let mut raw = Raw::ready(controlled.daemon.socket());
    raw.offer_request(1, 5, &[(DATA, 512)], 0);
    while controlled.tell(&json!({"command": "list"}))["exports"][0]["in_flight"] != 1 {
        std::thread::yield_now();
    }
    Some((image, directory, controlled, raw))
}

#[test]
fn requests_of_all_threads_are_completed_before_the_end() {
    let Some((_image, _directory, controlled, raw)) = with_late_write("2s") else {
        return;
    };
    let before = raw.used();
    assert_eq!(controlled.daemon.stop(), "");
    assert_eq!(raw.used(), before.wrapping_add(1));
}

#[test]
fn requests_of_all_threads_that_are_not_complete_are_reported() {
    let Some((_image, _directory, controlled, raw)) = with_late_write("8s") else {
        return;
    };
    let before = raw.used();
    let log = controlled.daemon.stop();
    assert!(
        log.contains("ends with 1 requests that the image has not completed"),
        "{log}"
    );
    assert_eq!(raw.used(), before);
}

/// With the engine `sync` the thread of an image waits for it. That of its neighbours, the control socket and the end of the daemon do not.
#[test]
fn c9_a_thread_that_waits_for_its_image_holds_up_no_other() {
    let image = Image::new(1 << 20);
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let neighbour = format!(
        "ram=1M,name=neighbour,socket={},iothread=0",
        path("n.sock").display()
    );
    let control = path("ctl");
    let args = [
        "--engine",
        "sync",
        "--iothreads",
        "2",
        "--export",
        &neighbour,
        "--control",
        &control.display().to_string(),
    ];
    let slow = format!("{},name=slow,iothread=1", image.disk());
    let Some(daemon) = failing_with(&["pwrite64:delay_enter=20s"], &slow, &args) else {
        return;
    };
    let controlled = Controlled { daemon, control };
    let mut raw = Raw::ready(controlled.daemon.socket());
    raw.put(DATA, &[7; 512]);
    let before = raw.used();
    raw.offer_request(1, 5, &[(DATA, 512)], 0);
    let mut client = Client::simple(&path("n.sock"));
    for round in 0..200 {
        let data = pattern(round, 4096);
        client.write(0, 4096 * (round % 16), &data).unwrap();
        assert_eq!(client.read(0, 4096 * (round % 16), 4096).unwrap(), data);
    }
    assert_eq!(raw.used(), before, "the image has not completed the write");
    // The list says which loop hangs, once it has.
    loop {
        let list = controlled.tell(&json!({"command": "list"}));
        assert_eq!(list["loops"][0]["responds"], true);
        assert_eq!(raw.used(), before, "the image was not slow for long enough");
        assert_eq!(list["exports"][0]["name"], "slow");
        if list["loops"][1]["responds"] == false {
            break;
        }
    }
    let stats = controlled.tell(&json!({"command": "stats"}));
    assert_eq!(stats["exports"][0]["name"], "neighbour");
    let listed = controlled.ctl_says(&["list"]);
    assert!(listed.contains("loop io1: does not respond"), "{listed}");
    client.write(0, 0, &pattern(1, 512)).unwrap();
    drop(client);
    let socket = controlled.daemon.socket().to_owned();
    let log = controlled.daemon.stop();
    assert!(log.contains("io1 does not respond"), "{log}");
    assert_eq!(raw.used(), before);
    assert!(!socket.exists() && !path("n.sock").exists());
}
