//! The models, and the faults that they must find.
//!
//! Each model is a small program of a loop and its posters. The checker runs it in every order that it can have, weak
//! memory included; a lost wake-up shows as a deadlock. Models block, they never spin.

use std::process::Command;
use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;

use crate::sync::{Fault, planted, with_fault};
use crate::{Inbox, Node, Notifier, Run, Urgency};

struct Shared<T> {
    notifier: Notifier,
    inbox: Inbox<T>,
}

impl<T> Shared<T> {
    fn new() -> loom::sync::Arc<Self> {
        loom::sync::Arc::new(Self {
            notifier: Notifier::modelled(),
            inbox: Inbox::new(),
        })
    }

    fn post(&self, node: &Arc<Node<T>>) {
        self.inbox.post(node, Urgency::Normal);
        self.notifier.notify();
    }

    /// A loop: accepts, takes and runs until `done`, and blocks when there is nothing.
    fn run(&self, mut each: impl FnMut(Run, &T), mut done: impl FnMut() -> bool) {
        loop {
            if planted(Fault::AcceptAfterWork) {
                self.take(&mut each);
                self.notifier.accept();
            } else {
                self.notifier.accept();
                self.take(&mut each);
            }
            if done() {
                return;
            }
            if self.notifier.prepare_to_wait() {
                self.notifier.block();
                self.notifier.finish_wait();
            }
        }
    }

    fn take(&self, each: &mut impl FnMut(Run, &T)) {
        self.inbox.take_all(&mut |node| {
            let run = node.begin();
            each(run, node.payload());
        });
    }
}

/// Posters that send `each` messages, and a loop that waits for all.
fn posters(threads: usize, each: usize) {
    let shared = Shared::<usize>::new();
    let posters: Vec<_> = (0..threads)
        .map(|poster| {
            let shared = shared.clone();
            thread::spawn(move || {
                for message in 0..each {
                    shared.post(&Node::new(poster * 10 + message));
                }
            })
        })
        .collect();
    let got = std::cell::RefCell::new(Vec::new());
    shared.run(
        |_, message| got.borrow_mut().push(*message),
        || got.borrow().len() == threads * each,
    );
    for poster in posters {
        poster.join().unwrap();
    }
    for poster in 0..threads {
        let of_one: Vec<usize> = got
            .borrow()
            .iter()
            .copied()
            .filter(|message| message / 10 == poster)
            .collect();
        assert_eq!(
            of_one,
            (0..each).map(|message| poster * 10 + message).collect::<Vec<_>>(),
            "in order, once"
        );
    }
}

fn one_by_two() {
    posters(1, 2);
}

fn two_by_one() {
    posters(2, 1);
}

/// One node that is scheduled again and again: the run that follows the last schedule sees what was written before it.
fn rescheduled() {
    let shared = Shared::<UnsafeCell<u32>>::new();
    let node = Node::new(UnsafeCell::new(0));
    let latest = loom::sync::Arc::new(loom::sync::atomic::AtomicU32::new(0));
    let poster = {
        let (shared, node, latest) = (shared.clone(), node.clone(), latest.clone());
        thread::spawn(move || {
            for value in 1..=2 {
                latest.store(value, loom::sync::atomic::Ordering::Relaxed);
                shared.post(&node);
            }
        })
    };
    let seen = std::cell::Cell::new(0);
    let mut runs = 0;
    shared.run(
        |run, _| {
            runs += 1;
            if run == Run::Normal {
                seen.set(latest.load(loom::sync::atomic::Ordering::Relaxed));
            }
        },
        || seen.get() == 2,
    );
    poster.join().unwrap();
    assert!(runs <= 2, "no more runs than schedules");
}

/// What a poster wrote before it posted is there when the node runs, without any other synchronisation.
fn publishes() {
    let shared = Shared::<UnsafeCell<u32>>::new();
    let poster = {
        let shared = shared.clone();
        thread::spawn(move || {
            let node = Node::new(UnsafeCell::new(0));
            // SAFETY: nobody else has the node yet.
            node.payload().with_mut(|value| unsafe { *value = 7 });
            shared.post(&node);
        })
    };
    let got = std::cell::Cell::new(0);
    // SAFETY: the model checks that the write happens before this read.
    shared.run(
        |_, value| got.set(value.with(|value| unsafe { *value })),
        || got.get() == 7,
    );
    poster.join().unwrap();
}

/// Two threads schedule one node at the same time: it is pushed once, and runs once or twice.
fn scheduled_by_two() {
    let shared = Shared::<()>::new();
    let node = Node::new(());
    let posters: Vec<_> = (0..2)
        .map(|_| {
            let (shared, node) = (shared.clone(), node.clone());
            thread::spawn(move || shared.post(&node))
        })
        .collect();
    let mut runs = 0;
    shared.notifier.accept();
    shared.take(&mut |run, ()| runs += u32::from(run == Run::Normal));
    for poster in posters {
        poster.join().unwrap();
    }
    shared.take(&mut |run, ()| runs += u32::from(run == Run::Normal));
    assert!((1..=2).contains(&runs), "ran {runs} times");
}

/// Another thread drops its handle, deleting the node, while it is scheduled: it never runs after, and is buried once.
fn deleted_while_scheduled() {
    let shared = Shared::<()>::new();
    let node = Node::new(());
    shared.post(&node);
    let deleter = {
        let shared = shared.clone();
        thread::spawn(move || {
            node.delete();
            shared.post(&node);
        })
    };
    let (runs, buried) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    shared.run(
        |run, ()| match run {
            Run::Deleted => buried.set(buried.get() + 1),
            Run::Normal => {
                assert_eq!(buried.get(), 0, "runs after it was buried");
                runs.set(runs.get() + 1);
            }
            Run::Idle | Run::No => {}
        },
        || buried.get() == 1,
    );
    deleter.join().unwrap();
    assert!(runs.get() <= 1);
}

/// Cancelling races the loop: at most one run, and a schedule after the cancel is not lost.
fn cancelled() {
    let shared = Shared::<()>::new();
    let node = Node::new(());
    shared.post(&node);
    let canceller = {
        let (shared, node) = (shared.clone(), node.clone());
        thread::spawn(move || {
            node.cancel();
            shared.post(&node);
        })
    };
    let mut runs = 0;
    shared.take(&mut |run, ()| runs += u32::from(run == Run::Normal));
    canceller.join().unwrap();
    shared.take(&mut |run, ()| runs += u32::from(run == Run::Normal));
    assert!((1..=2).contains(&runs), "ran {runs} times");
}

/// A poster races the end of the context: the message is taken, handed out by the close, or refused; nothing leaks.
fn closed_while_posting() {
    let shared = Shared::<u32>::new();
    let poster = {
        let shared = shared.clone();
        thread::spawn(move || shared.inbox.send(1).is_err())
    };
    let mut got = 0;
    shared.inbox.close(&mut |_| got += 1);
    let refused = poster.join().unwrap();
    assert_eq!(got + u32::from(refused), 1);
    assert!(!shared.inbox.pending());
}

/// A wait inside a wait: when the inner one is over, the outer one still hears.
fn nested() {
    let shared = Shared::<usize>::new();
    let poster = {
        let shared = shared.clone();
        thread::spawn(move || shared.post(&Node::new(1)))
    };
    let outer = shared.notifier.prepare_to_wait();
    let got = std::cell::Cell::new(0);
    if outer {
        if shared.notifier.prepare_to_wait() {
            shared.notifier.block();
            shared.notifier.finish_wait();
        }
        shared.notifier.finish_wait();
    }
    shared.run(|_, message| got.set(*message), || got.get() == 1);
    poster.join().unwrap();
}

/// A foreign loop waits on behalf of this one: it sets the flag, looks, and blocks.
fn foreign() {
    let shared = Shared::<usize>::new();
    let poster = {
        let shared = shared.clone();
        thread::spawn(move || shared.post(&Node::new(1)))
    };
    let mut got = 0;
    while got == 0 {
        shared.notifier.set_foreign(true);
        if !shared.notifier.is_notified() {
            shared.notifier.block();
        }
        shared.notifier.set_foreign(false);
        shared.notifier.accept();
        shared.take(&mut |_, message| got = *message);
    }
    poster.join().unwrap();
}

/// A loop that is awake when the notification comes pays no ring, and does not sleep through it.
fn elided() {
    let shared = Shared::<usize>::new();
    shared.post(&Node::new(1));
    assert_eq!(shared.notifier.writes(), 0);
    let poster = {
        let shared = shared.clone();
        thread::spawn(move || shared.post(&Node::new(2)))
    };
    let got = std::cell::Cell::new(0);
    shared.run(|_, message| got.set(got.get() + *message), || got.get() == 3);
    poster.join().unwrap();
    assert!(shared.notifier.writes() <= 1);
}

/// A model of the true protocol.
pub(crate) fn holds(model: fn()) {
    with_fault(None, || loom::model(model));
}

/// The same models with a fault: at least one must fail. A model that fails may take its process with it, so each runs in a
/// process of its own: this very test, asked to be the child.
pub(crate) fn found(test: &str, fault: Fault, models: &[fn()]) {
    const CHILD: &str = "AIO_NOTIFY_MODEL";
    if let Ok(number) = std::env::var(CHILD) {
        let model = models[number.parse::<usize>().unwrap()];
        return with_fault(Some(fault), || loom::model(model));
    }
    let failed = (0..models.len()).any(|number| {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--test-threads=1"])
            .env(CHILD, number.to_string())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(
            said.contains("running 1 test"),
            "the child did not run the model: {said}"
        );
        !child.status.success()
    });
    assert!(failed, "{fault:?} is planted, and no model fails");
}

macro_rules! models {
    ($($name:ident => $model:ident;)*) => { $(#[test] fn $name() { holds($model); })* };
}

models! {
    case_67_no_lost_wake_up_one_by_two => one_by_two;
    case_68_no_notification_cleared_unseen_two_by_one => two_by_one;
    n2_nested_waits => nested;
    n5_foreign_loop => foreign;
    n1_elided_write => elided;
    case_56_published_before_it_runs => publishes;
    h1_scheduled_by_two_threads_at_once => scheduled_by_two;
    h2_scheduled_while_it_runs => rescheduled;
    h5_cancelled_against_the_runner => cancelled;
    h6_deleted_while_scheduled => deleted_while_scheduled;
    h7_closed_while_posting => closed_while_posting;
}

macro_rules! faults {
    ($($name:ident: $fault:ident in $($model:ident)*;)*) => { $(#[test] fn $name() { found(concat!("models::", stringify!($name)), Fault::$fault, &[$($model),*]); })* };
}

faults! {
    n2_planted_notify_without_fence: NotifyWithoutFence in one_by_two;
    n2_planted_prepare_without_fence: PrepareWithoutFence in one_by_two;
    n2_planted_prepare_without_recheck: PrepareWithoutRecheck in one_by_two;
    n1_planted_notify_swapped: NotifySwapped in one_by_two;
    n4_planted_skip_when_notified: SkipWhenNotified in one_by_two two_by_one;
    n4_planted_accept_after_work: AcceptAfterWork in one_by_two;
    n4_planted_accept_in_two_steps: AcceptInTwoSteps in one_by_two two_by_one;
    h1_planted_publish_relaxed: PublishRelaxed in publishes;
    h1_planted_push_twice: PushTwice in scheduled_by_two;
    h2_planted_begin_in_two_steps: BeginInTwoSteps in rescheduled;
    h2_planted_begin_keeps_queued: BeginKeepsQueued in rescheduled;
}
