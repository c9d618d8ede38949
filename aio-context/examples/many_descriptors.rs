//! Watches many descriptors, makes each of them ready again and again, and prints the backend that served them.
//!
//! `cargo run --example many_descriptors [DESCRIPTORS [ROUNDS]]`
//!
//! Warnings go to stderr, which shows the behaviour when the system refuses a descriptor:
//! `strace -f -e inject=epoll_create1:error=EMFILE target/debug/examples/many_descriptors`

use std::cell::Cell;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use aio_context::{Context, Registration, Wait};
use rustix::event::{EventfdFlags, eventfd};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

fn main() -> io::Result<()> {
    tracing::subscriber::set_global_default(ToStderr).map_err(io::Error::other)?;
    let mut numbers = std::env::args().skip(1).map(|word| word.parse::<u64>());
    let descriptors = numbers
        .next()
        .transpose()
        .map_err(io::Error::other)?
        .unwrap_or(100);
    let rounds = numbers
        .next()
        .transpose()
        .map_err(io::Error::other)?
        .unwrap_or(10);

    let cx = Context::new()?;
    let served = Rc::new(Cell::new(0));
    let mut watched = Vec::new();
    for _ in 0..descriptors {
        watched.push(watch_one(&cx, served.clone())?);
    }
    for round in 1..=rounds {
        for (kick, _) in &watched {
            rustix::io::write(kick, &1u64.to_ne_bytes())?;
        }
        while served.get() < round * descriptors {
            cx.poll(Wait::Block)?;
        }
    }
    println!(
        "served {} events of {descriptors} descriptors on {}",
        served.get(),
        cx.backend_name()
    );
    Ok(())
}

/// An eventfd that is read when it is ready, and another handle that makes it ready.
fn watch_one(cx: &Context, served: Rc<Cell<u64>>) -> io::Result<(OwnedFd, Registration)> {
    let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let kick = fd.try_clone()?;
    let registration = cx
        .on(fd)
        .readable(move |fd, _| {
            // A spurious call reads nothing and is not counted.
            if rustix::io::read(fd, &mut [0u8; 8]).is_ok() {
                served.set(served.get() + 1);
            }
        })
        .watch()?;
    Ok((kick, registration))
}

/// Writes each warning to stderr, on one line. (A real program uses a crate for this.)
struct ToStderr;

impl Subscriber for ToStderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }
    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        eprintln!("{}:{}", event.metadata().level(), line.0);
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0 += &format!(" {field}={value:?}");
    }
}
