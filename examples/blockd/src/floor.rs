//! The queues of this daemon on a hand-written loop, to measure the cost of the event loop itself.
//!
//! The demo measures it in turns with the daemon. The context still handles messages of clients, a few
//! hundred times a second, but no requests. Each thread has at most one floor.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use aio_context::{Context, Handler as _, Pollable as _, Wait};
use anyhow::Context as _;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use crate::adoption;
use crate::cli::Args;
use crate::server::Server;
use crate::stopper::Stopper;
use crate::vring::Vring;

/// The number of rounds over the queues, or of waits of the epoll loop, between two checks of the context.
const ROUNDS: u32 = 4096;
const WAITS: u32 = 256;
/// The time between two checks of the context while no request comes, and the time without requests after
/// which a spinning loop sleeps between checks.
const CHECK_EVERY: Duration = Duration::from_millis(2);
const NAPS_AFTER: Duration = Duration::from_millis(100);

/// The way in which the hand-written loop waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloorLoop {
    /// It reads the available index of each queue in turn, and never sleeps while requests come.
    Spin,
    /// It sleeps in `epoll_wait` until a kick.
    Epoll,
}

/// Serves on this thread until it is stopped. Calls `ready` with a [`Stopper`] once every socket accepts clients.
///
/// # Errors
/// The errors of [`serve`](crate::serve), and those of an epoll set.
pub fn serve_on_floor(args: &Args, how: FloorLoop, ready: impl FnOnce(Stopper)) -> anyhow::Result<()> {
    adoption::begin();
    let server = Server::new(args)?;
    ready(server.stopper());
    let ended = match how {
        FloorLoop::Spin => spin(&server),
        FloorLoop::Epoll => sleep(&server),
    };
    adoption::end();
    ended
        .and_then(|()| server.finish())
        .context("the hand-written loop cannot wait any longer")
}

/// Starts new queues, and drops those that have ended. Returns `true` if there were any.
fn update(queues: &mut Vec<Rc<Vring>>) -> bool {
    let adopted = adoption::take();
    let before = queues.len();
    queues.retain(|vring| !vring.is_stopped());
    let have_ended = queues.len() < before;
    let has_new = !adopted.is_empty();
    for vring in adopted {
        vring.start();
        vring.redo_all();
        queues.push(vring);
    }
    have_ended || has_new
}

fn spin(server: &Server) -> io::Result<()> {
    let mut queues: Vec<Rc<Vring>> = Vec::new();
    let mut last = Instant::now();
    while !server.is_stopped() {
        if update(&mut queues) {
            queues.iter().for_each(|vring| vring.poll_begin());
        }
        let mut is_busy = false;
        for _ in 0..ROUNDS {
            for vring in &queues {
                if vring.poll() {
                    is_busy = true;
                    vring.run();
                }
            }
            std::hint::spin_loop();
        }
        if is_busy {
            last = Instant::now();
        }
        let nap = if last.elapsed() > NAPS_AFTER {
            Wait::AtMost(CHECK_EVERY)
        } else {
            Wait::NoBlock
        };
        server.context().poll(nap)?;
    }
    Ok(())
}

fn sleep(server: &Server) -> io::Result<()> {
    let cx: &Context = server.context();
    let mut queues: Vec<Rc<Vring>> = Vec::new();
    let mut events = Vec::with_capacity(64);
    let timeout = Timespec {
        tv_sec: 0,
        tv_nsec: CHECK_EVERY.as_nanos() as i64,
    };
    let mut set = epoll::create(CreateFlags::CLOEXEC)?;
    while !server.is_stopped() {
        cx.poll(Wait::NoBlock)?;
        if update(&mut queues) {
            // The places of queues change when one ends, so a new set is made after each change.
            set = epoll::create(CreateFlags::CLOEXEC)?;
            for (place, vring) in queues.iter().enumerate() {
                epoll::add(&set, vring, EventData::new_u64(place as u64), EventFlags::IN)?;
            }
        }
        for _ in 0..WAITS {
            events.clear();
            match epoll::wait(&set, spare_capacity(&mut events), Some(&timeout)) {
                Ok(0) => break,
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                if let Some(vring) = queues.get(event.data.u64() as usize) {
                    vring.readable(cx);
                }
            }
        }
    }
    Ok(())
}
