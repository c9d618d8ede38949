//! Exports that are added, resized and removed while NBD clients are served.

use std::path::PathBuf;

use serde_json::json;

use super::client::{Client, GO, READ, TRIM, WRITE_ZEROES, string};
use crate::client::pattern;
use crate::control::Controlled;
use crate::images::Image;

/// Starts a daemon with a control socket. Returns the path of its NBD socket, too.
fn start(disk: &str) -> (Controlled, PathBuf, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nbd.sock");
    let controlled = Controlled::start_with(disk, &["--nbd", &path.display().to_string()]);
    (controlled, path, directory)
}

#[test]
fn exports_are_added_and_removed_while_others_are_served() {
    let (controlled, path, _directory) = start("ram=1M");
    let mut neighbour = Client::simple(&path, "first");
    neighbour.write(0, &pattern(1, 512)).unwrap();
    let image = Image::new(1 << 20);
    for round in 0..3 {
        let export = format!("{},name=added", image.disk());
        controlled.tell(&json!({"command": "add", "export": export}));
        let mut client = Client::structured(&path, "added");
        client.write(4096, &pattern(round, 4096)).unwrap();
        let removed = controlled.tell(&json!({"command": "remove", "name": "added"}));
        assert_eq!(removed["incomplete_requests"], 0);
        client.is_closed();
        let refused = Client::unix(&path).option(GO, &[&string("added")[..], &[0, 0]].concat());
        assert!(
            String::from_utf8_lossy(&refused[0].1).contains("no export"),
            "{refused:?}"
        );
        // The image is free, so it can be locked again.
        assert_eq!(
            std::fs::read(image.path()).unwrap()[4096..8192],
            pattern(round, 4096)
        );
        assert_eq!(neighbour.read(0, 512).unwrap(), pattern(1, 512));
    }
    // An export without a socket needs a name of its own.
    controlled.tell(&json!({"command": "add", "export": "ram=1M"}));
    let said = controlled.refused(&json!({"command": "add", "export": "ram=2M"}));
    assert!(said.contains("add name=TEXT"), "{said}");
    assert_eq!(Client::simple(&path, "ram").size, 1 << 20);
}

#[test]
fn c14_the_next_client_sees_the_new_size() {
    let (controlled, path, _directory) = start("ram=1M");
    let mut client = Client::simple(&path, "first");
    assert_eq!(client.read(1 << 20, 512), Err(22));
    controlled.tell(&json!({"command": "resize", "name": "first", "size": "2M"}));
    assert_eq!(Client::simple(&path, "first").size, 2 << 20);
    // A client that does not know the new size may use it.
    client.write(1 << 20, &pattern(1, 4096)).unwrap();
    assert_eq!(client.read(1 << 20, 4096).unwrap(), pattern(1, 4096));
}

/// The figures from which `blockd ctl stats` and the metrics are made.
#[test]
fn requests_are_counted() {
    let image = Image::new(1 << 20);
    for disk in ["ram=1M".to_owned(), image.disk()] {
        let (controlled, path, _directory) = start(&disk);
        let figures = || controlled.tell(&json!({"command": "stats"}))["exports"][0].clone();
        assert!(figures().get("nbd").is_none(), "there was no client");
        let mut client = Client::structured(&path, "first");
        for at in 0..5 {
            client.write(at * 4096, &pattern(at, 4096)).unwrap();
        }
        client.read(0, 512).unwrap();
        client.flush().unwrap();
        client.run(TRIM, 0, 0, 4096).unwrap();
        client.run(WRITE_ZEROES, 0, 0, 8192).unwrap();
        client.status(0, 512);
        client.read(1 << 20, 512).unwrap_err();
        client.run(99, 0, 0, 0).unwrap_err();
        let export = figures();
        assert_eq!(export["clients"], 1);
        let count = |kind: &str| {
            let kind = &export["nbd"]["kinds"][kind];
            ["requests", "bytes", "errors"].map(|name| kind[name].as_u64().unwrap())
        };
        assert_eq!(count("write"), [5, 5 * 4096, 0], "{disk}");
        assert_eq!(count("read"), [1, 512, 0]);
        assert_eq!(count("flush"), [1, 0, 0]);
        assert_eq!(count("discard"), [1, 4096, 0]);
        assert_eq!(count("write-zeroes"), [1, 8192, 0]);
        // The block status, and two invalid requests.
        assert_eq!(count("other"), [3, 0, 2]);
        let list = controlled.tell(&json!({"command": "list"}));
        assert_eq!(list["exports"][0]["nbd_clients"], 1);
    }
}

/// Access past the page cache, with any alignment.
#[test]
fn c28_direct_access_to_an_image() {
    let image = Image::new(8 << 20);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nbd.sock").display().to_string();
    let export = format!("{},cache=none,name=disk", image.disk());
    let mut child = crate::process::blockd(&["--nbd", &path, "--export", &export])
        .spawn()
        .unwrap();
    if crate::process::first_line(&mut child) != "ready\n" {
        println!("skipped: the file system of the temporary directory has no direct access");
        child.wait().unwrap();
        return;
    }
    let mut client = Client::structured(path.as_ref(), "disk");
    for (at, len) in [
        (0, 4096),
        (4096, 1 << 20),
        (1, 511),
        (1000, 300_000),
        (4096, 4097),
        (0, 5 << 20),
    ] {
        let data = pattern(at ^ len as u64, len);
        client.write(at, &data).unwrap();
        assert!(client.read(at, len).unwrap() == data, "{len} bytes at {at}");
    }
    client.flush().unwrap();
    let all = client.run(READ, 0, 0, 5 << 20).unwrap();
    assert!(std::fs::read(image.path()).unwrap()[..5 << 20] == all);
    drop(client);
    crate::process::terminate(child);
}
