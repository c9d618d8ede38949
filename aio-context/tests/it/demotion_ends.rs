//! Rule A8 again: the `poll_end` of an idle handler that is demoted may do anything, and the handler is not polled afterwards.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use aio_context::{Context, GroupId, Handler, Interest, Paused, Pollable, Polled, Registration, Wait};

use crate::common::{Count, Kick, watch_polled};
use crate::demotion::{LONG, always_busy, always_polling};

/// An idle handler whose `poll_end` runs `at_end`, once.
struct Leaving {
    kick: Rc<Kick>,
    at_end: RefCell<Option<Box<dyn FnOnce()>>>,
    /// Work without a kick.
    work: Cell<bool>,
    /// Set while it must not be polled.
    untouchable: Cell<bool>,
    /// The number of polls that violated this.
    violations: Count,
    served: Count,
}

impl AsFd for Leaving {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.kick.as_fd()
    }
}

impl Handler for Leaving {
    /// Takes so long that idle handlers are demoted meanwhile.
    fn readable(&self, cx: &Context) {
        self.kick.clear();
        self.untouchable.set(true);
        for _ in 0..LONG {
            assert!(cx.poll(Wait::Block).unwrap());
        }
        self.untouchable.set(false);
    }
}

impl Pollable for Leaving {
    fn poll(&self) -> bool {
        if self.untouchable.get() {
            self.violations.up();
        }
        self.work.get()
    }
    fn poll_ready(&self, _: &Context) {
        self.work.set(false);
        self.served.up();
    }
    fn poll_end(&self) {
        if let Some(action) = self.at_end.take() {
            action();
        }
    }
}

/// A context that polls, a handler that is always busy, and forty idle ones, all in a group.
struct Scene {
    cx: Context,
    group: GroupId,
    leaving: Vec<Rc<Leaving>>,
    registrations: Rc<RefCell<Vec<Option<Registration>>>>,
    _busy: (Rc<Kick>, Registration),
}

impl Scene {
    fn new() -> Self {
        let (cx, _) = always_polling();
        let (group, busy) = (cx.new_group(), always_busy());
        let leaving: Vec<_> = (0..40).map(|_| Rc::new(Leaving::new())).collect();
        let watch = |leaving: &Rc<Leaving>| {
            let watched = cx.watch_in(group, Polled(leaving.clone()), Interest::READ);
            Some(watched.unwrap())
        };
        let registrations = leaving.iter().map(watch).collect();
        let registration = watch_polled(&cx, &busy);
        Self {
            cx,
            group,
            leaving,
            registrations: Rc::new(RefCell::new(registrations)),
            _busy: (busy, registration),
        }
    }

    /// Makes each of them do this in its `poll_end`.
    fn at_end(&self, action: impl Fn(&Rc<Leaving>) + Clone + 'static) {
        for leaving in &self.leaving {
            let (action, weak) = (action.clone(), Rc::downgrade(leaving));
            let action: Box<dyn FnOnce()> = Box::new(move || action(&weak.upgrade().unwrap()));
            leaving.at_end.replace(Some(action));
        }
    }

    fn turn(&self, times: usize) {
        for _ in 0..times {
            let _ = catch_unwind(AssertUnwindSafe(|| self.cx.poll(Wait::Block).unwrap()));
        }
    }

    fn assert_no_violation(&self) {
        assert!(self.leaving.iter().all(|leaving| leaving.violations.get() == 0));
    }

    fn served(&self) -> u32 {
        self.leaving.iter().map(|leaving| leaving.served.get()).sum()
    }

    fn left(&self) -> u32 {
        let left = self
            .leaving
            .iter()
            .filter(|leaving| leaving.at_end.borrow().is_none());
        left.count() as u32
    }
}

impl Leaving {
    fn new() -> Self {
        Self {
            kick: Kick::new(),
            at_end: RefCell::default(),
            work: Cell::default(),
            untouchable: Cell::default(),
            violations: Count::default(),
            served: Count::default(),
        }
    }
}

#[test]
fn b5_a8_a_handler_that_pauses_itself_when_demoted_is_not_polled_before_the_resume() {
    let scene = Scene::new();
    let pause: Rc<RefCell<Option<Paused>>> = Rc::default();
    let (cx, group, kept) = (scene.cx.downgrade(), scene.group, pause.clone());
    let all: Vec<_> = scene.leaving.iter().map(Rc::downgrade).collect();
    scene.at_end(move |leaving| {
        leaving.work.set(true);
        if kept.borrow().is_some() {
            return;
        }
        for other in all.iter().filter_map(std::rc::Weak::upgrade) {
            other.untouchable.set(true);
        }
        let paused = cx.upgrade().unwrap().pause(group);
        kept.replace(Some(paused));
    });
    scene.turn(LONG);
    scene.assert_no_violation();
    assert_eq!(scene.served(), 0);
    for leaving in &scene.leaving {
        leaving.untouchable.set(false);
    }
    drop(pause.take());
    scene.turn(2);
    assert_eq!(scene.left(), 40, "a pause ends poll mode for all of the group");
    assert_eq!(
        scene.served(),
        40,
        "work without a kick is found after the resume"
    );
}

#[test]
fn r9_a8_a_handler_that_removes_itself_when_demoted_is_not_polled() {
    let scene = Scene::new();
    let registrations = scene.registrations.clone();
    let all: Vec<_> = scene.leaving.iter().map(Rc::as_ptr).collect();
    scene.at_end(move |leaving| {
        leaving.work.set(true);
        leaving.untouchable.set(true);
        let place = all
            .iter()
            .position(|other| *other == Rc::as_ptr(leaving))
            .unwrap();
        let own = registrations.borrow_mut()[place].take();
        drop(own);
    });
    scene.turn(LONG);
    assert!(scene.left() > 30);
    scene.assert_no_violation();
    assert_eq!(scene.served(), 0);
}

#[test]
fn d9_a8_a_panic_on_leaving_loses_no_work() {
    let scene = Scene::new();
    scene.at_end(|leaving| {
        leaving.work.set(true);
        panic!("planned");
    });
    // A panic ends the demotions of its iteration, so the others follow in later iterations.
    scene.turn(40 * LONG);
    assert!(scene.left() > 30);
    assert_eq!(scene.served(), scene.left(), "work that came before the panic");
}

#[test]
fn a9_a8_a_handler_is_not_demoted_during_its_call() {
    let scene = Scene::new();
    scene.at_end(|_| ());
    let first = scene.leaving[0].clone();
    first.kick.kick();
    scene.cx.poll(Wait::NoBlock).unwrap();
    while first.kick.is_set() {
        scene.turn(1);
    }
    scene.turn(LONG);
    assert!(scene.left() > 30);
    scene.assert_no_violation();
}
