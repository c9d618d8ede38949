//! Starting and ending: sockets, addresses, options.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use super::client::Client;
use crate::c34_operation::with_passed;
use crate::process::{complaint, ready, terminate, wait_ready};

#[test]
fn c7_the_socket_is_replaced_if_stale_and_removed_if_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nbd.sock");
    let nbd = path.display().to_string();
    drop(UnixListener::bind(&path).unwrap());
    let args = ["--nbd", &nbd, "--export", "ram=1M,name=disk"];
    let former = ready(&args);
    assert!(complaint(&args).contains("another process listens"));
    std::fs::remove_file(&path).unwrap();
    let present = ready(&args);
    terminate(former);
    Client::simple(&path, "disk").flush().unwrap();
    terminate(present);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    std::fs::write(&path, "precious").unwrap();
    assert!(complaint(&args).contains("is not a socket"));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[test]
fn several_addresses() {
    let directory = tempfile::tempdir().unwrap();
    let paths = ["a.sock", "b.sock"].map(|name| directory.path().join(name));
    let nbd = paths.each_ref().map(|path| path.display().to_string());
    let child = ready(&["--nbd", &nbd[0], "--nbd", &nbd[1], "--export", "ram=1M,name=disk"]);
    Client::simple(&paths[0], "disk").write(0, &[4; 512]).unwrap();
    assert_eq!(Client::simple(&paths[1], "disk").read(0, 512).unwrap(), [4; 512]);
    terminate(child);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn mistakes_are_explained() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nbd.sock").display().to_string();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let export = |text: &'static str| ["--export", text];
    for (nbd, exports, remedy) in [
        (&*path, vec![export("ram=1M"), export("ram=2M")], "add name=TEXT"),
        (&path, vec![export("ram=1M,queues=2")], "vhost-user socket only"),
        ("10809", vec![export("ram=1M")], "127.0.0.1:10809"),
        ("nbd", vec![export("ram=1M")], "./nbd"),
        (&address, vec![export("ram=1M")], "name another port"),
        ("192.0.2.1:1", vec![export("ram=1M")], "no such address"),
        (
            "/no/such/directory/nbd.sock",
            vec![export("ram=1M")],
            "does not exist",
        ),
    ] {
        let args = [&["--nbd", nbd][..], &exports.concat()].concat();
        let said = complaint(&args);
        assert!(said.contains(remedy), "{args:?}: {said}");
    }
    let said = complaint(&["--export", "ram=1M"]);
    assert!(
        said.contains("socket=PATH") && said.contains("--nbd /tmp/nbd.sock"),
        "{said}"
    );
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

/// Mode and group are those of the option, with every umask.
#[test]
fn c34_the_socket_has_its_mode_and_group() {
    use std::os::unix::fs::MetadataExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nbd.sock");
    let group = rustix::process::getegid().as_raw();
    for mode in ["600", "666"] {
        let nbd = format!("{},mode={mode},group={group}", path.display());
        let child = ready(&["--nbd", &nbd, "--export", "ram=1M,name=disk"]);
        let about = std::fs::metadata(&path).unwrap();
        assert_eq!(format!("{:o}", about.mode() & 0o777), mode);
        assert_eq!(about.gid(), group);
        Client::simple(&path, "disk").flush().unwrap();
        terminate(child);
        assert!(!path.exists());
    }
    let unknown = format!("{},group=no-such-group", path.display());
    let said = complaint(&["--nbd", &unknown, "--export", "ram=1M,name=disk"]);
    assert!(said.contains("getent group"), "{said}");
}

#[test]
fn c34_a_passed_socket_is_served_and_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nbd.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let args = ["--nbd", "fd:disks", "--export", "ram=1M,name=disk"];
    for _ in 0..2 {
        let mut child = with_passed(listener.try_clone().unwrap(), "disks", &args)
            .spawn()
            .unwrap();
        wait_ready(&mut child);
        let mut client = Client::simple(&path, "disk");
        client.write(0, &[7; 512]).unwrap();
        assert_eq!(client.read(0, 512).unwrap(), [7; 512]);
        drop(client);
        terminate(child);
        assert!(path.exists(), "it is the service manager's");
    }
    let said = complaint(&args);
    assert!(said.contains("no socket was passed to this process"), "{said}");
}
