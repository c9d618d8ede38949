//! What models are made of, and how they are tried: a loop with its inbox, and how far a small model goes.
//!
//! It has no model of its own, and no fault but the one of a loop that accepts late.

use std::sync::Arc;
use std::time::{Duration, Instant};

use loom::model::Builder;

use crate::sync::{Fault, planted};
use crate::{Inbox, Line, Node, Notifier, Parcel, Run, Taken, Urgency};

/// A loop: accepts, and looks until that says that all is done; blocks when there is nothing. It looks only when it was told to, or
/// has slept: who has something for it and does not tell it is not heard.
pub(crate) fn run(notifier: &Notifier, mut look: impl FnMut() -> bool) {
    let mut is_told = notifier.accept();
    loop {
        if is_told && look() {
            return;
        }
        if planted(Fault::AcceptAfterWork) {
            notifier.accept();
        }
        is_told = if notifier.prepare_to_wait() {
            notifier.block();
            notifier.finish_wait();
            true
        } else {
            notifier.accept()
        };
    }
}

/// What a loop and its posters share.
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
        let sent = self.inbox.send(Box::new(Parcel::new(message))).is_ok();
        self.notifier.notify();
        sent
    }

    pub(crate) fn retire(&self, node: Node<T>) {
        if self.inbox.retire(node) {
            self.notifier.notify();
        }
    }

    /// A loop that takes and runs until `done`.
    pub(crate) fn run(&self, mut each: impl FnMut(Taken<T>), mut done: impl FnMut() -> bool) {
        run(&self.notifier, || {
            self.take(&mut each);
            done()
        });
    }

    pub(crate) fn take(&self, each: &mut impl FnMut(Taken<T>)) {
        let mut line = Line::new();
        line.take(&self.inbox);
        while let Some(taken) = line.pop() {
            each(taken);
        }
    }
}

/// The message of what was sent.
pub(crate) fn message<T>(taken: Taken<T>) -> T {
    match taken.begin() {
        Run::Sent(parcel) => parcel.message,
        _ => panic!("it was sent"),
    }
}

/// Whether a node is to run.
pub(crate) fn runs<T>(taken: Taken<T>) -> bool {
    matches!(taken.begin(), Run::Normal)
}

/// Whoever asks for so many preemptions has time.
const LONG: usize = 3;
/// How long a model may take without a bound. The longest has taken three quarters of an hour, beside another.
const PATIENCE: Duration = Duration::from_secs(4 * 3600);

/// Tries a model of one other thread further than is asked for: to one preemption more, in the long run to its end, whatever the
/// number of preemptions.
///
/// # Panics
/// If there is no end within [`PATIENCE`].
pub(crate) fn to_the_end(model: fn()) {
    if let Some(bound) = Builder::new().preemption_bound.filter(|bound| *bound < LONG) {
        return within(Some(bound + 1)).check(model);
    }
    let began = Instant::now();
    within(None).check(model);
    assert!(began.elapsed() < PATIENCE, "no end within {PATIENCE:?}");
}

fn within(preemptions: Option<usize>) -> Builder {
    let mut builder = Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_duration = preemptions.is_none().then_some(PATIENCE);
    builder
}

macro_rules! models {
    ($try:path: $($name:ident => $model:ident;)*) => { $(#[test] fn $name() { $try($model); })* };
}
pub(crate) use models;

/// Tests that a fault is found by one of some models at least.
macro_rules! faults {
    ($($name:ident: $fault:ident in $($model:ident)*;)*) => {
        $(#[test] fn $name() {
            let test = concat!(module_path!(), "::", stringify!($name));
            let fault = format!("{:?}", $crate::sync::Fault::$fault);
            $crate::planting::must_be_found(test, &fault, &[$(|| loom::model($model)),*]);
        })*
    };
}
pub(crate) use faults;
