//! A context inside a loop of mio, which is edge-triggered, beside a socket of mio's own.
//!
//! `cargo run --example in_mio`

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::time::Duration;

use aio_context::{ClockId, Context};
use mio::net::UnixStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

const CONTEXT: Token = Token(0);
const OWN: Token = Token(1);

fn main() -> io::Result<()> {
    // The outer loop, with a socket of its own.
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(8));
    let (mut own, mut peer) = UnixStream::pair()?;
    poll.registry().register(&mut own, OWN, Interest::READABLE)?;

    // The context, with a socket, and a timer that ends the program.
    let cx = Context::new()?;
    let (echo, mut client) = std::os::unix::net::UnixStream::pair()?;
    let _echo = cx.on(echo).readable(|echo, _| answer(echo)).watch()?;
    let (sender, ticks) = std::sync::mpsc::channel();
    let _tick = cx
        .timer(ClockId::Monotonic, move |_, timer| {
            if sender.send(()).is_ok() {
                timer.arm_after(Duration::from_millis(1));
            }
        })
        .armed_after(Duration::from_millis(1));
    let embedded = cx.embed()?;
    let mut source = SourceFd(&embedded.as_raw_fd());
    poll.registry()
        .register(&mut source, CONTEXT, Interest::READABLE)?;

    let worker = std::thread::spawn(move || {
        client.write_all(b"ping")?;
        let mut echoed = [0; 4];
        client.read_exact(&mut echoed)?;
        peer.write_all(&echoed)?;
        // The sockets stay open until the loop has handled their other ends.
        io::Result::Ok((client, peer))
    });
    let (mut heard, mut ticked) = (String::new(), 0);
    while heard.is_empty() || ticked < 3 {
        // Many turns may pass before a new edge, so the loop sleeps only if nothing is due.
        match poll.poll(&mut events, embedded.prepare()) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        if events.iter().any(|event| event.token() == OWN) {
            own.read_to_string(&mut heard).or_else(would_block)?;
        }
        // The edge is consumed only when nothing is due any more.
        while embedded.check()? {
            embedded.dispatch();
        }
        ticked += ticks.try_iter().count();
    }
    worker.join().expect("the worker does not panic")?;
    println!(
        "a context inside mio echoed {heard}, and ticked 3 times, on {}",
        cx.backend_name()
    );
    poll.registry().deregister(&mut source)
}

/// More will come later.
fn would_block(error: io::Error) -> io::Result<usize> {
    if error.kind() == io::ErrorKind::WouldBlock {
        Ok(0)
    } else {
        Err(error)
    }
}

/// Sends received data back.
fn answer(mut stream: &std::os::unix::net::UnixStream) {
    let mut bytes = [0; 64];
    if let Ok(count) = stream.read(&mut bytes) {
        // A client that has disconnected needs no answer.
        let _ = stream.write_all(&bytes[..count]);
    }
}
