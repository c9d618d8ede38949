//! Rules R: registering, replacing and removing handlers.

use std::cell::RefCell;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use aio_context::{Context, Handler, Interest, PollParams, Polled, Registration};

use crate::common::{Bench, Kick, Number, Twin, everywhere, watch, watch_polled};

everywhere! {
    r1_a_handler_without_interest_is_only_polled
    r2_a_number_that_is_used_again_never_gets_old_events
    r3_removing_an_unknown_handler_has_no_effect
    r4_hang_ups_go_to_the_reader_or_the_writer
    r4_a_descriptor_that_was_closed_elsewhere_ends_its_registration
    r5_added_by_a_callback_is_seen_by_the_next_wait
    r6_replacing_keeps_begin_and_end_balanced
    r7_one_that_comes_in_poll_mode_gets_its_begin_first
    r8_a_handler_that_removes_itself_outlives_its_callback
    r8_its_drop_may_use_the_context
    r9_removed_while_its_readiness_is_collected
    r9_readable_that_removes_itself_suppresses_writable
    r9_readable_that_replaces_itself_suppresses_the_old_writable
    r11_removed_from_another_thread
    interest_can_be_changed_to_nothing_and_back
}

fn r1_a_handler_without_interest_is_only_polled(bench: Bench) {
    let (cx, kick) = (bench.context(), Kick::new());
    let _registration = cx.watch(Polled(kick.clone()), Interest::NONE).unwrap();
    kick.kick();
    assert!(
        !bench.check(&cx) && kick.polls.get() == 0,
        "it is in no backend, and polling is off"
    );
    cx.set_poll_params(PollParams::up_to(Duration::from_secs(10)));
    if bench.foreign {
        return; // a foreign loop does not poll
    }
    let timer = cx.timer(aio_context::ClockId::Monotonic, |_, _| {}).disarmed();
    while kick.count.get() == 0 {
        timer.arm_after(Duration::from_micros(50));
        bench.block(&cx);
    }
    assert_eq!(*kick.log.borrow(), ["begin", "poll_ready"]);
}

fn r2_a_number_that_is_used_again_never_gets_old_events(bench: Bench) {
    let cx = bench.context();
    let reused = Rc::new(RefCell::new(None::<(Rc<Kick>, Registration)>));
    let victim = Kick::new();
    let number = victim.number();
    let slot = RefCell::new(Some(watch(&cx, &victim)));
    let (killed, fresh) = (RefCell::new(Some(victim.clone())), reused.clone());
    // Both handlers are ready. The first one that is called ends the other one, whose number is then used again.
    let killer = Kick::with(move |_, cx| {
        drop(slot.borrow_mut().take());
        drop(killed.borrow_mut().take());
        if fresh.borrow().is_none() {
            // Other tests of this process take numbers, too, so several tries may be necessary until the number is used again.
            let tries: Vec<_> = (0..50).map(|_| Kick::new()).collect();
            let Some(again) = tries.into_iter().find(|kick| kick.number() == number) else {
                return;
            };
            let registration = watch(cx, &again);
            *fresh.borrow_mut() = Some((again, registration));
        }
    });
    let _killer = watch(&cx, &killer);
    killer.kick();
    victim.kick();
    drop(victim);
    while bench.check(&cx) {}
    if let Some((again, _)) = &*reused.borrow() {
        assert_eq!(again.count.get(), 0, "the event was for the former one");
    }
}

fn r3_removing_an_unknown_handler_has_no_effect(bench: Bench) {
    let (cx, kick) = (bench.context(), Kick::new());
    let token = watch(&cx, &kick).detach();
    assert!(cx.unwatch(token));
    let before = cx.remote().wakeups();
    assert!(!cx.unwatch(token));
    assert_eq!(cx.remote().wakeups(), before, "no wake-up is sent");
    assert!(!bench.check(&cx));
}

/// A stream that logs its callbacks and does not read the data.
struct Logs(UnixStream, RefCell<Vec<&'static str>>);

impl Logs {
    fn pair() -> (Rc<Self>, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        (Rc::new(Self(near, RefCell::default())), far)
    }
    fn take(&self) -> Vec<&'static str> {
        self.1.take()
    }
}

impl AsFd for Logs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Handler for Logs {
    fn readable(&self, _: &Context) {
        self.1.borrow_mut().push("readable");
    }
    fn writable(&self, _: &Context) {
        self.1.borrow_mut().push("writable");
    }
}

fn r4_hang_ups_go_to_the_reader_or_the_writer(bench: Bench) {
    for (interest, expected) in [
        (Interest::READ, vec!["readable"]),
        (Interest::WRITE, vec!["writable"]),
        (Interest::BOTH, vec!["readable", "writable"]),
        (Interest::NONE, vec![]),
    ] {
        let cx = bench.context();
        let (stream, far) = Logs::pair();
        let _registration = cx.watch(stream.clone(), interest).unwrap();
        drop(far);
        assert_eq!(bench.check(&cx), !expected.is_empty());
        assert_eq!(stream.take(), expected, "{interest:?}");
    }
}

fn r4_a_descriptor_that_was_closed_elsewhere_ends_its_registration(bench: Bench) {
    // Safe code cannot close a watched descriptor. Only ppoll detects it at once.
    let (cx, number) = (bench.context(), Number::new());
    let registration = cx.watch(number.clone(), Interest::READ).unwrap();
    number.close();
    // The context is polled directly: until the closed number is detected, it cannot move to the backend for a foreign loop.
    let progress = cx.poll(aio_context::Wait::NoBlock).unwrap();
    if cx.backend_name() == "ppoll" {
        assert_eq!((number.errors.borrow().len(), registration.is_live()), (1, false));
        assert!(progress, "D4: an invalidation is progress");
    }
    assert!(!bench.check(&cx), "and does not spin");
    assert!(number.errors.borrow().len() <= 1);
    let kick = Kick::new();
    let _registration = watch(&cx, &kick);
    kick.kick();
    assert!(bench.block(&cx), "the context goes on");
}

fn r5_added_by_a_callback_is_seen_by_the_next_wait(bench: Bench) {
    let (cx, late) = (bench.context(), Kick::new());
    late.kick();
    let (added, slot) = (late.clone(), RefCell::new(None));
    let first = Kick::with(move |_, cx| *slot.borrow_mut() = Some(watch(cx, &added)));
    let _first = watch(&cx, &first);
    first.kick();
    assert!(bench.block(&cx));
    assert!(bench.block(&cx) || late.count.get() == 1);
    assert_eq!(late.count.get(), 1);
}

fn polling(bench: Bench) -> Option<Context> {
    let cx = bench
        .builder()
        .policy(Box::new(crate::polling::Always))
        .build()
        .unwrap();
    cx.set_poll_params(PollParams::up_to(Duration::from_millis(1)));
    (!bench.foreign).then_some(cx) // a foreign loop does not poll
}

fn balanced(log: &[&str]) {
    let mut begun = false;
    for entry in log {
        match *entry {
            "begin" => assert!(!std::mem::replace(&mut begun, true), "{log:?}"),
            "end" => assert!(std::mem::replace(&mut begun, false), "{log:?}"),
            _ => {}
        }
    }
    assert!(!begun, "{log:?}");
}

fn r6_replacing_keeps_begin_and_end_balanced(bench: Bench) {
    let Some(cx) = polling(bench) else { return };
    let (kick, second) = (Kick::new(), Kick::new());
    kick.has_work.set(Some(true));
    let registration = watch_polled(&cx, &kick);
    assert!(bench.block(&cx));
    registration
        .replace(Polled(Rc::new(Twin(kick.clone(), second.clone()))))
        .unwrap();
    assert_eq!(
        *kick.log.borrow(),
        ["begin", "poll_ready", "end"],
        "the old one gets its end"
    );
    second.has_work.set(Some(true));
    assert!(bench.block(&cx));
    assert_eq!(
        *second.log.borrow(),
        ["begin", "poll_ready"],
        "the new one its begin"
    );
    registration.remove();
    balanced(&second.log.borrow());
    balanced(&kick.log.borrow());
}

fn r7_one_that_comes_in_poll_mode_gets_its_begin_first(bench: Bench) {
    let Some(cx) = polling(bench) else { return };
    let (first, second) = (Kick::new(), Kick::new());
    first.has_work.set(Some(true));
    let a = watch_polled(&cx, &first);
    assert!(bench.block(&cx));
    let b = watch_polled(&cx, &second);
    assert!(bench.block(&cx));
    assert_eq!(*second.log.borrow(), ["begin"]);
    assert!(second.polls.get() > 0);
    drop((a, b));
    balanced(&first.log.borrow());
    balanced(&second.log.borrow());
}

fn r8_a_handler_that_removes_itself_outlives_its_callback(bench: Bench) {
    let cx = bench.context();
    let slot = Rc::new(RefCell::new(None::<Registration>));
    let (own, alive) = (slot.clone(), Rc::new(()));
    let witness = Rc::downgrade(&alive);
    let kick = Kick::with(move |_, cx| {
        drop(own.borrow_mut().take());
        assert!(!bench.check(cx), "nested, it is gone");
        assert_eq!(
            Rc::strong_count(&alive),
            1,
            "but this closure is not freed under us"
        );
    });
    *slot.borrow_mut() = Some(watch(&cx, &kick));
    kick.kick();
    drop(kick);
    assert!(bench.block(&cx));
    assert!(witness.upgrade().is_none(), "dropped when its last user was done");
}

fn r8_its_drop_may_use_the_context(bench: Bench) {
    struct Busy(Rc<Kick>, Context, RefCell<Vec<Registration>>, Rc<Kick>);
    impl AsFd for Busy {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }
    impl Handler for Busy {}
    impl Drop for Busy {
        fn drop(&mut self) {
            self.2.borrow_mut().clear();
            self.1.bottom_half("from a drop", |_| {}).schedule();
            watch(&self.1, &self.3).detach();
        }
    }
    let (cx, others) = (bench.context(), Kick::new());
    let inner = vec![watch(&cx, &Kick::new())];
    let heir = Kick::new();
    let busy = Rc::new(Busy(others, cx.clone(), RefCell::new(inner), heir.clone()));
    let registration = cx.watch(busy, Interest::READ).unwrap();
    drop(registration);
    heir.kick();
    while bench.check(&cx) {}
    assert_eq!(heir.count.get(), 1);
}

fn r9_removed_while_its_readiness_is_collected(bench: Bench) {
    let cx = bench.context();
    let registrations = Rc::new(RefCell::new(Vec::new()));
    let kicks: Vec<_> = (0..2)
        .map(|_| {
            let all = registrations.clone();
            Kick::with(move |_, _| all.borrow_mut().clear())
        })
        .collect();
    registrations
        .borrow_mut()
        .extend(kicks.iter().map(|kick| watch(&cx, kick)));
    kicks.iter().for_each(|kick| kick.kick());
    assert!(bench.block(&cx));
    assert!(!bench.check(&cx));
    assert_eq!(
        kicks[0].count.get() + kicks[1].count.get(),
        1,
        "the other one was removed by the first"
    );
}

/// A stream whose `readable` changes its own registration.
struct Meddler {
    logs: Rc<Logs>,
    slot: Rc<RefCell<Option<Registration>>>,
    replace: bool,
}

impl AsFd for Meddler {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.logs.as_fd()
    }
}

impl Handler for Meddler {
    fn readable(&self, cx: &Context) {
        self.logs.readable(cx);
        if self.replace {
            self.slot
                .borrow()
                .as_ref()
                .unwrap()
                .replace(self.logs.clone())
                .unwrap();
        } else {
            drop(self.slot.borrow_mut().take());
        }
    }
    fn writable(&self, _: &Context) {
        panic!("the old handler is gone");
    }
}

fn meddle(bench: Bench, replace: bool) -> Rc<Logs> {
    let cx = bench.context();
    let (logs, mut far) = Logs::pair();
    let slot = Rc::new(RefCell::new(None));
    let meddler = Rc::new(Meddler {
        logs: logs.clone(),
        slot: slot.clone(),
        replace,
    });
    *slot.borrow_mut() = Some(cx.watch(meddler, Interest::BOTH).unwrap());
    far.write_all(b"x").unwrap();
    assert!(bench.block(&cx));
    assert_eq!(logs.take(), ["readable"]);
    assert_eq!(bench.check(&cx), replace);
    logs
}

fn r9_readable_that_removes_itself_suppresses_writable(bench: Bench) {
    assert!(meddle(bench, false).take().is_empty());
}

fn r9_readable_that_replaces_itself_suppresses_the_old_writable(bench: Bench) {
    assert_eq!(
        meddle(bench, true).take(),
        ["readable", "writable"],
        "the next event goes to the new one"
    );
}

fn r11_removed_from_another_thread(bench: Bench) {
    let (cx, kick) = (bench.context(), Kick::new());
    let token = watch(&cx, &kick).detach();
    let (remote, writer) = (cx.remote(), kick.writer());
    let thread = std::thread::spawn(move || {
        let removed = remote.run_and_wait(move |cx| cx.unwatch(token)).unwrap();
        // From here on no callback starts.
        rustix::io::write(&writer, &1u64.to_ne_bytes()).unwrap();
        removed
    });
    while !thread.is_finished() {
        bench.poll(&cx, aio_context::Wait::AtMost(Duration::from_millis(5)));
    }
    assert!(thread.join().unwrap());
    assert!(kick.is_set() && !bench.check(&cx) && kick.count.get() == 0);
}

fn interest_can_be_changed_to_nothing_and_back(bench: Bench) {
    let cx = bench.context();
    let (stream, mut far) = Logs::pair();
    let registration = cx.watch(stream.clone(), Interest::NONE).unwrap();
    far.write_all(b"x").unwrap();
    assert!(!bench.check(&cx));
    for (interest, expected) in [
        (Interest::READ, vec!["readable"]),
        (Interest::NONE, vec![]),
        (Interest::WRITE, vec!["writable"]),
        (Interest::BOTH, vec!["readable", "writable"]),
    ] {
        registration.set_interest(interest).unwrap();
        assert_eq!(bench.check(&cx), !expected.is_empty());
        assert_eq!(stream.take(), expected);
    }
}
