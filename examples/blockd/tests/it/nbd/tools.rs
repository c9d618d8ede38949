//! Acceptance tests with common tools for NBD servers, where they are installed.

use std::path::Path;
use std::process::Command;

use super::{start, uri};
use crate::client::pattern;
use crate::images::{Image, tool};

const MIB: usize = 1 << 20;

/// Runs a tool to its end. Returns its output. The tool must succeed.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{command:?}: {text:?}");
    text.concat()
}

/// Writes a file of 16 MiB with data, a hole and data. Returns its contents.
fn source(image: &Image) -> Vec<u8> {
    let mut bytes = vec![0; 16 * MIB];
    bytes[..MIB].copy_from_slice(&pattern(1, MIB));
    bytes[9 * MIB..10 * MIB].copy_from_slice(&pattern(2, MIB));
    let path = Path::new(&image.socket("source.raw")).to_owned();
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for at in [0, 9 * MIB] {
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes[at..at + MIB], at as u64).unwrap();
    }
    bytes
}

/// Runs `check` with each combination of disk and engine.
fn each_disk(check: impl Fn(&Path, &Image)) {
    let image = Image::new(16 * MIB as u64);
    for (disk, engine) in [
        ("ram=16M".to_owned(), "auto"),
        (image.disk(), "auto"),
        (image.disk(), "uring"),
        (image.disk() + ",cache=none", "uring"),
        (image.disk(), "threads"),
        (image.disk(), "sync"),
    ] {
        if disk.contains("cache=none") && !image.has_direct_access() {
            continue;
        }
        image.clear(16 * MIB as u64);
        let (daemon, path) = start(&disk, &["--engine", engine]);
        check(&path, &image);
        assert_eq!(daemon.stop(), "", "nothing went wrong, so nothing is logged");
    }
}

#[test]
fn qemu_img() {
    if tool("qemu-img").is_none() {
        return;
    }
    let qemu_img = || Command::new("qemu-img");
    each_disk(|path, image| {
        let (bytes, uri) = (source(image), uri(path));
        let from = image.socket("source.raw");
        let info = run(qemu_img().args(["info", "--output=json", &uri]));
        assert!(info.contains("\"virtual-size\": 16777216"), "{info}");
        run(qemu_img().args(["convert", "-n", "-f", "raw", "-O", "raw", &from, &uri]));
        run(qemu_img().args(["compare", "-f", "raw", "-F", "raw", &from, &uri]));
        let back = image.socket("back.raw");
        run(qemu_img().args(["convert", "-W", "-f", "raw", "-O", "raw", &uri, &back]));
        assert!(std::fs::read(&back).unwrap() == bytes);
        let map = run(qemu_img().args(["map", "-f", "raw", "--output=json", &uri]));
        assert!(map.contains("\"start\": 0"), "{map}");
        for write in [&["-w"][..], &[]] {
            run(qemu_img()
                .args(["bench", "-f", "raw", "-c", "2000", "-d", "16", &uri])
                .args(write));
        }
    });
}

#[test]
fn qemu_io() {
    if tool("qemu-io").is_none() {
        return;
    }
    each_disk(|path, _| {
        let said = run(Command::new("qemu-io")
            .args(["-f", "raw"])
            .args([
                "-c",
                "write -P 1 0 4M",
                "-c",
                "write -f -P 2 1000000 333",
                "-c",
                "read -P 2 1000000 333",
                "-c",
                "write -z 512 1M",
                "-c",
                "write -z -u 4M 4M",
                "-c",
                "read -P 0 512 1000000",
                "-c",
                "read -P 1 2M 2M",
                "-c",
                "aio_write -P 5 8M 2M",
                "-c",
                "aio_write -P 6 12M 2M",
                "-c",
                "aio_flush",
                "-c",
                "read -P 5 8M 2M",
                "-c",
                "read -P 6 12M 2M",
                "-c",
                "discard 8M 2M",
                "-c",
                "flush",
            ])
            .arg(uri(path)));
        assert!(!said.contains("fail") && !said.contains("error"), "{said}");
    });
}

#[test]
fn nbdinfo() {
    if tool("nbdinfo").is_none() {
        return;
    }
    each_disk(|path, _| {
        let uri = uri(path);
        let all = run(Command::new("nbdinfo").args(["--json", &uri]));
        for line in [
            "\"protocol\": \"newstyle-fixed\"",
            "\"structured\": true",
            "\"export-name\": \"disk\"",
            "\"export-size\": 16777216",
            "\"can_multi_conn\": true",
            "\"can_fua\": true",
            "\"base:allocation\"",
            "\"block_size_maximum\": 33554432",
        ] {
            assert!(all.contains(line), "{line} is missing in {all}");
        }
        assert_eq!(
            run(Command::new("nbdinfo").args(["--size", &uri])).trim(),
            "16777216"
        );
        let list = format!("nbd+unix:///?socket={}", path.display());
        assert!(run(Command::new("nbdinfo").args(["--list", &list])).contains("export=\"disk\""));
        run(Command::new("nbdinfo").args(["--map", &uri]));
        assert!(
            !Command::new("nbdinfo")
                .args(["--is", "tls", &uri])
                .output()
                .unwrap()
                .status
                .success()
        );
    });
}

#[test]
fn nbdcopy() {
    if tool("nbdcopy").is_none() {
        return;
    }
    each_disk(|path, image| {
        let (bytes, uri) = (source(image), uri(path));
        run(Command::new("nbdcopy").args(["--flush", &image.socket("source.raw"), &uri]));
        let back = image.socket("back.raw");
        run(Command::new("nbdcopy").args([&uri, &back]));
        assert!(std::fs::read(&back).unwrap() == bytes);
        // The tool copies an image to itself over several connections, with several requests each.
        run(Command::new("nbdcopy").args([
            "--connections=4",
            "--requests=16",
            "--destination-is-zero",
            &uri,
            "null:",
        ]));
    });
}

#[test]
fn fio_verifies() {
    if tool("fio").is_none() {
        return;
    }
    let engines = run(Command::new("fio").arg("--enghelp"));
    if !engines.lines().any(|line| line.trim() == "nbd") {
        println!("skipped: fio has no nbd engine");
        return;
    }
    each_disk(|path, _| {
        run(Command::new("fio")
            .args([
                "--name=verify",
                "--ioengine=nbd",
                "--rw=randrw",
                "--bs=4k",
                "--iodepth=16",
                "--size=8M",
                "--verify=crc32c",
                "--verify_fatal=1",
                "--verify_state_save=0",
            ])
            .arg(format!("--uri={}", uri(path))));
    });
}

#[test]
fn nbdsh() {
    if tool("nbdsh").is_none() {
        return;
    }
    each_disk(|path, _| {
        let script = "h.pwrite(b'x' * 512, 0, nbd.CMD_FLAG_FUA)\nassert h.pread(512, 0) == b'x' * 512\nh.zero(512, 0)\n\
                      assert h.pread(512, 0) == bytes(512)\nh.trim(512, 0)\nh.flush()";
        run(Command::new("nbdsh").args(["-u", &uri(path), "-c", script]));
    });
}
