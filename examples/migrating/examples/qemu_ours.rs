//! A virtqueue's handler on a context: kicked by an eventfd, polled while requests come quickly. A thread stands for the guest.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use aio_context::{BottomHalf, ClockId, Context, Handler, Interest, PollParams, Pollable, Polled};
use aio_migrating::Ring;
use aio_notify::EventNotifier;

const REQUESTS: u64 = 1000;

struct Queue {
    kick: Arc<EventNotifier>,
    ring: Arc<Ring>,
    interrupt: BottomHalf,
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.kick.as_fd()
    }
}

// ANCHOR: handler
impl Handler for Queue {
    fn readable(&self, cx: &Context) {
        if self.kick.test_and_clear().unwrap_or(true) {
            self.poll_ready(cx);
        }
    }
}
// ANCHOR_END: handler

// ANCHOR: polling
impl Pollable for Queue {
    fn poll(&self) -> bool {
        !self.ring.is_empty()
    }

    fn poll_ready(&self, _cx: &Context) {
        while self.ring.pop() {
            // serve it
        }
        self.interrupt.schedule();
    }

    fn poll_begin(&self) {
        self.ring.set_notification(false);
    }

    fn poll_end(&self) {
        self.ring.set_notification(true);
    }
}
// ANCHOR_END: polling

fn main() -> io::Result<()> {
    let cx = Context::new()?;
    let (kick, ring) = (Arc::new(EventNotifier::new()?), Arc::new(Ring::default()));
    let (served, pushes) = (ring.clone(), ring.clone());
    // ANCHOR: deferred
    let interrupt = cx.bottom_half("interrupt", move |cx| {
        if served.popped() == REQUESTS {
            cx.stop();
        }
    });
    let timeout = cx.timer(ClockId::Monotonic, |cx, _timer| cx.stop());
    let _timeout = timeout.armed_after(Duration::from_secs(5));
    // ANCHOR_END: deferred

    // ANCHOR: attach
    let queues = cx.new_group();
    let queue = Queue {
        kick: kick.clone(),
        ring: ring.clone(),
        interrupt,
    };
    let watched = cx.watch_in(queues, Polled(Rc::new(queue)), Interest::READ)?;
    cx.set_poll_params(PollParams::up_to(Duration::from_nanos(32_768)));
    // ANCHOR_END: attach

    let guest = thread::spawn(move || pushes.fill(REQUESTS, || kick.set()));
    // ANCHOR: loop
    cx.run()?;
    // ANCHOR_END: loop
    guest.join().expect("the guest does not panic")?;

    // ANCHOR: detach
    let paused = cx.pause(queues); // nothing is served until it is dropped
    watched.remove(); // the queue, its bottom half and its descriptor are dropped
    drop(paused);
    // ANCHOR_END: detach
    println!("served {} requests", ring.popped());
    Ok(())
}
