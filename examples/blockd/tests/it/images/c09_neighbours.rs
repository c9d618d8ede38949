//! C9: a busy image leaves the loop free for the other exports. The loop makes no call that can wait for an
//! image, except with `--engine sync`.

use std::process::Command;

use super::{Image, attempt, tool};
use crate::client::{Client, pattern};
use crate::daemon::Daemon;
use crate::engines::has_ring;
use crate::nbd::client as nbd;

/// The calls that read, write, flush, clear and examine images.
const CALLS: &str = "trace=write,pread64,preadv,preadv2,pwrite64,pwritev,pwritev2,fsync,fdatasync,fallocate,readv,writev,lseek,\
     fstat,newfstatat,statx,ftruncate,ioctl";

/// The calls on images after the start, as strace has printed them.
struct Calls {
    of_the_loop: Vec<String>,
    of_threads: Vec<String>,
}

/// Returns the calls of a daemon that executes every kind of request. `None`, with a `skipped` line, if that
/// is impossible here.
fn calls(engine: &str, options: &str) -> Option<Calls> {
    let mut strace = tool("strace")?;
    attempt(Command::new("strace").args(["-o", "/dev/null", "true"]))?;
    let image = Image::new(8 << 20);
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace");
    strace
        .args(["-D", "-ff", "-q", "-y", "-e", CALLS, "-o"])
        .arg(&trace);
    strace.arg(env!("CARGO_BIN_EXE_blockd"));
    let disk = format!("{}{options},name=disk", image.disk());
    let nbd = directory.path().join("nbd.sock");
    let args = ["--engine", engine, "--nbd", &nbd.display().to_string()];
    let daemon = Daemon::start_by(strace, tempfile::tempdir().unwrap(), &disk, &args);
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
        // These data are not in the page cache.
        let file = image.file();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        assert_eq!(client.read(0, 0, 1 << 20).unwrap(), vec![0; 1 << 20]);
    }
    drop(client);
    let mut client = nbd::Client::structured(&nbd, "disk");
    for flags in [0, nbd::FUA] {
        client.start_write(flags, 1 << 20, &pattern(9, 3 << 20));
        assert_eq!(client.next_reply().result, Ok(Vec::new()));
        for command in [nbd::WRITE_ZEROES, nbd::TRIM] {
            client.run(command, flags, 4 << 20, 1 << 20).unwrap();
        }
        let file = image.file();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        assert!(client.read(1 << 20, 3 << 20).unwrap() == pattern(9, 3 << 20));
        client.flush().unwrap();
    }
    drop(client);
    daemon.stop();
    // The trace has a file for each thread.
    let threads = std::fs::read_dir(directory.path()).unwrap();
    let threads = threads.filter(|file| file.as_ref().unwrap().file_type().unwrap().is_file());
    let threads = threads.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
    let is_ready = |line: &&str| line.contains("\"ready\\n\"");
    let (the_loop, threads): (Vec<_>, Vec<_>) =
        threads.partition(|trace| trace.lines().any(|line| is_ready(&line)));
    let on_image = |line: &&str| line.contains("disk.raw");
    let since_ready = the_loop[0].lines().skip_while(|line| !is_ready(line));
    Some(Calls {
        of_the_loop: since_ready.filter(on_image).map(str::to_owned).collect(),
        of_threads: threads
            .iter()
            .flat_map(|trace| trace.lines().filter(on_image))
            .map(str::to_owned)
            .collect(),
    })
}

#[test]
fn c9_the_loop_never_waits_for_an_image() {
    for options in ["", ",cache=none"] {
        for engine in ["auto", "uring", "threads"] {
            let Some(Calls {
                of_the_loop: calls,
                of_threads,
            }) = calls(engine, options)
            else {
                return;
            };
            let waits: Vec<_> = calls.iter().filter(|call| !call.contains("RWF_NOWAIT")).collect();
            assert!(waits.is_empty(), "{engine}{options}: {waits:#?}");
            // A write that must not wait could still wait while the file system is frozen.
            assert!(
                !calls.iter().any(|call| call.contains("write")),
                "{engine}{options}"
            );
            let tries_at_once = engine == "auto" && options.is_empty();
            assert_eq!(!calls.is_empty(), tries_at_once, "{engine}{options}: {calls:#?}");
            // The kernel executes all requests. They are aligned, so the only calls of threads query the size
            // for a new client.
            let on_ring = engine != "threads" && has_ring();
            let of_requests: Vec<_> = of_threads.iter().filter(|call| !call.contains("stat")).collect();
            assert_eq!(
                of_requests.is_empty(),
                on_ring,
                "{engine}{options}: {of_requests:#?}"
            );
        }
    }
}

/// Shows that the test above detects such calls.
#[test]
fn c9_the_loop_waits_for_images_if_that_is_wanted() {
    let Some(Calls {
        of_the_loop: calls, ..
    }) = calls("sync", "")
    else {
        return;
    };
    for call in ["pwrite", "pread", "fdatasync", "fallocate"] {
        let is_made = |line: &String| line.contains(call) && !line.contains("RWF_NOWAIT");
        assert!(calls.iter().any(is_made), "{call}: {calls:#?}");
    }
}
