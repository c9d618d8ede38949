//! The steps between a search and a sleep in the simulated world: no other thread notifies it, and its queues need no kick.

use std::convert::Infallible;

use aio_pollctl::Prepare;

use super::world::World;

impl Prepare for World {
    type Error = Infallible;

    fn is_simulated(&self) -> bool {
        // Checks take their time here, as on a real clock.
        false
    }

    fn leave_poll_mode(&mut self) -> bool {
        false
    }

    fn poll_unkicked(&mut self) -> Result<(), Infallible> {
        Ok(())
    }

    fn after_hit(&mut self) -> Result<(), Infallible> {
        Ok(())
    }

    fn outlast_write(&mut self) -> bool {
        false
    }

    fn announce(&mut self) -> bool {
        true
    }
}
