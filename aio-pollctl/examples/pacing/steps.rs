//! The steps of a search in the simulated world.

use std::convert::Infallible;
use std::time::Duration;

use aio_pollctl::{IdleCosts, Search};

use super::world::World;

impl Search for World {
    type Error = Infallible;

    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn cpu_time(&self) -> Duration {
        Duration::from_nanos(self.now_ns)
    }

    fn run_delay(&self) -> Option<Duration> {
        None
    }

    fn is_in_poll_mode(&self) -> bool {
        true
    }

    fn enter_poll_mode(&mut self) {}

    fn round(&mut self) -> bool {
        self.poll()
    }

    fn rounds(&self) -> u32 {
        self.polls as u32
    }

    fn is_notified(&self) -> bool {
        false
    }

    fn is_full(&self) -> bool {
        false
    }

    fn check(&mut self) -> Result<bool, Infallible> {
        Ok(self.check_descriptor())
    }

    fn can_peek(&self) -> bool {
        false
    }

    fn peek(&mut self) -> Result<bool, Infallible> {
        Ok(false)
    }

    fn peek_beside_hits(&mut self) -> Result<bool, Infallible> {
        Ok(false)
    }

    fn demote_idle(&mut self, costs: &IdleCosts) -> bool {
        // All but one have been idle from the beginning.
        let is_idle = self.polls >= u64::from(costs.idle_after());
        let idle = if is_idle { self.polled - 1 } else { 0 };
        self.polled -= costs.surplus(self.polled, idle);
        false
    }

    fn pass(&mut self, _: Duration) -> bool {
        false
    }

    fn suspended(&mut self) {}
}
