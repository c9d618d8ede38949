//! The loop's clock: simulated time, with a resolution from the seed. Others may act at each reading.

use aio_context::{Clock, Moment};

use crate::plant::Plant;
use crate::world;

/// A clock that shows the simulated time of this thread's world.
#[derive(Debug)]
pub(crate) struct SimulatedClock;

impl Clock for SimulatedClock {
    fn now(&self) -> Moment {
        world::with(|world| {
            if world.peeking.get() {
                return Moment::from_nanos(world.peek_time());
            }
            world.pass_for_a_reading();
            world.others_may_act();
            let ahead = if world.plant == Some(Plant::ClockAhead) {
                2_000_000
            } else {
                0
            };
            Moment::from_nanos(world.shown_time() + ahead)
        })
    }
}
