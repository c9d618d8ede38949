//! An echo server on calloop. Its client asks it, from another thread, to stop a little later.

use std::error::Error;
use std::io;
use std::os::unix::net::UnixStream;
use std::thread;

use aio_migrating::{LINGER, ask, echo};
use calloop::channel::{self, Event};
use calloop::generic::Generic;
use calloop::timer::{TimeoutAction, Timer};
use calloop::{EventLoop, Interest, LoopSignal, Mode, PostAction};

// ANCHOR: state
struct State {
    echoed: usize,
    signal: LoopSignal,
}
// ANCHOR_END: state

fn main() -> Result<(), Box<dyn Error>> {
    let (socket, peer) = UnixStream::pair()?;
    socket.set_nonblocking(true)?;

    // ANCHOR: register
    let mut event_loop = EventLoop::<State>::try_new()?;
    let handle = event_loop.handle();
    let source = Generic::new(socket, Interest::READ, Mode::Level);
    handle.insert_source(source, |_readiness, socket, state| {
        state.echoed += echo(socket)?;
        Ok(PostAction::Continue)
    })?;
    // ANCHOR_END: register

    // ANCHOR: thread
    let (sender, messages) = channel::channel();
    let client = thread::spawn(move || -> io::Result<UnixStream> {
        ask(&peer)?;
        sender.send(()).map_err(io::Error::other)?;
        Ok(peer)
    });
    // ANCHOR_END: thread

    // ANCHOR: timer
    let timers = handle.clone();
    handle.insert_source(messages, move |message, (), state| {
        if let Event::Msg(()) = message {
            let timer = Timer::from_duration(LINGER);
            let armed = timers.insert_source(timer, |_, (), state| {
                state.signal.stop();
                TimeoutAction::Drop
            });
            if armed.is_err() {
                state.signal.stop();
            }
        }
    })?;
    // ANCHOR_END: timer

    // ANCHOR: loop
    let mut state = State {
        echoed: 0,
        signal: event_loop.get_signal(),
    };
    event_loop.run(None, &mut state, |_| {})?;
    // ANCHOR_END: loop
    let _peer = client.join().expect("the client does not panic")?;
    println!("echoed {} bytes, then stopped", state.echoed);
    Ok(())
}
