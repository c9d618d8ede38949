//! Sources that join, are replaced, suspended and removed, also from callbacks.

use std::cell::Cell;
use std::rc::Rc;

use aio_backend::Token;

use super::{Hook, Other, Probe, exit, join, log, on_purpose, panics, polls, round, scene, set_hook, token};
use crate::{PollSet, Source};

#[test]
fn r7_a_panic_in_poll_begin_leaves_the_others_to_begin_before_they_are_polled() {
    let (set, probes) = scene(5);
    set_hook(&probes[1].at_begin, |_| on_purpose());
    panics(|| set.enter());
    for probe in &probes {
        set_hook(&probe.at_poll, |this| assert_eq!(this.log.borrow()[0], "begin"));
    }
    assert!(round(&set).is_empty());
    assert_eq!(polls(&probes), [1; 5]);
    exit(&set);
    assert!(probes.iter().all(|probe| log(probe) == ["begin", "end"]));
}

#[test]
fn r7_a_source_that_joins_in_poll_mode_begins_before_it_is_polled() {
    let (set, _probes) = scene(1);
    set.enter();
    let late = Probe::new();
    join(&set, 1, &late);
    assert_eq!(log(&late), [""; 0]);
    set.enter();
    assert_eq!(log(&late), ["begin"]);
    // The same without another `enter`, and for a source that joins inside a round.
    let (second, third) = (Probe::new(), Probe::new());
    join(&set, 2, &second);
    let (weak, joining, once) = (Rc::downgrade(&set), third.clone(), Cell::new(true));
    set_hook(&second.at_poll, move |second| {
        assert_eq!(log(second), ["begin"]);
        if once.replace(false) {
            join(&weak.upgrade().unwrap(), 3, &joining);
        }
    });
    set_hook(&third.at_poll, |third| assert_eq!(log(third), ["begin"]));
    round(&set);
    assert_eq!((second.polls.get(), third.polls.get()), (1, 0));
    round(&set);
    assert_eq!((second.polls.get(), third.polls.get()), (2, 1));
}

#[test]
fn r7_a_source_that_joins_from_inside_a_poll_begin_has_its_own_first() {
    let (set, probes) = scene(1);
    let late = Probe::new();
    let (weak, joining) = (Rc::downgrade(&set), late.clone());
    set_hook(&probes[0].at_begin, move |_| {
        join(&weak.upgrade().unwrap(), 1, &joining);
    });
    set_hook(&late.at_poll, |late| assert_eq!(log(late), ["begin"]));
    set.enter();
    round(&set);
    round(&set);
    assert!(late.polls.get() >= 1);
}

#[test]
fn r6_a_replacement_keeps_begin_and_end_balanced() {
    for other_type in [false, true] {
        let (set, probes) = scene(3);
        set.enter();
        let new = Probe::with_work(true);
        let owed = if other_type {
            set.join(token(0), Other(new.clone()))
        } else {
            set.join(token(0), new.clone())
        };
        assert!(owed.is_owed() && log(&probes[0]) == ["begin"]);
        owed.finish(|| probes[0].poll_end());
        assert_eq!(round(&set), [0]);
        assert_eq!(log(&new), ["begin"]);
        assert_eq!(exit(&set).1, [0]);
        assert_eq!(
            (log(&new), log(&probes[0])),
            (vec!["begin", "end"], vec!["begin", "end"])
        );
        assert_eq!(probes[0].polls.get(), 0);
        assert_eq!((set.len(), Rc::strong_count(&probes[0])), (3, 1));
    }
}

#[test]
fn a5_r6_a_source_that_is_replaced_while_poll_mode_is_left_is_polled_once_more() {
    for at_poll in [false, true] {
        let (set, probes) = scene(4);
        set.enter();
        let new = Probe::with_work(true);
        let (weak, once) = (Rc::downgrade(&set), Cell::new(Some(new.clone())));
        let hook = if at_poll {
            &probes[0].at_poll
        } else {
            &probes[0].at_end
        };
        set_hook(hook, move |_| {
            if let Some(new) = once.take() {
                let is_owed = weak.upgrade().unwrap().join(token(2), new).is_owed();
                assert_eq!(is_owed, !at_poll, "at the last poll it has been ended");
            }
        });
        let hits = if at_poll { vec![] } else { vec![2] };
        assert_eq!(
            exit(&set),
            (true, hits),
            "the last polls find a source replaced before them"
        );
        assert_eq!(exit(&set), (true, vec![2]));
        assert_eq!(probes[2].polls.get(), 0);
    }
}

#[test]
fn a5_r6_a_source_that_replaces_itself_in_its_last_poll_answers_for_itself_only() {
    let (set, probes) = scene(2);
    set.enter();
    let (weak, new) = (Rc::downgrade(&set), Probe::with_work(true));
    let joining = new.clone();
    set_hook(&probes[0].at_poll, move |_| {
        let set = weak.upgrade().unwrap();
        assert!(!set.join(token(0), joining.clone()).is_owed());
    });
    assert_eq!(
        exit(&set),
        (true, vec![]),
        "the former one had no work, the new one was not polled"
    );
    assert_eq!(exit(&set), (true, vec![0]));
    assert_eq!(new.polls.get(), 1);
}

#[test]
fn a5_r6_a_source_that_is_replaced_in_each_poll_begin_is_found_all_the_same() {
    fn replaced(set: &Rc<PollSet>) -> Rc<Probe> {
        let (probe, weak) = (Probe::with_work(true), Rc::downgrade(set));
        set_hook(&probe.at_begin, move |this| {
            let set = weak.upgrade().unwrap();
            let owed = set.join(token(0), replaced(&set));
            owed.finish(|| this.poll_end());
        });
        probe
    }
    let set = Rc::new(PollSet::new());
    let _ = set.join(token(0), replaced(&set));
    set.enter();
    assert_eq!(round(&set), [0]);
    assert_eq!(exit(&set), (true, vec![0]));
}

#[test]
fn r6_a_source_that_replaces_itself_in_its_poll_gives_no_answer() {
    let (set, probes) = scene(2);
    set.enter();
    probes[0].has_work.set(true);
    let (weak, new) = (Rc::downgrade(&set), Probe::new());
    let joining = new.clone();
    set_hook(&probes[0].at_poll, move |this| {
        let set = weak.upgrade().unwrap();
        set.join(token(0), joining.clone()).finish(|| this.poll_end());
    });
    assert!(round(&set).is_empty());
    assert_eq!(set.serve(token(0), || ()), None);
    assert_eq!(log(&probes[0]), ["begin", "end"]);
    assert!(round(&set).is_empty() && new.polls.get() == 1);
}

#[test]
fn r2_a_former_generation_gives_way_and_is_not_found() {
    let (set, probes) = scene(1);
    set.enter();
    let new = Probe::with_work(true);
    let next = Token::new(0, 2);
    let owed = set.join(next, new.clone());
    assert!(owed.is_owed());
    owed.finish(|| probes[0].poll_end());
    assert!(!set.contains(token(0)) && set.contains(next) && set.len() == 1);
    assert!(!set.leave(token(0)).is_owed() && !set.promote(token(0)));
    assert_eq!(round(&set), [0]);
    assert_eq!((probes[0].polls.get(), Rc::strong_count(&probes[0])), (0, 1));
}

#[test]
fn r9_a_source_that_leaves_is_not_polled_by_the_walk_that_is_under_way() {
    let (set, probes) = scene(6);
    set.enter();
    let (weak, all) = (Rc::downgrade(&set), probes.clone());
    let hook = move |this: &Probe| {
        let set = weak.upgrade().unwrap();
        for (index, probe) in all.iter().enumerate() {
            if !std::ptr::eq(&raw const **probe, &raw const *this) && set.contains(token(index)) {
                set.leave(token(index)).finish(|| probe.poll_end());
                assert!(!set.contains(token(index)));
            }
        }
    };
    let hook: Hook = Rc::new(hook);
    probes
        .iter()
        .for_each(|probe| drop(probe.at_poll.replace(Some(hook.clone()))));
    round(&set);
    assert_eq!(polls(&probes).iter().sum::<u32>(), 1);
    assert_eq!((set.len(), set.promoted()), (1, 1));
    round(&set);
    assert_eq!(polls(&probes).iter().sum::<u32>(), 1);
    exit(&set);
    assert!(probes.iter().all(|probe| log(probe) == ["begin", "end"]));
    probes.iter().for_each(|probe| drop(probe.at_poll.take()));
}

#[test]
fn r8_a_source_that_leaves_in_its_own_poll_is_dropped_after_it() {
    struct Last(Rc<PollSet>, Rc<Cell<bool>>);
    impl Source for Last {
        fn poll(&self) -> bool {
            let _ = self.0.leave(token(0));
            assert!(!self.1.get(), "it is being used");
            true
        }
    }
    impl Drop for Last {
        fn drop(&mut self) {
            self.1.set(true);
            // Its drop may use the set.
            let _ = self.0.join(token(9), Probe::new());
        }
    }
    let (set, dropped) = (Rc::new(PollSet::new()), Rc::new(Cell::new(false)));
    let _ = set.join(token(0), Last(set.clone(), dropped.clone()));
    assert!(round(&set).is_empty(), "a source that has left has no work");
    assert!(dropped.get() && set.contains(token(9)) && set.len() == 1);
}

#[test]
fn d9_a_panic_in_the_drop_of_a_source_leaves_a_set_that_works() {
    struct Fragile;
    impl Source for Fragile {
        fn poll(&self) -> bool {
            true
        }
    }
    impl Drop for Fragile {
        fn drop(&mut self) {
            on_purpose();
        }
    }
    let (set, probes) = scene(2);
    for in_a_walk in [false, true] {
        let _ = set.join(token(4), Fragile);
        let _ = set.join(token(5), Probe::new());
        if in_a_walk {
            let weak = Rc::downgrade(&set);
            set_hook(&probes[0].at_poll, move |_| {
                let set = weak.upgrade().unwrap();
                drop((set.leave(token(4)), set.leave(token(5))));
            });
            panics(|| drop(round(&set)));
        } else {
            panics(|| drop(set.leave(token(4))));
        }
        probes[0].at_poll.take();
        assert!(!set.contains(token(4)) && !set.is_calling());
        let _ = set.leave(token(5));
        polls(&probes);
        assert!(round(&set).is_empty());
        assert_eq!((polls(&probes), set.len()), (vec![1; 2], 2));
    }
}

#[test]
fn b5_a_source_that_is_suspended_in_poll_mode_is_polled_after_it() {
    let (set, probes) = scene(3);
    set.enter();
    let owed = set.suspend(token(1));
    assert!(owed.is_owed() && !set.is_promoted(token(1)) && set.promoted() == 2);
    owed.finish(|| {
        assert!(set.is_calling(), "others may not have had their call yet");
        probes[1].poll_end();
    });
    assert!(!set.is_calling() && !set.suspend(token(1)).is_owed());
    // Work that arrived before came without a notification.
    probes[1].has_work.set(true);
    round(&set);
    assert_eq!(exit(&set), (false, vec![]), "it does not keep the loop awake");
    assert!(!set.needs_exit());
    assert_eq!(polls(&probes), [2, 0, 2]);
    set.resume(token(1));
    assert!(set.needs_exit() && set.is_promoted(token(1)));
    assert_eq!(exit(&set), (true, vec![1]));
    assert_eq!(log(&probes[1]), ["begin", "end"]);
    set.enter();
    assert_eq!(log(&probes[1]), ["begin", "end", "begin"]);
}

#[test]
fn b5_a_hit_of_a_source_that_is_suspended_meanwhile_is_asked_for_anew() {
    let (set, probes) = scene(1);
    set.enter();
    probes[0].has_work.set(true);
    assert_eq!(exit(&set).1, [0]);
    assert!(!set.suspend(token(0)).is_owed());
    assert_eq!(set.serve(token(0), || ()), None);
    assert_eq!(exit(&set), (false, vec![]));
    set.resume(token(0));
    assert_eq!(exit(&set), (true, vec![0]));
}

#[test]
fn b5_a_source_that_suspends_itself_in_its_last_poll_is_polled_after_the_resume() {
    let (set, probes) = scene(2);
    set.enter();
    probes[0].has_work.set(true);
    let weak = Rc::downgrade(&set);
    set_hook(&probes[0].at_poll, move |_| {
        assert!(!weak.upgrade().unwrap().suspend(token(0)).is_owed());
    });
    assert_eq!(exit(&set), (false, vec![]));
    probes[0].at_poll.replace(None);
    set.resume(token(0));
    assert_eq!(exit(&set), (true, vec![0]));
}

#[test]
fn b5_r9_all_of_a_group_are_suspended_before_one_of_them_ends() {
    let (set, probes) = scene(4);
    set.enter();
    let owed: Vec<_> = (0..3).map(|index| set.suspend(token(index))).collect();
    assert!(owed.iter().all(crate::EndOwed::is_owed) && set.promoted() == 1);
    // The first one removes the second and resumes the third.
    let weak = Rc::downgrade(&set);
    let second = probes[1].clone();
    set_hook(&probes[0].at_end, move |_| {
        let set = weak.upgrade().unwrap();
        set.leave(token(1)).finish(|| second.poll_end());
        set.resume(token(2));
    });
    for (owed, probe) in owed.into_iter().zip(&probes) {
        owed.finish(|| probe.poll_end());
    }
    assert!((0..3).all(|index| log(&probes[index]) == ["begin", "end"]));
    assert!(round(&set).is_empty());
    assert_eq!(polls(&probes), [0, 0, 1, 1]);
    assert_eq!(log(&probes[2]), ["begin", "end", "begin"], "R7");
}
