//! Tests of the conditions for a switch, and that a switch changes only the level.

use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use aio_backend::{Backend, Interest, ReadyList, Token};
use aio_backend_epoll::Epoll;
use aio_backend_ladder::{Ladder, Level};
use aio_backend_ppoll::Ppoll;

use crate::faulty::Plan;
use crate::world::World;

fn ladder(climb_at: usize) -> Ladder<Ppoll, Epoll> {
    Ladder::new(Ppoll::new(), Epoll::new, climb_at)
}

#[test]
fn b3_up_at_64_and_down_below_32() {
    let (mut ladder, mut world) = (ladder(64), World::default());
    for count in 1..=80 {
        world.add(&mut ladder, Interest::READ);
        ladder.rebalance();
        let expect = if count < 64 { Level::Lower } else { Level::Upper };
        assert_eq!(ladder.level(), expect, "{count} on the way up");
    }
    for token in world.tokens() {
        world.remove(&mut ladder, token);
        ladder.rebalance();
        let expect = if world.len() < 32 {
            Level::Lower
        } else {
            Level::Upper
        };
        assert_eq!(ladder.level(), expect, "{} on the way down", world.len());
    }
}

#[test]
fn b3_nothing_moves_outside_rebalance() {
    let (mut ladder, mut world) = (ladder(4), World::default());
    for _ in 0..10 {
        let token = world.add(&mut ladder, Interest::READ);
        world.kick(token);
        world.expect(&mut ladder);
    }
    assert_eq!(ladder.level(), Level::Lower);
    ladder.rebalance();
    assert_eq!((ladder.level(), ladder.name()), (Level::Upper, "epoll"));
    world.expect(&mut ladder);
    for token in world.tokens() {
        world.remove(&mut ladder, token);
        world.expect(&mut ladder);
    }
    assert_eq!(ladder.level(), Level::Upper);
    ladder.rebalance();
    assert_eq!((ladder.level(), ladder.name()), (Level::Lower, "ppoll"));
}

#[test]
fn b3_silent_descriptors_count_and_stay_silent() {
    let (mut ladder, mut world) = (ladder(4), World::default());
    let first = world.add(&mut ladder, Interest::NONE);
    for _ in 0..3 {
        world.add(&mut ladder, Interest::NONE);
    }
    world.kick(first);
    ladder.rebalance();
    assert_eq!(ladder.level(), Level::Upper);
    world.expect(&mut ladder);
    world.modify(&mut ladder, first, Interest::READ);
    assert_eq!(world.expect(&mut ladder), [first]);
    world.end(&mut ladder);
}

/// An operation on a registration around a switch. It does not change the number of registrations.
type Change = fn(&mut Ladder<Ppoll, Epoll>, &mut World, Token);

const CHANGES: [(&str, Change); 4] = [
    ("replaced", |ladder, world, token| {
        world.remove(ladder, token);
        let token = world.add(ladder, Interest::READ);
        world.kick(token);
    }),
    ("silenced", |ladder, world, token| {
        world.modify(ladder, token, Interest::NONE)
    }),
    ("silenced and woken", |ladder, world, token| {
        world.modify(ladder, token, Interest::NONE);
        world.modify(ladder, token, Interest::READ);
    }),
    ("kicked", |_, world, token| world.kick(token)),
];

#[test]
fn b3_a_registration_that_meets_a_switch_is_not_lost() {
    for (what, change) in CHANGES {
        for before in [true, false] {
            let (mut ladder, mut world) = (ladder(6), World::default());
            let changed = world.add(&mut ladder, Interest::READ);
            for _ in 0..5 {
                let token = world.add(&mut ladder, Interest::READ);
                world.kick(token);
            }
            let switch = |ladder: &mut Ladder<Ppoll, Epoll>, world: &mut World, token: Token, to: Level| {
                if before {
                    change(ladder, world, token);
                }
                ladder.rebalance();
                if !before {
                    change(ladder, world, token);
                }
                assert_eq!(ladder.level(), to, "{what}, before: {before}");
                world.expect(ladder);
            };
            switch(&mut ladder, &mut world, changed, Level::Upper);
            for token in world.tokens().split_off(2) {
                world.remove(&mut ladder, token);
            }
            let changed = world.tokens()[0];
            switch(&mut ladder, &mut world, changed, Level::Lower);
            world.end(&mut ladder);
        }
    }
}

#[test]
fn b3_zero_is_always_up() {
    let (mut ladder, mut world) = (ladder(0), World::default());
    assert_eq!(ladder.level(), Level::Upper);
    let token = world.add(&mut ladder, Interest::READ);
    world.kick(token);
    world.expect(&mut ladder);
    world.end(&mut ladder);
    ladder.rebalance();
    assert_eq!(ladder.level(), Level::Upper);
}

#[test]
fn b3_coming_down_closes_the_upper_backend() {
    let plan = Plan::new();
    let (mut ladder, mut world) = (Ladder::new(Ppoll::new(), plan.maker(), 2), World::default());
    for round in 1..=3 {
        for _ in 0..2 {
            world.add(&mut ladder, Interest::READ);
        }
        ladder.rebalance();
        assert_eq!(plan.made_and_alive(), (round, 1));
        for token in world.tokens() {
            world.remove(&mut ladder, token);
        }
        ladder.rebalance();
        assert_eq!(plan.made_and_alive(), (round, 0));
    }
}

#[test]
fn g2_a_pollable_descriptor_keeps_it_up() {
    let (mut ladder, mut world) = (ladder(64), World::default());
    let token = world.add(&mut ladder, Interest::READ);
    let shown = ladder
        .make_pollable()
        .unwrap()
        .unwrap()
        .try_clone_to_owned()
        .unwrap();
    assert_eq!(ladder.level(), Level::Upper);

    let mut foreign = Ppoll::new();
    foreign
        .add(Rc::new(shown).into(), Token::new(0, 0), Interest::READ)
        .unwrap();
    let mut is_shown = || {
        let mut ready = ReadyList::new();
        foreign.wait(Some(Duration::ZERO), &mut ready).unwrap();
        !ready.is_empty()
    };
    assert!(!is_shown());
    world.kick(token);
    assert!(is_shown());
    ladder.rebalance();
    assert_eq!(ladder.level(), Level::Upper);
    world.end(&mut ladder);
    ladder.rebalance();
    assert_eq!(ladder.level(), Level::Upper);
    assert!(!is_shown());
}

/// A function that takes `&self` has no effect. Only `make_pollable` moves the ladder permanently.
#[test]
fn l16_no_query_moves_a_ladder() {
    let (mut ladder, mut world) = (ladder(64), World::default());
    world.add(&mut ladder, Interest::READ);
    let asked: &Ladder<_, _> = &ladder;
    let answers = (
        asked.name(),
        asked.reports_edges(),
        asked.always_ready(),
        asked.watched(),
    );
    assert_eq!(answers, ("ppoll", false, false, 1));
    asked.visit(&mut |_, _, _| {});
    ladder.rebalance();
    assert_eq!(ladder.level(), Level::Lower);
    let first = ladder.make_pollable().unwrap().unwrap().as_raw_fd();
    assert_eq!(ladder.level(), Level::Upper);
    let second = ladder.make_pollable().unwrap().unwrap().as_raw_fd();
    assert_eq!(first, second);
    world.end(&mut ladder);
}

#[test]
fn drain_hands_over_all_registrations_on_either_level() {
    for climb_at in [0, 64] {
        let (mut ladder, mut world) = (ladder(climb_at), World::default());
        let interests = [Interest::READ, Interest::NONE, Interest::READ];
        let tokens = interests.map(|interest| world.add(&mut ladder, interest));
        tokens.iter().for_each(|&token| world.kick(token));
        let mut moved = Vec::new();
        ladder.drain(&mut |fd, token, interest| moved.push((fd, token, interest)));
        let mut ready = ReadyList::new();
        ladder.wait(Some(Duration::ZERO), &mut ready).unwrap();
        assert!(ready.is_empty(), "{ready:?}");

        let mut other = Ppoll::new();
        for (fd, token, interest) in moved {
            other.add(fd, token, interest).unwrap();
        }
        assert_eq!(world.expect(&mut other).len(), 2);
        world.end(&mut other);
    }
}

#[test]
fn a_ladder_can_stand_on_a_ladder() {
    let make = || Ok(Ladder::new(Ppoll::new(), Epoll::new, 4));
    let (mut ladder, mut world) = (Ladder::new(Ppoll::new(), make, 2), World::default());
    for name in ["ppoll", "ppoll", "ppoll", "epoll"] {
        let token = world.add(&mut ladder, Interest::READ);
        world.kick(token);
        ladder.rebalance();
        assert_eq!(ladder.name(), name);
        world.expect(&mut ladder);
    }
    world.end(&mut ladder);
}
