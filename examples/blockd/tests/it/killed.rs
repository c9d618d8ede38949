//! Clients that are killed in the middle of writes, and the contents of the image afterwards.
//!
//! The client is this test's program again, in a process of its own, so that it can be killed at any
//! instruction. Before each write and after each acknowledgement it writes a line to a pipe. The pipe keeps
//! the lines of a killed process.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use crate::client::Client;
use crate::daemon::Daemon;
use crate::seed;

const KILLS: usize = 100;
const SOCKET: &str = "BLOCKD_TEST_SOCKET";
const SEED: &str = "BLOCKD_TEST_SEED";
/// The number of blocks. Every second one is written. The others reveal misplaced writes.
pub(crate) const BLOCKS: u64 = 64;
pub(crate) const BLOCK: usize = 4096;
const SECTOR: usize = 512;
/// The number of simultaneous writes.
const DEPTH: usize = 8;

/// Returns the contents of one sector, which encode the block, the position of the sector in it, and the
/// write.
fn sector(block: u64, at: usize, write: u64) -> Vec<u8> {
    let words = [0x6b69_6c6c_6564_u64, block, at as u64, write];
    words
        .iter()
        .cycle()
        .take(SECTOR / 8)
        .flat_map(|word| word.to_le_bytes())
        .collect()
}

pub(crate) fn data(block: u64, write: u64) -> Vec<u8> {
    (0..BLOCK / SECTOR)
        .flat_map(|at| sector(block, at, write))
        .collect()
}

/// The client's program instead of a test: it writes until it is killed.
#[test]
#[ignore = "is run by the tests beside it, as a process to be killed"]
fn the_client_that_is_killed() {
    let Ok(socket) = std::env::var(SOCKET) else { return };
    let mut random = fastrand::Rng::with_seed(std::env::var(SEED).unwrap().parse().unwrap());
    let mut client = Client::simple(socket.as_ref());
    let mut report = std::io::stderr();
    let mut write = u64::from(random.u32(..)) << 16;
    loop {
        let mut blocks: Vec<u64> = (0..BLOCKS).collect();
        random.shuffle(&mut blocks);
        blocks.truncate(DEPTH);
        for (slot, block) in blocks.iter().enumerate() {
            write += 1;
            // Each line is one system call, so that it is written as a whole or not at all.
            report
                .write_all(format!("begun {block} {write}\n").as_bytes())
                .unwrap();
            client.start_write(0, slot, block * 2 * BLOCK as u64, &data(*block, write));
        }
        for _ in 0..DEPTH {
            let (slot, error) = client.next_done(0);
            assert_eq!(error, 0);
            let number = write - (DEPTH - 1 - slot) as u64;
            report
                .write_all(format!("done {} {number}\n", blocks[slot]).as_bytes())
                .unwrap();
        }
        if random.bool() {
            client.flush(0).unwrap();
            report.write_all(b"flushed 0 0\n").unwrap();
        }
    }
}

/// The possible contents of a block.
#[derive(Clone, Default)]
struct Block {
    /// The last acknowledged write.
    done: u64,
    /// The writes that have begun since then.
    begun: HashSet<u64>,
}

/// The contents that each block may have, from the reports of the clients.
#[derive(Clone, Default)]
pub(crate) struct Expected(HashMap<u64, Block>);

impl Expected {
    fn hear(&mut self, line: &str) -> bool {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [what, block, write] = words[..] else {
            return false;
        };
        let (Ok(block), Ok(write)) = (block.parse(), write.parse()) else {
            return false;
        };
        match what {
            "begun" => self.begun(block, write),
            "done" => self.done(block, write),
            "flushed" => {}
            _ => return false,
        }
        true
    }

    /// Records that a write has begun.
    pub(crate) fn begun(&mut self, block: u64, write: u64) {
        self.0.entry(block).or_default().begun.insert(write);
    }

    /// Records that a write was acknowledged.
    pub(crate) fn done(&mut self, block: u64, write: u64) {
        // A client has one outstanding write to a block at a time, and former clients have ended.
        let known = self.0.entry(block).or_default();
        known.done = write;
        known.begun.clear();
    }

    /// Compares an image with the expected contents, sector by sector. Afterwards exactly the contents that
    /// were found are expected.
    pub(crate) fn check(&mut self, image: &[u8]) -> Result<(), String> {
        for (number, bytes) in image.chunks(BLOCK).enumerate() {
            let block = number as u64 / 2;
            let known = match number % 2 {
                0 => self.0.get_mut(&block),
                _ => None,
            };
            let Some(known) = known else {
                if bytes.iter().any(|byte| *byte != 0) {
                    return Err(format!(
                        "block {number} of the image was never written and is not empty"
                    ));
                }
                continue;
            };
            let mut found = HashSet::new();
            for (at, bytes) in bytes.chunks(SECTOR).enumerate() {
                let write = u64::from_le_bytes(bytes[24..32].try_into().unwrap());
                let may_be = write == known.done || known.begun.contains(&write);
                let whole = bytes == sector(block, at, write) || (write == 0 && bytes == [0; SECTOR]);
                if !may_be || !whole {
                    return Err(format!(
                        "block {block}, sector {at}: write {write}, where {} is acknowledged and {:?} were begun",
                        known.done, known.begun
                    ));
                }
                found.insert(write);
            }
            // The client has ended. A block with the contents of two writes is possible, and both stay
            // possible.
            known.begun = found;
            known.begun.remove(&known.done);
        }
        Ok(())
    }
}

fn spawn_client(socket: &std::path::Path, seed: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "killed::the_client_that_is_killed",
            "--ignored",
            "--nocapture",
        ])
        .env(SOCKET, socket)
        .env(SEED, seed.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// A client is killed at a hundred random moments, always during writes. Afterwards every written sector has
/// the contents of the last acknowledged write, or of one that had begun. No sector is torn, and no other
/// sector was changed.
#[test]
fn case_15_a_client_killed_under_writes() {
    let mut random = seed();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    std::fs::write(&path, vec![0; BLOCKS as usize * 2 * BLOCK]).unwrap();
    let daemon = Daemon::start(&format!("path={}", path.display()), &[]);
    let mut expected = Expected::default();
    let (mut acknowledged, mut under_way) = (0, 0);
    for _ in 0..KILLS {
        let mut client = spawn_client(daemon.socket(), random.u64(..));
        let mut said = BufReader::new(client.stderr.take().unwrap());
        let mut line = String::new();
        let lines = random.u32(1..200);
        let mut heard = 0;
        while heard < lines {
            line.clear();
            assert_ne!(
                said.read_line(&mut line).unwrap(),
                0,
                "the client ended by itself"
            );
            heard += u32::from(expected.hear(&line));
        }
        for _ in 0..random.u32(..2000) {
            std::hint::spin_loop();
        }
        client.kill().unwrap();
        client.wait().unwrap();
        for line in said.lines() {
            expected.hear(&line.unwrap());
        }
        // Once the next client is served, the daemon has completed the requests of this one.
        let mut next = Client::simple(daemon.socket());
        next.read(0, 0, SECTOR).unwrap();
        acknowledged += expected.0.values().filter(|block| block.done > 0).count();
        under_way += expected.0.values().map(|block| block.begun.len()).sum::<usize>();
        let image = std::fs::read(&path).unwrap();
        expected.check(&image).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
    println!("{KILLS} kills: {acknowledged} blocks checked, {under_way} writes under way");
    assert!(under_way > 0, "no client was killed with writes under way");
    daemon.is_at_rest();
    let log = daemon.stop();
    assert!(!log.contains("panicked"), "{log}");
}

/// Tests the check itself: it finds a lost write, a torn sector, and a sector that was never written.
#[test]
fn the_check_of_the_image_finds_errors() {
    let image_of = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut image = vec![0; BLOCKS as usize * 2 * BLOCK];
        image[2 * BLOCK..3 * BLOCK].copy_from_slice(&data(1, 7));
        change(&mut image);
        let mut expected = Expected::default();
        for line in [
            "begun 1 6",
            "done 1 6",
            "begun 1 7",
            "done 1 7",
            "begun 1 8",
            "begun 2 9",
        ] {
            assert!(expected.hear(line));
        }
        expected.check(&image)
    };
    let put = |image: &mut Vec<u8>, write: u64, sectors: usize| {
        let len = sectors * SECTOR;
        image[2 * BLOCK..2 * BLOCK + len].copy_from_slice(&data(1, write)[..len]);
    };
    assert_eq!(image_of(&|_| {}), Ok(()));
    assert_eq!(image_of(&|image| put(image, 8, 8)), Ok(()));
    assert_eq!(image_of(&|image| put(image, 8, 3)), Ok(()));
    assert!(
        image_of(&|image| put(image, 6, 1)).is_err(),
        "an acknowledged write is lost"
    );
    assert!(
        image_of(&|image| put(image, 5, 8)).is_err(),
        "one that was overwritten is back"
    );
    assert!(image_of(&|image| image[2 * BLOCK..3 * BLOCK].fill(0)).is_err());
    assert!(
        image_of(&|image| image[2 * BLOCK + 300] ^= 1).is_err(),
        "a torn sector"
    );
    assert!(
        image_of(&|image| image[3 * BLOCK] = 1).is_err(),
        "a sector behind the range"
    );
    assert!(
        image_of(&|image| image[2 * BLOCK - 1] = 1).is_err(),
        "a sector before the range"
    );
}
