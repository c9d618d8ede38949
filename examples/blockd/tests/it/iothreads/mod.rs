//! Several I/O threads.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::client::{Client, pattern};
use crate::control::Controlled;
use crate::engines::run_again;
use crate::nbd::client as nbd;
use crate::process::complaint;

mod queues;
mod random;
mod slow;

/// The variable with the number of I/O threads of daemons, or with the threads of each export, such as `1+0`.
pub(crate) const VARIABLE: &str = "BLOCKD_TEST_IOTHREADS";

/// A daemon with a control socket, an NBD socket and several threads. The last thread serves its export
/// `first`.
struct Threads {
    controlled: Controlled,
    nbd: PathBuf,
    _directory: tempfile::TempDir,
}

impl Threads {
    fn start(count: usize) -> Self {
        Self::start_with(&format!("ram=1M,iothread={}", count - 1), count)
    }

    /// Starts the daemon with `disk` as its first export.
    fn start_with(disk: &str, count: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let nbd = directory.path().join("nbd.sock");
        let (count, path) = (count.to_string(), nbd.display().to_string());
        let controlled = Controlled::start_with(disk, &["--nbd", &path, "--iothreads", &count]);
        Self {
            controlled,
            nbd,
            _directory: directory,
        }
    }

    /// Returns each export with its thread.
    fn threads(&self) -> Vec<(String, String)> {
        let list = self.list();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let exports = list["exports"].as_array().unwrap().iter();
        exports
            .map(|export| (text(&export["name"]), text(&export["thread"])))
            .collect()
    }

    fn list(&self) -> Value {
        self.controlled.tell(&json!({"command": "list"}))
    }

    fn add(&self, export: &str) {
        self.controlled.tell(&json!({"command": "add", "export": export}));
    }

    fn remove(&self, name: &str) {
        let removed = self.controlled.tell(&json!({"command": "remove", "name": name}));
        assert_eq!(removed["incomplete_requests"], 0);
    }
}

#[test]
fn exports_are_spread_over_the_threads_or_name_one() {
    let daemon = Threads::start(3);
    let thread_of = |name: &str| {
        let threads = daemon.threads();
        let found = threads.into_iter().find(|(export, _)| export == name);
        found.unwrap().1
    };
    assert_eq!(thread_of("first"), "io2");
    for (name, thread) in [("a", "main"), ("b", "io1"), ("c", "main")] {
        daemon.add(&format!("ram=1M,name={name}"));
        assert_eq!(thread_of(name), thread);
    }
    daemon.add("ram=1M,name=d,iothread=1");
    assert_eq!(thread_of("d"), "io1");
    daemon.remove("first");
    daemon.add("ram=1M,name=e");
    assert_eq!(thread_of("e"), "io2", "the thread without an export");
    let refused = json!({"command": "add", "export": "ram=1M,name=f,iothread=3"});
    let error = daemon.controlled.refused(&refused);
    assert!(
        error.contains("the I/O threads 0 to 2") && error.contains("--iothreads 4"),
        "{error}"
    );
    let listed = daemon.controlled.ctl_says(&["list"]);
    for part in ["THREAD", "loop main: waits", "loop io1: waits", "loop io2: waits"] {
        assert!(listed.contains(part), "{part} in {listed}");
    }
    assert_eq!(daemon.controlled.daemon.stop(), "");
}

#[test]
fn threads_that_do_not_exist_are_refused() {
    for (args, remedy) in [
        (&["ram=1M,socket=/tmp/x,iothread=1"][..], "only the I/O thread 0"),
        (
            &["ram=1M,socket=/tmp/x,iothread=5", "--iothreads", "2"],
            "--iothreads 6",
        ),
        (
            &["ram=1M,socket=/tmp/x,iothread=0+7+3", "--iothreads", "2"],
            "--iothreads 8",
        ),
        (&["ram=1M,socket=/tmp/x", "--iothreads", "0"], "1..=64"),
        (&["ram=1M,socket=/tmp/x", "--iothreads", "65"], "1..=64"),
    ] {
        let error = complaint(&[&["--export"], args].concat());
        assert!(error.contains(remedy), "{args:?}: {error}");
    }
}

/// One disk is used through a virtqueue on one thread, and by NBD clients whose handshakes are on another.
#[test]
fn a_disk_of_one_thread_is_the_same_for_all_clients() {
    for count in [1, 2, 4] {
        let daemon = Threads::start(count);
        let mut guest = Client::simple(daemon.controlled.daemon.socket());
        for round in 0..20_u64 {
            let (data, other) = (pattern(2 * round, 8192), pattern(2 * round + 1, 8192));
            let mut client = nbd::Client::structured(&daemon.nbd, "first");
            guest.write(0, 0, &data).unwrap();
            assert_eq!(client.read(0, 8192).unwrap(), data);
            client.write(65536, &other).unwrap();
            assert_eq!(guest.read(0, 65536, 8192).unwrap(), other);
        }
        let stats = daemon.controlled.tell(&json!({"command": "stats"}));
        let of_export = &stats["exports"][0];
        assert_eq!(of_export["clients"], 21);
        assert_eq!(of_export["nbd"]["kinds"]["read"]["requests"], 20);
        assert_eq!(of_export["queues"][0]["kinds"]["write"]["requests"], 20);
        assert_eq!(stats["loops"].as_array().unwrap().len(), count);
    }
}

/// Requests that a client has sent after its choice of an export move with it, and so does the reply to the
/// choice.
#[test]
fn what_a_client_has_sent_already_moves_with_it() {
    use std::io::{Read, Write};
    let daemon = Threads::start(2);
    for len in [512, 200_000] {
        let mut stream = std::os::unix::net::UnixStream::connect(&daemon.nbd).unwrap();
        let data = pattern(len, len as usize);
        let header = |command: u16, len: u64| {
            [
                &0x2560_9513u32.to_be_bytes()[..],
                &[0, 0],
                &command.to_be_bytes(),
                &[7; 8],
                &0u64.to_be_bytes(),
                &(len as u32).to_be_bytes(),
            ]
            .concat()
        };
        let choice = [
            &[0, 0, 0, 3][..],
            b"IHAVEOPT",
            &[0, 0, 0, 7, 0, 0, 0, 11, 0, 0, 0, 5],
            b"first\0\0",
        ]
        .concat();
        let all = [
            choice,
            header(nbd::WRITE, len),
            data.clone(),
            header(nbd::READ, len),
        ]
        .concat();
        let mut reader = stream.try_clone().unwrap();
        let reading = std::thread::spawn(move || {
            // The opening, two replies to the choice, and two replies to the requests.
            let mut all = vec![0; 18 + (20 + 12) + 20 + 16 + 16 + len as usize];
            reader.read_exact(&mut all).unwrap();
            all
        });
        stream.write_all(&all).unwrap();
        let replies = reading.join().unwrap();
        assert!(replies.ends_with(&data));
    }
}

#[test]
fn polling_is_set_for_one_loop() {
    let daemon = Threads::start(2);
    daemon.add("ram=1M,name=other,iothread=0");
    let polls = || {
        let list = daemon.list();
        [0, 1].map(|index| list["loops"][index]["poll_max_ns"].as_u64().unwrap())
    };
    let set = |name: &str, max: &str| {
        let poll = json!({"max": max, "policy": "always"});
        let change = json!({"command": "set-poll", "name": name, "poll": poll});
        let said = daemon.controlled.tell(&change)["polling"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(said.contains("always"), "{said}");
    };
    set("io1", "50us");
    assert_eq!(polls(), [0, 50_000]);
    set("other", "20us");
    assert_eq!(polls(), [20_000, 50_000]);
    set("first", "30us");
    assert_eq!(polls(), [20_000, 30_000]);
    daemon.controlled.daemon.serves();
    let unknown = json!({"command": "set-poll", "name": "io2", "poll": {"max": "1us"}});
    let error = daemon.controlled.refused(&unknown);
    assert!(error.contains("the loops are main, io1"), "{error}");
}

/// Runs tests again with `threads` threads. The last thread serves the export of each test.
fn run_with(threads: &str, names: &[&str], others: &[&str]) {
    if std::env::var_os(VARIABLE).is_some() {
        return;
    }
    let passed = run_again((VARIABLE, threads), names, others);
    println!("{passed} tests passed with {threads} threads");
}

#[test]
fn clients_of_the_second_thread_are_served_as_those_of_the_only_one() {
    let names = [
        "c06_in_flight::",
        "c06_outstanding::c6_for_a_client",
        "c07_",
        "c20_log",
        "c26_",
        "c27_",
        "c30_",
        "c34_",
        "messages::",
        "reconnect::",
    ];
    run_with("2", &names, &[]);
}

#[test]
fn images_and_nbd_clients_of_the_second_thread_are_served_as_those_of_the_only_one() {
    // The c8 tests that end the daemon are excluded: they require that one thread takes a request before it
    // handles the signal.
    let names = [
        "c08_slow_images::c8_a_",
        "c14_",
        "nbd::control",
        "nbd::images",
        "nbd::operation",
        "nbd::serving",
    ];
    run_with("2", &names, &[]);
}

/// Clients with one queue. Another thread serves it than the one that handles their messages.
#[test]
fn queues_on_another_thread_than_their_session_are_served_as_those_on_the_same() {
    let names = [
        "c06_in_flight::",
        "c06_outstanding::c6_for_a_client",
        "c07_",
        "c20_log",
        "c21_",
        "c23_",
        "c24_",
        "c26_",
        "c27_",
        "c30_",
        "churn::",
        "control::",
        "malformed::",
        "memory::",
        "messages::",
        "protocol::",
        "reconnect::",
        "serving::",
        "transitions::",
    ];
    // An export with one queue cannot have two threads.
    run_with("1+0", &names, &["c22_"]);
}

#[test]
fn images_whose_queues_are_on_another_thread_are_served_as_those_on_the_same() {
    run_with(
        "1+0",
        &["c08_slow_images::c8_a_", "c14_", "nbd::images", "kills::"],
        &[],
    );
}

/// One of the tests adds and removes a thousand exports.
#[test]
fn commands_and_figures_are_right_with_four_threads() {
    run_with("4", &["control::", "metrics::"], &[]);
}
