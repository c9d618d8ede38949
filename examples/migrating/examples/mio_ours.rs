//! An echo server on a context. Its client asks it, from another thread, to stop a little later.

use std::cell::Cell;
use std::io;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::thread;

use aio_context::Context;
use aio_migrating::{LINGER, ask, echo};

fn main() -> io::Result<()> {
    let (socket, peer) = UnixStream::pair()?;
    socket.set_nonblocking(true)?;

    // ANCHOR: register
    let cx = Context::new()?;
    let echoed = Rc::new(Cell::new(0));
    let count = echoed.clone();
    let _socket = cx
        .on(socket)
        .readable(move |socket, cx| match echo(socket) {
            Ok(bytes) => count.set(count.get() + bytes),
            Err(_) => cx.stop(),
        })
        .watch()?;
    // ANCHOR_END: register

    // ANCHOR: thread
    let remote = cx.remote();
    let client = thread::spawn(move || -> io::Result<UnixStream> {
        ask(&peer)?;
        // On the thread of the loop, in its next iteration.
        let stop_later = |cx: &Context| drop(cx.after(LINGER, Context::stop));
        remote.run(stop_later).map_err(io::Error::other)?;
        Ok(peer)
    });
    // ANCHOR_END: thread

    // ANCHOR: loop
    cx.run()?;
    // ANCHOR_END: loop
    let _peer = client.join().expect("the client does not panic")?;
    println!("echoed {} bytes, then stopped", echoed.get());
    Ok(())
}
