//! An echo server in GLib's main loop: the listener, the connections and their timeouts belong to a context,
//! beside a source of GLib.
//!
//! `cargo run --example echo` serves a thousand clients of its own; `cargo run --example echo -- 127.0.0.1:7777` serves others, for ever.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::thread;

use aio_context::{Context, Registration};
use glib::MainLoop;

/// The open connections, by number.
type Connections = Rc<RefCell<HashMap<u64, Registration>>>;

const CLIENTS: usize = 1000;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:0"))?;
    let cx = Context::new()?;
    let connections = Connections::default();
    let _listener = listen(&cx, listener.try_clone()?, &connections)?;
    // ANCHOR: attach
    let main_loop = MainLoop::new(None, false);
    let _attached = aio_glib::attach(&cx, None)?;
    // ANCHOR_END: attach
    let clients = match address {
        Some(_) => None,
        None => {
            let (address, quit, home) = (listener.local_addr()?, main_loop.clone(), cx.remote());
            Some(thread::spawn(move || {
                let echoed = visit(address);
                let _ = home.run(move |_| quit.quit());
                echoed
            }))
        }
    };
    // A source of GLib's own, in the same loop.
    glib::timeout_add_seconds_once(60, || println!("up for a minute"));
    main_loop.run();
    if let Some(clients) = clients {
        let echoed = clients.join().expect("the clients do not panic")?;
        println!("echoed {echoed} bytes for {CLIENTS} clients in GLib's main loop");
    }
    Ok(())
}

/// Accepts clients, each of which gets a handler.
fn listen(cx: &Context, listener: TcpListener, all: &Connections) -> io::Result<Registration> {
    listener.set_nonblocking(true)?;
    let (all, next) = (all.clone(), std::cell::Cell::new(0));
    let accept = move |listener: &TcpListener, cx: &Context| {
        while let Ok((stream, _)) = listener.accept() {
            let number = next.replace(next.get() + 1);
            match connect(cx, stream, number, &all) {
                Ok(registration) => drop(all.borrow_mut().insert(number, registration)),
                Err(error) => eprintln!("a client is refused: {error}"),
            }
        }
    };
    Ok(cx.on(listener).readable(accept).watch()?)
}

/// Sends all data back, until the client ends.
fn connect(cx: &Context, stream: TcpStream, number: u64, all: &Connections) -> io::Result<Registration> {
    stream.set_nonblocking(true)?;
    let all = Rc::downgrade(all);
    let echo = cx.on(stream).readable(move |mut stream, _| {
        let mut bytes = [0; 4096];
        let ended = match stream.read(&mut bytes) {
            Ok(0) => true,
            // A client that does not read its echo is disconnected, because the buffer of its socket is full.
            Ok(count) => stream.write_all(&bytes[..count]).is_err(),
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        };
        if let Some(all) = all.upgrade().filter(|_| ended) {
            all.borrow_mut().remove(&number);
        }
    });
    Ok(echo.watch()?)
}

/// Opens a thousand connections at once, from another thread.
fn visit(address: SocketAddr) -> io::Result<usize> {
    let clients: io::Result<Vec<_>> = (0..CLIENTS).map(|_| TcpStream::connect(address)).collect();
    let (mut clients, mut echoed) = (clients?, [0; 5]);
    for client in &mut clients {
        client.write_all(b"hello")?;
    }
    for client in &mut clients {
        client.read_exact(&mut echoed)?;
        assert_eq!(&echoed, b"hello");
    }
    Ok(clients.len() * echoed.len())
}
