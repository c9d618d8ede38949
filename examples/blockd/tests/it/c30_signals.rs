//! Signals: each ends the daemon and removes its sockets, or has no effect.

use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::{Client, pattern};
use crate::process::{blockd, ready, terminate, wait_ready};

#[test]
fn c30_signals_that_end_it_leave_no_socket() {
    for signal in [Signal::HUP, Signal::QUIT, Signal::TERM, Signal::INT] {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("a");
        let mut child = ready(&["--export", &format!("ram=1M,socket={}", socket.display())]);
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{signal:?}");
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            0,
            "{signal:?}"
        );
    }
}

#[test]
fn c30_other_signals_do_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("a");
    let child = ready(&["--export", &format!("ram=1M,socket={}", socket.display())]);
    let mut client = Client::simple(&socket);
    for signal in [Signal::USR1, Signal::USR2, Signal::PIPE, Signal::XFSZ] {
        for seed in 0..10 {
            kill_process(Pid::from_child(&child), signal).unwrap();
            client.write(0, 0, &pattern(seed, 512)).unwrap();
            assert_eq!(client.read(0, 0, 512).unwrap(), pattern(seed, 512), "{signal:?}");
        }
    }
    drop(client);
    terminate(child);
}

/// The daemon starts with SIGHUP ignored, as under `nohup`.
#[test]
fn c30_a_hangup_that_was_ignored_stays_ignored() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("a");
    let mut child = Command::new("sh")
        .args([
            "-c",
            "trap '' HUP; exec \"$0\" \"$@\"",
            env!("CARGO_BIN_EXE_blockd"),
        ])
        .args(["--export", &format!("ram=1M,socket={}", socket.display())])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_ready(&mut child);
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    let mut client = Client::simple(&socket);
    client.write(0, 0, &pattern(1, 512)).unwrap();
    drop(client);
    terminate(child);
}

/// A signal arrives at any moment of the start.
#[test]
fn c30_a_signal_during_the_start_leaves_no_socket() {
    let mut random = crate::seed();
    let directory = tempfile::tempdir().unwrap();
    let names = ["a", "b", "c", "d"].map(|name| directory.path().join(name).display().to_string());
    let exports = names.map(|name| format!("ram=1M,socket={name}"));
    let args: Vec<&str> = exports.iter().flat_map(|export| ["--export", export]).collect();
    for _ in 0..100 {
        let mut child = blockd(&args).spawn().unwrap();
        let pid = Pid::from_child(&child);
        let sockets = random.usize(..=4);
        // The signal is sent at once, or when some of the sockets exist.
        while std::fs::read_dir(directory.path()).unwrap().count() < sockets {
            std::thread::yield_now();
        }
        kill_process(pid, [Signal::TERM, Signal::HUP, Signal::INT][random.usize(..3)]).unwrap();
        child.wait().unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
