//! Rule A5: a handler that had `poll_begin` and then `poll_end` is polled one last time, whatever happens in between.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aio_context::{
    BottomHalf, Clock, ClockId, Context, GroupId, Handler, Interest, ManualClock, PollParams, Pollable,
    Polled, Registration, Remote, Wait,
};

use crate::common::{Kick, Twin};
use crate::polling::{Always, always};

/// A polled handler. During its poll the peer of `other` gives work to `other`, without a kick if `other` is in poll mode.
struct Peer {
    own: Rc<Kick>,
    other: Rc<Kick>,
    armed: Cell<bool>,
    /// Switches polling off at that time.
    switch: Option<Remote>,
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.own.as_fd()
    }
}

impl Handler for Peer {}

impl Pollable for Peer {
    fn poll(&self) -> bool {
        if self.armed.get() && self.other.log.borrow().last() != Some(&"end") {
            self.armed.set(false);
            self.other.has_work.set(Some(true));
            if let Some(switch) = &self.switch {
                switch.set_poll_params(PollParams::OFF);
            }
        }
        false
    }
}

const MICRO: Duration = Duration::from_micros(1);

/// In its last poll, this handler replaces another one, whose last poll comes later.
struct Meddler {
    own: Rc<Kick>,
    other: Rc<Kick>,
    second: Rc<Kick>,
    registration: RefCell<Option<Registration>>,
    replaced: RefCell<Option<Registration>>,
}

impl AsFd for Meddler {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.own.as_fd()
    }
}

impl Handler for Meddler {}

impl Pollable for Meddler {
    fn poll(&self) -> bool {
        if self.other.log.borrow().last() == Some(&"end")
            && let Some(registration) = self.registration.take()
        {
            let twin = Twin(self.other.clone(), self.second.clone());
            registration.replace(Polled(Rc::new(twin))).unwrap();
            self.replaced.replace(Some(registration));
        }
        false
    }
}

/// Switches polling off, so that only a last poll can find work.
fn no_more_polling(cx: &Context) {
    cx.set_poll_params(PollParams::up_to(Duration::ZERO));
}

#[test]
fn a5_a9_a_handler_that_is_busy_in_a_nested_wait_is_polled_afterwards() {
    let (cx, clock) = always(4 * MICRO);
    let busy = Kick::new();
    let peer = Rc::new(Peer {
        own: Kick::new(),
        other: busy.clone(),
        armed: Cell::new(false),
        switch: None,
    });
    let nested = peer.clone();
    *busy.on_ready.borrow_mut() = Some(Rc::new(move |busy: &Kick, cx: &Context| {
        busy.has_work.set(Some(false));
        if busy.count.get() == 1 {
            nested.armed.set(true);
            cx.poll(Wait::AtMost(20 * MICRO)).unwrap();
            assert!(!nested.armed.get(), "the work came while it was in poll mode");
            no_more_polling(cx);
            // This poll accepts the notification of the change.
            let _ = cx.poll(Wait::NoBlock).unwrap();
        }
    }));
    let _registrations = (
        cx.watch(Polled(busy.clone()), Interest::READ).unwrap(),
        cx.watch(Polled(peer.clone()), Interest::READ).unwrap(),
    );
    busy.has_work.set(Some(true));
    while busy.count.get() == 0 {
        let _ = cx.poll(Wait::AtMost(20 * MICRO)).unwrap();
    }
    let before = clock.now();
    let _ = cx.poll(Wait::AtMost(20 * MICRO)).unwrap();
    assert_eq!(busy.count.get(), 2, "{:?}", busy.log);
    assert_eq!(clock.now(), before, "it slept with the answer in its hand");
    // The closure holds the peer, which holds the handler: a cycle.
    *busy.on_ready.borrow_mut() = None;
}

#[test]
fn a5_work_that_is_found_when_polling_was_switched_off_is_not_slept_over() {
    let (cx, _clock) = always(4 * MICRO);
    let kick = Kick::new();
    kick.has_work.set(Some(false));
    let peer = Rc::new(Peer {
        own: Kick::new(),
        other: kick.clone(),
        armed: Cell::new(true),
        switch: Some(cx.remote()),
    });
    let _registrations = (
        cx.watch(Polled(kick.clone()), Interest::READ).unwrap(),
        cx.watch(Polled(peer.clone()), Interest::READ).unwrap(),
    );
    // The switch ends this search, which accepts its notification. The next iteration adopts the parameters.
    assert!(!cx.poll(Wait::Block).unwrap());
    assert_eq!((peer.armed.get(), kick.count.get()), (false, 0));
    let before = cx.now(ClockId::Monotonic);
    assert!(cx.poll(Wait::AtMost(Duration::from_secs(3600))).unwrap());
    assert_eq!(cx.now(ClockId::Monotonic), before, "it slept");
    assert_eq!(*kick.log.borrow(), ["begin", "end", "poll_ready"]);
}

#[test]
fn a5_b5_a_pause_of_another_group_loses_no_last_poll() {
    let (cx, _clock) = always(4 * MICRO);
    let kick = Kick::new();
    kick.has_work.set(Some(false));
    let (own, other) = (cx.new_group(), cx.new_group());
    let _registration = cx.watch_in(own, Polled(kick.clone()), Interest::READ).unwrap();
    // A notification ends the search while poll mode is on.
    cx.remote().notify();
    let _ = cx.poll(Wait::AtMost(20 * MICRO)).unwrap();
    assert_eq!(*kick.log.borrow(), ["begin"]);
    kick.has_work.set(Some(true));
    let (pause, second) = (cx.pause(own), cx.pause(other));
    no_more_polling(&cx);
    drop(second);
    for _ in 0..2 {
        let _ = cx.poll(Wait::AtMost(20 * MICRO)).unwrap();
    }
    assert_eq!(kick.count.get(), 0);
    drop(pause);
    for _ in 0..2 {
        let _ = cx.poll(Wait::AtMost(20 * MICRO)).unwrap();
        kick.has_work.set(Some(false));
    }
    assert_eq!(kick.count.get(), 1, "{:?}", kick.log);
}

/// Makes a handler that had its `poll_begin`, has work without a kick, and gets its last poll in an iteration that runs `first`
/// before the callbacks of handlers. The returned bottom half keeps its registration.
fn polled_last_before(
    first: impl Fn(&Context, &Rc<Kick>, &Registration) + 'static,
) -> (Context, Rc<Kick>, BottomHalf) {
    let (cx, _clock) = always(4 * MICRO);
    let kick = Kick::new();
    kick.has_work.set(Some(false));
    let registration = cx.watch(Polled(kick.clone()), Interest::READ).unwrap();
    cx.remote().notify();
    let _ = cx.poll(Wait::AtMost(20 * MICRO)).unwrap();
    assert_eq!(*kick.log.borrow(), ["begin"]);
    kick.has_work.set(Some(true));
    no_more_polling(&cx);
    let replaced = kick.clone();
    let bh = cx.bottom_half("first", move |cx| first(cx, &replaced, &registration));
    bh.schedule();
    let _ = catch_unwind(AssertUnwindSafe(|| cx.poll(Wait::NoBlock)));
    (cx, kick, bh)
}

#[test]
fn a5_d9_a_panic_does_not_lose_the_hit_of_a_last_poll() {
    let (cx, kick, _bh) = polled_last_before(|_, _, _| resume_unwind(Box::new("on purpose")));
    let _ = cx.poll(Wait::NoBlock).unwrap();
    assert_eq!(kick.count.get(), 1, "{:?}", kick.log);
}

#[test]
fn a5_r6_after_a_replacement_the_last_poll_is_repeated() {
    let second = Kick::new();
    second.has_work.set(Some(true));
    let new = second.clone();
    let (cx, kick, _bh) = polled_last_before(move |_, kick, registration| {
        let twin = Twin(kick.clone(), new.clone());
        registration.replace(Polled(Rc::new(twin))).unwrap();
    });
    let _ = cx.poll(Wait::NoBlock).unwrap();
    assert_eq!((kick.count.get(), second.count.get()), (0, 1), "{:?}", kick.log);
}

#[test]
fn a5_b5_after_a_pause_the_last_poll_is_repeated() {
    let paused = Rc::new(RefCell::new(None));
    let guard = paused.clone();
    let (cx, kick, _bh) =
        polled_last_before(move |cx, _, _| *guard.borrow_mut() = Some(cx.pause(GroupId::DEFAULT)));
    let _ = cx.poll(Wait::NoBlock).unwrap();
    assert_eq!(kick.count.get(), 0, "it is paused");
    drop(paused.take());
    let _ = cx.poll(Wait::NoBlock).unwrap();
    assert_eq!(kick.count.get(), 1, "{:?}", kick.log);
}

#[test]
fn a5_d1_a_nested_poll_takes_over_the_hit_of_a_last_poll() {
    let nested = Rc::new(Cell::new(None));
    let progress = nested.clone();
    let (_cx, kick, _bh) = polled_last_before(move |cx, kick, _| {
        progress.set(Some((
            cx.poll(Wait::AtMost(20 * MICRO)).unwrap(),
            kick.count.get(),
        )));
    });
    assert_eq!(
        nested.get(),
        Some((true, 1)),
        "it slept over known work: {:?}",
        kick.log
    );
    assert_eq!(kick.count.get(), 1, "once for one hit");
}

#[test]
fn a5_d2_more_hits_of_last_polls_than_fit_into_a_batch() {
    let clock = Arc::new(ManualClock::new());
    let builder = Context::builder()
        .monotonic(clock)
        .policy(Box::new(Always))
        .batch(4);
    let cx = builder.poll_params(PollParams::up_to(4 * MICRO)).build().unwrap();
    let kicks: Vec<_> = (0..10).map(|_| Kick::new()).collect();
    let watch = |kick: &Rc<Kick>| cx.watch(Polled(kick.clone()), Interest::READ).unwrap();
    let _registrations: Vec<_> = kicks.iter().map(watch).collect();
    kicks.iter().for_each(|kick| kick.has_work.set(Some(false)));
    cx.remote().notify();
    let _ = cx.poll(Wait::AtMost(20 * MICRO)).unwrap();
    // All have work without a kick, because all are in poll mode.
    kicks.iter().for_each(|kick| kick.has_work.set(Some(true)));
    no_more_polling(&cx);
    for _ in 0..4 {
        let _ = cx.poll(Wait::AtMost(20 * MICRO)).unwrap();
        let served = kicks.iter().filter(|kick| kick.count.get() > 0);
        served.for_each(|kick| kick.has_work.set(Some(false)));
    }
    let counts: Vec<_> = kicks.iter().map(|kick| kick.count.get()).collect();
    assert_eq!(counts, [1; 10]);
}

#[test]
fn a5_r6_a_handler_replaced_during_the_last_polls_is_polled_too() {
    let (cx, _clock) = always(4 * MICRO);
    let meddler = Rc::new(Meddler {
        own: Kick::new(),
        other: Kick::new(),
        second: Kick::new(),
        registration: RefCell::default(),
        replaced: RefCell::default(),
    });
    meddler.other.has_work.set(Some(false));
    // The peer of both gave it work while the kicks were suppressed.
    meddler.second.has_work.set(Some(true));
    let served = |kick: &Kick, _: &Context| kick.has_work.set(Some(false));
    *meddler.second.on_ready.borrow_mut() = Some(Rc::new(served));
    let _meddles = cx.watch(Polled(meddler.clone()), Interest::READ).unwrap();
    let registration = cx.watch(Polled(meddler.other.clone()), Interest::READ).unwrap();
    *meddler.registration.borrow_mut() = Some(registration);
    cx.remote().notify();
    let _ = cx.poll(Wait::AtMost(20 * MICRO)).unwrap();
    let _ = cx.poll(Wait::AtMost(20 * MICRO)).unwrap();
    assert!(meddler.replaced.borrow().is_some());
    no_more_polling(&cx);
    let _ = cx.poll(Wait::NoBlock).unwrap();
    assert_eq!(meddler.second.count.get(), 1, "{:?}", meddler.second.log);
    drop(meddler.replaced.take());
}
