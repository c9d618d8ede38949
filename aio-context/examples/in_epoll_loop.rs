//! A context inside a hand-written epoll loop: the outer loop waits for one descriptor, which stands for all events of the
//! context, and for its own descriptor.
//!
//! `cargo run --example in_epoll_loop`

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use aio_context::{ClockId, Context};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

/// The outer loop's data for its two descriptors.
const CONTEXT: u64 = 1;
const OWN: u64 = 2;

fn main() -> io::Result<()> {
    // The outer loop, with a socket of its own.
    let outer = epoll::create(CreateFlags::CLOEXEC)?;
    let (mut own, mut peer) = UnixStream::pair()?;
    epoll::add(&outer, &own, EventData::new_u64(OWN), EventFlags::IN)?;

    // The context, with a socket, a timer, and a bottom half for another thread: one descriptor for all of them.
    let cx = Context::new()?;
    let (echo, mut client) = UnixStream::pair()?;
    let _echo = cx.on(echo).readable(|echo, _| answer(echo)).watch()?;
    let ticks = Rc::new(Cell::new(0));
    let counted = ticks.clone();
    let tick = cx
        .timer(ClockId::Monotonic, move |_, timer| {
            counted.set(counted.get() + 1);
            if counted.get() < 3 {
                timer.arm_after(Duration::from_millis(1));
            }
        })
        .disarmed();
    tick.arm_after(Duration::from_millis(1));
    let done = Rc::new(Cell::new(false));
    let over = done.clone();
    let finish = cx.bottom_half("finish", move |_| over.set(true));
    let embedded = cx.embed()?;
    epoll::add(&outer, &embedded, EventData::new_u64(CONTEXT), EventFlags::IN)?;

    // (The bottom half is deleted when its last handle is dropped, so one stays here.)
    let scheduler = finish.clone();
    let worker = thread::spawn(move || {
        client.write_all(b"ping")?;
        let mut echoed = [0; 4];
        client.read_exact(&mut echoed)?;
        peer.write_all(b"the echo came back")?;
        scheduler.schedule();
        // The sockets stay open until the loop has handled their other ends.
        io::Result::Ok((echoed, client, peer))
    });

    let (mut heard, mut events) = (String::new(), Vec::with_capacity(8));
    while !done.get() || ticks.get() < 3 || heard.is_empty() {
        // 1. How long may the outer loop sleep? (`prepare_ms` returns milliseconds, for loops that need them.)
        let limit = embedded.prepare().map(Timespec::try_from).transpose();
        let limit = limit.map_err(io::Error::other)?;
        // 2. It waits for its own descriptors and for the context's.
        events.clear();
        match epoll::wait(&outer, spare_capacity(&mut events), limit.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if events.iter().any(|event| event.data.u64() == OWN) {
            let mut bytes = [0; 64];
            let count = own.read(&mut bytes)?;
            heard += &String::from_utf8_lossy(&bytes[..count]);
        }
        // 3. After each wait, whatever its cause: if anything is due, dispatch it.
        if embedded.check()? {
            embedded.dispatch();
        }
    }
    let (echoed, ..) = worker.join().expect("the worker does not panic")?;
    println!("{heard}: {}", String::from_utf8_lossy(&echoed));
    println!(
        "{} ticks, slept on one descriptor ({})",
        ticks.get(),
        cx.backend_name()
    );
    Ok(())
}

/// Sends received data back.
fn answer(mut stream: &UnixStream) {
    let mut bytes = [0; 64];
    if let Ok(count) = stream.read(&mut bytes) {
        // A client that has disconnected needs no answer.
        let _ = stream.write_all(&bytes[..count]);
    }
}
