//! The control socket and `blockd ctl`.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};

use crate::daemon::Daemon;

mod c14_resize;
mod c15_replaced_images;
mod clients;
mod commands;

/// A daemon with a control socket and one export named `first`.
pub(crate) struct Controlled {
    pub(crate) daemon: Daemon,
    pub(crate) control: PathBuf,
}

impl Controlled {
    pub(crate) fn start(disk: &str) -> Self {
        Self::start_with(disk, &[])
    }

    pub(crate) fn start_with(disk: &str, args: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let control = directory.path().join("ctl");
        let path = control.display().to_string();
        let args = [args, &["--control", path.as_str()]].concat();
        let daemon = Daemon::start_in(directory, &format!("{disk},name=first"), &args);
        Self { daemon, control }
    }

    /// Returns a path in the daemon's directory.
    fn path(&self, name: &str) -> PathBuf {
        self.daemon.directory.path().join(name)
    }

    fn connect(&self) -> Line {
        Line::connect(&self.control)
    }

    /// Sends a command. Panics if it is refused.
    pub(crate) fn tell(&self, command: &Value) -> Value {
        self.connect().tell(command)
    }

    /// Sends a command that must be refused. Returns the error.
    pub(crate) fn refused(&self, command: &Value) -> String {
        self.connect().refused(command)
    }

    /// Returns the names of the exports.
    fn names(&self) -> Vec<String> {
        let list = self.tell(&json!({"command": "list"}));
        let exports = list["exports"].as_array().unwrap();
        exports
            .iter()
            .map(|export| export["name"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Runs `blockd ctl`.
    fn ctl(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_blockd"))
            .args(["ctl", "--control"])
            .arg(&self.control)
            .args(args)
            .output()
            .unwrap()
    }

    /// Runs `blockd ctl` and returns its output. Panics if it fails.
    pub(crate) fn ctl_says(&self, args: &[&str]) -> String {
        let output = self.ctl(args);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && error.is_empty(), "{args:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs `blockd ctl` with a command that fails. Returns its standard error.
    fn ctl_fails(&self, args: &[&str]) -> String {
        let output = self.ctl(args);
        assert!(!output.status.success(), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

/// A client of the control socket.
struct Line(BufReader<UnixStream>);

impl Line {
    fn connect(path: &Path) -> Self {
        let socket = UnixStream::connect(path).unwrap();
        // A longer wait counts as a failure.
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        Self(BufReader::new(socket))
    }

    fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// Returns the next line, or an empty one if the connection has ended.
    fn receive(&mut self) -> String {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(_) => line,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => String::new(),
            Err(error) => panic!("{error}"),
        }
    }

    fn answer(&mut self, command: &Value) -> Value {
        self.send(&format!("{command}\n"));
        serde_json::from_str(&self.receive()).unwrap()
    }

    fn tell(&mut self, command: &Value) -> Value {
        let answer = self.answer(command);
        assert!(answer.get("error").is_none(), "{command}: {answer}");
        answer["ok"].clone()
    }

    fn refused(&mut self, command: &Value) -> String {
        let answer = self.answer(command);
        assert!(answer.get("ok").is_none(), "{command}: {answer}");
        answer["error"].as_str().unwrap().to_owned()
    }
}

#[test]
fn only_the_user_of_the_daemon_may_connect() {
    let controlled = Controlled::start("ram=1M");
    let mode = controlled.control.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let directory = controlled.daemon.directory.path().to_owned();
    let log = controlled.daemon.stop();
    assert_eq!(log, "", "nothing went wrong, so nothing is logged");
    assert!(
        !directory.join("ctl").exists(),
        "the control socket is left behind"
    );
}
