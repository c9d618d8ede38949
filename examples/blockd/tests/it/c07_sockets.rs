//! Two daemons and one socket.

use std::io::Read;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::{Client, pattern};
use crate::images::attempt;
use crate::process::{blockd, complaint, first_line, ready, terminate};

#[test]
fn c7_a_daemon_removes_its_own_socket_only() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("a.sock");
    let export = format!("ram=1M,socket={}", socket.display());
    let former = ready(&["--export", &export]);
    std::fs::remove_file(&socket).unwrap();
    let present = ready(&["--export", &export]);
    terminate(former);
    assert!(socket.exists(), "the socket of the other daemon is removed");
    let mut client = Client::simple(&socket);
    client.write(0, 0, &pattern(1, 512)).unwrap();
    drop(client);
    terminate(present);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

/// The path has been reused for a file, which the daemon must not remove.
#[test]
fn c7_a_file_in_the_socket_s_place_stays() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("a.sock");
    let child = ready(&["--export", &format!("ram=1M,socket={}", socket.display())]);
    std::fs::remove_file(&socket).unwrap();
    std::fs::write(&socket, "precious").unwrap();
    terminate(child);
    assert_eq!(std::fs::read(&socket).unwrap(), b"precious");
}

/// In each round there are a stale socket and three simultaneous starts. One start gets the socket, the
/// others fail, and no file is left.
#[test]
fn c7_one_of_several_starts_takes_a_stale_socket() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("a.sock");
    let export = format!("ram=1M,socket={}", socket.display());
    for _ in 0..10 {
        let mut killed = ready(&["--export", &export]);
        killed.kill().unwrap();
        killed.wait().unwrap();
        let racers: Vec<Child> = (0..3)
            .map(|_| blockd(&["--export", &export]).spawn().unwrap())
            .collect();
        let mut winners = Vec::new();
        for mut racer in racers {
            let line = first_line(&mut racer);
            if line == "ready\n" {
                winners.push(racer);
                continue;
            }
            let mut log = String::new();
            racer.stderr.as_mut().unwrap().read_to_string(&mut log).unwrap();
            assert_eq!(racer.wait().unwrap().code(), Some(1));
            assert!(log.contains("another process listens at"), "{log}");
        }
        assert_eq!(winners.len(), 1);
        let mut client = Client::simple(&socket);
        client.write(0, 0, &pattern(1, 512)).unwrap();
        drop(client);
        winners.into_iter().for_each(terminate);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}

/// The same, but strace delays the first start after it has found the socket stale and before it removes the
/// socket.
#[test]
fn c7_a_start_between_another_one_s_check_and_removal() {
    if Command::new("strace").arg("-V").output().is_err() {
        println!("skipped: strace is not installed");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("a.sock");
    let export = format!("ram=1M,socket={}", socket.display());
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let calls = directory.path().join("calls");
    let mut held_up = Command::new("strace")
        .args([
            "-f",
            "-qq",
            "-e",
            "inject=unlink,unlinkat:delay_enter=500000:when=1",
        ])
        .args(["-e", "trace=unlink,unlinkat", "-o"])
        .arg(&calls)
        .args([env!("CARGO_BIN_EXE_blockd"), "--export", &export])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let traced = loop {
        let text = std::fs::read_to_string(&calls).unwrap_or_default();
        if let Some((pid, _)) = text.split_once("unlink") {
            break pid.trim().parse::<i32>().unwrap();
        }
        std::thread::yield_now();
    };
    let mut other = blockd(&["--export", &export]).spawn().unwrap();
    let is_ready = |child: &mut Child| first_line(child) == "ready\n";
    let both = [is_ready(&mut held_up), is_ready(&mut other)];
    // The traced process itself gets the signal, because strace would only detach from it.
    kill_process(Pid::from_raw(traced).unwrap(), Signal::TERM).unwrap();
    held_up.wait().unwrap();
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(both, [true, false], "both have the socket");
}

/// The kernel closes the sockets of a process with an io_uring some time after its end.
#[test]
fn c7_the_socket_of_a_killed_daemon_with_a_ring_is_free() {
    let directory = tempfile::tempdir().unwrap();
    let export = format!("ram=1M,socket={}", directory.path().join("a.sock").display());
    for _ in 0..20 {
        let mut daemon = ready(&["--export", &export, "--backend", "uring"]);
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }
}

/// The error names the process that has the socket, so that a user does not search for a process that does
/// not exist.
#[test]
fn c7_the_listener_of_a_socket_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("a.sock").display().to_string();
    let name = directory.path().file_name().unwrap().display();
    let beside = format!("{}/../{name}/a.sock", directory.path().display());
    let export = format!("ram=1M,socket={socket}");
    let again = format!("ram=1M,socket={beside}");
    for option in [["--control", &socket], ["--nbd", &socket], ["--export", &again]] {
        let error = complaint(&[&["--export", &export, "--iothreads", "2"], &option[..]].concat());
        assert!(error.contains("this daemon listens at"), "{option:?}: {error}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
    let other = ready(&["--export", &export]);
    let error = complaint(&["--export", &export]);
    assert!(error.contains("another process listens at"), "{error}");
    assert!(
        error.contains(&format!("stop the process {}", other.id())),
        "{error}"
    );
    terminate(other);
}

/// A daemon outside of a PID namespace, such as on a container's host, has no process number inside.
#[test]
fn c7_a_daemon_in_another_namespace_of_processes_keeps_its_socket() {
    let unshare = || {
        let mut unshare = Command::new("unshare");
        unshare.args(["--pid", "--fork"]);
        unshare
    };
    if attempt(unshare().arg("true")).is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("a.sock");
    let export = format!("ram=1M,socket={}", socket.display());
    let child = ready(&["--export", &export]);
    let output = unshare()
        .arg(env!("CARGO_BIN_EXE_blockd"))
        .args(["--export", &export])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "two daemons have one socket");
    assert!(said.contains("another process listens at"), "{said}");
    Client::simple(&socket).write(0, 0, &pattern(1, 512)).unwrap();
    terminate(child);
}
