//! Listeners: a few clients at a time, and none is lost when the system refuses to accept.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aio_context::{ClockId, Context, ManualClock, Wait};
use aio_sources::{Accept, Listener};
use aio_testing::{Bench, Count, everywhere, warnings};
use rustix::process::{Resource, getrlimit, setrlimit};

everywhere! {
    d5_clients_are_accepted_a_few_at_a_time
    r9_a_listener_that_its_callback_drops_accepts_no_more
    b5_clients_that_come_during_a_pause_are_accepted_after_it
    b5_a_pause_by_a_callback_is_before_the_next_client
}

/// A Unix socket in a directory of its own.
struct Socket {
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Socket {
    fn bind() -> (Self, UnixListener) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let _directory = directory;
        (Self { path, _directory }, listener)
    }

    fn connect(&self, number: usize) -> Vec<UnixStream> {
        (0..number).map(|_| connect(&self.path)).collect()
    }
}

fn connect(path: &Path) -> UnixStream {
    UnixStream::connect(path).unwrap()
}

fn counting<S: Accept>(cx: &Context, socket: S) -> (Listener, Count) {
    let count = Count::default();
    let counted = count.clone();
    let listener = Listener::new(cx, socket, move |_, _client, _address| {
        counted.up();
    });
    (listener.unwrap(), count)
}

fn d5_clients_are_accepted_a_few_at_a_time(bench: Bench) {
    let cx = bench.context();
    let (socket, listener) = Socket::bind();
    let (_listener, count) = counting(&cx, listener);
    let _clients = socket.connect(40);
    for expected in [16, 32, 40] {
        assert!(bench.block(&cx));
        assert_eq!(count.get(), expected);
    }
    bench.settle(&cx);
    let _clients = socket.connect(1);
    assert!(bench.block(&cx));
    assert_eq!(count.get(), 41);
}

fn r9_a_listener_that_its_callback_drops_accepts_no_more(bench: Bench) {
    let cx = bench.context();
    let (socket, listener) = Socket::bind();
    let own = Rc::new(RefCell::new(None));
    let (dropped, count) = (own.clone(), Count::default());
    let counted = count.clone();
    let listener = Listener::new(&cx, listener, move |_, _client, _address| {
        counted.up();
        drop(dropped.take());
    });
    own.replace(Some(listener.unwrap()));
    let _clients = socket.connect(5);
    bench.settle(&cx);
    assert_eq!(count.get(), 1);
    assert!(UnixStream::connect(&socket.path).is_err(), "the socket is closed");
}

#[test]
fn a_tcp_client_comes_with_its_address_and_does_not_block() {
    let cx = Context::new().unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let accepted = Rc::new(RefCell::new(None));
    let log = accepted.clone();
    let serve = move |_: &Context, client: TcpStream, from| {
        log.replace(Some((client, from)));
    };
    let _listener = Listener::new(&cx, socket, serve).unwrap();
    let client = TcpStream::connect(address).unwrap();
    assert!(cx.poll(Wait::Block).unwrap());
    let (mut served, from) = accepted.take().unwrap();
    assert_eq!(from, client.local_addr().unwrap());
    let why = io::Read::read(&mut served, &mut [0]).unwrap_err();
    assert_eq!(why.kind(), ErrorKind::WouldBlock);
}

/// A socket that refuses with these errors, the last one first.
struct Refusing {
    socket: Rc<UnixListener>,
    errors: Rc<RefCell<Vec<i32>>>,
    calls: Rc<Cell<u32>>,
}

impl AsFd for Refusing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Accept for Refusing {
    type Client = UnixStream;
    type Address = SocketAddr;

    fn set_nonblocking(&self) -> io::Result<()> {
        self.socket.set_nonblocking(true)
    }

    fn accept(&self) -> io::Result<(UnixStream, SocketAddr)> {
        self.calls.set(self.calls.get() + 1);
        match self.errors.borrow_mut().pop() {
            Some(error) => Err(io::Error::from_raw_os_error(error)),
            None => self.socket.accept(),
        }
    }
}

impl Refusing {
    fn with(errors: &[i32], socket: UnixListener) -> Self {
        Self {
            socket: Rc::new(socket),
            errors: Rc::new(RefCell::new(errors.to_vec())),
            calls: Rc::default(),
        }
    }
}

const EMFILE: i32 = 24;
const ENFILE: i32 = 23;
const ENOMEM: i32 = 12;
const EINTR: i32 = 4;
/// `ECONNABORTED`, and the errors that accept(2) says to ignore.
const OF_CLIENTS: [i32; 8] = [103, 100, 71, 92, 112, 64, 113, 101];

#[test]
fn b4_a_listener_pauses_while_there_is_no_descriptor_and_loses_no_client() {
    let clock = Arc::new(ManualClock::new());
    let cx = Context::builder().monotonic(clock).build().unwrap();
    let (socket, listener) = Socket::bind();
    let refusing = Refusing::with(&[ENOMEM, ENFILE, EMFILE], listener);
    let calls = refusing.calls.clone();
    let (_listener, count) = counting(&cx, refusing);
    let _clients = socket.connect(3);
    let logged = warnings(|| {
        let start = cx.now(ClockId::Monotonic);
        let mut polls = 0;
        while count.get() < 3 {
            cx.poll(Wait::Block).unwrap();
            polls += 1;
        }
        assert!(polls < 20, "it does not spin: {polls} polls");
        let took = cx.now(ClockId::Monotonic).since(start);
        assert_eq!(took, Duration::from_millis(300), "on the clock of the context");
        assert_eq!(
            calls.get(),
            3 + 3 + 1,
            "three refusals, three clients, and no more"
        );
    });
    assert_eq!(logged.len(), 1, "{logged:?}");
    assert!(logged[0].contains("100ms"), "{logged:?}");
}

#[test]
fn b4_a_client_that_is_gone_already_does_not_stop_the_others() {
    let cx = Context::new().unwrap();
    let (socket, listener) = Socket::bind();
    let (_listener, count) = counting(
        &cx,
        Refusing::with(&[&OF_CLIENTS[..], &[EINTR]].concat(), listener),
    );
    let _clients = socket.connect(3);
    assert!(cx.poll(Wait::Block).unwrap());
    assert_eq!(count.get(), 3);
}

#[test]
fn r8_a_listener_that_is_dropped_in_its_pause_stays_away() {
    let clock = Arc::new(ManualClock::new());
    let cx = Context::builder().monotonic(clock).build().unwrap();
    let (socket, listener) = Socket::bind();
    let (listener, count) = counting(&cx, Refusing::with(&[EMFILE], listener));
    let _clients = socket.connect(1);
    cx.poll(Wait::NoBlock).unwrap();
    drop(listener);
    cx.poll(Wait::AtMost(Duration::from_secs(1))).unwrap();
    assert_eq!(count.get(), 0);
}

#[test]
fn r3_a_socket_that_cannot_be_watched_comes_back() {
    let cx = Context::new().unwrap();
    let (socket, listener) = Socket::bind();
    let first = Refusing::with(&[], listener);
    let second = Refusing {
        socket: first.socket.clone(),
        ..Refusing::with(&[], UnixListener::bind(socket.path.with_extension("2")).unwrap())
    };
    let (_listener, count) = counting(&cx, first);
    let refused = Listener::new(&cx, second, |_, _, _| {}).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
    assert!(refused.into_inner().socket.local_addr().is_ok());
    let _clients = socket.connect(1);
    assert!(cx.poll(Wait::Block).unwrap());
    assert_eq!(count.get(), 1);
}

/// A real refusal needs its own limit, and so its own process.
#[test]
fn b4_a_listener_survives_emfile() {
    let mut own = Command::new(std::env::current_exe().unwrap());
    own.args([
        "--exact",
        "listeners::in_a_process_with_few_descriptors",
        "--ignored",
    ]);
    let output = own.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "lowers the limit of its process: `b4_a_listener_survives_emfile` runs it"]
fn in_a_process_with_few_descriptors() {
    let cx = Context::new().unwrap();
    let (socket, listener) = Socket::bind();
    let (_listener, count) = counting(&cx, listener);
    let clients = socket.connect(3);
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(64);
    setrlimit(Resource::Nofile, limit).unwrap();
    let mut all = Vec::new();
    while let Ok(one) = clients[0].try_clone() {
        all.push(one);
    }
    let logged = warnings(|| {
        for _ in 0..3 {
            cx.poll(Wait::AtMost(Duration::from_millis(1))).unwrap();
        }
    });
    assert_eq!((count.get(), logged.len()), (0, 1), "{logged:?}");
    assert!(logged[0].contains("Too many open files"), "{logged:?}");
    drop(all);
    while count.get() < 3 {
        cx.poll(Wait::Block).unwrap();
    }
}

fn b5_clients_that_come_during_a_pause_are_accepted_after_it(bench: Bench) {
    let cx = bench.context();
    let (socket, listener) = Socket::bind();
    let (group, count) = (cx.new_group(), Count::default());
    let counted = count.clone();
    let serve = move |_: &Context, _client, _address| {
        counted.up();
    };
    let _listener = Listener::new_in(&cx, group, listener, serve).unwrap();
    for accepted in [3, 6] {
        let paused = cx.pause(group);
        let _clients = socket.connect(3);
        assert!(!bench.check(&cx));
        assert_eq!(count.get(), accepted - 3);
        drop(paused);
        bench.settle(&cx);
        assert_eq!(count.get(), accepted);
    }
}

fn b5_a_pause_by_a_callback_is_before_the_next_client(bench: Bench) {
    let cx = bench.context();
    let (socket, listener) = Socket::bind();
    let (group, count) = (cx.new_group(), Count::default());
    let (counted, paused) = (count.clone(), Rc::new(RefCell::new(None)));
    let pause = paused.clone();
    let serve = move |cx: &Context, _client, _address| {
        counted.up();
        pause.replace(Some(cx.pause(group)));
    };
    let _listener = Listener::new_in(&cx, group, listener, serve).unwrap();
    let _clients = socket.connect(5);
    for accepted in 1..=5 {
        bench.settle(&cx);
        assert_eq!(count.get(), accepted);
        drop(paused.take());
    }
}

/// The system has refused, and the group is paused: the end of one pause does not end the other.
#[test]
fn b5_a_listener_that_the_system_refused_stays_paused() {
    let clock = Arc::new(ManualClock::new());
    let cx = Context::builder().monotonic(clock).build().unwrap();
    let (socket, listener) = Socket::bind();
    let (group, count) = (cx.new_group(), Count::default());
    let counted = count.clone();
    let serve = move |_: &Context, _client, _address| {
        counted.up();
    };
    let refusing = Refusing::with(&[EMFILE], listener);
    let _listener = Listener::new_in(&cx, group, refusing, serve).unwrap();
    let _clients = socket.connect(2);
    cx.poll(Wait::NoBlock).unwrap();
    let paused = cx.pause(group);
    for _ in 0..3 {
        cx.poll(Wait::AtMost(Duration::from_secs(1))).unwrap();
    }
    assert_eq!(count.get(), 0);
    drop(paused);
    while count.get() < 2 {
        cx.poll(Wait::Block).unwrap();
    }
}
