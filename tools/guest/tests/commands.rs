//! The guest's command loop as its first process starts it, without a guest.
//!
//! Needs busybox (`cargo xtask guest --fetch`) and a PID namespace; otherwise it prints a line that begins
//! with `skipped`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use aio_tools::shell;
use rustix::fs::{CWD, FileType, Mode, mknodat};

/// The fetched busybox, and a command that runs a program as process 1.
fn tools() -> Option<(PathBuf, Command)> {
    let busybox = shell::target_dir()
        .unwrap()
        .join("guest")
        .join("root")
        .join("bin/busybox");
    if !busybox.is_file() {
        println!("skipped: no busybox; cargo xtask guest --fetch");
        return None;
    }
    let unshare = || {
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child"]);
        unshare
    };
    match unshare().arg("true").output() {
        Ok(output) if output.status.success() => Some((busybox, unshare())),
        Ok(output) => {
            println!(
                "skipped: no namespace of processes: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
            None
        }
        Err(error) => {
            println!("skipped: unshare: {error}");
            None
        }
    }
}

/// The first process of a guest, from the line that starts the command loop, with pipes in place of the
/// serial port.
struct FirstProcess {
    child: Child,
    input: File,
    output: BufReader<File>,
}

impl FirstProcess {
    fn start(directory: &Path, busybox: &Path, mut as_first: Command) -> Self {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest");
        let init = std::fs::read_to_string(scripts.join("init")).unwrap();
        let (_, end) = init.split_once("stty -F /dev/ttyS1 raw -echo\n").unwrap();
        let [input, output] = ["input", "output"].map(|name| directory.join(name));
        for pipe in [&input, &output] {
            mknodat(CWD, pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        }
        let end = end
            .replace("/bin/commands", &scripts.join("commands").display().to_string())
            .replacen("/dev/ttyS1", &input.display().to_string(), 1)
            .replacen("/dev/ttyS1", &output.display().to_string(), 1)
            .replace("sh ", &format!("{} sh ", busybox.display()));
        let script = directory.join("init");
        std::fs::write(&script, end).unwrap();
        let child = as_first
            .arg(busybox)
            .arg("sh")
            .arg(&script)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        // In the order in which the script opens them.
        let input = OpenOptions::new().write(true).open(input).unwrap();
        let output = BufReader::new(File::open(output).unwrap());
        let mut first = Self { child, input, output };
        assert!(first.line().starts_with("@ready "));
        first
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Sends a part of a line, and waits until the shell has read it.
    fn send(&mut self, part: &str) {
        self.input.write_all(part.as_bytes()).unwrap();
        while rustix::io::ioctl_fionread(&self.input).unwrap() > 0 {
            std::thread::yield_now();
        }
    }

    /// Returns the lines of an answer.
    fn answer(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let line = self.line();
            let is_end = line.starts_with("@end ");
            lines.push(line);
            if is_end {
                return lines;
            }
        }
    }
}

impl Drop for FirstProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Regression: the shell lost the first part of a line if an orphaned program ended before the rest arrived.
/// The guest then answered no more.
#[test]
fn a_line_is_read_whole_while_orphans_end() {
    let Some((busybox, as_first)) = tools() else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let [hold, held] = ["hold", "held"].map(|name| directory.path().join(name));
    for pipe in [&hold, &held] {
        mknodat(CWD, pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    }
    let mut first = FirstProcess::start(directory.path(), &busybox, as_first);
    for round in 0..40 {
        let (hold_text, held_text) = (hold.display(), held.display());
        first.send(&format!("{round} cat {hold_text} >{held_text} 2>/dev/null &\n"));
        assert_eq!(
            first.answer(),
            [format!("@begin {round}"), format!("@end {round} 0")]
        );
        // Once these are open, the orphan has opened both, in any order.
        let mut held = File::open(&held).unwrap();
        let hold = OpenOptions::new().write(true).open(&hold).unwrap();
        first.send(&format!("{} echo one two", 100 + round));
        // The orphan ends. It has ended once its output is closed.
        drop(hold);
        assert_eq!(held.read(&mut [0; 8]).unwrap(), 0);
        first.send(" three\n");
        let expected = [
            format!("@begin {}", 100 + round),
            "one two three".to_owned(),
            format!("@end {} 0", 100 + round),
        ];
        assert_eq!(first.answer(), expected);
    }
}
