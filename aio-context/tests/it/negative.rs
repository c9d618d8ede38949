//! Failures of the system and of callers, which must have the specified effects.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use aio_backend_epoll::Epoll;
use aio_backend_ladder::Ladder;
use aio_backend_ppoll::Ppoll;
use aio_context::{Context, Exclusive, HandlerMut, Interest, Readiness, ReadyList, Refused, Token, Wait};

use crate::common::{Kick, Number, watch};
use aio_testing::warnings;
use aio_testing::{Spoil, spoiled};

/// Counts the descriptors, and refuses those from the third one on.
#[derive(Debug)]
struct Full(u32);

impl Spoil for Full {
    const NAME: &'static str = "failing";

    fn add(&mut self, _: Token) -> io::Result<()> {
        self.0 += 1;
        if self.0 < 3 {
            return Ok(());
        }
        Err(io::Error::from_raw_os_error(28)) // ENOSPC
    }
}

fn goes_on(cx: &Context) {
    let kicks: Vec<_> = (0..10).map(|_| Kick::new()).collect();
    let _registrations: Vec<_> = kicks.iter().map(|kick| watch(cx, kick)).collect();
    for _ in 0..3 {
        kicks.iter().for_each(|kick| kick.kick());
        // A poll that may wait, because only that may move to another backend.
        while cx.poll(Wait::AtMost(Duration::from_nanos(1))).unwrap() {}
    }
    assert!(kicks.iter().all(|kick| kick.count.get() == 3));
    assert_eq!(cx.backend_name(), "ppoll", "for good");
}

/// Asserts that there is exactly one warning, and that it names the refused call.
fn one_warning(logged: &[String], parts: [&str; 2]) {
    assert_eq!(logged.len(), 1, "{logged:#?}");
    for part in parts {
        assert!(logged[0].contains(part), "{part} is missing in {}", logged[0]);
    }
}

#[test]
fn b4_no_epoll_descriptor_to_be_had() {
    for (error, part) in [(24, "Too many open files"), (12, "Cannot allocate memory")] {
        let mut tries = 0;
        let make = move || {
            tries += 1;
            assert_eq!(tries, 1, "it is not tried again");
            Err::<Epoll, _>(io::Error::from_raw_os_error(error)) // EMFILE, ENOMEM
        };
        let logged = warnings(|| {
            let ladder = Ladder::new(Ppoll::new(), make, 2);
            goes_on(&Context::builder().backend(Box::new(ladder)).build().unwrap());
        });
        one_warning(&logged, ["create", part]);
    }
}

#[test]
fn b4_epoll_is_full_in_the_middle() {
    for climb_at in [0, 2, 5] {
        let make = || Ok(spoiled(Epoll::new()?, Full(0)));
        let logged = warnings(|| {
            let ladder = Ladder::new(Ppoll::new(), make, climb_at);
            goes_on(&Context::builder().backend(Box::new(ladder)).build().unwrap());
        });
        one_warning(&logged, ["add", "No space left on device"]);
    }
}

/// A loop without failures logs nothing.
#[test]
fn b4_no_refusal_no_warning() {
    let logged = warnings(|| {
        let cx = Context::new().unwrap();
        let kicks: Vec<_> = (0..100).map(|_| Kick::new()).collect();
        let _registrations: Vec<_> = kicks.iter().map(|kick| watch(&cx, kick)).collect();
        kicks.iter().for_each(|kick| kick.kick());
        while cx.poll(Wait::AtMost(Duration::from_nanos(1))).unwrap() {}
        assert_eq!(cx.backend_name(), "epoll");
    });
    assert!(logged.is_empty(), "{logged:#?}");
}

/// A backend whose wait fails once.
#[derive(Debug)]
struct Sleepless(bool);

impl Spoil for Sleepless {
    const NAME: &'static str = "sleepless";

    fn wait(&mut self, _: &mut Option<Duration>, _: &mut ReadyList) -> io::Result<()> {
        if std::mem::take(&mut self.0) {
            return Err(io::Error::from_raw_os_error(9)); // EBADF
        }
        Ok(())
    }
}

#[test]
fn b4_an_error_that_concerns_the_loop_names_the_call_and_the_remedy() {
    let names = |why: io::Error, parts: &[&str], errno: i32| {
        let text = why.to_string();
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        let refused = why
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Refused>())
            .unwrap();
        assert_eq!(refused.source.raw_os_error(), Some(errno));
    };
    let backend = spoiled(Epoll::new().unwrap(), Sleepless(true));
    let cx = Context::builder().backend(Box::new(backend)).build().unwrap();
    let why = cx.poll(Wait::NoBlock).unwrap_err();
    names(why, &["wait", "sleepless", "os error 9", "look for a close()"], 9);
    assert!(!cx.poll(Wait::NoBlock).unwrap(), "and the loop goes on");

    let backend = spoiled(Epoll::new().unwrap(), Full(1));
    let cx = Context::builder().backend(Box::new(backend)).build().unwrap();
    let why = cx.watch(Kick::new(), Interest::READ).unwrap_err();
    names(
        why.into(),
        &["add a descriptor", "os error 28", "max_user_watches"],
        28,
    );
}

/// A backend that reports its first descriptor, the loop's own, as closed.
#[derive(Debug)]
struct Robbed(Option<Token>, Rc<Cell<bool>>);

impl Spoil for Robbed {
    const NAME: &'static str = "robbed";

    fn add(&mut self, token: Token) -> io::Result<()> {
        self.0.get_or_insert(token);
        Ok(())
    }
    fn wait(&mut self, timeout: &mut Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        if let (Some(own), true) = (self.0, self.1.get()) {
            ready.push(own, Readiness::NVAL);
        }
        *timeout = Some(Duration::ZERO);
        Ok(())
    }
}

/// The closed eventfd would end every wait at once: without an error, the caller would spin.
#[test]
fn r4_a_loop_whose_own_eventfd_was_closed_reports_it_and_works() {
    let closed = Rc::new(Cell::new(false));
    let backend = spoiled(Epoll::new().unwrap(), Robbed(None, closed.clone()));
    let cx = Context::builder().backend(Box::new(backend)).build().unwrap();
    let kick = Kick::new();
    let _registration = watch(&cx, &kick);
    kick.kick();
    closed.set(true);
    for _ in 0..3 {
        let why = cx.poll(Wait::Block).unwrap_err().to_string();
        assert!(
            why.contains("os error 9") && why.contains("does not own"),
            "{why}"
        );
    }
    assert_eq!(kick.count.get(), 1);
    closed.set(false);
    kick.kick();
    assert!(cx.poll(Wait::Block).unwrap() && kick.count.get() == 2);
}

/// The system refuses the new handler, and then the former one, too. No handler may stay registered without events.
#[test]
fn r3_a_replacement_that_fails_twice_invalidates_the_handler() {
    // The backend accepts the descriptors of the doorbell and of the first handler only.
    let backend = spoiled(Epoll::new().unwrap(), Full(0));
    let cx = Context::builder().backend(Box::new(backend)).build().unwrap();
    let kick = Kick::new();
    let registration = watch(&cx, &kick);
    let why = registration.replace(kick.clone()).unwrap_err();
    assert_eq!(why.raw_os_error(), Some(28));
    assert_eq!(*kick.log.borrow(), ["broken"]);
    assert!(!registration.is_live());
    kick.kick();
    assert!(!cx.poll(Wait::NoBlock).unwrap());
}

#[test]
fn r4_a_closed_number_is_reported_once_and_does_not_spin() {
    let number = Number::new();
    let logged = warnings(|| {
        let cx = Context::builder()
            .backend(Box::new(Ppoll::new()))
            .build()
            .unwrap();
        let registration = cx.watch(number.clone(), Interest::READ).unwrap();
        let kick = Kick::new();
        let _kick = watch(&cx, &kick);
        assert_eq!(cx.anomalies(), (0, 0));
        number.close();
        cx.poll(Wait::NoBlock).unwrap();
        assert!(!registration.is_live());
        assert_eq!(cx.anomalies(), (0, 1));
        for served in 1..=3 {
            assert!(!cx.poll(Wait::NoBlock).unwrap(), "nothing is left of it");
            kick.kick();
            assert!(cx.poll(Wait::Block).unwrap() && kick.count.get() == served);
        }
    });
    let errors = number.errors.take();
    assert_eq!((errors.len(), logged.len()), (1, 1), "{errors:?} {logged:#?}");
    assert!(errors[0].contains("closed while it was registered"), "{errors:?}");
    assert!(logged[0].contains("not watched any longer"), "{}", logged[0]);
}

/// Counts invalidations.
struct Invalidations(u32);

impl HandlerMut<Rc<Number>> for Invalidations {
    fn invalidated(&mut self, _: &Context, _: io::Error) {
        self.0 += 1;
    }
}

#[test]
fn r4_closures_and_exclusive_handlers_are_notified_of_invalidation() {
    let builder = Context::builder().backend(Box::new(Ppoll::new()));
    let cx = builder.build().unwrap();
    let calls = Rc::new(Cell::new(0));
    let counted = calls.clone();
    let number = Number::new();
    let on = cx.on(number.clone()).readable(|_, _| {});
    let closure = on.invalidated(move |_, _, why| {
        assert_eq!(why.raw_os_error(), None, "{why}");
        counted.set(counted.get() + 1);
    });
    let closure = closure.watch().unwrap();
    number.close();
    let _ = cx.poll(Wait::NoBlock);
    assert_eq!((calls.get(), closure.is_live()), (1, false));
    let number = Number::new();
    let exclusive = Rc::new(Exclusive::new(number.clone(), Invalidations(0)));
    let registration = cx.watch(exclusive.clone(), Interest::READ).unwrap();
    number.close();
    let _ = cx.poll(Wait::NoBlock);
    assert_eq!(
        (exclusive.with(|count| count.0), registration.is_live()),
        (Some(1), false)
    );
}

#[test]
fn h9_a_context_dropped_with_bottom_halves_scheduled_names_them() {
    let logged = warnings(|| {
        let cx = Context::new().unwrap();
        let [late, idle, ran, cancelled, deleted] =
            ["late", "idle", "ran", "cancelled", "deleted"].map(|name| cx.bottom_half(name, |_| {}));
        ran.schedule();
        assert!(cx.poll(Wait::NoBlock).unwrap());
        late.schedule();
        idle.schedule_idle();
        cancelled.schedule();
        cancelled.cancel();
        deleted.schedule();
        deleted.delete();
        drop(cx);
        drop((late, idle, ran));
    });
    one_warning(&logged, [r#"["late", "idle"]"#, "bottom halves still scheduled"]);
}

#[test]
fn h9_those_that_an_unfinished_iteration_has_taken_are_named_too() {
    let logged = warnings(|| {
        let cx = Context::new().unwrap();
        let bad = cx.bottom_half("bad", |_| panic!("on purpose"));
        let left = cx.bottom_half("left in line", |_| {});
        bad.schedule();
        left.schedule();
        let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| cx.poll(Wait::NoBlock)));
        assert!(polled.is_err());
        drop(cx);
    });
    one_warning(&logged, [r#"["left in line"]"#, "bottom halves still scheduled"]);
}

#[test]
fn h9_nothing_scheduled_nothing_said() {
    let logged = warnings(|| {
        let cx = Context::new().unwrap();
        let bh = cx.bottom_half("quiet", |_| {});
        bh.schedule();
        while cx.poll(Wait::NoBlock).unwrap() {}
        drop(cx);
    });
    assert!(logged.is_empty(), "{logged:#?}");
}

#[test]
fn d7_a_context_stays_on_its_thread() {
    // A compile_fail example in the documentation of `Context` proves this. Only its remote moves between threads.
    fn travels<T: Send + Sync>() {}
    travels::<aio_context::Remote>();
    travels::<aio_context::BottomHalf>();
}

#[test]
fn handles_that_outlive_their_context_do_nothing() {
    let cx = Context::new().unwrap();
    let kick = Kick::new();
    let registration = watch(&cx, &kick);
    let bh = cx.bottom_half("outlives", |_| {});
    let timer = cx.timer(aio_context::ClockId::Monotonic, |_, _| {}).disarmed();
    let pause = cx.pause(aio_context::GroupId::DEFAULT);
    let (remote, weak) = (cx.remote(), cx.downgrade());
    drop(cx);
    assert!(weak.upgrade().is_none() && !registration.is_live());
    assert!(registration.set_interest(Interest::NONE).is_err() && registration.replace(kick).is_err());
    bh.schedule();
    timer.arm_after(Duration::ZERO);
    assert!(timer.deadline().is_none());
    remote.kick();
    remote.notify();
    drop((registration, bh, timer, pause));
}
