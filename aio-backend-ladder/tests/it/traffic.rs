//! Repeated switches, with events pending.

use aio_backend::{Backend, Interest};
use aio_backend_epoll::Epoll;
use aio_backend_ladder::{Ladder, Level};
use aio_backend_ppoll::Ppoll;

use crate::world::World;

#[test]
fn b3_ten_thousand_switches_lose_and_double_nothing() {
    const SWITCHES: u32 = 10_000;
    const CLIMB_AT: usize = 8;

    let seed = aio_testing::seed();
    let mut random = fastrand::Rng::with_seed(seed);

    let mut ladder = Ladder::new(Ppoll::new(), Epoll::new, CLIMB_AT);
    let mut world = World::default();
    let mut switches = 0;
    while switches < SWITCHES {
        // Towards the other level, in steps of random size.
        for _ in 0..random.usize(1..5) {
            match ladder.level() {
                Level::Lower => {
                    let interest = if random.bool() {
                        Interest::READ
                    } else {
                        Interest::NONE
                    };
                    let token = world.add(&mut ladder, interest);
                    if random.bool() {
                        world.kick(token);
                    }
                }
                Level::Upper => {
                    if let Some(token) = random.choice(world.tokens()) {
                        world.remove(&mut ladder, token);
                    }
                }
            }
        }
        for token in world.tokens() {
            match random.u8(0..8) {
                0 => world.modify(&mut ladder, token, Interest::READ),
                1 => world.modify(&mut ladder, token, Interest::NONE),
                2 => world.kick(token),
                _ => {}
            }
        }
        let before = ladder.level();
        ladder.rebalance();
        switches += u32::from(ladder.level() != before);
        for token in world.expect(&mut ladder) {
            if random.bool() {
                world.consume(token);
            }
        }
    }
    world.end(&mut ladder);
}
