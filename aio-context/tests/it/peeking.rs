//! Rule R10 on a backend that peeks: descriptors that cannot be polled, beside handlers that are.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aio_context::{
    Builder, Clock, Handler, Interest, ManualClock, Moment, PollParams, Pollable, Polled, Wait,
};

use crate::common::{Bench, Kick, watch, watch_polled};
use crate::polling::Always;

/// Returns the builder of a context on io_uring that polls for up to ten seconds, if there is io_uring.
fn peeking() -> Option<Builder> {
    let is_there = Bench::URING.context().backend_name() == "uring";
    let params = PollParams::up_to(Duration::from_secs(10));
    let builder = Bench::URING.builder().policy(Box::new(Always));
    is_there.then(|| builder.poll_params(params))
}

#[test]
fn r10_where_the_backend_peeks_a_descriptor_is_served_beside_a_handler_that_always_has_work() {
    let Some(builder) = peeking() else { return };
    // No time passes, so a check is due only after 64 iterations.
    let cx = builder.monotonic(Arc::new(ManualClock::new())).build().unwrap();
    let (greedy, plain) = (Kick::new(), Kick::new());
    greedy.has_work.set(Some(true));
    let _registrations = (watch_polled(&cx, &greedy), watch(&cx, &plain));
    assert!(cx.poll(Wait::Block).unwrap());
    for served in 1..100 {
        plain.kick();
        for _ in 0..4 {
            assert!(cx.poll(Wait::Block).unwrap());
        }
        assert_eq!(plain.count.get(), served, "by the fourth iteration");
    }
}

/// A clock of which each reading takes 400 ns.
#[derive(Debug, Default)]
struct Ticking(AtomicU64);

impl Clock for Ticking {
    fn now(&self) -> Moment {
        let ticks = self.0.fetch_add(1, Ordering::Relaxed);
        Moment::from_nanos(1_000_000 + 400 * ticks)
    }
}

/// The check after an event arms its descriptor again, and finds nothing. The next event is not delayed by this.
#[test]
fn r10_where_the_backend_peeks_an_event_soon_after_another_one_is_served_as_fast() {
    let Some(builder) = peeking() else { return };
    let cx = builder.monotonic(Arc::new(Ticking::default())).build().unwrap();
    let (greedy, plain) = (Kick::new(), Kick::new());
    greedy.has_work.set(Some(true));
    let _registrations = (watch_polled(&cx, &greedy), watch(&cx, &plain));
    let iterate = |times| (0..times).for_each(|_| assert!(cx.poll(Wait::Block).unwrap()));
    iterate(1);
    for served in 1..100 {
        plain.kick();
        iterate(4);
        assert_eq!(plain.count.get(), served, "by the fourth iteration");
        iterate(4);
    }
}

/// Makes another descriptor ready in its hundredth poll.
struct Hundredth {
    own: Rc<Kick>,
    other: Rc<Kick>,
    polls: Cell<u32>,
}

impl AsFd for Hundredth {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.own.as_fd()
    }
}

impl Handler for Hundredth {}

impl Pollable for Hundredth {
    fn poll(&self) -> bool {
        self.polls.set(self.polls.get() + 1);
        if self.polls.get() == 100 {
            self.other.kick();
        }
        false
    }
}

#[test]
fn r10_where_the_backend_peeks_polling_ends_in_the_round_in_which_a_descriptor_becomes_ready() {
    let Some(builder) = peeking() else { return };
    let cx = builder.build().unwrap();
    let plain = Kick::new();
    let polled = Rc::new(Hundredth {
        own: Kick::new(),
        other: plain.clone(),
        polls: 0.into(),
    });
    let _plain = watch(&cx, &plain);
    let _polled = cx.watch(Polled(polled.clone()), Interest::READ).unwrap();
    assert!(cx.poll(Wait::Block).unwrap());
    assert_eq!((plain.count.get(), polled.polls.get()), (1, 100));
}

/// The kick of a handler is one event, whether polling or its descriptor detects it.
#[test]
fn r10_where_the_backend_peeks_a_kick_is_not_served_twice() {
    let Some(builder) = peeking() else { return };
    let cx = builder.monotonic(Arc::new(ManualClock::new())).build().unwrap();
    let kick = Kick::new();
    let _registration = watch_polled(&cx, &kick);
    // From 64 iterations on, a check would be due and report both.
    for served in 1..64 {
        kick.kick();
        assert!(cx.poll(Wait::Block).unwrap());
        assert_eq!(kick.count.get(), served);
    }
}
