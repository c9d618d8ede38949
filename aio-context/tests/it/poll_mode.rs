//! Rules A: poll mode, in which peers need not kick: its begins and ends are balanced, and the last poll finds work.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use aio_context::{ClockId, Context, Interest, PollParams, Polled, Wait};

use crate::common::{Count, Kick, watch, watch_polled};
use crate::polling::{Late, always};

#[test]
fn a5_leaving_poll_mode_polls_one_last_time() {
    let (cx, _) = always(Duration::from_millis(2));
    let kick = Kick::new();
    // It gets work just after the kicks were enabled, and no kick comes.
    let registration = watch_polled(&cx, &kick);
    kick.has_work.set(Some(false));
    assert!(!cx.poll(Wait::AtMost(Duration::from_millis(10))).unwrap());
    assert_eq!(*kick.log.borrow(), ["begin", "end"]);
    let before = kick.polls.get();
    assert!(!cx.poll(Wait::AtMost(Duration::from_millis(3))).unwrap());
    assert!(kick.polls.get() - before >= 2, "a round, and the last poll");
    drop(registration);
    assert_eq!(
        kick.log
            .borrow()
            .iter()
            .filter(|entry| **entry == "begin")
            .count(),
        2
    );
    assert_eq!(
        kick.log.borrow().iter().filter(|entry| **entry == "end").count(),
        2
    );
}

#[test]
fn a5_a_hit_of_the_last_poll_makes_the_wait_non_blocking() {
    let (cx, _) = always(Duration::from_millis(2));
    let kick = Kick::new();
    let _registration = cx
        .watch(Polled(Rc::new(Late(kick.clone()))), Interest::READ)
        .unwrap();
    assert!(cx.poll(Wait::Block).unwrap(), "it would sleep for ever otherwise");
    assert_eq!(*kick.log.borrow(), ["begin", "end", "poll_ready"]);
}

#[test]
fn a5_poll_mode_is_kept_from_hit_to_hit() {
    let (cx, _) = always(Duration::from_secs(1));
    let kick = Kick::new();
    let _registration = watch_polled(&cx, &kick);
    for _ in 0..100 {
        kick.kick();
        assert!(cx.poll(Wait::Block).unwrap());
    }
    let log = kick.log.borrow();
    assert_eq!(log.iter().filter(|entry| **entry == "begin").count(), 1);
    assert!(!log.contains(&"end"));
}

#[test]
fn a5_d9_balanced_after_a_panic_in_each_callback() {
    for site in ["poll_ready", "readable"] {
        let (cx, _) = always(Duration::from_millis(1));
        let kick = Kick::with(|_, _| panic!("on purpose"));
        let registration = if site == "readable" {
            watch(&cx, &kick)
        } else {
            watch_polled(&cx, &kick)
        };
        kick.kick();
        assert!(catch_unwind(AssertUnwindSafe(|| cx.poll(Wait::Block))).is_err());
        assert!(kick.log.borrow().contains(&site));
        assert!(
            !cx.poll(Wait::AtMost(Duration::from_millis(5))).unwrap(),
            "the next poll works"
        );
        drop(registration);
        let log = kick.log.borrow();
        let count = |what| log.iter().filter(|entry| **entry == what).count();
        assert_eq!(count("begin"), count("end"), "{log:?}");
    }
}

/// A callback of polling can shorten the wait that is about to begin.
#[test]
fn t1_a5_a_timer_armed_when_poll_mode_is_left_is_kept() {
    type Hook = Box<dyn Fn()>;
    struct Hooks(Rc<Kick>, [RefCell<Option<Hook>>; 3]);
    impl Hooks {
        fn run(&self, which: usize) {
            let hook = self.1[which].borrow_mut().take();
            hook.into_iter().for_each(|hook| hook());
        }
    }
    impl std::os::fd::AsFd for Hooks {
        fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
            self.0.as_fd()
        }
    }
    impl aio_context::Handler for Hooks {}
    impl aio_context::Pollable for Hooks {
        fn poll(&self) -> bool {
            self.run(1);
            false
        }
        fn poll_begin(&self) {
            self.run(0);
        }
        fn poll_end(&self) {
            self.run(2);
        }
    }
    for which in 0..3 {
        let (cx, clock) = always(Duration::from_millis(1));
        let (shots, idles) = (Count::default(), Count::default());
        let (shot, idle) = (shots.clone(), idles.clone());
        let timer = cx
            .timer(ClockId::Monotonic, move |_, _| {
                shot.up();
            })
            .disarmed();
        let bh = cx.bottom_half("scheduled while polling", move |_| {
            idle.up();
        });
        let (timer, bh) = (Rc::new(timer), Rc::new(bh));
        let (armed, scheduled) = (timer.clone(), bh.clone());
        let hooks = Rc::new(Hooks(Kick::new(), Default::default()));
        *hooks.1[which].borrow_mut() = Some(Box::new(move || {
            armed.arm_after(Duration::from_millis(5));
            scheduled.schedule_idle();
        }));
        let _registration = cx.watch(Polled(hooks), Interest::READ).unwrap();
        while shots.get() == 0 {
            cx.poll(Wait::AtMost(Duration::from_secs(60))).unwrap();
        }
        let now = aio_context::Clock::now(&*clock);
        assert!(
            now <= aio_context::Moment::from_nanos(10_000_000),
            "{which}: {now:?}"
        );
        assert_eq!(idles.get(), 1);
    }
}

/// Makes a context in poll mode, with a handler that had its `poll_begin` and has work from now on.
fn in_poll_mode() -> (Context, Rc<Kick>, aio_context::Registration) {
    let (cx, _clock) = always(Duration::from_micros(10));
    let kick = Kick::new();
    let registration = watch_polled(&cx, &kick);
    kick.has_work.set(Some(true));
    assert!(cx.poll(Wait::Block).unwrap());
    assert_eq!(*kick.log.borrow(), ["begin", "poll_ready"]);
    (cx, kick, registration)
}

#[test]
fn a5_d8_in_poll_mode_a_non_blocking_iteration_polls_too() {
    let (cx, kick, _registration) = in_poll_mode();
    kick.has_work.set(Some(false));
    assert!(!cx.poll(Wait::NoBlock).unwrap());
    kick.has_work.set(Some(true));
    assert!(cx.poll(Wait::NoBlock).unwrap(), "there are no kicks in poll mode");
    assert_eq!(kick.count.get(), 2);
}

#[test]
fn a5_d8_in_poll_mode_a_busy_bottom_half_starves_no_handler() {
    let (cx, kick, _registration) = in_poll_mode();
    let again: Rc<std::cell::OnceCell<aio_context::BottomHalf>> = Rc::default();
    let this = again.clone();
    let busy = cx.bottom_half("busy", move |_| this.get().unwrap().schedule());
    again.set(busy.clone()).unwrap();
    busy.schedule();
    for _ in 0..10 {
        assert!(cx.poll(Wait::Block).unwrap());
    }
    assert!(kick.count.get() >= 10, "served {} times", kick.count.get());
    busy.cancel();
}

#[test]
fn a1_switching_polling_off_leaves_poll_mode_at_the_next_iteration() {
    let (cx, kick, _registration) = in_poll_mode();
    cx.set_poll_params(PollParams::OFF);
    cx.poll(Wait::NoBlock).unwrap();
    assert_eq!(kick.log.borrow()[2..], ["end", "poll_ready"], "one last poll");
    let polls = kick.polls.get();
    assert!(!cx.poll(Wait::NoBlock).unwrap());
    assert_eq!(kick.polls.get(), polls);
}

#[test]
fn a5_handlers_that_come_and_go_inside_the_walk() {
    struct Changes {
        kick: Rc<Kick>,
        cx: Context,
        others: RefCell<Vec<aio_context::Registration>>,
    }
    impl std::os::fd::AsFd for Changes {
        fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
            self.kick.as_fd()
        }
    }
    impl aio_context::Handler for Changes {}
    impl aio_context::Pollable for Changes {
        fn poll(&self) -> bool {
            self.others.borrow_mut().clear();
            let fresh = Kick::new();
            let registration = watch_polled(&self.cx, &fresh);
            self.others.borrow_mut().push(registration);
            false
        }
    }
    let (cx, _) = always(Duration::from_millis(1));
    let victim = Kick::new();
    let changes = Changes {
        kick: Kick::new(),
        cx: cx.clone(),
        others: RefCell::default(),
    };
    changes.others.borrow_mut().push(watch_polled(&cx, &victim));
    let changes = Rc::new(changes);
    let registration = cx.watch(Polled(changes.clone()), Interest::READ).unwrap();
    for _ in 0..5 {
        assert!(!cx.poll(Wait::AtMost(Duration::from_millis(3))).unwrap());
    }
    let log = victim.log.borrow();
    assert!(log.is_empty() || *log == ["begin", "end"], "{log:?}");
    drop(registration);
    changes.others.borrow_mut().clear();
}

#[test]
fn b5_a5_a_handler_paused_in_poll_mode_is_polled_after_its_own_pause() {
    let (cx, _clock) = always(Duration::from_micros(10));
    let groups = [cx.new_group(), cx.new_group()];
    let kicks = [Kick::new(), Kick::new()];
    let _registrations = [0, 1].map(|index: usize| {
        cx.watch_in(groups[index], Polled(kicks[index].clone()), Interest::READ)
            .unwrap()
    });
    assert!(!cx.poll(Wait::AtMost(Duration::from_micros(1))).unwrap());
    let [first, second] = groups.map(|group| cx.pause(group));
    // `poll_end` ends their poll mode; work before that arrived without a kick.
    kicks.iter().for_each(|kick| kick.has_work.set(Some(true)));
    cx.set_poll_params(PollParams::OFF);
    cx.poll(Wait::NoBlock).unwrap();
    drop(first);
    cx.poll(Wait::NoBlock).unwrap();
    assert_eq!((kicks[0].count.get(), kicks[1].count.get()), (1, 0));
    cx.poll(Wait::NoBlock).unwrap();
    drop(second);
    cx.poll(Wait::NoBlock).unwrap();
    assert_eq!((kicks[0].count.get(), kicks[1].count.get()), (1, 1));
}
