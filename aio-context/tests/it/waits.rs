//! Waits: the checks before a sleep, and the state after it.

use std::cell::{Cell, RefCell};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aio_backend_ppoll::Ppoll;
use aio_context::{Clock, Context, Moment, Readiness, ReadyList, Token, Wait};

use crate::common::{Bench, Kick, everywhere, watch};
use aio_testing::{Spoil, spoiled};

everywhere! {
    n2_after_a_wait_a_notification_costs_nothing
    d4_a_wait_with_a_limit_ends_with_the_first_event_or_notification
}

/// A backend that counts the checks before a wait, and whose waits do not sleep. Clones share the counts.
#[derive(Clone, Debug, Default)]
struct NeverSleeps {
    checks: Rc<Cell<u32>>,
    before_waits: Rc<RefCell<Vec<u32>>>,
}

impl Spoil for NeverSleeps {
    const NAME: &'static str = "never-sleeps";

    fn wait(&mut self, timeout: &mut Option<Duration>, _: &mut ReadyList) -> io::Result<()> {
        if *timeout == Some(Duration::ZERO) {
            self.checks.set(self.checks.get() + 1);
        } else {
            self.before_waits.borrow_mut().push(self.checks.take());
            *timeout = Some(Duration::ZERO);
        }
        Ok(())
    }
}

/// The clock is real. The poll has a deadline, so it ends although its waits do not sleep.
#[test]
fn d4_after_progress_the_loop_checks_more_than_once_before_it_sleeps() {
    let counts = NeverSleeps::default();
    let builder = Context::builder().backend(Box::new(spoiled(Ppoll::new(), counts.clone())));
    let cx = builder.build().unwrap();
    let kick = Kick::new();
    let _registration = watch(&cx, &kick);
    kick.kick();
    assert!(cx.poll(Wait::Block).unwrap());
    let checks_before_the_next_wait = || {
        counts.checks.set(0);
        counts.before_waits.borrow_mut().clear();
        assert!(!cx.poll(Wait::AtMost(Duration::from_millis(1))).unwrap());
        counts.before_waits.borrow()[0]
    };
    let checks = checks_before_the_next_wait();
    assert!(
        checks >= 2,
        "{checks} checks before the wait: one is due in any case"
    );
    assert_eq!(
        checks_before_the_next_wait(),
        0,
        "nothing was served: it sleeps at once"
    );
}

/// A clock that stands still, and is not a simulated one.
#[derive(Debug)]
struct Standing(Moment);

impl Clock for Standing {
    fn now(&self) -> Moment {
        self.0
    }
}

/// A bottom half keeps the loop from waiting. The first iteration checks the descriptors, the others only at intervals.
#[test]
fn d8_bottom_halves_that_keep_the_loop_from_waiting_share_a_check() {
    let counts = NeverSleeps::default();
    let builder = Context::builder().backend(Box::new(spoiled(Ppoll::new(), counts.clone())));
    let second = Moment::ZERO.saturating_add(Duration::from_secs(1));
    let cx = builder.monotonic(Arc::new(Standing(second))).build().unwrap();
    let kick = Kick::new();
    let _registration = watch(&cx, &kick);
    let half = cx.bottom_half("busy", |_| {});
    for round in 1..4 {
        counts.checks.set(0);
        half.schedule();
        assert!(cx.poll(Wait::Block).unwrap());
        assert_eq!(counts.checks.get(), 1, "the first one checks");
        for _ in 0..60 {
            half.schedule();
            assert!(cx.poll(Wait::Block).unwrap());
        }
        // One check is due, as the clock does not move.
        let checks = if round == 1 { 2 } else { 1 };
        assert_eq!(counts.checks.get(), checks, "round {round}");
        kick.kick();
        assert!(cx.poll(Wait::NoBlock).unwrap(), "nothing keeps it any longer");
        assert_eq!(kick.count.get(), round);
    }
}

fn notifying_costs_nothing(cx: &Context) {
    let (writes, elided) = cx.remote().wakeups();
    cx.remote().notify();
    assert_eq!(cx.remote().wakeups(), (writes, elided + 1));
}

fn n2_after_a_wait_a_notification_costs_nothing(bench: Bench) {
    let cx = bench.context();
    let kick = Kick::new();
    let _registration = watch(&cx, &kick);
    for waits in 1..4 {
        kick.kick();
        while kick.count.get() < waits {
            bench.block(&cx);
        }
        notifying_costs_nothing(&cx);
        bench.check(&cx);
    }
}

fn d4_a_wait_with_a_limit_ends_with_the_first_event_or_notification(bench: Bench) {
    let cx = bench.context();
    let kick = Kick::new();
    let _registration = watch(&cx, &kick);
    let hour = Wait::AtMost(Duration::from_secs(3600));
    for waits in 1..4 {
        kick.kick();
        assert!(bench.poll(&cx, hour));
        assert_eq!(kick.count.get(), waits);
        // The notification comes before, during or after the next wait.
        let remote = cx.remote();
        let notifier = std::thread::spawn(move || remote.notify());
        assert!(!bench.poll(&cx, hour));
        notifier.join().unwrap();
        // The thread has ended, so this check accepts a late notification.
        bench.check(&cx);
    }
}

/// A backend that panics once, in a wait that sleeps.
#[derive(Debug)]
struct Unwell(bool);

impl Spoil for Unwell {
    const NAME: &'static str = "unwell";

    fn wait(&mut self, timeout: &mut Option<Duration>, _: &mut ReadyList) -> io::Result<()> {
        let falls_ill = *timeout != Some(Duration::ZERO) && std::mem::take(&mut self.0);
        assert!(!falls_ill, "on purpose");
        Ok(())
    }
}

#[test]
fn n2_after_a_wait_that_panicked_a_notification_costs_nothing() {
    let builder = Context::builder().backend(Box::new(spoiled(Ppoll::new(), Unwell(true))));
    let cx = builder.build().unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| cx.poll(Wait::Block))).is_err());
    notifying_costs_nothing(&cx);
    assert!(!cx.poll(Wait::Block).unwrap(), "it was notified");
}

/// A backend that reports a removed registration, as a kernel may if the wait began before the removal.
#[derive(Debug)]
struct Late(Rc<Cell<Option<Token>>>);

impl Spoil for Late {
    const NAME: &'static str = "late";

    fn wait(&mut self, timeout: &mut Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        if let Some(token) = self.0.take() {
            ready.push(token, Readiness::IN);
            *timeout = Some(Duration::ZERO);
        }
        Ok(())
    }
}

#[test]
fn r2_late_events_are_counted_and_call_no_handler() {
    let late: Rc<Cell<Option<Token>>> = Rc::default();
    let builder = Context::builder().backend(Box::new(spoiled(Ppoll::new(), Late(late.clone()))));
    let cx = builder.build().unwrap();
    for count in 1..=3 {
        let kick = Kick::new();
        let registration = watch(&cx, &kick);
        let token = registration.token();
        drop(registration);
        late.set(Some(token));
        assert!(!cx.poll(Wait::NoBlock).unwrap());
        assert_eq!((cx.anomalies(), kick.count.get()), ((count, 0), 0));
    }
}

#[test]
fn n5_a_foreign_loop_that_has_let_go_waits_no_longer() {
    let cx = Context::new().unwrap();
    let embedded = cx.embed().unwrap();
    let _ = embedded.prepare_ms();
    let (writes, elided) = cx.remote().wakeups();
    cx.remote().notify();
    assert_eq!(cx.remote().wakeups(), (writes + 1, elided), "it is about to wait");
    drop(embedded);
    notifying_costs_nothing(&cx);
}
