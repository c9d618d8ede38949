//! Rounds, and entering and leaving poll mode.

use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::rc::Rc;

use super::{Hook, Probe, exit, log, on_purpose, panics, polls, round, scene, set_hook, take, token};

#[test]
fn a3_a_round_polls_every_source_once_and_does_not_stop_at_a_hit() {
    let (set, probes) = scene(5);
    set.enter();
    probes[1].has_work.set(true);
    probes[4].has_work.set(true);
    let mut hits = round(&set);
    hits.sort_unstable();
    assert_eq!((hits, polls(&probes)), (vec![1, 4], vec![1; 5]));
}

#[test]
fn a3_refused_hits_come_first_so_that_all_have_their_turn() {
    for room in [1, 4, 7] {
        let (set, probes) = scene(13);
        probes.iter().for_each(|probe| probe.has_work.set(true));
        let mut served = [0u32; 13];
        for _ in 0..50 {
            let mut hits = Vec::new();
            let found = set.round(|token| {
                if hits.len() == room {
                    return ControlFlow::Break(());
                }
                hits.push(token);
                ControlFlow::Continue(())
            });
            assert!(found && hits.len() == room);
            for token in hits {
                set.serve(token, || ()).expect("it was taken");
                served[token.index() as usize] += 1;
            }
            let (most, least) = (served.iter().max().unwrap(), served.iter().min().unwrap());
            assert!(most - least <= 1, "{room}: {served:?}");
        }
    }
}

#[test]
fn a5_poll_ends_come_before_the_last_polls() {
    let (set, probes) = scene(6);
    let ended: Rc<Cell<u32>> = Rc::default();
    for probe in &probes {
        let count = ended.clone();
        set_hook(&probe.at_end, move |_| count.set(count.get() + 1));
        let count = ended.clone();
        set_hook(&probe.at_poll, move |_| assert_eq!(count.get(), 6));
    }
    set.enter();
    assert_eq!(exit(&set), (false, vec![]));
    assert_eq!(polls(&probes), [1; 6]);
    assert!(probes.iter().all(|probe| log(probe) == ["begin", "end"]));
    assert_eq!(exit(&set), (false, vec![]), "it has been left");
    assert_eq!(polls(&probes), [0; 6]);
}

#[test]
fn a5_poll_mode_is_entered_once() {
    let (set, probes) = scene(2);
    for _ in 0..3 {
        set.enter();
        assert!(round(&set).is_empty() && set.is_on());
    }
    assert_eq!(log(&probes[0]), ["begin"]);
}

#[test]
fn a5_a_no_ends_the_recheck() {
    let (set, probes) = scene(1);
    set.enter();
    probes[0].has_work.set(true);
    assert_eq!(exit(&set), (true, vec![0]));
    probes[0].has_work.set(false);
    assert_eq!(exit(&set), (false, vec![]));
    assert!(!set.needs_exit());
    assert_eq!(polls(&probes), [2]);
}

#[test]
fn a5_d2_more_last_hits_than_there_is_room() {
    let (set, probes) = scene(10);
    set.enter();
    probes.iter().for_each(|probe| probe.has_work.set(true));
    let mut served = Vec::new();
    for _ in 0..4 {
        let mut room = 3;
        let mut hits = Vec::new();
        let must_not_sleep = set.exit(|token| {
            if room == 0 {
                return ControlFlow::Break(());
            }
            room -= 1;
            take(&mut hits, token)
        });
        assert!(must_not_sleep);
        for index in hits {
            set.serve(token(index), || probes[index].has_work.set(false))
                .unwrap();
            served.push(index);
        }
    }
    served.sort_unstable();
    assert_eq!(served, (0..10).collect::<Vec<_>>());
    assert_eq!(exit(&set), (false, vec![]));
}

#[test]
fn a5_d9_a_panic_in_poll_end_keeps_no_other_from_its_own() {
    let (set, probes) = scene(7);
    set.enter();
    for index in [0, 3, 6] {
        set_hook(&probes[index].at_end, |_| on_purpose());
    }
    probes[2].has_work.set(true);
    panics(|| drop(exit(&set)));
    assert!(probes.iter().all(|probe| log(probe) == ["begin", "end"]));
    assert!(!set.is_on() && set.needs_exit());
    assert_eq!(polls(&probes), [0; 7]);
    // The work is found all the same, and each source is polled.
    assert_eq!(exit(&set), (true, vec![2]));
    assert_eq!(polls(&probes), [1; 7]);
    set.enter();
    assert!(probes.iter().all(|probe| log(probe) == ["begin", "end", "begin"]));
}

#[test]
fn a5_d9_a_panic_in_a_last_poll_loses_no_source() {
    let (set, probes) = scene(6);
    set.enter();
    set_hook(&probes[2].at_poll, |_| on_purpose());
    probes[5].has_work.set(true);
    panics(|| drop(exit(&set)));
    assert!(set.needs_exit() && !set.is_on());
    probes[2].at_poll.replace(None);
    assert_eq!(exit(&set), (true, vec![5]));
    assert!(polls(&probes).iter().all(|polls| *polls >= 1));
    set.serve(token(5), || ()).unwrap();
    assert_eq!(exit(&set), (false, vec![]));
    assert_eq!(polls(&probes), [0; 6]);
}

#[test]
fn d9_a_panic_in_poll_leaves_a_set_that_works() {
    let (set, probes) = scene(4);
    set.enter();
    set_hook(&probes[1].at_poll, |_| on_purpose());
    panics(|| drop(round(&set)));
    assert!(!set.is_calling());
    probes[1].at_poll.replace(None);
    polls(&probes);
    assert!(round(&set).is_empty());
    assert_eq!(polls(&probes), [1; 4]);
}

#[test]
fn a5_a_walk_inside_a_walk_polls_nothing() {
    let (set, probes) = scene(3);
    for hooks in [
        |probe: &Probe| &probe.at_begin,
        |probe| &probe.at_poll,
        |probe| &probe.at_end,
    ] as [fn(&Probe) -> &RefCell<Option<Hook>>; 3]
    {
        let weak = Rc::downgrade(&set);
        set_hook(hooks(&probes[0]), move |_| {
            let set = weak.upgrade().unwrap();
            assert!(set.is_calling());
            set.enter();
            assert!(round(&set).is_empty());
            exit(&set);
            assert!(!set.demote_idle(0, |_| true, |_, idle| idle, |_| ControlFlow::Continue(())));
            let mut seen = 0;
            set.for_each_promoted(|_| seen += 1);
            assert_eq!(seen, 0);
        });
    }
    set.enter();
    round(&set);
    exit(&set);
    assert_eq!(polls(&probes), [2; 3]);
    assert!(probes.iter().all(|probe| log(probe) == ["begin", "end"]));
    let mut seen = Vec::new();
    set.for_each_promoted(|token| seen.push(token.index()));
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2]);
}
