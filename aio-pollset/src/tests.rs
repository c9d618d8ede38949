//! The rules, one by one. What all of them are together is in `model_tests`.

use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use aio_backend::Token;

use crate::steps::tests::count;
use crate::{PollSet, Source};

type Hook = Rc<dyn Fn(&Probe)>;

/// A source that writes down what is called, says what it is told to, and does something meanwhile.
#[derive(Default)]
struct Probe {
    log: RefCell<Vec<&'static str>>,
    polls: Cell<u32>,
    says: Cell<bool>,
    nests: bool,
    at_poll: RefCell<Option<Hook>>,
    at_begin: RefCell<Option<Hook>>,
    at_end: RefCell<Option<Hook>>,
}

impl Probe {
    fn new() -> Rc<Self> {
        Rc::default()
    }

    fn saying(says: bool) -> Rc<Self> {
        let probe = Self::new();
        probe.says.set(says);
        probe
    }

    fn run(&self, hook: &RefCell<Option<Hook>>) {
        let hook = hook.borrow().clone();
        hook.into_iter().for_each(|hook| hook(self));
    }
}

fn set_hook(hook: &RefCell<Option<Hook>>, run: impl Fn(&Probe) + 'static) {
    hook.replace(Some(Rc::new(run)));
}

impl Source for Probe {
    fn poll(&self) -> bool {
        self.polls.set(self.polls.get() + 1);
        self.run(&self.at_poll);
        self.says.get()
    }
    fn poll_begin(&self) {
        self.log.borrow_mut().push("begin");
        self.run(&self.at_begin);
    }
    fn poll_end(&self) {
        self.log.borrow_mut().push("end");
        self.run(&self.at_end);
    }
    fn nests(&self) -> bool {
        self.nests
    }
}

/// Another type of sources, which lies in an array of its own.
struct Other(Rc<Probe>);

impl Source for Other {
    fn poll(&self) -> bool {
        self.0.poll()
    }
    fn poll_begin(&self) {
        self.0.poll_begin();
    }
    fn poll_end(&self) {
        self.0.poll_end();
    }
}

fn token(index: usize) -> Token {
    Token::new(index as u32, 1)
}

fn join(set: &PollSet, index: usize, probe: &Rc<Probe>) {
    let owed = if index % 2 == 0 {
        set.join(token(index), probe.clone())
    } else {
        set.join(token(index), Other(probe.clone()))
    };
    owed.finish(|| panic!("nothing was there"));
}

/// A set with so many sources, of two types in turn.
fn scene(count: usize) -> (Rc<PollSet>, Vec<Rc<Probe>>) {
    let set = Rc::new(PollSet::new());
    let probes: Vec<_> = (0..count).map(|_| Probe::new()).collect();
    (0..count).for_each(|index| join(&set, index, &probes[index]));
    (set, probes)
}

/// The indices of those that said yes.
fn round(set: &PollSet) -> Vec<usize> {
    let mut hits = Vec::new();
    let found = set.round(|token| take(&mut hits, token));
    assert_eq!(found, !hits.is_empty());
    hits
}

fn exit(set: &PollSet) -> (bool, Vec<usize>) {
    let mut hits = Vec::new();
    let must_not_sleep = set.exit(|token| take(&mut hits, token));
    (must_not_sleep, hits)
}

fn take(hits: &mut Vec<usize>, token: Token) -> ControlFlow<()> {
    hits.push(token.index() as usize);
    ControlFlow::Continue(())
}

fn panics(run: impl FnOnce()) {
    assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
}

fn on_purpose() {
    resume_unwind(Box::new("on purpose"));
}

fn polls(probes: &[Rc<Probe>]) -> Vec<u32> {
    probes.iter().map(|probe| probe.polls.replace(0)).collect()
}

fn log(probe: &Probe) -> Vec<&'static str> {
    probe.log.borrow().clone()
}

#[test]
fn a3_a_round_polls_every_source_once_and_does_not_stop_at_a_hit() {
    let (set, probes) = scene(5);
    set.enter();
    probes[1].says.set(true);
    probes[4].says.set(true);
    let mut hits = round(&set);
    hits.sort_unstable();
    assert_eq!((hits, polls(&probes)), (vec![1, 4], vec![1; 5]));
}

#[test]
fn a3_refused_hits_come_first_so_that_all_have_their_turn() {
    for room in [1, 4, 7] {
        let (set, probes) = scene(13);
        probes.iter().for_each(|probe| probe.says.set(true));
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
fn a5_a_yes_is_polled_again_until_it_is_served() {
    let (set, probes) = scene(3);
    set.enter();
    probes[1].says.set(true);
    assert_eq!(exit(&set), (true, vec![1]));
    assert!(set.needs_exit() && !set.is_on());
    // Its iteration ended by a panic.
    set.forget_hit(token(1));
    assert_eq!(set.serve(token(1), || ()), None);
    assert_eq!(exit(&set), (true, vec![1]));
    assert_eq!(polls(&probes), [1, 2, 1], "nobody else is polled again");
    assert_eq!(set.serve(token(1), || ()), Some(()));
    assert_eq!(exit(&set), (false, vec![]));
    assert!(!set.needs_exit());
}

#[test]
fn a5_a_no_ends_the_recheck() {
    let (set, probes) = scene(1);
    set.enter();
    probes[0].says.set(true);
    assert_eq!(exit(&set), (true, vec![0]));
    probes[0].says.set(false);
    assert_eq!(exit(&set), (false, vec![]));
    assert!(!set.needs_exit());
    assert_eq!(polls(&probes), [2]);
}

#[test]
fn a5_d2_more_last_hits_than_there_is_room() {
    let (set, probes) = scene(10);
    set.enter();
    probes.iter().for_each(|probe| probe.says.set(true));
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
            set.serve(token(index), || probes[index].says.set(false)).unwrap();
            served.push(index);
        }
    }
    served.sort_unstable();
    assert_eq!(served, (0..10).collect::<Vec<_>>());
    assert_eq!(exit(&set), (false, vec![]));
}

#[test]
fn a5_hits_that_no_iteration_serves_let_others_have_their_turn() {
    let (set, probes) = scene(5);
    set.enter();
    probes.iter().for_each(|probe| probe.says.set(true));
    let mut seen = Vec::new();
    for _ in 0..5 {
        let mut taken = false;
        set.exit(|token| {
            if std::mem::replace(&mut taken, true) {
                return ControlFlow::Break(());
            }
            take(&mut seen, token)
        });
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 5);
}

#[test]
fn a5_d9_a_panic_in_poll_end_keeps_no_other_from_its_own() {
    let (set, probes) = scene(7);
    set.enter();
    for index in [0, 3, 6] {
        set_hook(&probes[index].at_end, |_| on_purpose());
    }
    probes[2].says.set(true);
    panics(|| drop(exit(&set)));
    assert!(probes.iter().all(|probe| log(probe) == ["begin", "end"]));
    assert!(!set.is_on() && set.needs_exit());
    assert_eq!(polls(&probes), [0; 7]);
    // What came before is found all the same, and each is polled.
    assert_eq!(exit(&set), (true, vec![2]));
    assert_eq!(polls(&probes), [1; 7]);
    set.enter();
    assert!(probes.iter().all(|probe| log(probe) == ["begin", "end", "begin"]));
}

#[test]
fn a5_d9_a_panic_in_a_last_poll_forgets_nobody() {
    let (set, probes) = scene(6);
    set.enter();
    set_hook(&probes[2].at_poll, |_| on_purpose());
    probes[5].says.set(true);
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
fn d9_a_panic_while_a_hit_is_served_marks_it_again() {
    let (set, probes) = scene(2);
    set.enter();
    probes[0].says.set(true);
    assert_eq!(exit(&set), (true, vec![0]));
    panics(|| drop(set.serve(token(0), on_purpose)));
    assert!(set.needs_exit());
    assert_eq!(exit(&set), (true, vec![0]));
    assert_eq!(set.serve(token(0), || ()), Some(()));
    assert!(!set.needs_exit());
}

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
    // Also without another `enter`, and when it joins from inside a round.
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
        let new = Probe::saying(true);
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
        assert_eq!((log(&new), log(&probes[0])), (vec!["begin", "end"], vec!["begin", "end"]));
        assert_eq!(probes[0].polls.get(), 0);
        assert_eq!((set.len(), Rc::strong_count(&probes[0])), (3, 1));
    }
}

#[test]
fn a5_r6_a_source_that_is_replaced_while_poll_mode_is_left_is_polled_once_more() {
    for at_poll in [false, true] {
        let (set, probes) = scene(4);
        set.enter();
        let new = Probe::saying(true);
        let (weak, once) = (Rc::downgrade(&set), Cell::new(Some(new.clone())));
        let hook = if at_poll { &probes[0].at_poll } else { &probes[0].at_end };
        set_hook(hook, move |_| {
            if let Some(new) = once.take() {
                let is_owed = weak.upgrade().unwrap().join(token(2), new).is_owed();
                assert_eq!(is_owed, !at_poll, "at the last poll it has been ended");
            }
        });
        assert!(exit(&set).0);
        assert_eq!(exit(&set), (true, vec![2]));
        assert_eq!(probes[2].polls.get(), 0);
    }
}

#[test]
fn r6_a_source_that_replaces_itself_in_its_poll_gives_no_answer() {
    let (set, probes) = scene(2);
    set.enter();
    probes[0].says.set(true);
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
    let new = Probe::saying(true);
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
    probes.iter().for_each(|probe| drop(probe.at_poll.replace(Some(hook.clone()))));
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
    assert!(round(&set).is_empty(), "who has left has no work");
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
        assert!(set.is_calling(), "others may not have been told yet");
        probes[1].poll_end();
    });
    assert!(!set.is_calling() && !set.suspend(token(1)).is_owed());
    // What came before came without a notification.
    probes[1].says.set(true);
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
    probes[0].says.set(true);
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
    probes[0].says.set(true);
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
fn a9_an_excluded_source_is_not_polled_until_the_last_guard_is_gone() {
    let (set, probes) = scene(2);
    set.enter();
    let (first, second) = (set.exclude(token(0)), set.exclude(token(0)));
    round(&set);
    drop(first);
    round(&set);
    assert_eq!(polls(&probes), [0, 2]);
    drop(second);
    round(&set);
    assert_eq!(polls(&probes), [1, 1]);
}

#[test]
fn a9_a_source_is_not_polled_while_it_is_served() {
    let (set, probes) = scene(2);
    set.enter();
    probes[0].says.set(true);
    assert_eq!(round(&set), [0]);
    polls(&probes);
    set.serve(token(0), || {
        assert!(round(&set).is_empty());
        assert_eq!(exit(&set), (false, vec![]), "it does not keep a nested loop awake");
        assert_eq!(set.serve(token(0), || ()), None, "a hit is taken once");
    })
    .unwrap();
    assert_eq!(polls(&probes), [0, 2]);
    assert_eq!(log(&probes[0]), ["begin", "end"]);
}

#[test]
fn a5_a9_a_source_that_is_excluded_when_poll_mode_is_left_is_polled_afterwards() {
    let (set, probes) = scene(2);
    set.enter();
    let excluded = set.exclude(token(0));
    assert_eq!(exit(&set), (false, vec![]));
    probes[0].says.set(true);
    assert!(!set.needs_exit());
    drop(excluded);
    assert!(set.needs_exit());
    assert_eq!(exit(&set), (true, vec![0]));
    assert_eq!(log(&probes[0]), ["begin", "end"]);
}

#[test]
fn a9_an_exclusion_outlives_a_replacement_and_does_no_harm_after_a_removal() {
    let (set, _probes) = scene(1);
    let excluded = set.exclude(token(0));
    let new = Probe::new();
    let _ = set.join(token(0), new.clone());
    round(&set);
    assert_eq!(new.polls.get(), 0);
    let _ = set.leave(token(0));
    // Its slot is another one's.
    let next = Probe::new();
    join(&set, 3, &next);
    let third = set.exclude(token(3));
    drop(excluded);
    round(&set);
    assert_eq!(next.polls.get(), 0, "only its own guard counts");
    drop(third);
    round(&set);
    assert_eq!(next.polls.get(), 1);
}

#[test]
fn a9_a_source_that_nests_is_polled_while_it_is_served() {
    let set = PollSet::new();
    let board = Rc::new(Probe {
        nests: true,
        ..Probe::default()
    });
    board.says.set(true);
    let _ = set.join(token(0), board.clone());
    assert_eq!(round(&set), [0]);
    let depth = Cell::new(0);
    fn nest(set: &PollSet, depth: &Cell<u32>) {
        set.serve(token(0), || {
            depth.set(depth.get() + 1);
            if depth.get() < 5 {
                assert_eq!(round(set), [0]);
                nest(set, depth);
            }
        })
        .expect("the nested round has found it");
    }
    nest(&set, &depth);
    assert_eq!(depth.get(), 5);
    drop(set.exclude(token(0)));
    assert_eq!(round(&set), [0]);
}

#[test]
fn a5_a_walk_inside_a_walk_polls_nothing() {
    let (set, probes) = scene(3);
    for hooks in [|probe: &Probe| &probe.at_begin, |probe| &probe.at_poll, |probe| &probe.at_end]
        as [fn(&Probe) -> &RefCell<Option<Hook>>; 3]
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

/// Rounds in which one source has an event.
fn busy_rounds(set: &PollSet, probe: &Probe, count: u32) {
    probe.says.set(true);
    (0..count).for_each(|_| drop(round(set)));
    probe.says.set(false);
}

fn demote(set: &PollSet, idle_after: u32) -> Vec<usize> {
    let mut hits = Vec::new();
    let found = set.demote_idle(idle_after, |_| true, |_, idle| idle, |token| take(&mut hits, token));
    assert_eq!(found, !hits.is_empty());
    hits
}

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
fn a8_surplus_and_may_leave_decide_who_leaves() {
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
fn a8_a_yes_on_the_way_out_keeps_a_source() {
    let (set, probes) = scene(4);
    set.enter();
    busy_rounds(&set, &probes[0], 5);
    let late = probes[1].clone();
    set_hook(&probes[1].at_end, move |_| late.says.set(true));
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
        let hook = if at_poll { &probes[1].at_poll } else { &probes[1].at_end };
        set_hook(hook, |this| {
            this.says.set(true);
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
fn b5_r9_a8_what_a_source_does_to_itself_on_its_way_out() {
    let acts: [fn(&PollSet); 3] = [
        |set| drop(set.leave(token(1))),
        |set| assert!(!set.suspend(token(1)).is_owed()),
        |set| drop(set.join(token(1), Probe::saying(true))),
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
    set.rounds.set(u32::MAX - 3);
    set.last_event.set(u32::MAX - 3);
    set.resume(token(0));
    for index in 0..3 {
        let _ = set.suspend(token(index));
        set.resume(token(index));
    }
    busy_rounds(&set, &probes[0], 8);
    assert!(set.rounds() < 10);
    demote(&set, 7);
    assert_eq!(set.promoted(), 1);
    // One that may not leave for four thousand million rounds is old all the time.
    let (set, probes) = scene(2);
    let never = |_: Token| false;
    for _ in 0..9 {
        set.rounds.set(set.rounds().wrapping_add(1 << 29));
        busy_rounds(&set, &probes[0], 1);
        set.demote_idle(700, never, |_, idle| idle, |_| ControlFlow::Continue(()));
    }
    set.forget_hit(token(0));
    demote(&set, 700);
    assert_eq!(set.promoted(), 1);
}

#[test]
fn a1_a_round_costs_the_promoted_sources_and_not_the_others() {
    let (set, probes) = scene(10_000);
    busy_rounds(&set, &probes[0], 5);
    demote(&set, 3);
    assert_eq!(set.promoted(), 1);
    assert!(count(|| drop(round(&set))) <= 3);
    assert!(count(|| set.enter()) <= 5);
    assert!(count(|| drop(exit(&set))) <= 10);
}

#[test]
fn a8_what_is_done_to_one_source_costs_the_same_in_a_large_set() {
    let cost = |others: usize| {
        let (set, probes) = scene(others);
        set.enter();
        probes[1].says.set(true);
        count(|| {
            let late = Probe::new();
            join(&set, others, &late);
            assert!(!set.suspend(token(others)).is_owed());
            set.resume(token(others));
            set.promote(token(others));
            set.recheck(token(others));
            let _ = set.join(token(others), Other(late));
            drop(set.exclude(token(1)));
            drop(set.leave(token(0)));
            drop(set.leave(token(others)));
        })
    };
    assert_eq!(cost(10), cost(10_000));
}

/// Everybody says yes when poll mode ends, and is served batch after batch.
fn all_say_yes(sources: usize, room: usize) -> u64 {
    let (set, probes) = scene(sources);
    set.enter();
    probes.iter().for_each(|probe| probe.says.set(true));
    let mut served = 0;
    let steps = count(|| {
        loop {
            let mut hits = Vec::new();
            let must_not_sleep = set.exit(|token| {
                if hits.len() == room {
                    return ControlFlow::Break(());
                }
                take(&mut hits, token)
            });
            if !must_not_sleep {
                break;
            }
            for index in hits {
                set.serve(token(index), || probes[index].says.set(false))
                    .expect("it was found");
                served += 1;
            }
        }
    });
    assert_eq!(served, sources);
    steps
}

#[test]
fn l17_ten_thousand_sources_that_say_yes_when_poll_mode_ends_cost_ten_times_a_thousand() {
    for room in [usize::MAX, 64] {
        let (small, large) = (all_say_yes(1000, room), all_say_yes(10_000, room));
        assert!(large <= 11 * small, "{room}: {small} steps, {large} steps");
        assert!(large <= 30 * 10_000, "{room}: {large} steps");
    }
}

#[test]
fn l17_ten_thousand_sources_that_are_removed_or_suspended_in_one_walk() {
    let cost = |sources: usize| {
        let (set, probes) = scene(sources);
        set.enter();
        let (weak, once) = (Rc::downgrade(&set), Cell::new(true));
        set_hook(&probes[0].at_poll, move |_| {
            let set = weak.upgrade().unwrap();
            if once.replace(false) {
                for index in 1..sources {
                    drop(if index % 3 == 0 { set.suspend(token(index)) } else { set.leave(token(index)) });
                }
            }
        });
        count(|| drop(round(&set)))
    };
    let (small, large) = (cost(1000), cost(10_000));
    assert!(large <= 11 * small, "{small} steps, {large} steps");
}

#[test]
fn the_state_of_a_source_takes_24_bytes() {
    assert_eq!(size_of::<crate::slots::Slot>(), 24);
}

#[test]
fn debug_shows_what_there_is() {
    let (set, _probes) = scene(2);
    let shown = format!("{:?} {:?}", set.exclude(token(0)), set.leave(token(1)));
    assert!(shown.contains("sources: 1") && shown.contains("Excluded(Some(Token(0.1)))"), "{shown}");
    assert!(set.contains(token(0)) && !set.is_empty());
}
