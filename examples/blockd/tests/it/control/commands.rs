//! The effect of each command, and its error when it fails.

use std::process::{Command, Stdio};
use std::thread;

use serde_json::json;

use super::Controlled;
use crate::client::{Client, pattern};
use crate::images::c08_slow_images::Freezable;
use crate::raw::{DATA, Raw};

#[test]
fn exports_are_added_and_removed_while_others_are_served() {
    let controlled = Controlled::start("ram=1M");
    let mut neighbour = Client::simple(controlled.daemon.socket());
    neighbour.write(0, 0, &pattern(1, 512)).unwrap();
    let image = controlled.path("disk.raw");
    std::fs::File::create(&image).unwrap().set_len(1 << 20).unwrap();
    for round in 0..3 {
        let socket = controlled.path("added.sock");
        let export = format!("path={},socket={},name=added", image.display(), socket.display());
        controlled.tell(&json!({"command": "add", "export": export}));
        assert_eq!(controlled.names(), ["first", "added"]);
        let mut client = Client::simple(&socket);
        client.write(0, 4096, &pattern(round, 4096)).unwrap();
        client.flush(0).unwrap();
        let removed = controlled.tell(&json!({"command": "remove", "name": "added"}));
        assert_eq!(removed["incomplete_requests"], 0);
        assert_eq!(controlled.names(), ["first"]);
        assert!(!socket.exists());
        let written = std::fs::read(&image).unwrap();
        assert_eq!(written[4096..8192], pattern(round, 4096));
        assert_eq!(neighbour.read(0, 0, 512).unwrap(), pattern(1, 512));
    }
    // The first export can be removed as well, and its name is free afterwards.
    controlled.tell(&json!({"command": "remove", "name": "first"}));
    assert!(controlled.names().is_empty());
    assert!(!controlled.daemon.socket().exists());
    let export = format!(
        "ram=1M,socket={},name=first",
        controlled.daemon.socket().display()
    );
    controlled.tell(&json!({"command": "add", "export": export}));
    controlled.daemon.serves();
}

#[test]
fn what_cannot_be_done_is_explained() {
    let controlled = Controlled::start("ram=1M");
    let socket = controlled.daemon.socket().display().to_string();
    let other = controlled.path("other").display().to_string();
    let add = |export: String| json!({"command": "add", "export": export});
    for (command, remedy) in [
        (add("ram=1M".into()), "add socket=PATH"),
        (add(format!("ram=1M,socket={socket}")), "a socket of its own"),
        (
            add(format!("ram=1M,socket={other},name=first")),
            "a name of its own",
        ),
        (add(format!("path={other},socket={other}.sock")), "truncate -s 1G"),
        (
            add(format!("ram=1M,socket={other}/no/directory")),
            "does not exist; make it",
        ),
        (
            json!({"command": "remove", "name": "second"}),
            "`list` shows their names",
        ),
        (
            json!({"command": "resize", "name": "second", "size": "2M"}),
            "`list` shows their names",
        ),
        (
            json!({"command": "resize", "name": "first", "size": "much"}),
            "such as 64M",
        ),
        (
            json!({"command": "resize", "name": "first", "size": "512K"}),
            "add --shrink",
        ),
        (
            json!({"command": "resize", "name": "first", "size": "auto"}),
            "name the new size",
        ),
        (
            json!({"command": "set-poll", "name": "second", "poll": {}}),
            if crate::iothreads() > 1 {
                "the loops are main, io1"
            } else {
                "main is the loop"
            },
        ),
        (
            json!({"command": "set-poll", "name": "main", "poll": {"policy": "luck"}}),
            "qemu-2020",
        ),
        (
            json!({"command": "set-poll", "name": "main", "poll": {"max": "5s"}}),
            "32us to 200us",
        ),
        (
            json!({"command": "log-level", "level": "inof"}),
            "use off, error, warn, info",
        ),
        (json!({"command": "dance"}), "not a command"),
        (json!({"command": "list", "verbose": true}), "not a command"),
        (json!([1, 2]), "not a command"),
    ] {
        let error = controlled.refused(&command);
        assert!(error.contains(remedy), "{command}: {error}");
    }
    assert_eq!(controlled.names(), ["first"]);
    assert!(!controlled.path("other").exists() && !controlled.path("other.sock").exists());
    controlled.daemon.serves();
}

#[test]
fn an_export_that_is_removed_completes_what_it_has_taken() {
    let Some(system) = Freezable::mount() else {
        return;
    };
    let controlled = Controlled::start("ram=1M");
    let socket = controlled.path("frozen.sock");
    let export = format!(
        "path={},socket={},name=frozen",
        system.image().display(),
        socket.display()
    );
    controlled.tell(&json!({"command": "add", "export": export}));
    let mut raw = Raw::ready(&socket);
    raw.put(DATA, &[7; 512]);
    system.freeze();
    let before = raw.used();
    raw.offer_request(1, 5, &[(DATA, 512)], 0);
    let in_flight = || controlled.tell(&json!({"command": "list"}))["exports"][1]["in_flight"].clone();
    while in_flight() != 1 {
        thread::yield_now();
    }
    let mut line = controlled.connect();
    let removing = thread::spawn(move || line.tell(&json!({"command": "remove", "name": "frozen"})));
    while controlled.tell(&json!({"command": "list"}))["exports"][1]["is_leaving"] != true {
        thread::yield_now();
    }
    let error = controlled.refused(&json!({"command": "remove", "name": "frozen"}));
    assert!(error.contains("being removed already"), "{error}");
    controlled.daemon.serves();
    system.thaw();
    assert_eq!(removing.join().unwrap()["incomplete_requests"], 0);
    raw.wait_used(before.wrapping_add(1));
    raw.wait_closed();
    assert_eq!(controlled.names(), ["first"]);
}

#[test]
fn polling_is_changed_while_a_client_is_served() {
    let controlled = Controlled::start("ram=1M");
    let (index, name) = crate::last_loop();
    let name = name.as_str();
    let mut client = Client::simple(controlled.daemon.socket());
    let polling = || {
        let list = controlled.tell(&json!({"command": "list"}));
        let polling = list["loops"][index]["polling"].as_str().unwrap().to_owned();
        (polling, list["loops"][index]["poll_max_ns"].clone())
    };
    assert_eq!(polling(), ("off".to_owned(), json!(0)));
    for (target, change, policy, max) in [
        (name, json!({"max": "50us", "policy": "always"}), "always", 50_000),
        ("first", json!({"policy": "qemu-10"}), "qemu-10", 50_000),
        (name, json!({"max": "10us", "cpu-max": 50}), "qemu-10", 10_000),
    ] {
        controlled.tell(&json!({"command": "set-poll", "name": target, "poll": change}));
        let (text, max_ns) = polling();
        assert!(text.contains(policy), "{text}");
        assert_eq!(max_ns, max);
        for round in 0..100 {
            client.write(0, 4096, &pattern(round, 512)).unwrap();
            assert_eq!(client.read(0, 4096, 512).unwrap(), pattern(round, 512));
        }
    }
    controlled.tell(&json!({"command": "set-poll", "name": name, "poll": {"max": "0"}}));
    assert_eq!(polling(), ("off".to_owned(), json!(0)));
    drop(client);
    controlled.daemon.serves();
}

#[test]
fn the_level_of_the_log_is_changed() {
    let controlled = Controlled::start("ram=1M");
    controlled.daemon.serves();
    controlled.tell(&json!({"command": "log-level", "level": "info"}));
    controlled.daemon.serves();
    controlled.tell(&json!({"command": "log-level", "level": "error"}));
    controlled.daemon.serves();
    let log = controlled.daemon.stop();
    assert_eq!(log.matches("a client has connected").count(), 1, "{log}");
}

#[test]
fn the_command_line_says_what_was_done() {
    let controlled = Controlled::start("ram=1M");
    let list = controlled.ctl_says(&["list"]);
    let lines: Vec<&str> = list.lines().collect();
    assert!(lines[0].starts_with("NAME"), "{list}");
    assert!(
        lines[1].starts_with("first  ram") && lines[1].contains("1M"),
        "{list}"
    );
    assert!(
        lines[2].starts_with("loop main:") && lines[2].ends_with("polling off"),
        "{list}"
    );
    let json: serde_json::Value = serde_json::from_str(&controlled.ctl_says(&["list", "--json"])).unwrap();
    assert_eq!(json["exports"][0]["size"], 1 << 20);

    let socket = controlled.path("b.sock").display().to_string();
    let export = format!("null=1G,socket={socket},name=b");
    assert_eq!(controlled.ctl_says(&["add", &export]), "done\n");
    assert_eq!(
        controlled.ctl_says(&["resize", "b", "2G"]),
        "b has 2147483648 bytes\n"
    );
    assert!(
        controlled
            .ctl_says(&["set-poll", "main", "--poll-max", "32us"])
            .contains("learned")
    );
    assert_eq!(controlled.ctl_says(&["log-level", "info"]), "done\n");
    assert_eq!(controlled.ctl_says(&["remove", "b"]), "b is removed\n");

    let error = controlled.ctl_fails(&["remove", "b"]);
    assert!(error.contains("there is no export \"b\""), "{error}");
    assert!(controlled.ctl_fails(&["set-poll", "main"]).contains("--poll-max"));
    drop(controlled.daemon);
    let error = controlled.control.display().to_string();
    let said = std::process::Command::new(env!("CARGO_BIN_EXE_blockd"))
        .args(["ctl", "--control", &error, "list"])
        .output()
        .unwrap();
    let said = String::from_utf8(said.stderr).unwrap();
    assert!(said.contains("cannot connect to"), "{said}");
}

/// The resources of an export are released when it is removed.
#[test]
fn a_thousand_exports_leave_nothing_behind() {
    let controlled = Controlled::start("ram=1M");
    let image = controlled.path("disk.raw");
    std::fs::File::create(&image).unwrap().set_len(1 << 20).unwrap();
    let socket = controlled.path("added.sock");
    let cycle = |disk: &str, client: bool| {
        let export = format!("{disk},socket={},name=added", socket.display());
        controlled.tell(&json!({"command": "add", "export": export}));
        if client {
            let mut client = Client::simple(&socket);
            client.write(0, 0, &pattern(1, 4096)).unwrap();
        }
        controlled.tell(&json!({"command": "remove", "name": "added"}));
    };
    let path = format!("path={}", image.display());
    let disks = [path.as_str(), "ram=1M", "null=1M"];
    for disk in disks {
        cycle(disk, true);
    }
    let before = controlled.daemon.settled();
    for round in 0..1000 {
        cycle(disks[round % 3], round % 10 == 0);
    }
    controlled.daemon.holds_the_same_as(before);
    let after = controlled.daemon.holds();
    assert!(
        after.anonymous_kib < before.anonymous_kib + 8 * 1024,
        "{before:?} has become {after:?}"
    );
}

#[test]
fn a_command_line_without_a_socket_is_explained() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_blockd"))
        .args(["ctl", "list"])
        .env_remove("BLOCKD_CONTROL")
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && error.contains("--control PATH"),
        "{error}"
    );
}

/// A program that reads the output of `blockd ctl`, such as `head`, may close the pipe early.
#[test]
fn a_reader_of_ctl_that_has_gone_is_no_error() {
    let controlled = Controlled::start("ram=1M");
    for args in [&["list"][..], &["resize", "first", "2M"], &["stats", "--watch"]] {
        let (read, write) = std::io::pipe().unwrap();
        drop(read);
        let output = Command::new(env!("CARGO_BIN_EXE_blockd"))
            .args(["ctl", "--control"])
            .arg(&controlled.control)
            .args(args)
            .stdout(write)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && error.is_empty(), "{args:?}: {error}");
    }
    assert!(
        controlled.ctl_says(&["list"]).contains("2M"),
        "the command was executed"
    );
}

/// As at the start, a disk in memory that is larger than the machine's memory causes a warning.
#[test]
fn c33_disks_that_do_not_fit_into_memory_are_warned_of_when_they_come() {
    let controlled = Controlled::start("ram=1M");
    let socket = |name: &str| controlled.path(name).display().to_string();
    let add = |disk: &str, name: &str| {
        let export = format!("{disk},name={name},socket={}", socket(name));
        controlled.tell(&json!({"command": "add", "export": export}))
    };
    let resize = |size: &str| controlled.tell(&json!({"command": "resize", "name": "first", "size": size}));
    let warns = |answer: serde_json::Value| {
        let warning = answer["warning"].as_str().unwrap_or_default();
        assert!(
            warning.is_empty() || warning.contains("the memory limit is"),
            "{warning}"
        );
        !warning.is_empty()
    };
    assert!(!warns(add("null=1T", "ignored")));
    assert!(!warns(resize("2M")));
    assert!(warns(add("ram=1T", "big")));
    assert!(!warns(add("null=2T", "other")), "it takes no memory");
    assert!(warns(resize("3M")), "together they do not fit");
    let text = controlled.ctl_says(&["resize", "first", "4M"]);
    assert!(
        text.starts_with("first has 4194304 bytes\nwarning: RAM disks"),
        "{text}"
    );
    controlled.tell(&json!({"command": "remove", "name": "big"}));
    assert!(!warns(resize("5M")));
    assert!(controlled.daemon.stop().contains("RAM disks can grow to"));
}
