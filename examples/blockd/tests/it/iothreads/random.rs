//! Random operations: exports are added, removed and resized, and clients connect, while other threads serve.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use serde_json::json;

use super::Threads;
use crate::client::{Client, pattern};
use crate::nbd::client as nbd;
use crate::seed;

const STEPS: usize = 150;
const SIZE: u64 = 1 << 20;
const BLOCK: usize = 4096;

/// The expected state of an export.
struct Known {
    socket: PathBuf,
    size: u64,
    /// Whether its disk stores written data.
    stores: bool,
    /// The seed of the pattern of each block that was written.
    blocks: BTreeMap<u64, u64>,
    guest: Option<Client>,
    nbd: Option<nbd::Client>,
}

/// A client that is served all the time, on a thread of the test.
struct Bystander {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Bystander {
    fn start(socket: PathBuf, at: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut client = Client::simple(&socket);
            let mut round = 0;
            while !stopped.load(Ordering::Relaxed) {
                let data = pattern(round, BLOCK);
                client.write(0, at, &data).unwrap();
                assert_eq!(client.read(0, at, BLOCK).unwrap(), data);
                round += 1;
            }
            round
        });
        Self { stop, thread }
    }

    /// Ends the client. Returns the number of its requests that were served.
    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

struct Run {
    daemon: Threads,
    threads: usize,
    random: fastrand::Rng,
    directory: tempfile::TempDir,
    known: BTreeMap<String, Known>,
    next: usize,
}

impl Run {
    fn any(&mut self) -> Option<String> {
        let names: Vec<String> = self.known.keys().cloned().collect();
        self.random.choice(names)
    }

    fn step(&mut self) {
        match self.random.u8(..12) {
            0 | 1 if self.known.len() < 8 => self.add(),
            2 if self.known.len() > 2 => self.remove(),
            3 => self.resize(),
            4 | 5 => self.guest(),
            6 | 7 => self.client(),
            8 => self.disconnect(),
            9 => self.poll(),
            10 => self.compare(),
            _ => self.write(),
        }
    }

    fn add(&mut self) {
        self.next += 1;
        let name = format!("e{}", self.next);
        let socket = self.directory.path().join(format!("{name}.sock"));
        let kind = self.random.u8(..3);
        let disk = match kind {
            0 => "ram=1M".to_owned(),
            1 => "null=1M".to_owned(),
            _ => {
                let image = self.directory.path().join(format!("{name}.raw"));
                std::fs::File::create(&image).unwrap().set_len(SIZE).unwrap();
                format!("path={}", image.display())
            }
        };
        let thread = match self.random.u8(..4) {
            0 => format!(",iothread={}", self.random.usize(..self.threads)),
            1 => ",iothread=all".to_owned(),
            2 if self.threads > 1 => {
                let first = self.random.usize(..self.threads);
                format!(",iothread={first}+{}", (first + 1) % self.threads)
            }
            _ => String::new(),
        };
        self.daemon
            .add(&format!("{disk},socket={},name={name}{thread}", socket.display()));
        let known = Known {
            socket,
            size: SIZE,
            stores: kind != 1,
            blocks: BTreeMap::new(),
            guest: None,
            nbd: None,
        };
        self.known.insert(name, known);
    }

    fn remove(&mut self) {
        let Some(name) = self.any() else { return };
        let known = self.known.remove(&name).unwrap();
        self.daemon.remove(&name);
        assert!(!known.socket.exists());
        if let Some(mut client) = known.nbd {
            client.is_closed();
        }
    }

    fn resize(&mut self) {
        let Some(name) = self.any() else { return };
        let known = self.known.get_mut(&name).unwrap();
        known.size += SIZE;
        let resize = json!({"command": "resize", "name": name, "size": known.size.to_string()});
        assert_eq!(self.daemon.controlled.tell(&resize)["size"], known.size);
    }

    fn guest(&mut self) {
        let Some(name) = self.any() else { return };
        let known = self.known.get_mut(&name).unwrap();
        // An export serves one client at a time.
        known.guest = None;
        let client = Client::simple(&known.socket);
        assert_eq!(client.capacity(), known.size);
        known.guest = Some(client);
    }

    fn client(&mut self) {
        let Some(name) = self.any() else { return };
        let known = self.known.get_mut(&name).unwrap();
        let client = nbd::Client::simple(&self.daemon.nbd, &name);
        assert_eq!(client.size, known.size);
        known.nbd = Some(client);
    }

    fn disconnect(&mut self) {
        let Some(name) = self.any() else { return };
        let known = self.known.get_mut(&name).unwrap();
        match self.random.bool() {
            true => known.guest = None,
            false => known.nbd = None,
        }
    }

    fn poll(&mut self) {
        let max = ["0", "20us"][self.random.usize(..2)];
        let name = match self.random.usize(..self.threads) {
            0 => "main".to_owned(),
            thread => format!("io{thread}"),
        };
        self.daemon
            .controlled
            .tell(&json!({"command": "set-poll", "name": name, "poll": {"max": max}}));
    }

    fn write(&mut self) {
        let Some(name) = self.any() else { return };
        let at = self.random.u64(..SIZE / BLOCK as u64);
        let seed = self.random.u64(..);
        let known = self.known.get_mut(&name).unwrap();
        let (data, offset) = (pattern(seed, BLOCK), at * BLOCK as u64);
        match (&mut known.guest, &mut known.nbd) {
            (Some(guest), _) => guest.write(0, offset, &data).unwrap(),
            (None, Some(client)) => client.write(offset, &data).unwrap(),
            (None, None) => return,
        }
        known.blocks.insert(at, seed);
    }

    /// Checks that all clients of an export see the data that were written.
    fn compare(&mut self) {
        let Some(name) = self.any() else { return };
        let known = self.known.get_mut(&name).unwrap();
        let Some((at, seed)) = known.blocks.iter().next_back().filter(|_| known.stores) else {
            return;
        };
        let (data, offset) = (pattern(*seed, BLOCK), at * BLOCK as u64);
        if let Some(guest) = &mut known.guest {
            assert_eq!(guest.read(0, offset, BLOCK).unwrap(), data, "{name}");
        }
        if let Some(client) = &mut known.nbd {
            assert_eq!(client.read(offset, BLOCK).unwrap(), data, "{name}");
        }
    }

    fn check_list(&self) {
        let list = self.daemon.list();
        let listed = list["exports"].as_array().unwrap();
        // There is one export for each bystander, besides those of this test.
        assert_eq!(listed.len(), self.threads + self.known.len());
        for export in listed {
            if let Some(known) = self.known.get(export["name"].as_str().unwrap()) {
                assert_eq!(export["size"], known.size);
            }
        }
        let loops = list["loops"].as_array().unwrap();
        assert_eq!(loops.len(), self.threads);
        assert!(loops.iter().all(|state| state["responds"] == true), "{list}");
    }
}

#[test]
fn exports_and_clients_come_and_go_while_all_threads_serve() {
    let mut random = seed();
    for threads in [1, 2, 4] {
        let daemon = Threads::start(threads);
        let directory = tempfile::tempdir().unwrap();
        // The last thread serves the first export.
        let mut bystanders = vec![Bystander::start(daemon.controlled.daemon.socket().to_owned(), 0)];
        for thread in 0..threads - 1 {
            let socket = directory.path().join(format!("bystander{thread}"));
            let export = format!(
                "ram=1M,name=bystander{thread},socket={},iothread={thread}",
                socket.display()
            );
            daemon.add(&export);
            bystanders.push(Bystander::start(socket, 0));
        }
        let mut run = Run {
            daemon,
            threads,
            random: random.fork(),
            directory,
            known: BTreeMap::new(),
            next: 0,
        };
        for step in 0..STEPS {
            run.step();
            if step % 10 == 0 {
                run.check_list();
            }
        }
        for bystander in bystanders {
            assert!(bystander.end() > 0);
        }
        let Run {
            daemon,
            known,
            directory,
            ..
        } = run;
        drop(known);
        assert_eq!(daemon.controlled.daemon.stop(), "", "{threads} threads");
        let left = std::fs::read_dir(directory.path()).unwrap();
        let sockets = left.filter(|entry| {
            let path = entry.as_ref().unwrap().path();
            path.extension().is_none_or(|end| end != "raw")
        });
        assert_eq!(sockets.count(), 0, "sockets are left behind");
    }
}
