//! A backend that the system may lack, and its replacement.

use aio_backend::Backend;
use aio_backend_ladder::{Level, preferred};
use aio_backend_ppoll::Ppoll;
use aio_testing::warnings;
use rustix::io::Errno;

use crate::faulty::Plan;
use crate::world::World;

/// The only test of its process in which a backend cannot be made, so that it gets the first warning.
#[test]
fn b4_where_a_backend_is_forbidden_another_one_takes_its_place_and_one_warning_says_so() {
    let plan = Plan::new();
    plan.fail_always("create", Errno::PERM);
    let logged = warnings(|| {
        for _ in 0..2 {
            let lower = preferred("io_uring", plan.maker(), Ppoll::new()).expect_err("it cannot be made");
            assert_eq!(lower.name(), "ppoll");
        }
    });
    assert_eq!(plan.made_and_alive(), (2, 0));
    assert_eq!(logged.len(), 1, "{logged:?}");
    for part in ["io_uring is not available; ppoll", "error=", "io_uring_disabled"] {
        assert!(logged[0].contains(part), "{part} is missing in {}", logged[0]);
    }
}

#[test]
fn b4_a_preferred_backend_is_made_once_and_stays_until_it_fails() {
    let plan = Plan::new();
    let mut world = World::default();
    let mut ladder = preferred("faulty", plan.maker(), Ppoll::new()).expect("it can be made");
    let token = world.add(&mut ladder, aio_backend::Interest::READ);
    ladder.rebalance();
    assert_eq!((plan.made_and_alive(), ladder.level()), ((1, 1), Level::Upper));
    plan.fail_next("wait", Errno::NOMEM);
    world.kick(token);
    world.expect(&mut ladder);
    ladder.rebalance();
    assert_eq!((plan.made_and_alive(), ladder.level()), ((1, 0), Level::Lower));
    world.end(&mut ladder);
}
