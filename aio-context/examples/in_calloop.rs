//! A context as an event source of calloop, beside a source of calloop's own.
//!
//! `cargo run --example in_calloop`

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use aio_context::{ClockId, Context, Embedded};
use calloop::generic::Generic;
use calloop::timer::{TimeoutAction, Timer};
use calloop::{EventLoop, EventSource, Interest, Mode, Poll, PostAction, Readiness, Token, TokenFactory};

/// A context that calloop serves. The context is always prepared while calloop may sleep.
struct ContextSource {
    fd: Generic<Embedded>,
    deadline: Timer,
}

impl ContextSource {
    fn new(cx: &Context) -> io::Result<Self> {
        let fd = Generic::new(cx.embed()?, Interest::READ, Mode::Level);
        // The deadline is due at once, so the first turn prepares the context.
        let deadline = Timer::immediate();
        Ok(Self { fd, deadline })
    }
}

impl EventSource for ContextSource {
    type Event = ();
    type Metadata = ();
    type Ret = ();
    type Error = io::Error;

    fn process_events<F>(&mut self, _: Readiness, _: Token, _: F) -> io::Result<PostAction>
    where
        F: FnMut(Self::Event, &mut Self::Metadata) -> Self::Ret,
    {
        // After either event, the context is served and the deadline is set anew.
        let embedded = self.fd.get_ref();
        embedded.dispatch();
        let limit = embedded.prepare().unwrap_or(Duration::from_secs(3600));
        self.deadline.set_deadline(Instant::now() + limit);
        Ok(PostAction::Reregister)
    }

    fn register(&mut self, poll: &mut Poll, tokens: &mut TokenFactory) -> calloop::Result<()> {
        self.fd.register(poll, tokens)?;
        self.deadline.register(poll, tokens)
    }

    fn reregister(&mut self, poll: &mut Poll, tokens: &mut TokenFactory) -> calloop::Result<()> {
        self.fd.reregister(poll, tokens)?;
        self.deadline.reregister(poll, tokens)
    }

    fn unregister(&mut self, poll: &mut Poll) -> calloop::Result<()> {
        self.fd.unregister(poll)?;
        self.deadline.unregister(poll)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (cx, mut outer) = (Context::new()?, EventLoop::<u32>::try_new()?);
    let (source, every) = (ContextSource::new(&cx)?, Duration::from_millis(1));
    outer.handle().insert_source(source, |(), (), _| ())?;
    // A timer of calloop's own runs beside it.
    outer
        .handle()
        .insert_source(Timer::immediate(), move |_, (), own_ticks| {
            *own_ticks += 1;
            TimeoutAction::ToDuration(every)
        })?;
    let (near, mut client) = UnixStream::pair()?;
    let echo = cx.on(near).readable(|mut near, _| {
        let mut bytes = [0; 4];
        let _ = near.read_exact(&mut bytes).and_then(|()| near.write_all(&bytes));
    });
    let (_echo, ticks) = (echo.watch()?, Rc::new(Cell::new(0)));
    let counted = ticks.clone();
    let tick = cx.timer(ClockId::Monotonic, move |_, timer| {
        counted.set(counted.get() + 1);
        timer.arm_after(every);
    });
    let _tick = tick.armed_after(every);
    client.write_all(b"ping")?;
    let mut own_ticks = 0;
    while ticks.get() < 3 || own_ticks < 3 {
        outer.dispatch(None, &mut own_ticks)?;
    }
    let mut echoed = [0; 4];
    client.read_exact(&mut echoed)?;
    let echoed = String::from_utf8_lossy(&echoed);
    let backend = cx.backend_name();
    println!("a context inside calloop echoed {echoed}, on {backend}");
    Ok(())
}
