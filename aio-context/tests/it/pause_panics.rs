//! Rules B5, D9: panics while a pause begins, and while it ends.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use aio_backend_ppoll::Ppoll;
use aio_context::{Context, GroupId, Handler, Interest, Paused, Pollable, Polled, Token, Wait, WeakContext};

use crate::common::Kick;
use crate::polling::always;
use aio_testing::{Spoil, spoiled};

const MICRO: Duration = Duration::from_micros(1);

/// A handler that panics when it is invalidated, and in its first `poll_end`, after it has paused its group once more.
struct Fragile {
    has_ended: Cell<bool>,
    kick: Rc<Kick>,
    group: GroupId,
    cx: WeakContext,
    second: Rc<RefCell<Option<Paused>>>,
}

impl AsFd for Fragile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.kick.as_fd()
    }
}

impl Handler for Fragile {
    fn invalidated(&self, _: &Context, _: io::Error) {
        resume_unwind(Box::new("on purpose"));
    }
}

impl Pollable for Fragile {
    fn poll(&self) -> bool {
        false
    }

    fn poll_end(&self) {
        if self.has_ended.replace(true) {
            return;
        }
        let cx = self.cx.upgrade().expect("it is being used");
        *self.second.borrow_mut() = Some(cx.pause(self.group));
        resume_unwind(Box::new("on purpose"));
    }
}

fn fragile(cx: &Context, group: GroupId) -> Fragile {
    Fragile {
        has_ended: Cell::new(false),
        kick: Kick::new(),
        group,
        cx: cx.downgrade(),
        second: Rc::default(),
    }
}

#[test]
fn b5_d9_after_a_panic_when_a_pause_begins_no_handler_is_polled() {
    let (cx, _clock) = always(4 * MICRO);
    let (group, kick) = (cx.new_group(), Kick::new());
    kick.has_work.set(Some(false));
    let first = fragile(&cx, group);
    let second = first.second.clone();
    let _registrations = (
        cx.watch_in(group, Polled(Rc::new(first)), Interest::READ)
            .unwrap(),
        cx.watch_in(group, Polled(kick.clone()), Interest::READ).unwrap(),
    );
    cx.remote().notify();
    let _ = cx.poll(Wait::AtMost(20 * MICRO)).unwrap();
    assert_eq!(*kick.log.borrow(), ["begin"]);
    assert!(catch_unwind(AssertUnwindSafe(|| cx.pause(group))).is_err());
    assert!(second.borrow().is_some(), "the handler has paused it");
    let before = kick.polls.replace(0);
    let _ = cx.poll(Wait::AtMost(20 * MICRO)).unwrap();
    assert_eq!(
        (kick.polls.get(), before > 0),
        (0, true),
        "no handler is polled in a pause"
    );
    // After the pause, a poll finds work without a kick.
    kick.has_work.set(Some(true));
    drop(second.take());
    let _ = cx.poll(Wait::AtMost(20 * MICRO)).unwrap();
    assert_eq!(kick.count.get(), 1, "{:?}", kick.log);
}

/// Refuses to modify the listed descriptors.
#[derive(Debug)]
struct Stubborn(Rc<RefCell<Vec<Token>>>);

impl Spoil for Stubborn {
    const NAME: &'static str = "stubborn";

    fn modify(&mut self, token: Token) -> io::Result<()> {
        if self.0.borrow().contains(&token) {
            return Err(io::Error::from_raw_os_error(9)); // EBADF
        }
        Ok(())
    }
}

#[test]
fn b5_d9_after_a_panic_when_a_pause_ends_every_handler_gets_events() {
    let refused: Rc<RefCell<Vec<Token>>> = Rc::default();
    let backend = spoiled(Ppoll::new(), Stubborn(refused.clone()));
    let cx = Context::builder().backend(Box::new(backend)).build().unwrap();
    let (group, kick) = (cx.new_group(), Kick::new());
    let first = fragile(&cx, group);
    first.kick.kick();
    let registration = cx.watch_in(group, Rc::new(first), Interest::READ).unwrap();
    let _second = cx.watch_in(group, kick.clone(), Interest::READ).unwrap();
    let third = Kick::new();
    let third_one = cx.watch_in(group, third.clone(), Interest::READ).unwrap();
    let pause = cx.pause(group);
    kick.kick();
    third.kick();
    assert!(!cx.poll(Wait::NoBlock).unwrap(), "all are silenced");
    refused
        .borrow_mut()
        .extend([registration.token(), third_one.token()]);
    assert!(catch_unwind(AssertUnwindSafe(|| drop(pause))).is_err());
    assert!(!registration.is_live() && !third_one.is_live());
    assert_eq!(*third.log.borrow(), ["broken"], "it is notified, too");
    assert!(cx.poll(Wait::NoBlock).unwrap() && kick.count.get() == 1);
}
