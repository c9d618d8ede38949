//! A daemon of two threads in this process.

use std::os::unix::net::UnixStream;

use clap::Parser as _;

use super::*;

/// A panic on one thread ends the daemon in order: the error names the thread, and no socket stays behind.
#[test]
fn a_panic_on_an_io_thread_ends_the_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let socket = |name: &str| directory.path().join(name);
    let export =
        |name: &str, thread: &str| format!("ram=1M,socket={},iothread={thread}", socket(name).display());
    let args = [
        "blockd",
        "--iothreads",
        "2",
        "--export",
        &export("a", "0"),
        "--export",
        &export("b", "1"),
        "--export",
        &export("c", "0+1"),
    ];
    let server = Server::new(&Args::try_parse_from(args).unwrap()).unwrap();
    let clients = ["a", "b", "c"].map(|name| UnixStream::connect(socket(name)).unwrap());
    server.loops.call(
        &server.context,
        1,
        |_, _, _: crate::calls::Reply<()>| panic!("planted"),
        Box::new(|_, _| ()),
    );
    let error = server.run().unwrap_err().to_string();
    assert!(
        error.contains("the I/O thread io1 has ended") && error.contains("planted"),
        "{error}"
    );
    server.finish().unwrap();
    drop(server);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    drop(clients);
}
