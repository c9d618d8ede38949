//! Mistakes in the set-up of clients: a line in the log names the cause and the remedy.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use vhost::VhostBackend;
use vhost::VhostUserMemoryRegionInfo;
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::client::eventfd;
use crate::daemon::Daemon;
use crate::process::{first_line, ready, terminate, wait_ready};
use crate::raw::Raw;

#[test]
fn c21_memory_that_is_not_shared() {
    let daemon = Daemon::start("ram=1M", &[]);
    let mut raw = Raw::connect(daemon.socket());
    // The rings are in memory that is not shared.
    let elsewhere = VhostUserMemoryRegionInfo {
        userspace_addr: 0x7000_0000_0000,
        ..raw.region()
    };
    raw.frontend.set_mem_table(&[elsewhere]).unwrap();
    raw.set_up(0);
    raw.frontend.set_vring_enable(0, true).unwrap_err();
    let log = daemon.stop();
    assert!(
        log.contains("guest memory must be shared") && log.contains("share=on"),
        "{log}"
    );
}

/// Returns the next line of a daemon's log.
fn line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stderr.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    line
}

#[test]
fn c21_a_descriptor_limit_that_is_too_low() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("a.sock");
    let mut child = Command::new("sh")
        .args([
            "-c",
            "ulimit -n 64; exec \"$0\" \"$@\"",
            env!("CARGO_BIN_EXE_blockd"),
        ])
        .args([
            "--export",
            &format!("ram=1M,socket={},queues=32", socket.display()),
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_ready(&mut child);
    let mut frontend = Frontend::connect(&socket, 32).unwrap();
    frontend.set_owner().unwrap();
    let features = frontend.get_features().unwrap();
    frontend.get_protocol_features().unwrap();
    let protocol = VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK;
    frontend.set_protocol_features(protocol).unwrap();
    frontend.set_features(features).unwrap();
    frontend.set_hdr_flags(vhost::vhost_user::message::VhostUserHeaderFlag::NEED_REPLY);
    let eventfds: Vec<EventFd> = (0..64).map(|_| eventfd(EFD_NONBLOCK)).collect();
    let all_taken = (0..32).all(|queue| {
        frontend.set_vring_kick(queue, &eventfds[queue]).is_ok()
            && frontend.set_vring_call(queue, &eventfds[32 + queue]).is_ok()
    });
    assert!(!all_taken, "64 descriptors are enough");
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let said = log
        .find(|line| line.as_ref().unwrap().contains("the connection ends"))
        .unwrap()
        .unwrap();
    assert!(
        said.contains("no descriptors left") && said.contains("ulimit -Hn"),
        "{said}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn c21_a_second_client_on_a_socket() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("a.sock");
    let mut child = ready(&["--export", &format!("ram=1M,socket={}", socket.display())]);
    let mut first = Raw::ready(&socket);
    first.read_sector(0);
    let second = UnixStream::connect(&socket).unwrap();
    let said = line(&mut child);
    assert!(
        said.contains("another client waits") && said.contains("export of its own"),
        "{said}"
    );
    first.read_sector(1);
    drop((first, second));
    Raw::ready(&socket).read_sector(0);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A client that reconnects does not count as a second client, even if the end of its first connection has
/// not been handled.
#[test]
fn c21_a_client_that_comes_back_is_no_second_one() {
    let daemon = Daemon::start("ram=1M", &[]);
    for _ in 0..200 {
        let mut raw = Raw::ready(daemon.socket());
        raw.read_sector(0);
        raw.disconnect();
    }
    assert_eq!(daemon.stop(), "");
}

/// If the limit of open files ends the start, at any point, the error does not recommend another name for a
/// file or a socket.
#[test]
fn c21_no_limit_of_open_files_is_taken_for_a_wrong_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let exports = ["a", "b", "c"].map(|name| format!("ram=1M,socket={},name={name}", path(name)));
    let mut explained = 0;
    for limit in 12..48 {
        let script = format!("ulimit -n {limit}; exec \"$0\" \"$@\"");
        let mut child = Command::new("sh")
            .args([
                "-c",
                &script,
                env!("CARGO_BIN_EXE_blockd"),
                "--nbd",
                &path("n.sock"),
            ])
            .args(["--control", &path("ctl.sock")])
            .args(exports.iter().flat_map(|export| ["--export", export]))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        if first_line(&mut child) == "ready\n" {
            terminate(child);
            break;
        }
        let log = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
        let error = log.lines().last().unwrap();
        assert!(error.contains("Too many open files"), "{limit}: {log}");
        assert!(!error.contains("name another"), "{limit}: {error}");
        explained += usize::from(error.contains("cannot listen") && error.contains("LimitNOFILE"));
    }
    assert!(explained > 0, "no start has failed at a socket");
}
