//! The parts of models, and the functions that run them: a loop with its inbox, and the bounds of a small
//! model.
//!
//! This module has no model of its own, and one fault: a loop that accepts late.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use loom::model::Builder;

use aio_checker::faulty;
use aio_checker::kernel::Kernel;
use aio_notify::{Dequeued, Inbox, Item, Message, Node, Notifier, RunQueue, Urgency};

/// Sleeps until the eventfd `fd` is written, as a loop's backend would.
pub(crate) fn block(fd: impl AsFd) {
    Kernel::of_this_run().block(fd);
}

/// Runs a loop: it accepts, calls `serve` until that returns `true`, and blocks in between. It serves only
/// after a notification or a sleep, so a lost wake-up is a deadlock.
pub(crate) fn run(notifier: &Notifier, mut serve: impl FnMut() -> bool) {
    let mut is_notified = notifier.accept();
    loop {
        if is_notified && serve() {
            return;
        }
        faulty!(AcceptAfterWork: notifier.accept());
        is_notified = if notifier.prepare_to_wait() {
            block(notifier);
            notifier.finish_wait();
            true
        } else {
            notifier.accept()
        };
    }
}

/// The state that a loop and its posters share.
pub(crate) struct Shared<T> {
    pub(crate) notifier: Notifier,
    pub(crate) inbox: Inbox<T>,
}

impl<T> Shared<T> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            notifier: Notifier::new().unwrap(),
            inbox: Inbox::new(),
        })
    }

    pub(crate) fn post(&self, node: &Node<T>) {
        self.inbox.post(node, Urgency::Normal);
        self.notifier.notify();
    }

    pub(crate) fn send(&self, message: T) -> bool {
        let sent = self.inbox.send(Box::new(Message::new(message))).is_ok();
        self.notifier.notify();
        sent
    }

    pub(crate) fn retire(&self, node: Node<T>) {
        if self.inbox.retire(node) {
            self.notifier.notify();
        }
    }

    /// Runs a loop that takes and runs items until `done`.
    pub(crate) fn run(&self, mut each: impl FnMut(Dequeued<T>), mut done: impl FnMut() -> bool) {
        run(&self.notifier, || {
            self.take(&mut each);
            done()
        });
    }

    pub(crate) fn take(&self, each: &mut impl FnMut(Dequeued<T>)) {
        let mut queue = RunQueue::new();
        queue.take(&self.inbox);
        while let Some(dequeued) = queue.pop() {
            each(dequeued);
        }
    }
}

/// Returns the message of a sent item.
pub(crate) fn message<T>(dequeued: Dequeued<T>) -> T {
    match dequeued.begin() {
        Item::Sent(message) => message.contents,
        _ => panic!("it was sent"),
    }
}

/// Returns `true` if a node is to run.
pub(crate) fn runs<T>(dequeued: Dequeued<T>) -> bool {
    matches!(dequeued.begin(), Item::Normal)
}

/// The number of preemptions from which on models run to their end.
const LONG: usize = 3;
/// The time that a model may take without a bound. The longest one took three quarters of an hour, beside
/// another.
const LIMIT: Duration = Duration::from_secs(4 * 3600);

/// Runs a model of one other thread with one preemption more than requested; in the long run without a bound
/// on preemptions.
///
/// # Panics
/// If the model does not end within [`LIMIT`].
pub(crate) fn to_the_end(model: fn()) {
    if let Some(bound) = Builder::new().preemption_bound.filter(|bound| *bound < LONG) {
        return within(Some(bound + 1)).check(model);
    }
    let began = Instant::now();
    within(None).check(model);
    assert!(began.elapsed() < LIMIT, "no end within {LIMIT:?}");
}

/// Like [`to_the_end`], for a model that is too large for that: with one preemption more than requested, in
/// the long run with three more.
pub(crate) fn further(model: fn()) {
    let bound = Builder::new().preemption_bound;
    within(bound.map(|bound| bound + if bound < LONG { 1 } else { 3 })).check(model);
}

fn within(preemptions: Option<usize>) -> Builder {
    let mut builder = Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_duration = preemptions.is_none().then_some(LIMIT);
    builder
}

macro_rules! models {
    ($try:path: $($name:ident => $model:ident;)*) => { $(#[test] fn $name() { $try($model); })* };
}
pub(crate) use models;

/// Tests that at least one of some models finds a fault.
macro_rules! faults {
    ($($name:ident: $fault:ident in $($model:ident)*;)*) => {
        $(#[test] fn $name() {
            let test = concat!(module_path!(), "::", stringify!($name));
            aio_checker::planting::must_be_found(test, stringify!($fault), &[$(|| loom::model($model)),*]);
        })*
    };
}
pub(crate) use faults;
