//! Rule B5: pausing groups of handlers.

use std::time::Duration;

use aio_context::{GroupId, Interest, PollParams, Polled};

use crate::common::{Bench, Kick, everywhere, watch};

everywhere! {
    b5_only_the_group_is_paused
    b5_paused_from_a_callback_of_the_group
    b5_a_handler_registered_while_paused_waits_too
    b5_removed_and_replaced_while_paused
    b5_interest_changed_while_parked
    a5_b5_a_polled_handler_keeps_begin_and_end_balanced
}

fn b5_only_the_group_is_paused(bench: Bench) {
    let (cx, paused, free) = (bench.context(), Kick::new(), Kick::new());
    let group = cx.new_group();
    let _registrations = (
        cx.watch_in(group, paused.clone(), Interest::READ).unwrap(),
        watch(&cx, &free),
    );
    let pause = cx.pause(group);
    paused.kick();
    free.kick();
    assert!(bench.block(&cx));
    assert!(
        !bench.check(&cx),
        "and the paused one does not keep the loop awake"
    );
    assert_eq!((paused.count.get(), free.count.get()), (0, 1));
    drop(pause);
    assert!(bench.block(&cx) && paused.count.get() == 1);
}

fn b5_paused_from_a_callback_of_the_group(bench: Bench) {
    let cx = bench.context();
    let group = cx.new_group();
    let pauses = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let kicks: Vec<_> = (0..2)
        .map(|_| {
            let pauses = pauses.clone();
            Kick::with(move |_, cx| pauses.borrow_mut().push(cx.pause(group)))
        })
        .collect();
    let _registrations: Vec<_> = kicks
        .iter()
        .map(|kick| cx.watch_in(group, kick.clone(), Interest::READ).unwrap())
        .collect();
    kicks.iter().for_each(|kick| kick.kick());
    assert!(bench.block(&cx));
    assert!(!bench.check(&cx));
    assert_eq!(pauses.borrow().len(), 1, "the second one was paused by the first");
    pauses.borrow_mut().clear();
    assert!(bench.block(&cx));
    assert_eq!(kicks[0].count.get() + kicks[1].count.get(), 2);
    pauses.borrow_mut().clear();
}

fn b5_a_handler_registered_while_paused_waits_too(bench: Bench) {
    let (cx, kick) = (bench.context(), Kick::new());
    let pause = cx.pause(GroupId::DEFAULT);
    let _registration = watch(&cx, &kick);
    kick.kick();
    assert!(!bench.check(&cx) && !bench.check(&cx));
    drop(pause);
    assert!(bench.block(&cx) && kick.count.get() == 1);
}

fn b5_removed_and_replaced_while_paused(bench: Bench) {
    let (cx, gone, kept) = (bench.context(), Kick::new(), Kick::new());
    let removed = watch(&cx, &gone);
    let registration = watch(&cx, &kept);
    let pause = cx.pause(GroupId::DEFAULT);
    gone.kick();
    kept.kick();
    assert!(!bench.check(&cx));
    removed.remove();
    registration.replace(kept.clone()).unwrap();
    assert!(!bench.check(&cx));
    drop(pause);
    assert!(bench.block(&cx));
    assert_eq!((gone.count.get(), kept.count.get()), (0, 1));
}

fn b5_interest_changed_while_parked(bench: Bench) {
    let (cx, kick) = (bench.context(), Kick::new());
    let registration = watch(&cx, &kick);
    let pause = cx.pause(GroupId::DEFAULT);
    kick.kick();
    assert!(!bench.check(&cx));
    registration.set_interest(Interest::NONE).unwrap();
    registration.set_interest(Interest::READ).unwrap();
    assert!(!bench.check(&cx));
    drop(pause);
    assert!(bench.block(&cx) && kick.count.get() == 1);
}

fn a5_b5_a_polled_handler_keeps_begin_and_end_balanced(bench: Bench) {
    if bench.foreign {
        return; // a foreign loop does not poll
    }
    let cx = bench
        .builder()
        .policy(Box::new(crate::polling::Always))
        .build()
        .unwrap();
    cx.set_poll_params(PollParams::up_to(Duration::from_millis(1)));
    let (paused, free) = (Kick::new(), Kick::new());
    let group = cx.new_group();
    let registration = cx
        .watch_in(group, Polled(paused.clone()), Interest::READ)
        .unwrap();
    let _free = crate::common::watch_polled(&cx, &free);
    free.kick();
    assert!(bench.block(&cx));
    assert_eq!(*paused.log.borrow(), ["begin"]);
    let pause = cx.pause(group);
    assert_eq!(*paused.log.borrow(), ["begin", "end"]);
    let polls = paused.polls.get();
    paused.kick();
    free.kick();
    assert!(bench.block(&cx));
    assert_eq!(
        (paused.polls.get(), paused.count.get()),
        (polls, 0),
        "not even polled"
    );
    drop(pause);
    assert!(bench.block(&cx));
    while paused.count.get() == 0 {
        bench.block(&cx);
    }
    registration.remove();
    let begins = paused
        .log
        .borrow()
        .iter()
        .filter(|entry| **entry == "begin")
        .count();
    let ends = paused
        .log
        .borrow()
        .iter()
        .filter(|entry| **entry == "end")
        .count();
    assert_eq!(begins, ends);
}
