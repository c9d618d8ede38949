//! A daemon on a thread of its own, with sockets in a temporary directory.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use aio_context::BackendKind;
use blockd::{Args, Engine, Export, IoThreads, Source, Stopper};

use crate::client::{Client, pattern};

/// A running daemon. Dropping it stops it and checks that it has ended without an error.
pub(crate) struct Server {
    stopper: Option<Stopper>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
    exports: Vec<Export>,
    directory: tempfile::TempDir,
}

/// A client that must be served, independent of other clients.
pub(crate) struct Bystander(Client);

impl Bystander {
    pub(crate) fn new(socket: &Path) -> Self {
        let mut client = Client::simple(socket);
        client.write(0, 0, &pattern(1, 512)).unwrap();
        Self(client)
    }

    pub(crate) fn is_served(&mut self) {
        assert_eq!(self.0.read(0, 0, 512).unwrap(), pattern(1, 512));
    }
}

/// The configuration of a daemon.
pub(crate) struct Wanted {
    exports: Vec<Export>,
    poll_max: Duration,
    policy: &'static str,
    backend: BackendKind,
    directory: tempfile::TempDir,
}

impl Wanted {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            exports: Vec::new(),
            poll_max: Duration::ZERO,
            policy: "learned",
            backend: BackendKind::Auto,
            directory,
        }
    }

    pub(crate) fn export(mut self, source: Source, queues: u16) -> Self {
        let socket = self.directory.path().join(format!("{}.sock", self.exports.len()));
        // The last thread serves the first export.
        let threads = crate::iothreads();
        self.exports.push(Export {
            queues,
            iothreads: match crate::several_threads() {
                Some(several) => IoThreads::These(several),
                None => IoThreads::These(vec![(self.exports.len() + threads - 1) % threads]),
            },
            ..Export::new(source, socket)
        });
        self
    }

    pub(crate) fn readonly(mut self) -> Self {
        self.exports.last_mut().unwrap().readonly = true;
        self
    }

    pub(crate) fn polling(mut self, poll_max: Duration) -> Self {
        self.poll_max = poll_max;
        self
    }

    pub(crate) fn policy(mut self, name: &'static str) -> Self {
        self.policy = name;
        self
    }

    pub(crate) fn backend(mut self, backend: BackendKind) -> Self {
        self.backend = backend;
        self
    }

    pub(crate) fn start(self) -> Server {
        let Self {
            exports,
            poll_max,
            policy,
            backend,
            directory,
        } = self;
        let engine = match crate::engine().as_str() {
            "uring" => Engine::Uring,
            "threads" => Engine::Threads,
            "sync" => Engine::Sync,
            _ => Engine::Auto,
        };
        let args = Args {
            engine,
            iothreads: crate::iothreads(),
            poll_max,
            policy: policy.to_owned(),
            backend,
            // Polling is exclusive, because other tests run on the same cores.
            poll_exclusive: true,
            ..Args::for_exports(exports.clone())
        };
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::spawn(move || blockd::serve(&args, |stopper| ready.send(stopper).unwrap()));
        match is_ready.recv() {
            Ok(stopper) => Server {
                stopper: Some(stopper),
                thread: Some(thread),
                exports,
                directory,
            },
            Err(_) => panic!("the daemon did not start: {:?}", thread.join().unwrap()),
        }
    }
}

impl Server {
    /// Returns one RAM disk of 1 MiB with one queue, and polling off.
    pub(crate) fn simple() -> Self {
        Wanted::new().export(Source::Ram(1 << 20), 1).start()
    }

    /// Starts two RAM disks of 1 MiB, and a client of the second one. Tests of the first must not disturb
    /// that client.
    pub(crate) fn with_bystander() -> (Self, Bystander) {
        let server = Wanted::new()
            .export(Source::Ram(1 << 20), 1)
            .export(Source::Ram(1 << 20), 1)
            .start();
        let bystander = Bystander::new(&server.socket(1));
        (server, bystander)
    }

    pub(crate) fn socket(&self, export: usize) -> PathBuf {
        self.exports[export].socket.clone().unwrap()
    }

    /// Stops the daemon and returns its directory, which should be empty.
    pub(crate) fn stop(mut self) -> PathBuf {
        self.join();
        self.directory.path().to_owned()
    }

    fn join(&mut self) {
        if let Some(stopper) = self.stopper.take() {
            stopper.stop();
        }
        if let Some(thread) = self.thread.take() {
            thread
                .join()
                .expect("the daemon panicked")
                .expect("the daemon failed");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.join();
            assert_eq!(
                std::fs::read_dir(self.directory.path()).unwrap().count(),
                0,
                "sockets are left behind"
            );
        } else if let Some(stopper) = self.stopper.take() {
            stopper.stop();
        }
    }
}
