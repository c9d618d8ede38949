//! A context inside another one, such as that of a library inside that of a program: one thread polls both.
//!
//! `cargo run --example nested`

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use aio_context::{ClockId, Context, Registration, Wait};
use aio_sources::Nested;

/// A component with its own loop: it answers on a socket, and ticks.
struct Component {
    cx: Context,
    ticks: Rc<Cell<u32>>,
    _parts: (Registration, aio_context::Timer),
}

impl Component {
    fn new(socket: UnixStream) -> io::Result<Self> {
        let (cx, ticks) = (Context::new()?, Rc::new(Cell::new(0)));
        let echo = cx.on(socket).readable(|socket, _| answer(socket)).watch()?;
        let counted = ticks.clone();
        let tick = cx.timer(ClockId::Monotonic, move |_, timer| {
            counted.set(counted.get() + 1);
            timer.arm_after(Duration::from_millis(1));
        });
        let _parts = (echo, tick.armed_after(Duration::from_millis(1)));
        Ok(Self { cx, ticks, _parts })
    }
}

fn main() -> io::Result<()> {
    let program = Context::new()?;
    let (near, mut client) = UnixStream::pair()?;
    let component = Component::new(near)?;
    let nested = Nested::new(&program, &component.cx)?;

    // The program has handlers of its own.
    let (own, mut peer) = UnixStream::pair()?;
    let heard = Rc::new(Cell::new(false));
    let hears = heard.clone();
    let _own = program
        .on(own)
        .readable(move |mut own, _| hears.set(own.read(&mut [0; 4]).is_ok()))
        .watch()?;
    let worker = std::thread::spawn(move || {
        client.write_all(b"ping")?;
        let mut echoed = [0; 4];
        client.read_exact(&mut echoed)?;
        peer.write_all(&echoed)?;
        // The sockets stay open until the loop has finished with their other ends.
        io::Result::Ok((echoed, client, peer))
    });
    while !heard.get() || component.ticks.get() < 3 {
        program.poll(Wait::Block)?;
    }
    let (echoed, ..) = worker.join().expect("the worker does not panic")?;
    println!(
        "a context inside a context echoed {}",
        String::from_utf8_lossy(&echoed)
    );

    // Without the nesting the component is a loop of its own again.
    drop(nested);
    let before = component.ticks.get();
    while component.ticks.get() == before {
        component.cx.poll(Wait::Block)?;
    }
    println!(
        "at least 4 ticks, on {} in {}",
        component.cx.backend_name(),
        program.backend_name()
    );
    Ok(())
}

/// Sends received data back.
fn answer(mut stream: &UnixStream) {
    let mut bytes = [0; 64];
    if let Ok(count) = stream.read(&mut bytes) {
        // If the client is gone, it needs no answer.
        let _ = stream.write_all(&bytes[..count]);
    }
}
