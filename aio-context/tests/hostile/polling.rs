//! Cases 41 to 43 and 45: handlers that are polled.

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::Duration;

use aio_context::{ClockId, Handler, Interest, Pollable, Polled, Registration};

use crate::common::{Bench, Count, Kick, everywhere, watch, watch_polled};
use crate::fixtures::{MOMENT, is_balanced, polling};

everywhere! {
    case_41_a_poll_that_always_returns_true
    case_42_a_poll_ready_that_consumes_nothing
    case_43_one_without_poll_comes_in_poll_mode
    case_45_removals_inside_the_search
    case_45_a_poll_inside_the_search
}

/// Rules D8 and R10.
fn case_41_a_poll_that_always_returns_true(bench: Bench) {
    let Some(cx) = polling(bench, Duration::from_secs(1)) else {
        return;
    };
    let (greedy, plain, runs) = (Kick::new(), Kick::new(), Count::default());
    greedy.has_work.set(Some(true));
    let _registrations = (watch_polled(&cx, &greedy), watch(&cx, &plain));
    let (of_bh, of_timer) = (runs.clone(), runs.clone());
    let bh = cx.bottom_half("beside", move |_| {
        of_bh.up();
    });
    let timer = cx
        .timer(ClockId::Monotonic, move |_, _| {
            of_timer.up();
        })
        .disarmed();
    for round in 1..=5 {
        plain.kick();
        bh.schedule();
        timer.arm_after(Duration::ZERO);
        for _ in 0..64 {
            assert!(bench.block(&cx));
        }
        assert_eq!((plain.count.get(), runs.get()), (round, 2 * round));
    }
    assert!(greedy.count.get() >= 5 * 63, "and it is not starved either");
}

/// Rule A9: once per iteration.
fn case_42_a_poll_ready_that_consumes_nothing(bench: Bench) {
    let Some(cx) = polling(bench, Duration::from_secs(1)) else {
        return;
    };
    let kick = Kick::new();
    kick.has_work.set(Some(true));
    let _registration = watch_polled(&cx, &kick);
    for calls in 1..=200 {
        assert!(bench.block(&cx));
        assert_eq!(kick.count.get(), calls);
    }
    for calls in 201..=400 {
        assert!(bench.check(&cx));
        assert_eq!(kick.count.get(), calls);
    }
}

/// Rules R10 and A5. (A `Handler` has no `poll` that could be missing; in the original this was a crash.)
fn case_43_one_without_poll_comes_in_poll_mode(bench: Bench) {
    let Some(cx) = polling(bench, Duration::from_micros(50)) else {
        return;
    };
    let (polled, plain) = (Kick::new(), Kick::new());
    polled.has_work.set(Some(true));
    let _polled = watch_polled(&cx, &polled);
    assert!(bench.block(&cx));
    let registration = watch(&cx, &plain);
    polled.has_work.set(Some(false));
    assert!(!bench.poll(&cx, MOMENT), "poll mode is left");
    assert_eq!(*polled.log.borrow(), ["begin", "poll_ready", "end"]);
    plain.kick();
    assert!(bench.block(&cx));
    // A handler without a poll replaces a polled one in poll mode.
    polled.has_work.set(Some(true));
    assert!(bench.block(&cx));
    cx.replace(polled.clone(), Interest::READ).unwrap();
    polled.has_work.set(Some(false));
    assert!(!bench.poll(&cx, MOMENT));
    assert_eq!(*plain.log.borrow(), ["readable"]);
    assert_eq!(
        polled.log.borrow()[3..],
        ["begin", "poll_ready", "end"],
        "balanced"
    );
    drop(registration);
}

/// Drops the given registrations in its `poll`.
struct Remover {
    kick: Rc<Kick>,
    removes: RefCell<Vec<Registration>>,
}

impl AsFd for Remover {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.kick.as_fd()
    }
}

impl Handler for Remover {}

impl Pollable for Remover {
    fn poll(&self) -> bool {
        let removed = self.removes.take();
        drop(removed);
        self.kick.poll()
    }
    fn poll_begin(&self) {
        self.kick.poll_begin();
    }
    fn poll_end(&self) {
        self.kick.poll_end();
    }
}

/// Rules A5 and R9: a handler that is removed during a poll is not polled any more, and gets its `poll_end`.
fn case_45_removals_inside_the_search(bench: Bench) {
    for place in 0..4 {
        let Some(cx) = polling(bench, Duration::from_micros(50)) else {
            return;
        };
        let kicks: Vec<_> = (0..4).map(|_| Kick::new()).collect();
        let remover = Rc::new(Remover {
            kick: kicks[place].clone(),
            removes: RefCell::default(),
        });
        let mut registrations = Vec::new();
        for (number, kick) in kicks.iter().enumerate() {
            registrations.push(if number == place {
                cx.watch(Polled(remover.clone()), Interest::READ).unwrap()
            } else {
                watch_polled(&cx, kick)
            });
        }
        assert!(!bench.poll(&cx, MOMENT));
        // It removes itself, the handler before it and the one after it; the fourth one stays.
        let stays = (place + 2) % 4;
        let kept = registrations.remove(stays);
        *remover.removes.borrow_mut() = registrations;
        assert!(!bench.poll(&cx, MOMENT));
        let polls: Vec<_> = kicks.iter().map(|kick| kick.polls.get()).collect();
        assert!(!bench.poll(&cx, MOMENT));
        for (number, kick) in kicks.iter().enumerate() {
            let was_polled = kick.polls.get() > polls[number];
            assert_eq!(was_polled, number == stays, "{number} of {place}");
        }
        drop(kept);
        for kick in &kicks {
            let log = kick.log.borrow();
            assert!(is_balanced(&log) && log.contains(&"begin"), "{log:?}");
        }
    }
}

/// Polls inside one of its callbacks of polling.
struct Nests {
    kick: Rc<Kick>,
    site: &'static str,
    bench: Bench,
    cx: aio_context::WeakContext,
    nested: Count,
}

impl Nests {
    fn at(&self, site: &str) {
        if self.site == site && self.nested.get() < 20 {
            self.nested.up();
            let cx = self.cx.upgrade().unwrap();
            self.bench.poll(&cx, MOMENT);
            self.bench.check(&cx);
        }
    }
}

impl AsFd for Nests {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.kick.as_fd()
    }
}

impl Handler for Nests {}

impl Pollable for Nests {
    fn poll(&self) -> bool {
        self.at("poll");
        self.kick.poll()
    }
    fn poll_ready(&self, cx: &aio_context::Context) {
        self.kick.poll_ready(cx);
    }
    fn poll_begin(&self) {
        self.kick.poll_begin();
        self.at("begin");
    }
    fn poll_end(&self) {
        self.kick.poll_end();
        self.at("end");
    }
}

/// Rules A5, A9 and D6: no handler is in poll mode while the loop sleeps, however polls are nested.
fn case_45_a_poll_inside_the_search(bench: Bench) {
    for site in ["poll", "begin", "end"] {
        let Some(cx) = polling(bench, Duration::from_micros(50)) else {
            return;
        };
        let kicks = [(); 3].map(|()| Kick::new());
        let nests = Rc::new(Nests {
            kick: kicks[1].clone(),
            site,
            bench,
            cx: cx.downgrade(),
            nested: Count::default(),
        });
        let registrations = [
            watch_polled(&cx, &kicks[0]),
            cx.watch(Polled(nests.clone()), Interest::READ).unwrap(),
            watch_polled(&cx, &kicks[2]),
        ];
        for round in 1..=12 {
            bench.poll(&cx, MOMENT);
            for kick in &kicks {
                let log = kick.log.borrow();
                assert!(is_balanced(&log), "{site}, {round}: {log:?}");
            }
            // Work that arrives now comes with a kick.
            kicks.iter().for_each(|kick| kick.kick());
            while kicks.iter().any(|kick| kick.count.get() < round) {
                assert!(bench.block(&cx));
            }
        }
        assert!(nests.nested.get() > 0);
        drop(registrations);
        assert!(kicks.iter().all(|kick| is_balanced(&kick.log.borrow())));
    }
}
