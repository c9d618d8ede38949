//! C13: a request of any length is served in steps, and other queues have their turns in between.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use aio_context::Wait;
use blockd::{Args, Engine, Export, Server, Source};
use clap::Parser;
use vhost::VhostBackend;
use vhost::vhost_user::{VhostUserFrontend, VhostUserProtocolFeatures};
use vm_memory::{Bytes, VolatileMemory};

use super::Image;
use crate::client::pattern;
use crate::raw::{DATA, Raw, STATUS, WRITE};

const MIB: u64 = 1 << 20;
/// The guest address of the memory of the long requests.
const LARGE: u64 = 1 << 32;
/// The most bytes that an iteration of the loop may move for one queue: a step, and one that had begun before
/// the first was over.
const BOUND: u64 = 2 * MIB;

/// A daemon on this thread, driven iteration by iteration, and a client of each of its exports.
struct Driven {
    server: Server,
    clients: Vec<Raw>,
    _directory: tempfile::TempDir,
}

impl Driven {
    fn new(sources: &[Source]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let sockets: Vec<PathBuf> = (0..sources.len())
            .map(|number| directory.path().join(number.to_string()))
            .collect();
        let mut args = Args::try_parse_from(["blockd", "--export", "ram=1M,socket=s"]).unwrap();
        args.engine = Engine::Sync;
        let exports = sources.iter().zip(&sockets);
        args.exports = exports
            .map(|(source, socket)| Export::new(source.clone(), socket))
            .collect();
        let server = Server::new(&args).unwrap();
        let stopper = server.stopper();
        // Setting up a connection needs both sides to run. Afterwards this thread uses the clients.
        let connecting = std::thread::spawn(move || {
            let slots = VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS;
            let clients = sockets.iter().map(|socket| {
                let mut raw = Raw::connect_with(socket, slots);
                let large = raw.share(LARGE, 128 * MIB as usize);
                raw.set_up(0);
                raw.frontend.set_vring_enable(0, true).unwrap();
                (raw, large)
            });
            let clients: Vec<_> = clients.collect();
            stopper.stop();
            clients
        });
        server.run().unwrap();
        let clients = connecting.join().unwrap();
        let clients = clients.into_iter().map(|(raw, _)| raw).collect();
        Self {
            server,
            clients,
            _directory: directory,
        }
    }

    /// Lets the daemon serve the first client's request to its end while the second client sends requests.
    /// Checks that the second has its turn in every iteration. Returns the number of iterations.
    fn interleaved(&mut self) -> u64 {
        let context = self.server.context().clone();
        let [long, short, ..] = &mut self.clients[..] else {
            panic!("two clients are needed");
        };
        let before = long.used();
        let mut iterations = 0;
        while long.used() == before {
            let next = short.used().wrapping_add(1);
            short.offer_request(0, 0, &[(DATA, 512)], WRITE);
            // An iteration does not see a descriptor that becomes ready during it. The next one does.
            for _ in 0..2 {
                context.poll(Wait::NoBlock).unwrap();
                iterations += 1;
            }
            assert_eq!(
                short.used(),
                next,
                "the neighbour waits in iteration {iterations}"
            );
            assert!(iterations < 1_000_000, "no end");
        }
        iterations
    }
}

/// Returns buffers of 2 MiB, all in the same memory, with `bytes` bytes in all.
fn buffers(bytes: u64) -> Vec<(u64, u32)> {
    (0..bytes / (2 * MIB))
        .map(|index| (LARGE + index % 64 * 2 * MIB, 2 * MIB as u32))
        .collect()
}

#[test]
fn c13_long_transfers_leave_turns_to_others() {
    let image = Image::new(2 << 30);
    for (source, len) in [
        (Source::File(image.path()), 256 * MIB),
        (Source::Null(2 << 30), 1 << 30),
        (Source::Ram(2 << 30), 64 * MIB),
    ] {
        let mut driven = Driven::new(&[source.clone(), Source::Ram(1 << 20)]);
        for (kind, flags, len) in [(0, WRITE, len), (1, 0, 32 * MIB)] {
            let one = [(LARGE, len.min(128 * MIB) as u32)];
            let many = buffers(len);
            let lists = [&one[..], &many[..]];
            for list in lists {
                let bytes: u64 = list.iter().map(|(_, len)| u64::from(*len)).sum();
                let done = driven.clients[0].used();
                driven.clients[0].offer_request(kind, 0, list, flags);
                let iterations = driven.interleaved();
                let long = &driven.clients[0];
                assert_eq!(long.get(STATUS, 1), [0], "{source:?}, type {kind}, {bytes} bytes");
                let written = if kind == 0 { bytes as u32 } else { 0 };
                assert_eq!(long.used_entry(done), (0, written + 1));
                assert!(
                    iterations >= bytes / BOUND,
                    "{source:?}, type {kind}: {bytes} bytes in {iterations} iterations"
                );
            }
        }
    }
}

#[test]
fn c13_long_clears_leave_turns_to_others() {
    let image = Image::new(64 << 30);
    let file = std::fs::File::options().write(true).open(image.path()).unwrap();
    // The type, the flags, and the bytes of each of four ranges. On a file, holes would be too little work.
    let file_ranges = [(11, 0, 32 * MIB), (13, 1, 32 * MIB), (13, 0, 32 * MIB)];
    let ram_ranges = [(11, 0, 4096 * MIB), (13, 1, 4096 * MIB), (13, 0, 32 * MIB)];
    let disks = [
        (Source::File(image.path()), file_ranges),
        (Source::Ram(64 << 30), ram_ranges),
    ];
    for (source, clears) in disks {
        let mut driven = Driven::new(&[source.clone(), Source::Ram(1 << 20)]);
        for (kind, flags, len) in clears {
            if matches!(source, Source::File(_)) {
                for at in (0..4 * len).step_by(MIB as usize) {
                    file.write_all_at(&vec![5; MIB as usize], at).unwrap();
                }
            }
            let ranges = (0..4).flat_map(|index| {
                let start = (index * len / 512).to_le_bytes();
                [start, ((len / 512) | (flags << 32)).to_le_bytes()].concat()
            });
            let long = &mut driven.clients[0];
            long.put(DATA, &ranges.collect::<Vec<u8>>());
            long.offer_request(kind, 0, &[(DATA, 64)], 0);
            let iterations = driven.interleaved();
            assert_eq!(driven.clients[0].get(STATUS, 1), [0], "{source:?}, type {kind}");
            assert!(
                iterations >= 4 * len / (32 * MIB),
                "{source:?}, type {kind}: {iterations} iterations"
            );
        }
    }
}

/// Every byte of a long request is transferred to its place, with any division into steps. Short requests are
/// the reference.
#[test]
fn c13_steps_put_every_byte_where_it_belongs() {
    const LEN: usize = 5 * MIB as usize + 512 * 3;
    let image = Image::new(8 * MIB);
    let polling = Duration::from_millis(1);
    for (source, poll_max) in [
        (Source::File(image.path()), Duration::ZERO),
        (Source::Ram(8 * MIB), Duration::ZERO),
        (Source::Ram(8 * MIB), polling),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let mut args = Args::try_parse_from(["blockd", "--export", "ram=1M,socket=s"]).unwrap();
        args.poll_max = poll_max;
        args.exports = vec![Export::new(source, directory.path().join("a"))];
        let (ready, is_ready) = std::sync::mpsc::channel();
        let socket = args.exports[0].socket.clone().unwrap();
        let thread = std::thread::spawn(move || blockd::serve(&args, |stopper| ready.send(stopper).unwrap()));
        let stopper = is_ready.recv().unwrap();

        let mut raw = Raw::connect_with(&socket, VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS);
        let (_file, memory) = raw.share(LARGE, 16 * MIB as usize);
        raw.set_up(0);
        raw.frontend.set_vring_enable(0, true).unwrap();
        let text = pattern(5, LEN);
        memory.as_volatile_slice().write_slice(&text, 0).unwrap();
        // Steps divide these buffers of odd lengths.
        let odd = [1_000_003, 7, 3_000_000, LEN as u32 - 4_000_010];
        let mut at = LARGE;
        let list = odd.map(|len| {
            at += u64::from(len);
            (at - u64::from(len), len)
        });
        assert_eq!(raw.request(1, 3, &list, 0), 0);
        for part in 0..LEN / 512 {
            let position = (part + 3) as u64;
            if part % 97 == 0 || part * 512 % MIB as usize == 0 {
                assert_eq!(
                    raw.read_sector(position),
                    text[part * 512..(part + 1) * 512],
                    "sector {position}"
                );
            }
        }
        memory
            .as_volatile_slice()
            .write_slice(&vec![0xa5; LEN], 0)
            .unwrap();
        assert_eq!(raw.request(0, 3, &list, WRITE), 0);
        let mut seen = vec![0; LEN];
        memory.as_volatile_slice().read_slice(&mut seen, 0).unwrap();
        assert!(seen == text, "a long read differs from the written data");
        // The request is one sector longer than the disk, so nothing is written.
        memory.as_volatile_slice().write_slice(&vec![1; LEN], 0).unwrap();
        let last = (8 * MIB - LEN as u64) / 512 + 1;
        assert_eq!(raw.request(1, last, &list, 0), 1);
        assert_eq!(raw.read_sector(8 * MIB / 512 - 1), [0; 512]);
        assert_eq!(raw.read_sector(last), text[(last as usize - 3) * 512..][..512]);
        drop(raw);
        stopper.stop();
        thread.join().unwrap().unwrap();
    }
}

/// A client stops its queue in the middle of a long request. The queue's position is that request, which
/// begins again.
#[test]
fn c13_a_queue_that_stops_in_a_long_request_begins_it_again() {
    let mut driven = Driven::new(&[Source::Null(2 << 30)]);
    let context = driven.server.context().clone();
    let Some(mut raw) = driven.clients.pop() else {
        return;
    };
    let before = raw.used();
    raw.offer_request(0, 0, &buffers(1 << 30), WRITE);
    for _ in 0..10 {
        context.poll(Wait::NoBlock).unwrap();
    }
    assert_eq!(raw.used(), before, "it takes longer than that");
    let other_side = std::thread::spawn(move || {
        let base = raw.frontend.get_vring_base(0).unwrap();
        assert_eq!(base, u32::from(before));
        assert_eq!(raw.used(), before);
        raw.set_up(before);
        raw.frontend.set_vring_enable(0, true).unwrap();
        raw.kick.write(1).unwrap();
        raw.wait_used(before.wrapping_add(1));
        assert_eq!(raw.get(STATUS, 1), [0]);
    });
    while !other_side.is_finished() {
        context.poll(Wait::AtMost(Duration::from_millis(1))).unwrap();
    }
    other_side.join().unwrap();
}
