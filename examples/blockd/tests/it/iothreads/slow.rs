//! C9: an image that is slow, or hangs, with neighbours on other threads.

use serde_json::json;
use vhost::VhostBackend;

use crate::client::{Client, pattern};
use crate::control::Controlled;
use crate::images::{Image, failing_with};
use crate::raw::{DATA, Raw};

/// The threads of an export: one, or one for its sessions and another for its first queue.
const THREADS: [&str; 2] = ["1", "1+0"];

/// A daemon with two threads whose image completes writes late, and its client with two queues. A write of
/// the first queue was taken.
struct Late {
    controlled: Controlled,
    queues: Vec<Raw>,
    _image: Image,
    _directory: tempfile::TempDir,
}

impl Late {
    fn start(threads: &str, delay: &str) -> Option<Self> {
        let image = Image::new(1 << 20);
        let directory = tempfile::tempdir().unwrap();
        let control = directory.path().join("ctl");
        let path = control.display().to_string();
        let args = ["--engine", "threads", "--iothreads", "2", "--control", &path];
        let fault = format!("pwrite64:delay_enter={delay}");
        let disk = format!("{},name=late,iothread={threads}", image.disk());
        let daemon = failing_with(&[&fault], &disk, &args)?;
        let controlled = Controlled { daemon, control };
        let mut queues = Raw::queues(controlled.daemon.socket(), 2);
        queues[0].offer_request(1, 5, &[(DATA, 512)], 0);
        let late = Self {
            controlled,
            queues,
            _image: image,
            _directory: directory,
        };
        while late.in_flight() != 1 {
            std::thread::yield_now();
        }
        Some(late)
    }

    fn in_flight(&self) -> u64 {
        let list = self.controlled.tell(&json!({"command": "list"}));
        list["exports"][0]["in_flight"].as_u64().unwrap()
    }
}

#[test]
fn requests_of_all_threads_are_completed_before_the_end() {
    for threads in THREADS {
        let Some(late) = Late::start(threads, "1s") else {
            return;
        };
        assert_eq!(late.controlled.daemon.stop(), "");
        assert_eq!(late.queues[0].used(), 1);
    }
}

#[test]
fn requests_of_all_threads_that_are_not_complete_are_reported() {
    for threads in THREADS {
        let Some(late) = Late::start(threads, "8s") else {
            return;
        };
        let log = late.controlled.daemon.stop();
        assert!(
            log.contains("ends with 1 requests that the image has not completed"),
            "{log}"
        );
        assert_eq!(late.queues[0].used(), 0);
    }
}

#[test]
fn requests_of_all_threads_are_completed_before_an_export_is_removed() {
    for threads in THREADS {
        let Some(late) = Late::start(threads, "1s") else {
            return;
        };
        let removed = late
            .controlled
            .tell(&json!({"command": "remove", "name": "late"}));
        assert_eq!(removed["incomplete_requests"], 0);
        assert_eq!(late.queues[0].used(), 1);
        late.queues[0].wait_closed();
    }
}

/// The export accepts its next client once the requests of the former one have ended.
#[test]
fn a_client_waits_for_the_requests_of_the_former_one_on_all_threads() {
    for threads in THREADS {
        let Some(mut late) = Late::start(threads, "1s") else {
            return;
        };
        late.queues.clear();
        let mut next = Raw::queues(late.controlled.daemon.socket(), 2);
        assert_eq!(late.in_flight(), 0);
        next[0].read_sector(5);
        next[1].read_sector(5);
    }
}

/// The reply to GET_VRING_BASE waits for the requests of its queue. Meanwhile a queue of another thread is
/// served, and so are commands.
#[test]
fn c8_a_queue_that_stops_late_holds_up_no_queue_of_another_thread() {
    let Some(mut late) = Late::start("1+0", "2s") else {
        return;
    };
    let frontend = late.queues[0].frontend.clone();
    let stopping = std::thread::spawn(move || frontend.get_vring_base(0).unwrap());
    late.queues[1].read_sector(0);
    late.controlled.tell(&json!({"command": "list"}));
    assert_eq!(late.queues[0].used(), 0, "the write is not complete yet");
    assert_eq!(stopping.join().unwrap(), 1);
    assert_eq!(late.queues[0].used(), 1);
    late.queues[1].read_sector(1);
}

/// With the engine `sync` the thread of an image waits for it. The threads of its neighbours and of the
/// control socket do not wait, and neither does the end of the daemon.
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
    // The list names the loop that hangs, once it hangs.
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

/// A thread hangs while one of its queues must stop. The client waits, and the log names the reason. A
/// command that needs the thread is answered, the queue of the other thread is served, and the daemon ends.
#[test]
fn c8_a_thread_that_hangs_while_its_queue_must_stop_is_reported() {
    let image = Image::new(1 << 20);
    let directory = tempfile::tempdir().unwrap();
    let control = directory.path().join("ctl");
    let path = control.display().to_string();
    let args = ["--engine", "sync", "--iothreads", "2", "--control", &path];
    let disk = format!("{},name=slow,iothread=0+1", image.disk());
    let Some(daemon) = failing_with(&["pwrite64:delay_enter=40s"], &disk, &args) else {
        return;
    };
    let controlled = Controlled { daemon, control };
    let mut queues = Raw::queues(controlled.daemon.socket(), 2);
    queues[0].offer_request(1, 5, &[(DATA, 512)], 0);
    // Once the thread does not respond, it has taken the write.
    while controlled.tell(&json!({"command": "list"}))["loops"][1]["responds"] == true {}
    let frontend = queues[0].frontend.clone();
    let stopping = std::thread::spawn(move || frontend.get_vring_base(0).unwrap_err());
    // The removal comes after this message, because it would end the session otherwise.
    controlled
        .daemon
        .logs("the I/O thread io1 has not stopped these queues within 2s: 0.");
    queues[1].read_sector(0);
    let error = controlled.refused(&json!({"command": "remove", "name": "slow"}));
    assert!(
        error.contains("does not respond") && error.contains("`list`"),
        "{error}"
    );
    let list = controlled.tell(&json!({"command": "list"}));
    assert_eq!(list["exports"][0]["is_leaving"], true);
    let log = controlled.daemon.stop();
    for part in [
        "the I/O thread io1 has not stopped these queues within 2s: 0.",
        "has no result within 10s",
        "io1 does not respond",
    ] {
        assert!(log.contains(part), "{part} in {log}");
    }
    stopping.join().unwrap();
    assert_eq!(queues[0].used(), 0, "the write is not complete");
}
