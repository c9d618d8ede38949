//! A poll set in a loop written by hand: it polls a channel for up to 50 microseconds, and sleeps when nothing came.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use aio_backend::Token;
use aio_pollset::{PollSet, Source};

/// The receiving end of a channel, its next message, and a flag: set while the sender has to wake this thread, because it does not poll.
struct Inbox(mpsc::Receiver<u32>, RefCell<Option<u32>>, Arc<AtomicBool>);

impl Source for Inbox {
    fn poll(&self) -> bool {
        let mut next = self.1.borrow_mut();
        *next = next.take().or_else(|| self.0.try_recv().ok());
        next.is_some()
    }
    fn poll_begin(&self) {
        self.2.store(false, Ordering::Relaxed);
    }
    fn poll_end(&self) {
        self.2.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst); // the last `poll` comes after this store
    }
}

pub(crate) fn main() {
    let (sender, receiver) = mpsc::channel();
    let (home, wakes) = (thread::current(), Arc::new(AtomicBool::new(true)));
    let inbox = Rc::new(Inbox(receiver, RefCell::default(), wakes.clone()));
    thread::spawn(move || {
        for message in 1..=1000 {
            sender.send(message).expect("the loop receives all of them");
            fence(Ordering::SeqCst);
            if wakes.load(Ordering::Relaxed) {
                home.unpark();
            }
        }
    });

    let (set, token) = (PollSet::new(), Token::new(0, 0));
    let _ = set.join(token, inbox.clone());
    let mut last = 0;
    while last < 1000 {
        let mut hits = Vec::new();
        let mut hit = |token| {
            hits.push(token);
            ControlFlow::Continue(())
        };
        set.enter();
        let (started, mut found) = (Instant::now(), false);
        while !found && started.elapsed() < Duration::from_micros(50) {
            found = set.round(&mut hit);
        }
        if !found && !set.exit(&mut hit) {
            thread::park();
        }
        for token in hits {
            last = set.serve(token, || inbox.1.take()).flatten().unwrap_or(last);
        }
    }
    set.leave(token).finish(|| inbox.poll_end());
    println!("received {last} messages in {} rounds", set.rounds());
}
