//! An echo server on a context, with all it needs in a struct. Its client asks it, from another thread, to stop a little later.

use std::cell::Cell;
use std::io;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::thread;

use aio_context::{Action, ClockId, Context, Registration, Timer};
use aio_migrating::{LINGER, ask, echo};

// ANCHOR: state
struct Server {
    _socket: Registration,
    timer: Timer,
    echoed: Rc<Cell<usize>>,
}

impl Server {
    fn new(cx: &Context, socket: UnixStream) -> io::Result<Self> {
        let echoed = Rc::new(Cell::new(0));
        let count = echoed.clone();
        let process = move |socket: &UnixStream, cx: &Context, _event| match echo(socket) {
            Ok(bytes) => {
                count.set(count.get() + bytes);
                Action::Continue
            }
            Err(_) => {
                cx.stop();
                Action::Remove
            }
        };
        Ok(Self {
            _socket: cx.on(socket).ready(process).watch()?,
            timer: cx.timer(ClockId::Monotonic, |cx, _timer| cx.stop()).disarmed(),
            echoed,
        })
    }
}
// ANCHOR_END: state

fn main() -> io::Result<()> {
    let (socket, peer) = UnixStream::pair()?;
    socket.set_nonblocking(true)?;

    // ANCHOR: register
    let cx = Context::new()?;
    let Server {
        _socket,
        timer,
        echoed,
    } = Server::new(&cx, socket)?;
    let asked = cx.bottom_half("asked", move |_cx| timer.arm_after(LINGER));
    // ANCHOR_END: register

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
    println!("echoed {} bytes, then stopped", echoed.get());
    Ok(())
}
