//! C9: a busy image leaves the loop free for the other exports. The loop never makes a call that can wait for an image, but with
//! `--engine sync`.

use std::process::Command;

use super::{Image, attempt, tool};
use crate::client::{Client, pattern};
use crate::daemon::Daemon;

/// The calls that read, write, flush and clear images.
const CALLS: &str =
    "trace=write,pread64,preadv,preadv2,pwrite64,pwritev,pwritev2,fsync,fdatasync,fallocate,readv,writev";

/// The calls of the loop's thread on images after the start, as strace has printed them. `None`, with a `skipped` line, if that is
/// impossible here.
fn calls_of_the_loop(engine: &str, options: &str) -> Option<Vec<String>> {
    let mut strace = tool("strace")?;
    attempt(Command::new("strace").args(["-o", "/dev/null", "true"]))?;
    let image = Image::new(8 << 20);
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace");
    strace
        .args(["-D", "-ff", "-q", "-y", "-e", CALLS, "-o"])
        .arg(&trace);
    strace.arg(env!("CARGO_BIN_EXE_blockd"));
    let disk = format!("{}{options}", image.disk());
    let daemon = Daemon::start_by(strace, tempfile::tempdir().unwrap(), &disk, &["--engine", engine]);
    let mut client = Client::simple(daemon.socket());
    for round in 0..4 {
        for len in [512, 4096, 1 << 20] {
            let data = pattern(round, len);
            client.write(0, 1 << 20, &data).unwrap();
            assert_eq!(client.read(0, 1 << 20, len).unwrap(), data, "{engine}{options}");
        }
        client.flush(0).unwrap();
        client.write_zeroes(0, 4 << 20, 1 << 20, round % 2 == 0).unwrap();
        client.discard(0, 4 << 20, 1 << 20).unwrap();
        // What is not in the page cache.
        let file = image.file();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        assert_eq!(client.read(0, 0, 1 << 20).unwrap(), vec![0; 1 << 20]);
    }
    drop(client);
    daemon.stop();
    // Each thread has a file of its own.
    let threads = std::fs::read_dir(directory.path()).unwrap();
    let threads = threads.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
    let is_ready = |line: &str| line.contains("\"ready\\n\"");
    let mut threads = threads.filter(|trace| trace.lines().any(is_ready));
    let the_loop = threads.next().unwrap();
    let since_ready = the_loop.lines().skip_while(|line| !is_ready(line));
    let on_image = since_ready.filter(|line| line.contains("disk.raw"));
    Some(on_image.map(str::to_owned).collect())
}

#[test]
fn c9_the_loop_never_waits_for_an_image() {
    for options in ["", ",cache=none"] {
        for engine in ["auto", "uring", "threads"] {
            let Some(calls) = calls_of_the_loop(engine, options) else {
                return;
            };
            let waits: Vec<_> = calls.iter().filter(|call| !call.contains("RWF_NOWAIT")).collect();
            assert!(waits.is_empty(), "{engine}{options}: {waits:#?}");
            // Writes that do not wait would do so while the file system is frozen.
            assert!(
                !calls.iter().any(|call| call.contains("write")),
                "{engine}{options}"
            );
            let tries_at_once = engine == "auto" && options.is_empty();
            assert_eq!(!calls.is_empty(), tries_at_once, "{engine}{options}: {calls:#?}");
        }
    }
}

/// The test above would find it.
#[test]
fn c9_the_loop_waits_for_images_if_that_is_wanted() {
    let Some(calls) = calls_of_the_loop("sync", "") else {
        return;
    };
    for call in ["pwrite", "pread", "fdatasync", "fallocate"] {
        let is_made = |line: &String| line.contains(call) && !line.contains("RWF_NOWAIT");
        assert!(calls.iter().any(is_made), "{call}: {calls:#?}");
    }
}
