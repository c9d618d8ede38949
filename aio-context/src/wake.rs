//! [`measure_wake_cost`]: the cost of a sleep, as polling parameters take it.

use std::io;

use aio_notify::measure_sleep;
use aio_pollctl::WakeCost;

/// Measures what it costs to sleep for a moment and to be woken by another thread, for
/// [`PollParams::with_measured_wake`](aio_pollctl::PollParams::with_measured_wake). Takes about 10 ms, at most 80.
///
/// A machine that is too busy to be measured in that time is taken for a [typical](WakeCost::ASSUMED) one.
///
/// # Errors
/// What the system says to an eventfd and a thread.
pub fn measure_wake_cost() -> io::Result<WakeCost> {
    let measured = measure_sleep()?;
    Ok(measured.map_or(WakeCost::ASSUMED, |sleep| WakeCost {
        latency: sleep.latency,
        cpu: sleep.cpu,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measured_cost_is_known() {
        let cost = measure_wake_cost().expect("there are descriptors left");
        assert!(!cost.is_unknown());
    }
}
