//! An echo server on event-manager. Its client asks it, from another thread, to stop a little later.

use std::cell::Cell;
use std::error::Error;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use aio_migrating::{LINGER, ask, echo};
use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use rustix::event::{EventfdFlags, eventfd};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use rustix::time::{timerfd_create, timerfd_settime};

// ANCHOR: state
struct Server {
    socket: UnixStream,
    asked: Arc<OwnedFd>,
    timer: OwnedFd,
    echoed: Rc<Cell<usize>>,
    is_over: Rc<Cell<bool>>,
}

impl MutEventSubscriber for Server {
    fn process(&mut self, events: Events, _ops: &mut EventOps<'_>) {
        if events.fd() == self.socket.as_raw_fd() {
            match echo(&self.socket) {
                Ok(bytes) => self.echoed.set(self.echoed.get() + bytes),
                Err(_) => self.is_over.set(true),
            }
        } else if events.fd() == self.asked.as_raw_fd() {
            let _ = rustix::io::read(&self.asked, &mut [0; 8]);
            let (it_interval, it_value) = (
                Timespec::default(),
                Timespec::try_from(LINGER).unwrap_or_default(),
            );
            let once = Itimerspec {
                it_interval,
                it_value,
            };
            let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once);
        } else {
            self.is_over.set(true);
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        let Self {
            socket, asked, timer, ..
        } = self;
        for fd in [socket.as_raw_fd(), asked.as_raw_fd(), timer.as_raw_fd()] {
            if ops.add(Events::new_raw(fd, EventSet::IN)).is_err() {
                self.is_over.set(true);
            }
        }
    }
}
// ANCHOR_END: state

fn main() -> Result<(), Box<dyn Error>> {
    let (socket, peer) = UnixStream::pair()?;
    socket.set_nonblocking(true)?;

    // ANCHOR: register
    let asked = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let (echoed, is_over) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
    let mut manager = EventManager::new().map_err(|error| format!("{error:?}"))?;
    manager.add_subscriber(Server {
        socket,
        asked: asked.clone(),
        timer: timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?,
        echoed: echoed.clone(),
        is_over: is_over.clone(),
    });
    // ANCHOR_END: register

    // ANCHOR: thread
    let client = thread::spawn(move || -> io::Result<UnixStream> {
        ask(&peer)?;
        rustix::io::write(&asked, &1_u64.to_ne_bytes())?;
        Ok(peer)
    });
    // ANCHOR_END: thread

    // ANCHOR: loop
    while !is_over.get() {
        manager.run().map_err(|error| format!("{error:?}"))?;
    }
    // ANCHOR_END: loop
    let _peer = client.join().expect("the client does not panic")?;
    println!("echoed {} bytes, then stopped", echoed.get());
    Ok(())
}
