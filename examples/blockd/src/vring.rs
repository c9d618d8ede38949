//! One virtqueue is one handler: its kick eventfd is readable, or a look at the available index finds work.
//!
//! It serves a bounded number of requests at a time and never waits for the driver. When it stops, it leaves the client's
//! memory alone.
//!
//! # From polled to sleeping and back
//! While the loop polls, the driver is asked not to kick. Before the loop sleeps it asks for kicks again, puts a full
//! fence between that and one more look at the available index ([`poll_end`](Pollable::poll_end), then
//! [`poll`](Pollable::poll)). The driver does the mirror image: publish the index, fence, look whether a kick is wanted.
//! So either the look finds the request or the driver kicks. The way back, "used index, fence, does the driver want a
//! call?", follows the same pattern.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use aio_context::{Context, Handler, Pollable};
use rustix::io::Errno;

use crate::chain::Chain;
use crate::disk::STEP;
use crate::guard;
use crate::limit::Kind;
use crate::link::Link;
use crate::memory::Memory;
use crate::request::{Broken, Device, Progress};
use crate::ring::{Ring, full_fence};

/// So many requests are served before others get their turn.
const REQUESTS_A_TURN: u32 = 128;
/// A turn ends with the step that reaches so many bytes, and so moves less than twice as many.
const BYTES_A_TURN: u64 = STEP;
/// Completions are shown to the driver at least every so many requests: each time costs a transfer of a cache line that
/// a spinning driver looks at.
const PUBLISH_EVERY: u16 = 8;

/// An eventfd of the client that may be exchanged while the queue runs.
pub(crate) type Doorbell = Rc<RefCell<Option<File>>>;

/// What a queue needs besides its ring.
#[derive(Debug)]
pub(crate) struct Wiring {
    pub(crate) index: usize,
    pub(crate) kick: Rc<File>,
    pub(crate) call: Doorbell,
    pub(crate) error: Doorbell,
    pub(crate) memory: Rc<Memory>,
    pub(crate) device: Rc<Device>,
    /// Shared by all queues: only one of them runs at a time.
    pub(crate) chain: Rc<RefCell<Chain>>,
    pub(crate) link: Rc<Link>,
    /// The driver cannot flush, so that what is reported must be on the medium.
    pub(crate) write_through: bool,
}

/// A running virtqueue.
#[derive(Debug)]
pub(crate) struct Vring {
    ring: Ring,
    /// The next entry of the available ring to take.
    next_available: Cell<u16>,
    /// The loop polls, so the driver need not kick.
    polled: Cell<bool>,
    /// It broke or was stopped: the ring is not to be touched.
    dead: Cell<bool>,
    /// How far the request at `next_available` has come, if it takes more than one step.
    progress: Cell<Progress>,
    /// The next entry of the used ring to fill.
    next_used: Cell<u16>,
    /// Up to where the driver was asked whether it wants a call.
    asked: Cell<u16>,
    /// How many mappings of the process were lost when this queue's memory was last seen to be whole.
    losses: Cell<u32>,
    publish_every: u16,
    wiring: Wiring,
}

impl Vring {
    /// A queue that goes on where [`Ring::resume_at`] says. [`start`](Self::start) it once it is watched.
    pub(crate) fn new(ring: Ring, base: u16, wiring: Wiring) -> Self {
        let next_used = ring.used_index();
        let next_available = ring.resume_at(base);
        let publish_every = if wiring.device.disk.is_slow() {
            1
        } else {
            PUBLISH_EVERY
        };
        Self {
            ring,
            next_available: Cell::new(next_available),
            polled: Cell::new(false),
            dead: Cell::new(false),
            progress: Cell::default(),
            next_used: Cell::new(next_used),
            asked: Cell::new(next_used),
            // Not before: memory that was lost earlier must be found, too.
            losses: Cell::new(guard::losses().wrapping_sub(1)),
            publish_every,
            wiring,
        }
    }

    /// Calls the driver, asks for kicks, and has the requests served that are there already.
    ///
    /// The call is for completions that an earlier daemon published without one, or that this one published while no
    /// descriptor for calls was set. A driver must expect calls without a completion.
    pub(crate) fn start(&self) {
        self.call();
        self.ring.ask_for_kicks(self.next_available.get());
        full_fence();
        if self.poll() {
            self.come_again();
        }
    }

    /// Touches the ring no more. Returns the entry at which to go on: all before it are completed.
    pub(crate) fn stop(&self) -> u16 {
        self.dead.set(true);
        self.next_available.get()
    }

    /// The next entries of the available and of the used ring.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn positions(&self) -> (u16, u16) {
        (self.next_available.get(), self.next_used.get())
    }

    /// Tells the driver to look, whether it wants that or not.
    pub(crate) fn call(&self) {
        if let Some(call) = &*self.wiring.call.borrow() {
            ring_bell(call);
        }
    }

    /// Serves what there is, or as much of it as fits into a turn.
    pub(crate) fn run(&self) {
        if self.dead.get() {
            return;
        }
        let polled = self.polled.get();
        let mut turn = Turn {
            requests: REQUESTS_A_TURN,
            bytes: BYTES_A_TURN,
        };
        loop {
            if !polled && !self.ring.has_event_idx() {
                // With event indexes kicks stay off by themselves until the index is moved.
                self.ring.suppress_kicks(self.next_available.get());
            }
            let served = self.serve_pending(&mut turn);
            // Memory that is lost reads as zeroes, which looks like any other mistake.
            if let Err(broken) = self.check_memory().and(served) {
                self.give_up(&broken);
                return;
            }
            if !polled && !turn.is_over() {
                self.ring.ask_for_kicks(self.next_available.get());
            }
            // One fence for both questions: "does the driver want a call?" and "is there more after all?"
            full_fence();
            self.call_if_wanted();
            if polled {
                return;
            }
            if turn.is_over() {
                self.come_again();
                return;
            }
            if !self.poll() {
                return;
            }
        }
    }

    fn serve_pending(&self, turn: &mut Turn) -> Result<(), GivenUp> {
        let mut chain = self.wiring.chain.borrow_mut();
        let mut published = self.next_used.get();
        let served = loop {
            let next = self.next_available.get();
            let pending = self.ring.available_index().wrapping_sub(next);
            if pending == 0 || turn.is_over() {
                break Ok(());
            }
            if pending > self.ring.size() {
                break Err(GivenUp::Index {
                    pending,
                    size: self.ring.size(),
                });
            }
            let mut used = self.next_used.get();
            for next in (0..pending).map(|ahead| next.wrapping_add(ahead)) {
                match self.serve_one(&mut chain, next, used, turn) {
                    Ok(true) => {}
                    // The rest of it comes first in the next turn.
                    Ok(false) => break,
                    Err(broken) => {
                        self.ring.publish(used);
                        return Err(broken);
                    }
                }
                used = used.wrapping_add(1);
                self.next_available.set(next.wrapping_add(1));
                self.next_used.set(used);
                if used.wrapping_sub(published) >= self.publish_every {
                    self.ring.publish(used);
                    published = used;
                }
                if turn.is_over() {
                    break;
                }
            }
        };
        if self.next_used.get() != published {
            self.ring.publish(self.next_used.get());
        }
        served
    }

    /// Does a step of one request; false if there is more to do for it.
    #[inline]
    fn serve_one(&self, chain: &mut Chain, next: u16, used: u16, turn: &mut Turn) -> Result<bool, GivenUp> {
        let Wiring {
            memory,
            device,
            write_through,
            ..
        } = &self.wiring;
        let head = self.ring.available_entry(next);
        chain.collect(&self.ring, memory, head).map_err(Broken::from)?;
        let mut progress = self.progress.take();
        let step = device.serve(memory, chain, *write_through, &mut progress)?;
        self.check_memory()?;
        turn.requests -= 1;
        turn.bytes = turn.bytes.saturating_sub(step.moved);
        let Some(done) = step.done else {
            self.progress.set(progress);
            return Ok(false);
        };
        if let Some(refused) = done.refused {
            self.complain(&refused);
        }
        self.ring.set_used_entry(used, head, done.written);
        Ok(true)
    }

    /// Nothing that was read or written counts if the client's memory is not there any more.
    #[inline]
    fn check_memory(&self) -> Result<(), GivenUp> {
        let losses = guard::losses();
        if losses == self.losses.get() {
            return Ok(());
        }
        if self.wiring.memory.is_lost() {
            return Err(GivenUp::MemoryLost);
        }
        self.losses.set(losses);
        Ok(())
    }

    /// To be called after a fence that follows the last publication.
    fn call_if_wanted(&self) {
        let used = self.next_used.get();
        if self.ring.wants_call(self.asked.replace(used), used) {
            self.call();
        }
    }

    /// Has the loop come back after everybody else had a turn.
    fn come_again(&self) {
        ring_bell(&self.wiring.kick);
    }

    fn drain_kicks(&self) -> io::Result<()> {
        let mut count = [0; 8];
        loop {
            match rustix::io::read(&*self.wiring.kick, &mut count) {
                Ok(_) | Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    #[cold]
    fn complain(&self, refused: &dyn std::error::Error) {
        let queue = self.wiring.index;
        let line = format_args!("queue {queue}: a request ends with an error: {refused}");
        self.wiring.link.log(Kind::Requests, line);
    }

    /// The client cannot be trusted with this queue any more: ends the connection.
    #[cold]
    fn give_up(&self, why: &GivenUp) {
        self.dead.set(true);
        if let Some(error) = &*self.wiring.error.borrow() {
            ring_bell(error);
        }
        self.wiring
            .link
            .cut(&format_args!("queue {}: {why}", self.wiring.index));
    }
}

/// Why a queue is not served any longer.
#[derive(Debug, thiserror::Error)]
enum GivenUp {
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error("the available index is {pending} ahead in a queue of {size}")]
    Index { pending: u16, size: u16 },
    #[error(
        "pages of its memory are gone: the client cut the file short, or the system has no huge pages left"
    )]
    MemoryLost,
    #[error("the kick descriptor: {0}")]
    Kick(io::Error),
}

/// What may still be done before others get their turn.
struct Turn {
    requests: u32,
    bytes: u64,
}

impl Turn {
    fn is_over(&self) -> bool {
        self.requests == 0 || self.bytes == 0
    }
}

impl AsFd for Vring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wiring.kick.as_fd()
    }
}

impl Handler for Vring {
    fn readable(&self, _: &Context) {
        match self.drain_kicks() {
            Ok(()) => self.run(),
            Err(error) => self.give_up(&GivenUp::Kick(error)),
        }
    }

    fn broken(&self, _: &Context, why: io::Error) {
        self.give_up(&GivenUp::Kick(why));
    }
}

impl Pollable for Vring {
    #[inline]
    fn poll(&self) -> bool {
        self.ring.available_index() != self.next_available.get() && !self.dead.get()
    }

    fn poll_ready(&self, _: &Context) {
        self.run();
    }

    fn poll_begin(&self) {
        self.polled.set(true);
        if !self.dead.get() {
            self.ring.suppress_kicks(self.next_available.get());
        }
    }

    fn poll_end(&self) {
        self.polled.set(false);
        if !self.dead.get() {
            self.ring.ask_for_kicks(self.next_available.get());
            full_fence();
        }
    }
}

/// Adds one to an eventfd. One that is full has a reader to come, so that is as good.
fn ring_bell(bell: &File) {
    while rustix::io::write(bell, &1u64.to_ne_bytes()) == Err(Errno::INTR) {}
}
