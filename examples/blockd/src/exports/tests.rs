//! Exports that their loops cannot serve.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::mpsc;

use aio_context::Wait;
use clap::Parser as _;
use rustix::fs::{Mode, OFlags};

use super::*;
use crate::Server;
use crate::cli::Args;

/// Returns a daemon with three loops and an export.
fn server(directory: &tempfile::TempDir) -> Server {
    let socket = directory.path().join("first.sock");
    let export = format!("ram=1M,name=first,iothread=0,socket={}", socket.display());
    // This backend refuses files at once.
    let args = [
        "blockd",
        "--iothreads",
        "3",
        "--backend",
        "epoll",
        "--export",
        &export,
    ];
    Server::new(&Args::try_parse_from(args).unwrap()).unwrap()
}

/// Returns an export of three loops that no loop can serve: its socket is a file of which only the path is
/// open.
fn unservable(directory: &tempfile::TempDir) -> Opened {
    let path = directory.path().join("second.sock");
    File::create(&path).unwrap();
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let socket: OwnedFd = rustix::fs::open(&path, flags, Mode::empty()).unwrap();
    let text = format!("ram=1M,name=second,iothread=1+0+2,socket={}", path.display());
    let export: Export = text.parse().unwrap();
    let without_socket = Export {
        socket: None,
        ..export.clone()
    };
    let opened = Opened::open(without_socket, &PassedSockets::default()).unwrap();
    Opened {
        export,
        listener: Some(Arc::new(Listener::passed(UnixListener::from(socket)))),
        ..opened
    }
}

/// Returns the error of an export that cannot be served.
fn error_of(server: &Server, opened: Opened) -> String {
    let result = Rc::new(RefCell::new(None));
    let sink = result.clone();
    let done: Done<()> = Box::new(move |_, served| drop(sink.replace(Some(served))));
    let threads = server.exports().threads_of(&opened.export).unwrap();
    server
        .exports()
        .serve_opened(server.context(), opened, threads, done);
    loop {
        if let Some(served) = result.take() {
            return format!("{:#}", served.unwrap_err());
        }
        server.context().poll(Wait::Block).unwrap();
    }
}

/// Returns the names of the exports on each loop that responds.
fn served(server: &Server) -> Vec<Vec<String>> {
    let gathered = Rc::new(RefCell::new(None));
    let sink = gathered.clone();
    let names = |_: &Context, local: &Local| -> Vec<String> {
        let figures = local.export_figures();
        figures.into_iter().map(|(_, figures)| figures.name).collect()
    };
    let loops = server.exports().loops();
    loops.gather(server.context(), names, move |_, all| {
        drop(sink.replace(Some(all)))
    });
    loop {
        if let Some(all) = gathered.take() {
            return all.into_iter().flatten().collect();
        }
        server.context().poll(Wait::Block).unwrap();
    }
}

#[test]
fn an_export_that_its_own_loop_cannot_serve_is_on_no_loop() {
    let directory = tempfile::tempdir().unwrap();
    let server = server(&directory);
    for _ in 0..3 {
        let error = error_of(&server, unservable(&directory));
        assert!(error.contains("cannot wait for clients of second"), "{error}");
        assert_eq!(served(&server), [vec!["first".to_owned()], vec![], vec![]]);
        assert!(server.exports().find("second").is_err());
        assert!(server.exports().opening.borrow().is_empty());
    }
}

/// The answer does not wait for a loop that hangs. That loop removes the export when it responds again.
#[test]
fn an_export_that_its_own_loop_cannot_serve_waits_for_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let server = server(&directory);
    let (release, hang) = mpsc::channel::<()>();
    server.exports().loops().call(
        server.context(),
        2,
        move |cx, _, reply| {
            // Blocks until the test drops the sender.
            hang.recv().unwrap_err();
            reply.send(cx, Ok(()));
        },
        Box::new(|_, _| ()),
    );
    let error = error_of(&server, unservable(&directory));
    assert!(error.contains("cannot wait for clients of second"), "{error}");
    assert_eq!(served(&server), [vec!["first".to_owned()], vec![]]);
    drop(release);
    while served(&server) != [vec!["first".to_owned()], vec![], vec![]] {}
}

/// If another loop panics meanwhile, the error reports it, and no other loop has the export.
#[test]
fn an_export_that_its_own_loop_cannot_serve_survives_a_panic_of_another() {
    let directory = tempfile::tempdir().unwrap();
    let server = server(&directory);
    server.exports().loops().call(
        server.context(),
        2,
        |_, _, _: crate::calls::Reply<()>| panic!("planted"),
        Box::new(|_, _| ()),
    );
    let error = error_of(&server, unservable(&directory));
    assert!(error.contains("cannot wait for clients of second"), "{error}");
    assert_eq!(served(&server), [vec!["first".to_owned()], vec![]]);
    let error = server.run().unwrap_err().to_string();
    assert!(
        error.contains("io2 has ended") && error.contains("planted"),
        "{error}"
    );
}
