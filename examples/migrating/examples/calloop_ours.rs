//! An echo server on a context, with its state in a struct. Its client asks it, from another thread, to stop a little later.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::thread;

use aio_context::{ClockId, Context, Handler, Interest};
use aio_migrating::{LINGER, ask, echo};

// ANCHOR: state
struct Server {
    socket: UnixStream,
    echoed: Cell<usize>,
}

impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Handler for Server {
    fn readable(&self, cx: &Context) {
        match echo(&self.socket) {
            Ok(bytes) => self.echoed.set(self.echoed.get() + bytes),
            Err(_) => cx.stop(),
        }
    }
}
// ANCHOR_END: state

fn main() -> io::Result<()> {
    let (socket, peer) = UnixStream::pair()?;
    socket.set_nonblocking(true)?;

    // ANCHOR: register
    let cx = Context::new()?;
    let server = Rc::new(Server {
        socket,
        echoed: Cell::default(),
    });
    let _watched = cx.watch(server.clone(), Interest::READ)?;
    // ANCHOR_END: register

    // ANCHOR: timer
    let timer = cx.timer(ClockId::Monotonic, |cx, _timer| cx.stop()).disarmed();
    let asked = cx.bottom_half("asked", move |_cx| timer.arm_after(LINGER));
    // ANCHOR_END: timer

    // ANCHOR: thread
    let asks = asked.clone();
    let client = thread::spawn(move || -> io::Result<UnixStream> {
        ask(&peer)?;
        asks.schedule();
        Ok(peer)
    });
    // ANCHOR_END: thread

    // ANCHOR: loop
    cx.run()?;
    // ANCHOR_END: loop
    let _peer = client.join().expect("the client does not panic")?;
    println!("echoed {} bytes, then stopped", server.echoed.get());
    Ok(())
}
