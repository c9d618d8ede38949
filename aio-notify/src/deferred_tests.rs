//! Deferred callbacks: order, rounds, budget, and the operations that callbacks may use.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::thread;

use super::*;
use crate::Mailbox;

type Callback = Rc<dyn Fn(&Loop)>;
type Job = dyn FnMut() + Send;

/// A hand-written loop.
struct Loop {
    mailbox: Mailbox<Slot, Job>,
    deferred: Deferred<Callback, Job>,
    log: RefCell<Vec<u32>>,
}

impl Loop {
    fn new() -> Rc<Self> {
        Rc::new(Self {
            mailbox: Mailbox::new().expect("there is a descriptor left"),
            deferred: Deferred::new(),
            log: RefCell::default(),
        })
    }

    fn add(&self, callback: impl Fn(&Self) + 'static) -> Node<Slot, Job> {
        self.deferred.insert("a test", Rc::new(callback))
    }

    /// Adds a callback that logs a number.
    fn logger(&self, number: u32) -> Node<Slot, Job> {
        self.add(move |this| this.log.borrow_mut().push(number))
    }

    fn post(&self, node: &Node<Slot, Job>) {
        self.mailbox.post(node, Urgency::Normal);
    }

    /// Runs one round. Returns `true` if there was progress.
    fn run(&self) -> bool {
        let mut progress = false;
        for due in self.deferred.start(self.mailbox.inbox()) {
            progress |= match due {
                Due::Callback(callback, urgency) => {
                    callback(self);
                    urgency == Urgency::Normal
                }
                Due::Message(mut job) => {
                    (job.contents)();
                    true
                }
            };
        }
        progress
    }

    fn log(&self) -> Vec<u32> {
        self.log.take()
    }
}

#[test]
fn h3_callbacks_run_in_the_order_of_their_posts() {
    let this = Loop::new();
    let nodes = [1, 2, 3].map(|number| this.logger(number));
    for node in [&nodes[2], &nodes[0], &nodes[2], &nodes[1]] {
        this.post(node);
    }
    assert!(this.deferred.has_due(this.mailbox.inbox()) && this.run());
    assert_eq!(this.log(), [3, 1, 2]);
    assert!(!this.deferred.has_due(this.mailbox.inbox()) && !this.run());
}

#[test]
fn h2_a_post_during_the_round_is_for_the_next_one() {
    let this = Loop::new();
    let second = this.logger(2);
    let posts = second.clone();
    let first = this.add(move |this| {
        this.log.borrow_mut().push(1);
        this.post(&posts);
    });
    this.post(&first);
    this.post(&second);
    this.run();
    assert_eq!(this.log(), [1, 2], "it was posted twice before it ran");
    let itself = Rc::new(RefCell::new(None));
    let again = itself.clone();
    let node = this.add(move |this| {
        this.log.borrow_mut().push(3);
        this.post(again.borrow().as_ref().unwrap());
    });
    *itself.borrow_mut() = Some(node.clone());
    this.post(&node);
    for _ in 0..3 {
        assert!(this.run());
        assert_eq!(this.log(), [3], "once a round");
    }
    itself.take();
}

#[test]
fn h4_a_round_inside_a_callback_goes_on_where_the_outer_one_was() {
    let this = Loop::new();
    let (late, rest) = (this.logger(9), this.logger(2));
    let nests = {
        let late = late.clone();
        this.add(move |this| {
            this.log.borrow_mut().push(1);
            this.post(&late);
            assert!(this.run());
            this.log.borrow_mut().push(3);
        })
    };
    this.post(&nests);
    this.post(&rest);
    this.run();
    assert_eq!(this.log(), [1, 2, 9, 3]);
}

#[test]
fn h5_h8_cancelled_and_idle_ones() {
    let this = Loop::new();
    let (cancelled, idle) = (this.logger(1), this.logger(2));
    this.post(&cancelled);
    cancelled.cancel();
    this.mailbox.post(&idle, Urgency::Idle);
    assert!(!this.run(), "neither is progress");
    assert_eq!(this.log(), [2]);
    let mailbox = &this.mailbox;
    thread::scope(|scope| {
        scope.spawn(|| mailbox.post(&idle, Urgency::Idle));
    });
    let inbox = this.mailbox.inbox();
    assert!(this.deferred.has_due(inbox) && !this.deferred.has_urgent(inbox));
    this.post(&idle);
    assert!(this.deferred.has_urgent(inbox) && this.run(), "normal wins");
}

#[test]
fn h6_a_retired_callback_is_freed_and_its_slot_is_used_again() {
    let this = Loop::new();
    for number in 0..100 {
        let alive = Rc::new(());
        let held = alive.clone();
        let node = this.add(move |_| drop(held.clone()));
        this.post(&node);
        if number % 2 == 0 {
            assert!(this.run());
        }
        this.mailbox.retire(node);
        assert_eq!(Rc::strong_count(&alive), 2, "the loop frees it");
        assert!(!this.run(), "it is not called any more");
        assert_eq!(Rc::strong_count(&alive), 1);
    }
    assert_eq!(this.deferred.state.borrow().callbacks.slots.len(), 1);
}

#[test]
fn h6_a_callback_may_retire_itself_and_what_it_owns_may_insert_when_it_is_dropped() {
    struct Inserts(Rc<Loop>, Rc<Cell<u32>>);
    impl Drop for Inserts {
        fn drop(&mut self) {
            let node = self.0.logger(7);
            self.0.post(&node);
            self.1.set(self.1.get() + 1);
            // Only the callback's node is given up here; the callback lives on.
            self.0.mailbox.retire(node);
        }
    }
    let (this, dropped) = (Loop::new(), Rc::new(Cell::new(0)));
    let own = Rc::new(RefCell::new(None));
    let (inserts, mine) = (Inserts(this.clone(), dropped.clone()), own.clone());
    let node = this.add(move |this| {
        assert_eq!(inserts.1.get(), 0);
        this.mailbox.retire(mine.take().unwrap());
    });
    this.post(&node);
    *own.borrow_mut() = Some(node);
    assert!(this.run());
    while this.deferred.has_due(this.mailbox.inbox()) {
        this.run();
    }
    assert_eq!(dropped.get(), 1);
    assert_eq!(this.log(), [], "posted and retired is not called");
}

#[test]
fn d9_a_panic_leaves_the_rest_for_the_next_round() {
    let this = Loop::new();
    let nodes = [
        this.logger(1),
        this.add(|_| resume_unwind(Box::new("a callback"))),
        this.logger(3),
    ];
    nodes.iter().for_each(|node| this.post(node));
    assert!(catch_unwind(AssertUnwindSafe(|| this.run())).is_err());
    assert_eq!(this.log(), [1]);
    this.post(&nodes[0]);
    assert!(this.run());
    assert_eq!(this.log(), [3, 1]);
}

#[test]
fn d8_a_round_has_a_budget() {
    let this = Loop::new();
    let nodes: Vec<_> = (0..BUDGET as u32 + 10)
        .map(|number| this.logger(number))
        .collect();
    nodes.iter().for_each(|node| this.post(node));
    assert!(this.run());
    assert_eq!(this.log().len(), BUDGET);
    assert!(this.deferred.has_urgent(this.mailbox.inbox()) && this.run());
    assert_eq!(this.log().len(), 10);
}

#[test]
fn h7_messages_stand_between_callbacks() {
    let this = Loop::new();
    let logged = this.logger(1);
    this.post(&logged);
    let (sender, receiver) = std::sync::mpsc::channel();
    let mailbox = &this.mailbox;
    thread::scope(|scope| {
        scope.spawn(move || {
            let job = Message::new(move || sender.send(7).unwrap());
            assert!(mailbox.send(Box::new(job)).is_ok());
        });
    });
    assert!(this.run());
    assert_eq!((receiver.try_recv(), this.log()), (Ok(7), vec![1]));
}

#[test]
fn h10_what_is_posted_once_runs_once_in_the_order_of_posts_and_is_freed() {
    let this = Loop::new();
    let (alive, named) = (Rc::new(()), this.logger(2));
    let once = |number| {
        let held = alive.clone();
        let callback = move |this: &Loop| {
            this.log.borrow_mut().push(number);
            drop(held.clone());
        };
        this.deferred.post_once(Rc::new(callback), &this.mailbox);
    };
    for _ in 0..3 {
        once(1);
        this.post(&named);
        once(3);
        assert_eq!(Rc::strong_count(&alive), 3);
        assert!(this.run());
        assert_eq!(this.log(), [1, 2, 3]);
        assert_eq!(Rc::strong_count(&alive), 1, "freed with the run");
        assert!(
            !this.deferred.has_due(this.mailbox.inbox()),
            "freeing is not queued"
        );
    }
    assert_eq!(this.deferred.state.borrow().callbacks.slots.len(), 3);
    once(4);
    assert!(
        this.deferred.close(this.mailbox.inbox()).is_empty(),
        "it has no name"
    );
}

#[test]
fn h10_a_handle_that_is_kept_is_given_up_when_its_callback_is_due() {
    let this = Loop::new();
    for (cancels, clones, runs) in [
        (false, false, vec![7]),
        (true, false, vec![]),
        (false, true, vec![7]),
        (true, true, vec![]),
    ] {
        let alive = Rc::new(());
        let held = alive.clone();
        let node = this.add(move |this| {
            this.log.borrow_mut().push(7);
            drop(held.clone());
        });
        let clone = clones.then(|| node.clone());
        this.post(&node);
        if cancels {
            node.cancel();
        }
        this.deferred.keep(node);
        assert_eq!(this.run(), !cancels);
        assert_eq!(this.log(), runs);
        assert_eq!(Rc::strong_count(&alive), if clones { 2 } else { 1 });
        if let Some(clone) = clone {
            this.post(&clone);
            assert!(
                this.run() && this.log() == [7],
                "the clone is a handle like any other"
            );
            this.mailbox.retire(clone);
            assert!(!this.run());
            assert_eq!(Rc::strong_count(&alive), 1);
        }
    }
    let (kept, clone) = (this.logger(8), Rc::new(RefCell::new(None)));
    *clone.borrow_mut() = Some(kept.clone());
    let drops = clone.clone();
    let first = this.add(move |this| this.mailbox.retire(drops.take().unwrap()));
    this.post(&first);
    this.post(&kept);
    this.deferred.keep(kept);
    assert!(this.run() && this.log() == [8], "the kept handle is the last one");
    assert_eq!(this.deferred.state.borrow().callbacks.vacant.len(), 1);
}

#[test]
fn h10_d9_a_panic_frees_what_runs_once() {
    let this = Loop::new();
    let alive = Rc::new(());
    let held = alive.clone();
    let panics = move |_: &Loop| {
        drop(held.clone());
        resume_unwind(Box::new("a callback"));
    };
    this.deferred.post_once(Rc::new(panics), &this.mailbox);
    assert!(catch_unwind(AssertUnwindSafe(|| this.run())).is_err());
    assert_eq!(Rc::strong_count(&alive), 1);
    assert!(!this.run());
}

#[test]
fn h9_closing_names_the_callbacks_that_never_ran() {
    let this = Loop::new();
    let [queued, posted, cancelled, idle] = ["queued", "posted", "cancelled", "idle"].map(|name| {
        this.deferred
            .insert(name, Rc::new(|_| resume_unwind(Box::new(()))))
    });
    this.post(&queued);
    let first = this.add(|_| resume_unwind(Box::new("it leaves the other one queued")));
    this.post(&first);
    queued.cancel();
    this.post(&queued);
    let dropped = std::sync::Arc::new(());
    let held = dropped.clone();
    assert!(catch_unwind(AssertUnwindSafe(|| this.run())).is_err());
    this.post(&posted);
    this.post(&cancelled);
    cancelled.cancel();
    this.mailbox.post(&idle, Urgency::Idle);
    let job: Box<Message<Slot, Job>> = Box::new(Message::new(move || drop(held.clone())));
    assert!(this.mailbox.send(job).is_ok());
    assert_eq!(
        this.deferred.close(this.mailbox.inbox()),
        ["a test", "posted", "idle"]
    );
    assert_eq!(
        std::sync::Arc::strong_count(&dropped),
        1,
        "the message is dropped"
    );
    assert_eq!(this.mailbox.post(&posted, Urgency::Normal), crate::Posted::Closed);
    assert!(this.deferred.close(this.mailbox.inbox()).is_empty());
}
