//! Failures of a backend: no registration is lost, and one warning names a remedy.

use std::io;
use std::rc::Rc;

use aio_backend::{Backend, Interest, Readiness, ReadyList, Token, Watched};
use aio_backend_ladder::{Ladder, Level};
use aio_backend_ppoll::Ppoll;
use rustix::io::Errno;

use crate::faulty::{Faulty, Plan};
use crate::world::World;
use aio_testing::{Spoil, Spoiled, spoiled, warnings};

fn ladder(plan: &Rc<Plan>, climb_at: usize) -> Ladder<Ppoll, Faulty> {
    Ladder::new(Ppoll::new(), plan.maker(), climb_at)
}

/// Makes a ladder with `count` pipes. Every second pipe has data to read.
fn filled(plan: &Rc<Plan>, climb_at: usize, count: usize) -> (Ladder<Ppoll, Faulty>, World) {
    let (mut ladder, mut world) = (ladder(plan, climb_at), World::default());
    for index in 0..count {
        let token = world.add(&mut ladder, Interest::READ);
        if index % 2 == 0 {
            world.kick(token);
        }
    }
    (ladder, world)
}

#[test]
fn b4_an_upper_backend_that_cannot_be_made_is_dropped_with_one_warning() {
    for error in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOSYS] {
        let plan = Plan::new();
        plan.fail_next("create", error);
        let logged = warnings(|| {
            let (mut ladder, mut world) = filled(&plan, 4, 6);
            for _ in 0..3 {
                ladder.rebalance();
                world.expect(&mut ladder);
            }
            assert_eq!(ladder.level(), Level::Lower);
            world.end(&mut ladder);
        });
        assert_eq!(plan.made_and_alive(), (1, 0), "for good");
        assert_eq!(logged.len(), 1, "{logged:?}");
    }
}

#[test]
fn b4_the_warning_names_the_call_the_error_and_a_remedy() {
    let plan = Plan::new();
    plan.fail_next("add", Errno::NOSPC);
    let logged = warnings(|| {
        let (mut ladder, _world) = filled(&plan, 4, 4);
        ladder.rebalance();
    });
    assert_eq!(logged.len(), 1, "{logged:?}");
    for part in ["call=\"add\"", "No space left", "max_user_watches", "ppoll"] {
        assert!(logged[0].contains(part), "{part} is missing in {}", logged[0]);
    }
}

#[test]
fn b4_zero_stays_below_when_there_is_no_upper_backend() {
    let plan = Plan::new();
    plan.fail_always("create", Errno::MFILE);
    let (mut ladder, mut world) = filled(&plan, 0, 3);
    ladder.rebalance();
    assert_eq!(ladder.level(), Level::Lower);
    assert_eq!(plan.made_and_alive(), (1, 0));
    world.expect(&mut ladder);
    world.end(&mut ladder);
}

#[test]
fn b4_the_registration_that_meets_the_failure_is_not_lost() {
    for error in [Errno::MFILE, Errno::NFILE, Errno::NOSPC, Errno::NOMEM] {
        let plan = Plan::new();
        let (mut ladder, mut world) = filled(&plan, 4, 4);
        ladder.rebalance();
        assert_eq!(ladder.level(), Level::Upper);

        plan.fail_next("add", error);
        let late = world.add(&mut ladder, Interest::READ);
        world.kick(late);
        assert_eq!((ladder.level(), plan.made_and_alive()), (Level::Lower, (1, 0)));
        assert!(world.expect(&mut ladder).contains(&late));
        ladder.rebalance();
        assert_eq!(ladder.level(), Level::Lower, "for good");
        world.end(&mut ladder);
    }
}

#[test]
fn b4_a_change_that_meets_the_failure_takes_effect() {
    let plan = Plan::new();
    let (mut ladder, mut world) = filled(&plan, 4, 4);
    let silent = world.add(&mut ladder, Interest::NONE);
    world.kick(silent);
    ladder.rebalance();
    plan.fail_next("modify", Errno::NOSPC);
    world.modify(&mut ladder, silent, Interest::READ);
    assert_eq!(ladder.level(), Level::Lower);
    assert!(world.expect(&mut ladder).contains(&silent));
    world.end(&mut ladder);
}

#[test]
fn b4_a_wait_that_fails_is_done_below() {
    for error in [Errno::BADF, Errno::INVAL, Errno::NOMEM] {
        let plan = Plan::new();
        let (mut ladder, mut world) = filled(&plan, 4, 5);
        ladder.rebalance();
        plan.fail_always("wait", error);
        let logged = warnings(|| {
            world.expect(&mut ladder);
            world.expect(&mut ladder);
        });
        assert_eq!((plan.failed(), logged.len()), (vec!["wait"], 1), "{logged:?}");
        assert_eq!(ladder.level(), Level::Lower);
        world.end(&mut ladder);
    }
}

/// A foreign loop waits for the upper backend's descriptor, which reports no event of the lower backend. So
/// no registration moves down alone. If all move down, because a wait failed, the foreign loop must not sleep
/// any more.
#[test]
fn g2_b4_an_upper_backend_that_a_foreign_loop_waits_for_fails() {
    for error in [Errno::MFILE, Errno::NFILE, Errno::NOSPC, Errno::NOMEM] {
        let plan = Plan::new();
        let (mut ladder, mut world) = filled(&plan, 64, 4);
        let silent = world.add(&mut ladder, Interest::NONE);
        ladder.make_pollable().unwrap();
        let logged = warnings(|| {
            let (reader, _writer) = io::pipe().unwrap();
            plan.fail_next("add", error);
            let refused = ladder.add(Rc::new(reader).into(), Token::new(99, 0), Interest::READ);
            assert_eq!(Errno::from_io_error(&refused.unwrap_err()), Some(error));
            plan.fail_next("modify", error);
            let refused = ladder.modify(silent, Interest::READ);
            assert_eq!(Errno::from_io_error(&refused.unwrap_err()), Some(error));
        });
        assert_eq!((ladder.level(), plan.made_and_alive()), (Level::Upper, (1, 1)));
        assert!(logged.is_empty(), "the caller learns of it: {logged:?}");
        world.expect(&mut ladder);
        assert!(!ladder.always_ready());
        plan.fail_next("wait", error);
        let logged = warnings(|| {
            world.expect(&mut ladder);
        });
        assert_eq!((ladder.level(), logged.len()), (Level::Lower, 1), "{logged:?}");
        assert!(ladder.always_ready() && ladder.make_pollable().unwrap().is_none());
        world.end(&mut ladder);
    }
}

#[test]
fn b4_the_error_of_one_refused_descriptor_is_returned() {
    for error in [Errno::BADF, Errno::LOOP, Errno::INVAL] {
        let plan = Plan::new();
        let (mut ladder, mut world) = filled(&plan, 4, 4);
        ladder.rebalance();
        plan.fail_next("add", error);
        let (reader, _writer) = std::io::pipe().unwrap();
        let reader = Rc::new(reader);
        let logged = warnings(|| {
            let token = Token::new(100, 0);
            let refused = ladder
                .add(reader.clone().into(), token, Interest::READ)
                .unwrap_err();
            assert_eq!(Errno::from_io_error(&refused), Some(error));
            assert_eq!(ladder.remove(token).unwrap_err().kind(), io::ErrorKind::NotFound);
        });
        assert_eq!((ladder.level(), Rc::strong_count(&reader)), (Level::Upper, 1));
        assert_eq!(logged, Vec::<String>::new());
        world.expect(&mut ladder);
        world.end(&mut ladder);
    }
}

#[test]
fn a_failing_remove_returns_the_error_and_drops_the_reference() {
    let plan = Plan::new();
    let (reader, _writer) = std::io::pipe().unwrap();
    let reader = Rc::new(reader);
    let mut ladder = ladder(&plan, 0);
    let token = Token::new(0, 0);
    ladder.add(reader.clone().into(), token, Interest::READ).unwrap();
    plan.fail_next("remove", Errno::NOMEM);
    let error = ladder.remove(token).unwrap_err();
    assert_eq!(Errno::from_io_error(&error), Some(Errno::NOMEM));
    assert_eq!((ladder.level(), Rc::strong_count(&reader)), (Level::Upper, 1));
    assert_eq!(ladder.remove(token).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn b3_a_climb_that_is_refused_half_way_changes_nothing_and_is_tried_again_later() {
    const COUNT: usize = 6;
    for works in 0..COUNT as u32 {
        let plan = Plan::new();
        let (mut ladder, mut world) = filled(&plan, 4, COUNT);
        // The first call is "create".
        plan.fail_after(works + 1, Errno::LOOP);
        ladder.rebalance();
        assert_eq!(plan.failed(), ["add"]);
        assert_eq!((ladder.level(), plan.made_and_alive()), (Level::Lower, (1, 0)));
        world.expect(&mut ladder);

        // Not with every iteration, but after as many changes as there are descriptors.
        for _ in 0..COUNT {
            ladder.rebalance();
            assert_eq!(plan.made_and_alive(), (1, 0));
            world.add(&mut ladder, Interest::READ);
        }
        ladder.rebalance();
        assert_eq!((ladder.level(), plan.made_and_alive()), (Level::Upper, (2, 1)));
        world.expect(&mut ladder);
        world.end(&mut ladder);
    }
}

#[test]
fn b4_a_pollable_descriptor_that_cannot_be_made_is_an_error() {
    let plan = Plan::new();
    plan.fail_next("create", Errno::MFILE);
    let (mut ladder, mut world) = filled(&plan, 64, 3);
    let error = ladder.make_pollable().unwrap_err();
    assert_eq!(Errno::from_io_error(&error), Some(Errno::MFILE));
    assert!(ladder.make_pollable().unwrap().is_none());
    world.expect(&mut ladder);
    world.end(&mut ladder);
}

/// Moves up, works, and moves down. With any failure, the model must hold after each step.
fn life(plan: &Rc<Plan>) {
    let (mut ladder, mut world) = filled(plan, 4, 3);
    for _ in 0..2 {
        for _ in 0..3 {
            let token = world.add(&mut ladder, Interest::READ);
            world.kick(token);
            ladder.rebalance();
            world.expect(&mut ladder);
        }
        for (index, token) in world.tokens().into_iter().enumerate() {
            let interest = if index % 2 == 0 {
                Interest::NONE
            } else {
                Interest::READ
            };
            world.modify(&mut ladder, token, interest);
            world.expect(&mut ladder);
        }
        ladder.rebalance();
        for token in world.expect(&mut ladder) {
            world.consume(token);
        }
        while world.len() > 1 {
            world.remove(&mut ladder, world.tokens()[0]);
            ladder.rebalance();
            world.expect(&mut ladder);
        }
    }
    world.end(&mut ladder);
}

#[test]
fn b4_whichever_call_fails_nothing_is_lost() {
    for error in [Errno::MFILE, Errno::NFILE, Errno::NOSPC, Errno::NOMEM] {
        for call in ["create", "add", "modify", "wait"] {
            let mut works = 0;
            loop {
                let plan = Plan::new();
                plan.fail_next_after(call, works, error);
                let logged = warnings(|| life(&plan));
                if plan.failed().is_empty() {
                    break;
                }
                assert_eq!(logged.len(), 1, "{call} after {works}, {error:?}: {logged:?}");
                assert_eq!(plan.made_and_alive().1, 0);
                works += 1;
            }
            assert!(works > 0, "{call} was never made to fail");
        }
    }
}

/// A lower backend that refuses a descriptor with an error.
#[derive(Debug)]
struct Refusing(Rc<std::cell::Cell<Option<Token>>>, Errno);

impl Spoil for Refusing {
    const NAME: &'static str = "picky";

    fn add(&mut self, token: Token) -> io::Result<()> {
        if self.0.get() == Some(token) {
            return Err(self.1.into());
        }
        Ok(())
    }
}

#[test]
fn b3_a_way_down_that_is_refused_changes_nothing() {
    let (plan, refused) = (Plan::new(), Rc::default());
    let mut ladder = Ladder::new(
        spoiled(Ppoll::new(), Refusing(Rc::clone(&refused), Errno::PERM)),
        plan.maker(),
        8,
    );
    let mut world = World::default();
    for _ in 0..8 {
        let token = world.add(&mut ladder, Interest::READ);
        world.kick(token);
    }
    ladder.rebalance();
    refused.set(Some(world.tokens()[1]));
    while world.len() > 3 {
        world.remove(&mut ladder, *world.tokens().last().unwrap());
    }
    ladder.rebalance();
    assert_eq!(ladder.level(), Level::Upper);
    world.expect(&mut ladder);
    refused.set(None);
    world.remove(&mut ladder, world.tokens()[0]);
    let late = world.add(&mut ladder, Interest::READ);
    world.remove(&mut ladder, late);
    ladder.rebalance();
    assert_eq!(ladder.level(), Level::Lower);
    world.expect(&mut ladder);
    world.end(&mut ladder);
}

/// The upper backend need not have detected that a number was closed, and the lower one refuses it.
#[test]
fn r3_r4_a_closed_number_stops_no_way_down_and_is_reported() {
    let (plan, refused) = (Plan::new(), Rc::default());
    let picky = spoiled(Ppoll::new(), Refusing(Rc::clone(&refused), Errno::BADF));
    let mut ladder = Ladder::new(picky, plan.maker(), 8);
    let mut world = World::default();
    for _ in 0..8 {
        world.add(&mut ladder, Interest::READ);
    }
    ladder.rebalance();
    let closed = world.tokens()[1];
    refused.set(Some(closed));
    while world.len() > 3 {
        world.remove(&mut ladder, *world.tokens().last().unwrap());
    }
    ladder.rebalance();
    assert_eq!((ladder.level(), ladder.watched()), (Level::Lower, 3));
    let mut ready = ReadyList::new();
    ladder.wait(None, &mut ready).unwrap();
    assert_eq!(ready.iter().collect::<Vec<_>>(), [(closed, Readiness::NVAL)]);
    world.remove(&mut ladder, closed);
    world.expect(&mut ladder);
    world.end(&mut ladder);
}

#[test]
fn r4_an_orphaned_registration_is_reported() {
    let (plan, refused) = (Plan::new(), Rc::default());
    let mut ladder = Ladder::new(
        spoiled(Ppoll::new(), Refusing(Rc::clone(&refused), Errno::BADF)),
        plan.maker(),
        0,
    );
    let (reader, writer) = std::io::pipe().unwrap();
    let (other, mut other_writer) = std::io::pipe().unwrap();
    let [lost, kept] = [Token::new(0, 0), Token::new(1, 0)];
    let reader = Rc::new(reader);
    ladder.add(reader.clone().into(), lost, Interest::READ).unwrap();
    ladder.add(Rc::new(other).into(), kept, Interest::READ).unwrap();
    refused.set(Some(lost));
    plan.fail_next("wait", Errno::BADF);
    io::Write::write_all(&mut other_writer, b"x").unwrap();

    let check = |ladder: &mut Ladder<Spoiled<Ppoll, Refusing>, Faulty>, limit| {
        let mut ready = ReadyList::with_limit(limit);
        ladder.wait(None, &mut ready).unwrap();
        let mut found: Vec<_> = ready.iter().collect();
        found.sort_by_key(|&(token, _)| token);
        found
    };
    let (nval, readable) = ((lost, Readiness::NVAL), (kept, Readiness::IN));
    assert_eq!(check(&mut ladder, 64), [nval, readable]);
    assert!(ladder.always_ready());
    let short: Vec<_> = (0..4).flat_map(|_| check(&mut ladder, 1)).collect();
    assert!(short.contains(&nval) && short.contains(&readable), "{short:?}");

    ladder.modify(lost, Interest::NONE).unwrap();
    assert_eq!(check(&mut ladder, 64), [readable]);
    assert!(!ladder.always_ready());
    ladder.modify(lost, Interest::WRITE).unwrap();
    assert_eq!(check(&mut ladder, 64), [nval, readable]);
    ladder.modify(lost, Interest::READ | Interest::ONESHOT).unwrap();
    assert_eq!(check(&mut ladder, 64), [nval, readable]);
    assert_eq!(check(&mut ladder, 64), [readable], "it had its only event");
    assert!(!ladder.always_ready());
    ladder.remove(lost).unwrap();
    assert_eq!(Rc::strong_count(&reader), 1);
    assert_eq!(check(&mut ladder, 64), [readable]);
    drop(writer);
}

#[test]
fn b4_the_error_of_one_refused_change_is_returned() {
    let plan = Plan::new();
    let (mut ladder, mut world) = filled(&plan, 4, 4);
    ladder.rebalance();
    plan.fail_next("modify", Errno::PERM);
    let token = world.tokens()[0];
    let logged = warnings(|| {
        let refused = ladder.modify(token, Interest::NONE).unwrap_err();
        assert_eq!(Errno::from_io_error(&refused), Some(Errno::PERM));
    });
    assert_eq!((ladder.level(), logged), (Level::Upper, Vec::new()));
    assert!(
        world.expect(&mut ladder).contains(&token),
        "the former interest holds"
    );
    world.end(&mut ladder);
}

#[test]
fn r4_an_orphaned_registration_is_still_counted() {
    let (plan, refused) = (Plan::new(), Rc::default());
    let mut ladder = Ladder::new(
        spoiled(Ppoll::new(), Refusing(Rc::clone(&refused), Errno::BADF)),
        plan.maker(),
        0,
    );
    let [lost, kept] = [Token::new(0, 0), Token::new(1, 0)];
    let mut pipes = Vec::new();
    for token in [lost, kept] {
        let (reader, writer) = std::io::pipe().unwrap();
        let reader = Rc::new(reader);
        ladder.add(reader.clone().into(), token, Interest::READ).unwrap();
        pipes.push((reader, writer));
    }
    refused.set(Some(lost));
    plan.fail_next("wait", Errno::BADF);
    ladder.wait(None, &mut ReadyList::new()).unwrap();
    assert_eq!(ladder.level(), Level::Lower);

    assert_eq!(ladder.watched(), 2);
    let mut seen = Vec::new();
    ladder.visit(&mut |_, token, interest| seen.push((token, interest)));
    seen.sort_by_key(|&(token, _)| token);
    assert_eq!(seen, [(lost, Interest::READ), (kept, Interest::READ)]);

    // The slot of `lost` is in use, for every generation. Another slot is free.
    let share = || Watched::from(pipes[0].0.clone());
    for token in [lost, Token::new(0, 1)] {
        let error = ladder.add(share(), token, Interest::READ).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    }
    let other = Token::new(2, 0);
    ladder.add(share(), other, Interest::READ).unwrap();
    ladder.remove(other).unwrap();

    let mut moved = Vec::new();
    ladder.drain(&mut |_, token, _| moved.push(token));
    moved.sort_unstable();
    assert_eq!((moved, ladder.watched()), (vec![lost, kept], 0));
    for (reader, _) in &pipes {
        assert_eq!(Rc::strong_count(reader), 1, "a share was kept");
    }
}
