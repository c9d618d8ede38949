//! The spin of a loop before a sleep.

use super::*;
use crate::Plan;

#[test]
fn a_spin_before_a_sleep_ends_with_an_event_or_its_time() {
    let (mut world, pacing) = (World::default(), World::pacing());
    let longest = pacing.pre_sleep.get().longest();
    let (found, passed) = pacing.spin(&mut world, None).expect("no check fails");
    assert!(!found && passed >= longest);
    let limit = Duration::from_nanos(500);
    let (found, passed) = pacing.spin(&mut world, Some(limit)).expect("no check fails");
    assert!(!found && passed >= limit && passed < longest);
    world.event_at = Some(world.now_ns.get() + 600);
    let (found, passed) = pacing.spin(&mut world, None).expect("no check fails");
    assert!(found && passed < longest);
}

#[test]
fn a4_n2_after_a_spin_in_vain_the_rest_of_the_time_is_waited_for() {
    let pacing = World::pacing();
    let us = Duration::from_micros;
    let go_on = |event_at, timeout, is_announced| {
        let mut world = World {
            event_at,
            ..World::default()
        };
        let mut announced = 0;
        let plan = pacing.spin_on(&mut world, timeout, || {
            announced += 1;
            is_announced
        });
        (plan.expect("no check fails"), announced)
    };
    assert_eq!(go_on(Some(700), None, true), (Plan::Skip, 0), "it was found");
    assert_eq!(
        go_on(None, Some(us(1)), true),
        (Plan::Skip, 0),
        "the time is over"
    );
    assert_eq!(go_on(None, None, true), (Plan::Wait(None), 1));
    assert_eq!(
        go_on(None, None, false),
        (Plan::Check, 1),
        "a thread has notified"
    );
    let (Plan::Wait(Some(left)), 1) = go_on(None, Some(us(50)), true) else {
        panic!("there is time left");
    };
    assert!(left < us(49) && left > us(40), "{left:?}");
}
