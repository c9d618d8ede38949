//! Clients of the control socket that break the rules, do not read, or disappear.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::Controlled;

#[test]
fn malformed_lines_are_answered_and_the_next_command_works() {
    let controlled = Controlled::start("ram=1M");
    let mut line = controlled.connect();
    let mut random = crate::seed();
    for _ in 0..200 {
        let len = random.usize(0..300);
        let mut bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(len).collect();
        bytes.retain(|byte| *byte != b'\n');
        bytes.push(b'\n');
        line.0.get_mut().write_all(&bytes).unwrap();
        let answer = line.receive();
        assert!(
            answer.contains("not a command") && answer.contains("blockd ctl"),
            "{answer}"
        );
    }
    assert!(line.tell(&json!({"command": "list"}))["exports"].is_array());
    controlled.daemon.serves();
}

#[test]
fn commands_in_one_packet_are_answered_in_order() {
    let controlled = Controlled::start("ram=1M");
    let mut line = controlled.connect();
    let mut text = String::new();
    for size in 2..50 {
        text += &format!(
            "{}\n",
            json!({"command": "resize", "name": "first", "size": format!("{size}M")})
        );
        text += "half a ";
        text += "line\n";
    }
    line.send(&text);
    for size in 2_u64..50 {
        let answer: serde_json::Value = serde_json::from_str(&line.receive()).unwrap();
        assert_eq!(answer["ok"]["size"], size << 20);
        assert!(line.receive().contains("not a command"));
    }
}

#[test]
fn half_a_line_harms_none_and_a_client_that_stops_sending_gets_its_answers() {
    let controlled = Controlled::start("ram=1M");
    let mut half = controlled.connect();
    half.send("{\"command\":");
    controlled.tell(&json!({"command": "list"}));
    half.send("\"list\"}\n{\"comm");
    half.0.get_mut().shutdown(Shutdown::Write).unwrap();
    assert!(half.receive().contains("exports"));
    assert_eq!(half.receive(), "", "the rest is no command");
    controlled.daemon.serves();
}

#[test]
fn a_line_without_an_end_is_refused() {
    let controlled = Controlled::start("ram=1M");
    let mut line = controlled.connect();
    let long = [b'x'; 4096];
    // The daemon disconnects it at some point.
    let mut sent = 0;
    while sent < 1 << 30 && line.0.get_mut().write_all(&long).is_ok() {
        sent += long.len();
    }
    assert!(sent < 1 << 20, "{sent} bytes were accepted");
    let answer = line.receive();
    assert!(
        answer.is_empty() || answer.contains("end it with a newline"),
        "{answer}"
    );
    controlled.tell(&json!({"command": "list"}));
    controlled.daemon.serves();
}

#[test]
fn clients_that_do_not_read_or_disappear_cost_little() {
    let controlled = Controlled::start("ram=1M");
    let before = controlled.daemon.settled();
    let command = format!("{}\n", json!({"command": "list"}));
    let mut clients = Vec::new();
    for round in 0..100 {
        let mut client = controlled.connect();
        let socket = client.0.get_mut();
        socket.set_nonblocking(true).unwrap();
        // The client sends commands until there is no space for more. It reads no answer.
        while socket.write_all(command.as_bytes()).is_ok() {}
        if round % 2 == 0 {
            clients.push(client);
        }
    }
    controlled.daemon.serves();
    let during = controlled.daemon.holds();
    // Each loop makes a set once it has waited for long enough.
    assert!(
        during.fixed_descriptors() < before.fixed_descriptors() + 40,
        "{before:?} has become {during:?}"
    );
    assert!(
        during.anonymous_kib < before.anonymous_kib + 32 * 1024,
        "{before:?} has become {during:?}"
    );
    // The daemon disconnects one of them in favour of another client.
    controlled.tell(&json!({"command": "list"}));
    drop(clients);
    controlled.daemon.serves();
    controlled.daemon.holds_the_same_as(before);
}

#[test]
fn a_client_that_leaves_before_its_answer_harms_none() {
    let controlled = Controlled::start("ram=1M");
    for round in 0..50 {
        let socket = controlled.path(&format!("{round}.sock"));
        let export = format!("ram=1M,socket={},name=added", socket.display());
        let mut client = controlled.connect();
        client.send(&format!("{}\n", json!({"command": "add", "export": export})));
        drop(client);
        while controlled.names().len() == 1 {
            std::thread::yield_now();
        }
        controlled.tell(&json!({"command": "remove", "name": "added"}));
    }
    controlled.daemon.serves();
}

/// `ctl` must not wait without a message: it reports a stopped daemon, and the command that continues it.
#[test]
fn c21_ctl_tells_that_it_waits_for_a_stopped_daemon() {
    let controlled = Controlled::start("ram=1M");
    let pid = controlled.daemon.id();
    let daemon = Pid::from_raw(pid.cast_signed()).unwrap();
    kill_process(daemon, Signal::STOP).unwrap();
    let mut ctl = Command::new(env!("CARGO_BIN_EXE_blockd"))
        .args(["ctl", "list", "--control"])
        .arg(&controlled.control)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(ctl.stderr.take().unwrap())
        .read_line(&mut said)
        .unwrap();
    kill_process(daemon, Signal::CONT).unwrap();
    assert!(
        said.contains(&format!("`kill -CONT {pid}`")) && said.contains("waits for up to"),
        "{said}"
    );
    // The answer is not lost.
    let mut list = String::new();
    ctl.stdout.take().unwrap().read_to_string(&mut list).unwrap();
    assert!(ctl.wait().unwrap().success() && list.contains("first"), "{list}");
    controlled.daemon.stop();
}

#[test]
fn c21_what_is_no_control_socket_is_named() {
    let controlled = Controlled::start("ram=1M");
    let file = controlled.path("file");
    std::fs::write(&file, "").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_blockd"))
        .args(["ctl", "list", "--control"])
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && said.contains("it is not a socket"),
        "{said}"
    );
}
