//! Demotion and promotion (rule A8).

use std::cell::Cell;
use std::ops::ControlFlow;
use std::rc::Rc;

use aio_backend::Token;

use super::{
    Probe, busy_rounds, demote, exit, log, on_purpose, panics, polls, round, scene, set_hook, token,
};
use crate::PollSet;

#[test]
fn a8_idle_sources_leave_with_an_end_and_a_last_poll_and_are_not_polled() {
    let (set, probes) = scene(6);
    set.enter();
    busy_rounds(&set, &probes[3], 8);
    polls(&probes);
    assert_eq!(demote(&set, 9), [] as [usize; 0]);
    assert_eq!(set.promoted(), 6, "they were idle for eight rounds");
    busy_rounds(&set, &probes[3], 1);
    polls(&probes);
    set.forget_hit(token(3));
    assert_eq!(demote(&set, 9), [] as [usize; 0]);
    assert_eq!((set.promoted(), set.len()), (1, 6));
    assert_eq!(polls(&probes), [1, 1, 1, 0, 1, 1]);
    round(&set);
    assert_eq!(polls(&probes), [0, 0, 0, 1, 0, 0]);
    assert_eq!(log(&probes[0]), ["begin", "end"]);
    assert!(!set.is_promoted(token(0)) && set.is_promoted(token(3)));
    exit(&set);
    assert_eq!(log(&probes[0]), ["begin", "end"]);
    assert!(polls(&probes)[0] == 0 && !set.needs_exit());
}

#[test]
fn a8_the_next_event_brings_a_source_back() {
    let (set, probes) = scene(3);
    set.enter();
    busy_rounds(&set, &probes[0], 5);
    demote(&set, 3);
    assert_eq!(set.promoted(), 1);
    assert!(set.promote(token(2)) && set.promoted() == 2);
    polls(&probes);
    round(&set);
    assert_eq!(polls(&probes), [1, 0, 1]);
    assert_eq!(log(&probes[2]), ["begin", "end", "begin"]);
    demote(&set, 3);
    assert_eq!(set.promoted(), 2, "it is not idle any more");
}

#[test]
fn a8_as_long_as_nothing_happens_no_source_ages() {
    let (set, _probes) = scene(3);
    (0..1000).for_each(|_| drop(round(&set)));
    demote(&set, 1);
    assert_eq!(set.promoted(), 3);
}

#[test]
fn a8_surplus_and_may_leave_decide_which_sources_leave() {
    let (set, probes) = scene(10);
    busy_rounds(&set, &probes[0], 5);
    let seen = Cell::new((0, 0));
    let may_leave = |token: Token| token.index() != 4;
    let surplus = |all, idle| {
        seen.set((all, idle));
        3
    };
    set.demote_idle(3, may_leave, surplus, |_| ControlFlow::Continue(()));
    assert_eq!((seen.get(), set.promoted()), ((10, 8), 7));
    assert!(set.is_promoted(token(4)));
}

#[test]
fn a8_a_source_that_may_not_leave_is_asked_about_again_when_it_is_old_once_more() {
    let (set, probes) = scene(2);
    let asked = Cell::new(0);
    let may_leave = |_: Token| {
        asked.set(asked.get() + 1);
        false
    };
    for (rounds, expected) in [(5, 1), (4, 1), (1, 2)] {
        busy_rounds(&set, &probes[0], rounds);
        set.demote_idle(5, may_leave, |_, idle| idle, |_| ControlFlow::Continue(()));
        assert_eq!(asked.get(), expected);
    }
    assert_eq!(set.promoted(), 2);
}

#[test]
fn a8_a_yes_on_the_way_out_keeps_a_source() {
    let (set, probes) = scene(4);
    set.enter();
    busy_rounds(&set, &probes[0], 5);
    let late = probes[1].clone();
    set_hook(&probes[1].at_end, move |_| late.has_work.set(true));
    assert_eq!(demote(&set, 3), [1]);
    assert!(set.is_promoted(token(1)) && !set.is_promoted(token(2)));
    assert_eq!(set.serve(token(1), || ()), Some(()));
    round(&set);
    assert_eq!(log(&probes[1]), ["begin", "end", "begin"]);
    probes[1].at_end.take();
}

#[test]
fn a8_d9_a_panic_on_the_way_out_keeps_a_source_and_its_work() {
    for at_poll in [false, true] {
        let (set, probes) = scene(3);
        set.enter();
        busy_rounds(&set, &probes[0], 5);
        let hook = if at_poll {
            &probes[1].at_poll
        } else {
            &probes[1].at_end
        };
        set_hook(hook, |this| {
            this.has_work.set(true);
            on_purpose();
        });
        panics(|| drop(demote(&set, 3)));
        probes[1].at_poll.take();
        assert!(set.is_promoted(token(1)));
        assert_eq!(round(&set), [1]);
        assert_eq!(log(&probes[1]), ["begin", "end", "begin"]);
    }
}

#[test]
fn b5_r9_a8_a_source_changes_itself_while_it_is_demoted() {
    let acts: [fn(&PollSet); 3] = [
        |set| drop(set.leave(token(1))),
        |set| assert!(!set.suspend(token(1)).is_owed()),
        |set| drop(set.join(token(1), Probe::with_work(true))),
    ];
    for act in acts {
        let (set, probes) = scene(3);
        set.enter();
        busy_rounds(&set, &probes[0], 5);
        polls(&probes);
        let weak = Rc::downgrade(&set);
        set_hook(&probes[1].at_end, move |_| act(&weak.upgrade().unwrap()));
        assert_eq!(demote(&set, 3), [] as [usize; 0]);
        assert_eq!(probes[1].polls.get(), 0);
        set.resume(token(1));
        let again = exit(&set);
        assert_eq!(again.0, set.is_promoted(token(1)) && !again.1.is_empty());
        assert_eq!(log(&probes[1]), ["begin", "end"]);
    }
}

#[test]
fn a8_a9_a_source_that_is_served_or_waits_to_be_does_not_leave() {
    let (set, probes) = scene(3);
    busy_rounds(&set, &probes[0], 5);
    let excluded = set.exclude(token(1));
    demote(&set, 0);
    assert!(set.is_promoted(token(0)), "its hit was not served");
    assert!(set.is_promoted(token(1)) && !set.is_promoted(token(2)));
    drop(excluded);
}

#[test]
fn a8_a_recheck_promotes() {
    let (set, probes) = scene(2);
    busy_rounds(&set, &probes[0], 5);
    demote(&set, 3);
    assert!(!set.is_promoted(token(1)));
    set.recheck(token(1));
    assert!(set.is_promoted(token(1)) && set.needs_exit());
    assert_eq!(exit(&set), (false, vec![]));
}

#[test]
fn a8_the_counter_of_rounds_may_wrap_around() {
    let (set, probes) = scene(3);
    set.state().rounds.set(u32::MAX - 3);
    set.state().last_event.set(u32::MAX - 3);
    set.resume(token(0));
    for index in 0..3 {
        let _ = set.suspend(token(index));
        set.resume(token(index));
    }
    busy_rounds(&set, &probes[0], 8);
    assert!(set.rounds() < 10);
    demote(&set, 7);
    assert_eq!(set.promoted(), 1);
    // A source that stays promoted for three thousand million rounds is old all the time.
    let (set, probes) = scene(2);
    for _ in 0..6 {
        set.state().rounds.set(set.rounds().wrapping_add(1 << 29));
        busy_rounds(&set, &probes[0], 1);
        set.demote_idle(700, |_| true, |_, _| 0, |_| ControlFlow::Continue(()));
    }
    set.forget_hit(token(0));
    demote(&set, 700);
    assert_eq!(set.promoted(), 1);
}
