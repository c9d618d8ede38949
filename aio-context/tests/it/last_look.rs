//! Rule A5: whoever was told that the loop polls, and then that it does not, is asked one last time, whatever comes between.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::Duration;

use aio_context::{ClockId, Context, Handler, Interest, PollParams, Pollable, Remote, Wait};

use crate::common::Kick;
use crate::polling::always;

/// Asked in user space; when it is, the peer of `other` gives that one work, without a kick, as long as it is said to poll.
struct Peer {
    own: Rc<Kick>,
    other: Rc<Kick>,
    armed: Cell<bool>,
    /// Switches polling off at that moment.
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
            self.other.says.set(Some(true));
            if let Some(switch) = &self.switch {
                switch.set_poll_params(PollParams::OFF);
            }
        }
        false
    }
}

const MICRO: Duration = Duration::from_micros(1);

/// Nobody polls any more, so that only a last question can find work.
fn no_more_polling(cx: &Context) {
    cx.set_poll_params(PollParams::up_to(Duration::ZERO));
}

#[test]
fn a5_a9_a_handler_that_is_busy_in_a_nested_wait_is_asked_afterwards() {
    let (cx, _clock) = always(4 * MICRO);
    let busy = Kick::new();
    let peer = Rc::new(Peer {
        own: Kick::new(),
        other: busy.clone(),
        armed: Cell::new(false),
        switch: None,
    });
    let nested = peer.clone();
    *busy.on_ready.borrow_mut() = Some(Rc::new(move |busy: &Kick, cx: &Context| {
        busy.says.set(Some(false));
        if busy.count.get() == 1 {
            nested.armed.set(true);
            cx.poll(Wait::AtMost(20 * MICRO)).unwrap();
            assert!(
                !nested.armed.get(),
                "the work came while it was said to be polled"
            );
            no_more_polling(cx);
        }
    }));
    let _registrations = (
        cx.watch_polled(busy.clone(), Interest::READ).unwrap(),
        cx.watch_polled(peer.clone(), Interest::READ).unwrap(),
    );
    busy.says.set(Some(true));
    while busy.count.get() == 0 {
        let _ = cx.poll(Wait::AtMost(20 * MICRO)).unwrap();
    }
    let _ = cx.poll(Wait::AtMost(20 * MICRO)).unwrap();
    assert_eq!(busy.count.get(), 2, "{:?}", busy.log);
    // The closure holds the peer, which holds the handler: a circle.
    *busy.on_ready.borrow_mut() = None;
}

#[test]
fn a5_work_that_is_found_when_polling_was_switched_off_is_not_slept_over() {
    let (cx, _clock) = always(4 * MICRO);
    let kick = Kick::new();
    kick.says.set(Some(false));
    let peer = Rc::new(Peer {
        own: Kick::new(),
        other: kick.clone(),
        armed: Cell::new(true),
        switch: Some(cx.remote()),
    });
    let _registrations = (
        cx.watch_polled(kick.clone(), Interest::READ).unwrap(),
        cx.watch_polled(peer.clone(), Interest::READ).unwrap(),
    );
    // The switch ends this search, and its notification is accepted; the next iteration takes the parameters over.
    assert!(!cx.poll(Wait::Block).unwrap());
    assert_eq!((peer.armed.get(), kick.count.get()), (false, 0));
    let before = cx.now(ClockId::Monotonic);
    assert!(cx.poll(Wait::AtMost(Duration::from_secs(3600))).unwrap());
    assert_eq!(cx.now(ClockId::Monotonic), before, "it slept");
    assert_eq!(*kick.log.borrow(), ["begin", "end", "poll_ready"]);
}

#[test]
fn a5_b5_a_pause_of_another_group_forgets_nobody() {
    let (cx, _clock) = always(4 * MICRO);
    let kick = Kick::new();
    kick.says.set(Some(false));
    let (own, other) = (cx.new_group(), cx.new_group());
    let _registration = cx.watch_polled_in(own, kick.clone(), Interest::READ).unwrap();
    // A notification ends the search while poll mode is on.
    cx.remote().notify();
    let _ = cx.poll(Wait::AtMost(20 * MICRO)).unwrap();
    assert_eq!(*kick.log.borrow(), ["begin"]);
    kick.says.set(Some(true));
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
        kick.says.set(Some(false));
    }
    assert_eq!(kick.count.get(), 1, "{:?}", kick.log);
}
