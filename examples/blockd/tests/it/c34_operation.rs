//! C34: the daemon under a service manager, and the rights of its sockets.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::{Client, pattern};
use crate::process::{blockd, complaint, ready, terminate, wait_ready};

/// Returns a command that starts the daemon with one passed socket, like a service manager.
pub(crate) fn with_passed(socket: UnixListener, name: &str, args: &[&str]) -> Command {
    let mut command = Command::new("sh");
    // The daemon replaces the shell in its process, so the shell can pass the number of the process.
    let script =
        format!("exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES={name} exec \"$0\" \"$@\"");
    command
        .args(["-c", &script, env!("CARGO_BIN_EXE_blockd")])
        .args(args)
        .stdin(OwnedFd::from(socket))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn serves(socket: &Path) {
    let mut client = Client::simple(socket);
    client.write(0, 0, &pattern(1, 4096)).unwrap();
    assert_eq!(client.read(0, 0, 4096).unwrap(), pattern(1, 4096));
}

#[test]
fn c34_a_passed_socket_is_served_and_stays() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("a.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut child = with_passed(
        listener.try_clone().unwrap(),
        "disk",
        &["--export", "ram=1M,socket=fd:disk"],
    )
    .spawn()
    .unwrap();
    wait_ready(&mut child);
    serves(&socket);
    serves(&socket);
    terminate(child);
    assert!(socket.exists(), "it is the service manager's");
    // The next daemon gets the same socket, and no connection in between is lost.
    let late = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    drop(late);
    let mut child = with_passed(listener, "disk", &["--export", "ram=1M,socket=fd:disk"])
        .spawn()
        .unwrap();
    wait_ready(&mut child);
    serves(&socket);
    terminate(child);
}

fn error_of(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(!output.status.success() && output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn c34_sockets_that_are_of_no_use_are_explained() {
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join("a.sock")).unwrap();
    let args = ["--export", "ram=1M,socket=fd:disk"];
    let error = error_of(&mut with_passed(listener.try_clone().unwrap(), "other", &args));
    assert!(
        error.contains("no socket \"disk\" was passed; there are other"),
        "{error}"
    );
    assert!(complaint(&args).contains("no socket was passed to this process"));
    // A connected socket does not listen.
    let (connected, _end) = std::os::unix::net::UnixStream::pair().unwrap();
    let connected = UnixListener::from(OwnedFd::from(connected));
    let error = error_of(&mut with_passed(connected, "disk", &args));
    assert!(error.contains("does not listen"), "{error}");
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = UnixListener::from(OwnedFd::from(tcp));
    let error = error_of(&mut with_passed(tcp, "disk", &args));
    assert!(error.contains("blockd takes Unix sockets"), "{error}");
    // A passed socket without an export causes a warning.
    let own = directory.path().join("b.sock");
    let export = format!("ram=1M,socket={}", own.display());
    let mut child = with_passed(listener, "other", &["--export", &export])
        .spawn()
        .unwrap();
    wait_ready(&mut child);
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    child.wait().unwrap();
    assert!(log.contains("no export uses it; add socket=fd:other"), "{log}");
}

/// A process that is ended when this value is dropped, even if the test fails.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        self.0.wait().map(drop).unwrap_or_default();
    }
}

#[test]
fn c34_systemd_passes_several_sockets_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let sockets = ["a", "b"].map(|name| directory.path().join(name));
    let mut command = Command::new("systemd-socket-activate");
    for socket in &sockets {
        command.arg("-l").arg(socket);
    }
    let started = command
        .arg("--fdname=first:second")
        .arg(env!("CARGO_BIN_EXE_blockd"))
        .args(["--export", "ram=1M,socket=fd:second"])
        .args(["--export", "ram=2M,socket=fd:first"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(child) = started else {
        println!("skipped: systemd-socket-activate is not installed");
        return;
    };
    let mut child = Ends(child);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !sockets.iter().all(|socket| socket.exists()) {
        assert!(Instant::now() < deadline, "no sockets");
        std::thread::yield_now();
    }
    // The first connection makes the manager start the daemon.
    let client = std::thread::spawn({
        let socket = sockets[0].clone();
        move || Client::simple(&socket).capacity()
    });
    wait_ready(&mut child.0);
    assert_eq!(client.join().unwrap(), 2 << 20);
    assert_eq!(Client::simple(&sockets[1]).capacity(), 1 << 20);
}

#[test]
fn c34_the_service_manager_is_notified_of_the_start_and_of_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let manager = UnixDatagram::bind(directory.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let export = format!("ram=1M,socket={}", directory.path().join("a").display());
    let mut child = blockd(&["--export", &export])
        .env("NOTIFY_SOCKET", directory.path().join("notify"))
        .spawn()
        .unwrap();
    let state = || {
        let mut room = [0; 256];
        let count = manager.recv(&mut room).unwrap();
        String::from_utf8(room[..count].to_vec()).unwrap()
    };
    assert!(state().lines().any(|line| line == "READY=1"));
    serves(&directory.path().join("a"));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(state().lines().any(|line| line == "STOPPING=1"));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    // A daemon that fails to start does not report that it is ready. A missing manager is not an error.
    let failed = blockd(&["--export", "path=/nowhere,socket=/nowhere/a"])
        .env("NOTIFY_SOCKET", directory.path().join("notify"))
        .output()
        .unwrap();
    assert!(!failed.status.success());
    manager.set_nonblocking(true).unwrap();
    assert!(manager.recv(&mut [0; 8]).is_err());
    drop(manager);
    let mut child = blockd(&["--export", &export])
        .env("NOTIFY_SOCKET", directory.path().join("notify"))
        .spawn()
        .unwrap();
    wait_ready(&mut child);
    terminate(child);
}

#[test]
fn c34_mode_and_group_decide_about_clients() {
    let directory = tempfile::tempdir().unwrap();
    let group = rustix::process::getgid().as_raw();
    for (name, keys, mode) in [
        ("a", "mode=600", 0o600),
        ("b", "mode=666", 0o666),
        ("c", "mode=660,group=GROUP", 0o660),
    ] {
        let socket = directory.path().join(name);
        let keys = keys.replace("GROUP", &group.to_string());
        let child = ready(&["--export", &format!("ram=1M,socket={},{keys}", socket.display())]);
        let about = socket.metadata().unwrap();
        assert_eq!(about.permissions().mode() & 0o777, mode);
        assert_eq!(about.gid(), group);
        serves(&socket);
        terminate(child);
    }
    let socket = directory.path().join("d");
    let error = complaint(&[
        "--export",
        &format!("ram=1M,socket={},group=no-such-group", socket.display()),
    ]);
    assert!(error.contains("there is no group no-such-group"), "{error}");
    assert!(!socket.exists());
}

#[test]
fn c34_the_number_of_the_process_is_in_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pid").display().to_string();
    let export = |name: &str| format!("ram=1M,socket={}", directory.path().join(name).display());
    let child = ready(&["--export", &export("a"), "--pidfile", &file]);
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text, format!("{}\n", child.id()));
    let error = complaint(&["--export", &export("b"), "--pidfile", &file]);
    assert!(error.contains("another process runs"), "{error}");
    terminate(child);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

/// If an option names the wrong file, no data are lost: the daemon overwrites only files that it has written
/// itself.
#[test]
fn c34_a_file_that_is_not_the_daemons_stays() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("disk.raw");
    let contents = pattern(7, 1 << 20);
    std::fs::write(&image, &contents).unwrap();
    let export = format!("ram=1M,socket={}", directory.path().join("a").display());
    let image_export = format!(
        "path={},socket={}",
        image.display(),
        directory.path().join("b").display()
    );
    let path = image.display().to_string();
    for option in [
        &["--pidfile", path.as_str()][..],
        &["--poll-max", "32us", "--record-waits", path.as_str()][..],
    ] {
        for export in [&export, &image_export] {
            let error = complaint(&[option, &["--export", export]].concat());
            assert!(error.contains("has other contents; name another path"), "{error}");
            assert!(
                std::fs::read(&image).unwrap() == contents,
                "{option:?} has changed the image"
            );
        }
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    // The next start overwrites the daemon's own files.
    let waits = directory.path().join("waits").display().to_string();
    let args = [
        "--export",
        &export,
        "--poll-max",
        "32us",
        "--record-waits",
        &waits,
    ];
    for _ in 0..2 {
        terminate(ready(&args));
        assert!(
            std::fs::read_to_string(&waits)
                .unwrap()
                .starts_with("# nanoseconds")
        );
    }
}

#[test]
fn c33_warnings_come_before_the_line_ready() {
    let directory = tempfile::tempdir().unwrap();
    let export = format!("ram=1M,socket={}", directory.path().join("a").display());
    for args in [
        &["--policy", "fixed"][..],
        &["--engine", "uring", "--backend", "ppoll"],
        &["--iothreads", "4", "--poll-grow", "3"],
    ] {
        let (output, both) = std::io::pipe().unwrap();
        let mut command = blockd(&[&["--export", &export], args].concat());
        command.stdout(both.try_clone().unwrap()).stderr(both);
        let child = command.spawn().unwrap();
        // The command has the test's ends of the pipe.
        drop(command);
        let mut lines = BufReader::new(output).lines().map(Result::unwrap);
        let before: Vec<String> = lines.by_ref().take_while(|line| line != "ready").collect();
        for option in args
            .iter()
            .filter(|arg| arg.starts_with("--") && **arg != "--backend")
        {
            assert!(
                before.iter().any(|line| line.contains(option)),
                "{option} in {before:?}"
            );
        }
        terminate(child);
        assert_eq!(lines.next(), None);
    }
}
