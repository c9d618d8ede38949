//! An arbitrary client of the control socket. After it, the daemon must be in the state that valid commands
//! produce.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::peers::converse;
use crate::cli::Args;
use crate::control::{Command, MOST_COMMAND};
use crate::disk::Source;
use crate::export::Export;
use crate::nbd::Address;
use crate::server::Server;

/// The only export of a daemon at the start of each conversation.
const EXPORT: &str = "ram=64K,name=a";

thread_local! {
    static SCENE: Scene = Scene::new();
}

/// A daemon with a control socket, which also serves NBD, so that exports need no sockets.
struct Scene {
    server: Server,
    control: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let name = |kind: &str| {
            let id = (std::process::id(), std::thread::current().id());
            let name = format!("blockd-fuzz-{kind}-{}-{:?}.sock", id.0, id.1).replace(['(', ')'], "");
            std::env::temp_dir().join(name)
        };
        let control = name("control");
        let args = Args {
            control: Some(control.clone()),
            nbd: vec![Address::unix(name("nbd"))],
            backend: aio_context::BackendKind::Epoll,
            poll_wake_ns: Some(10_000),
            ..Args::for_exports(vec![EXPORT.parse().expect("an export")])
        };
        Self {
            server: Server::new(&args).expect("a daemon"),
            control,
        }
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.control).expect("a connection")
    }

    /// Returns the answers to these bytes.
    fn answers(&self, bytes: &[u8], piece: usize) -> Vec<Value> {
        let all = converse(self.server.context(), self.connect(), bytes, piece);
        assert!(all.is_empty() || all.ends_with(b"\n"), "an answer is cut short");
        let lines = all.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines
            .map(|line| {
                let answer: Value = serde_json::from_slice(line).expect("an answer is JSON");
                let is_one = answer.as_object().is_some_and(|answer| {
                    answer.len() == 1 && (answer.contains_key("ok") || answer.contains_key("error"))
                });
                assert!(is_one, "{answer}");
                answer
            })
            .collect()
    }

    /// Sends one valid command.
    fn run(&self, command: &Value) -> Value {
        let mut answers = self.answers(format!("{command}\n").as_bytes(), usize::MAX);
        assert_eq!(answers.len(), 1, "{command}");
        let answer = answers.pop().unwrap_or_default();
        assert!(answer.get("ok").is_some(), "{command}: {answer}");
        answer["ok"].clone()
    }

    /// Restores the first state of the daemon if it has changed.
    fn reset(&self) {
        let list = self.run(&json!({"command": "list"}));
        if list["loops"][0]["poll_max_ns"] != 0 {
            self.run(
                &json!({"command": "set-poll", "name": "main", "poll": {"max": "0", "policy": "never"}}),
            );
        }
        let exports = list["exports"].as_array().expect("a list of exports");
        if exports.len() == 1 && exports[0]["name"] == "a" && exports[0]["size"] == 65536 {
            return;
        }
        for export in exports {
            self.run(&json!({"command": "remove", "name": export["name"]}));
        }
        self.run(&json!({"command": "add", "export": EXPORT}));
    }
}

/// Returns `true` if a line could touch files. The target must not use files of its machine.
fn touches_files(line: &[u8]) -> bool {
    let Ok(Command::Add { export }) = serde_json::from_slice(line) else {
        return false;
    };
    let Ok(export) = export.parse::<Export>() else {
        return false;
    };
    matches!(export.source, Source::File(_)) || export.socket.is_some()
}

/// Sends the bytes of a client to the control socket of a daemon, and checks that each line has one answer.
///
/// The first byte encodes the length of the pieces that are sent, and whether a line follows that is too
/// long.
///
/// # Panics
/// If a line has no answer or two, or the daemon does not serve the next client.
pub fn control(data: &[u8]) {
    let Some((how, data)) = data.split_first() else {
        return;
    };
    let lines = data.split_inclusive(|byte| *byte == b'\n');
    let mut sent: Vec<u8> = lines
        .filter(|line| !touches_files(line))
        .flatten()
        .copied()
        .collect();
    let mut expected = sent.iter().filter(|byte| **byte == b'\n').count();
    if how & 0x80 != 0 {
        sent.resize(sent.len() + MOST_COMMAND + 1, b'x');
        expected += 1;
    }
    SCENE.with(|scene| {
        // A long line in short pieces would take long.
        let least = if how & 0x80 == 0 { 1 } else { 1 << 10 };
        let answers = scene.answers(&sent, least.max(1 << (how % 16)));
        assert_eq!(answers.len(), expected, "{answers:?}");
        scene.reset();
    });
}
