//! A hand-written loop: it waits in poll(2) for its mailbox, and runs the callbacks and messages that another thread posts.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use aio_notify::{Deferred, Due, Mailbox, Message, Slot, Urgency};
use rustix::event::{PollFd, PollFlags, poll};

/// A message is a job; it returns whether the loop goes on.
type Job = dyn FnMut() -> bool + Send;

pub(crate) fn main() -> io::Result<()> {
    let mailbox = Arc::new(Mailbox::<Slot, Job>::new()?);
    let deferred = Deferred::<Rc<dyn Fn()>, Job>::new();
    let ticks = Rc::new(Cell::new(0));
    let counted = ticks.clone();
    let tick = deferred.insert("tick", Rc::new(move || counted.set(counted.get() + 1)));

    let worker = thread::spawn({
        let mailbox = mailbox.clone();
        move || {
            for _ in 0..1000 {
                mailbox.post(&tick, Urgency::Normal);
            }
            let last = Message::new(|| false);
            assert!(
                mailbox.send(Box::new(last)).is_ok(),
                "the loop goes on until then"
            );
            tick
        }
    });

    let mut goes_on = true;
    while goes_on {
        if !deferred.has_due(mailbox.inbox()) && mailbox.prepare_to_wait() {
            let _sleep = mailbox.sleep_guard();
            poll(&mut [PollFd::new(&*mailbox, PollFlags::IN)], None)?;
        }
        // Accept first, then take the work: a post in between notifies again.
        mailbox.accept();
        for due in deferred.start(mailbox.inbox()) {
            match due {
                Due::Callback(call, _) => call(),
                Due::Message(mut job) => goes_on = (job.contents)(),
            }
        }
    }
    // A retired callback is not called any more: not before the loop has come to the last message.
    mailbox.retire(worker.join().expect("the worker does not panic"));
    assert!(deferred.close(mailbox.inbox()).is_empty(), "everything has run");
    let (writes, elided) = mailbox.wakeups();
    println!("{} ticks; {writes} wake-ups, {elided} elided", ticks.get());
    assert!((1..=1000).contains(&ticks.get()));
    Ok(())
}
