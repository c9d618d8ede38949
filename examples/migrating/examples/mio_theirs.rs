//! An echo server on mio. Its client asks it, from another thread, to stop a little later.

use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use aio_migrating::{LINGER, ask, echo};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

const SOCKET: Token = Token(0);
const WAKER: Token = Token(1);

fn main() -> io::Result<()> {
    let (socket, peer) = UnixStream::pair()?;
    socket.set_nonblocking(true)?;

    // ANCHOR: register
    let mut poll = Poll::new()?;
    let fd = socket.as_raw_fd();
    poll.registry()
        .register(&mut SourceFd(&fd), SOCKET, Interest::READABLE)?;
    let mut echoed = 0;
    // ANCHOR_END: register

    // ANCHOR: thread
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    let asked = Arc::new(AtomicBool::new(false));
    // A dropped waker wakes nothing: the loop's thread keeps it, too.
    let (wakes, asks) = (waker.clone(), asked.clone());
    let client = thread::spawn(move || -> io::Result<UnixStream> {
        ask(&peer)?;
        asks.store(true, Ordering::Release);
        wakes.wake()?;
        Ok(peer)
    });
    // ANCHOR_END: thread

    // ANCHOR: loop
    let mut events = Events::with_capacity(64);
    let mut deadline: Option<Instant> = None;
    loop {
        let now = Instant::now();
        if deadline.is_some_and(|at| at <= now) {
            break;
        }
        let left = deadline.map(|at| at - now);
        match poll.poll(&mut events, left) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            match event.token() {
                SOCKET => echoed += echo(&socket)?,
                WAKER if asked.swap(false, Ordering::Acquire) => {
                    deadline = Some(Instant::now() + LINGER);
                }
                _ => {}
            }
        }
    }
    // ANCHOR_END: loop
    let _peer = client.join().expect("the client does not panic")?;
    println!("echoed {echoed} bytes, then stopped");
    Ok(())
}
