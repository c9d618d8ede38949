//! `blockd ctl stats --watch`, on a terminal and elsewhere.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::control::Controlled;

fn watch(controlled: &Controlled, more: &[&str], out: Stdio) -> Child {
    Command::new(env!("CARGO_BIN_EXE_blockd"))
        .args(["ctl", "--control"])
        .arg(&controlled.control)
        .args(["stats", "--watch", "--interval", "50ms"])
        .args(more)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn interrupt(child: &Child) {
    kill_process(Pid::from_child(child), Signal::INT).unwrap();
}

#[test]
fn outside_a_terminal_tables_follow_each_other() {
    let controlled = Controlled::start("ram=1M");
    let mut child = watch(&controlled, &[], Stdio::piped());
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut tables = 0;
    while tables < 3 {
        controlled.daemon.serves();
        let line = lines.next().unwrap().unwrap();
        assert!(!line.contains('\x1b'), "{line}");
        tables += usize::from(line.starts_with("EXPORT"));
    }
    interrupt(&child);
    assert!(lines.last().is_none_or(|line| line.is_ok()));
    assert!(child.wait().unwrap().success());
}

#[test]
fn answers_can_be_watched_as_json() {
    let controlled = Controlled::start("ram=1M");
    let mut child = watch(&controlled, &["--json"], Stdio::piped());
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in lines.map(Result::unwrap).filter(|line| !line.is_empty()).take(2) {
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["exports"][0]["name"], "first");
    }
    interrupt(&child);
    assert!(child.wait().unwrap().success());
}

/// Returns the two ends of a terminal of this size.
fn terminal(columns: u16, rows: u16) -> Option<(OwnedFd, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let outer = match rustix::pty::openpt(flags) {
        Ok(outer) => outer,
        Err(error) => {
            println!("skipped: no terminal can be made: {error}");
            return None;
        }
    };
    rustix::pty::grantpt(&outer).unwrap();
    rustix::pty::unlockpt(&outer).unwrap();
    let name = rustix::pty::ptsname(&outer, Vec::new()).unwrap();
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let inner = rustix::fs::open(&*name, flags, rustix::fs::Mode::empty()).unwrap();
    let size = Winsize {
        ws_col: columns,
        ws_row: rows,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(&outer, size).unwrap();
    Some((outer, inner))
}

#[test]
fn in_a_terminal_the_table_is_refreshed_and_the_cursor_comes_back() {
    let controlled = Controlled::start("ram=1M");
    let Some((outer, inner)) = terminal(40, 10) else {
        return;
    };
    let mut child = watch(&controlled, &[], inner.into());
    let mut outer = File::from(outer);
    let mut screen = String::new();
    let mut part = [0; 4096];
    let mut read = |screen: &mut String| match outer.read(&mut part) {
        // EIO means that the other end is closed.
        Ok(0) | Err(_) => false,
        Ok(count) => {
            screen.push_str(&String::from_utf8_lossy(&part[..count]));
            true
        }
    };
    while screen.matches("EXPORT").count() < 3 {
        assert!(read(&mut screen), "{screen:?}");
    }
    interrupt(&child);
    while read(&mut screen) {}
    assert!(child.wait().unwrap().success());
    assert!(
        screen.starts_with("\x1b[?25l"),
        "the cursor is hidden: {screen:?}"
    );
    assert!(
        screen.ends_with("\x1b[?25h"),
        "the cursor is shown again: {screen:?}"
    );
    let plain = screen
        .replace("\x1b[K", "")
        .replace("\x1b[H", "")
        .replace("\x1b[J", "");
    let widest = plain
        .lines()
        .map(|line| line.trim_end().chars().count())
        .max()
        .unwrap();
    assert!(widest <= 40 + "\x1b[?25l".len(), "no line wraps: {plain:?}");
}

#[test]
fn a_daemon_that_ends_ends_the_watch_with_an_error() {
    let controlled = Controlled::start("ram=1M");
    let mut child = watch(&controlled, &[], Stdio::null());
    drop(controlled.daemon);
    let mut error = String::new();
    child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
    assert!(!child.wait().unwrap().success());
    assert!(error.starts_with("blockd: "), "{error}");
}
