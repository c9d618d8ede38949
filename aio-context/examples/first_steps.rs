//! A first program: a descriptor, a timer, a bottom half, and another thread.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use aio_context::{ClockId, Context};

fn main() -> io::Result<()> {
    // ANCHOR: context
    let cx = Context::new()?;
    // ANCHOR_END: context

    // ANCHOR: deferred
    let done = cx.bottom_half("done", |cx| {
        println!("the bottom half runs");
        cx.stop();
    });
    // ANCHOR_END: deferred

    // ANCHOR: descriptor
    let (socket, peer) = UnixStream::pair()?;
    socket.set_nonblocking(true)?; // a callback must not wait
    let _watched = cx
        .on(socket)
        .readable(move |mut socket, _cx| {
            let mut buffer = [0; 64];
            match socket.read(&mut buffer) {
                Ok(length) => println!("received {}", String::from_utf8_lossy(&buffer[..length])),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => eprintln!("cannot read: {error}"),
            }
            done.schedule(); // from this thread, or from any other
        })
        .watch()?;
    // ANCHOR_END: descriptor

    // ANCHOR: timer
    let send = cx.timer(ClockId::Monotonic, move |_cx, timer| {
        if (&peer).write_all(b"ping").is_err() {
            timer.arm_after(Duration::from_millis(1)); // try again
        }
    });
    let send = send.disarmed();
    // ANCHOR_END: timer

    // ANCHOR: thread
    let remote = cx.remote();
    let helper = thread::spawn(move || remote.run(|_cx| println!("sent by another thread, run by this one")));
    helper
        .join()
        .expect("the thread does not panic")
        .map_err(io::Error::other)?;
    // ANCHOR_END: thread

    // ANCHOR: run
    send.arm_after(Duration::from_millis(1));
    cx.run()
    // ANCHOR_END: run
}
