//! The examples end by themselves and print the expected lines.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use aio_testing::examples::{folder, prints};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn example(name: &str) -> Command {
    let folder = folder(
        env!("CARGO_PKG_NAME"),
        &["echo", "nested", "queues", "supervisor"],
    );
    Command::new(folder.join(name))
}

#[test]
fn example_echo_serves_a_thousand_clients() {
    assert_eq!(
        prints(&mut example("echo")),
        "echoed 10005000 bytes for 1000 clients\n"
    );
}

#[test]
fn an_example_has_less_than_100_lines() {
    aio_testing::examples::are_short(env!("CARGO_MANIFEST_DIR"));
}

#[test]
fn g4_example_nested_on_every_backend() {
    for (backend, outer) in [("auto", "ppoll"), ("ppoll", "ppoll"), ("epoll", "epoll")] {
        let said = prints(example("nested").env("AIO_BACKEND", backend));
        let expected =
            format!("a context inside a context echoed ping\nat least 4 ticks, on epoll in {outer}\n");
        assert_eq!(said, expected, "{backend}");
    }
}

#[test]
fn example_queues() {
    assert_eq!(
        prints(&mut example("queues")),
        "served 800000 requests of 8 producers\n"
    );
}

#[test]
fn example_supervisor_of_a_command_that_ends() {
    let said = prints(example("supervisor").args(["sh", "-c", "exit 3"]));
    let expected: String = (1..=3)
        .map(|start| format!("start {start}\nit has ended: exit status: 3\n"))
        .collect();
    assert_eq!(said, expected);
}

#[test]
fn example_supervisor_of_a_command_that_does_not_exist() {
    let said = prints(example("supervisor").arg("./there is no such command"));
    assert!(said.starts_with("cannot start it: "), "{said}");
}

#[test]
fn example_supervisor_that_a_signal_ends() {
    let mut supervisor = example("supervisor");
    // The command reads for ever, from a pipe that this test holds open.
    supervisor.args(["sh", "-c", "read line"]);
    let mut running = supervisor
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "start 1");
    kill(Pid::from_raw(running.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "SIGTERM");
    assert_eq!(
        lines.next().unwrap().unwrap(),
        "it has ended: signal: 9 (SIGKILL)"
    );
    assert!(running.wait().unwrap().success());
}
