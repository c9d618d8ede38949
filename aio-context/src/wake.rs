//! [`measure_wake_cost`]: the cost of a sleep, as polling parameters take it.

use std::io;

use aio_notify::measure_sleep;
use aio_pollctl::WakeCost;

/// Measures what it costs to sleep for a moment and to be woken by another thread, on this core, for
/// [`PollParams::with_measured_wake`](aio_pollctl::PollParams::with_measured_wake). Takes about 15 ms, at most 80.
///
/// Call it on the thread that will run the context, after it was bound to its core. A machine that is too busy to be measured in that time is taken for a [typical](WakeCost::ASSUMED) one.
///
/// # Errors
/// What the system says to an eventfd and a thread.
pub fn measure_wake_cost() -> io::Result<WakeCost> {
    let Some(sleep) = measure_sleep()? else {
        tracing::info!("the machine is too busy to measure the cost of a sleep; a usual one is assumed");
        return Ok(WakeCost::ASSUMED);
    };
    tracing::debug!(?sleep, "the cost of a sleep, as measured");
    Ok(WakeCost {
        latency: sleep.latency,
        cpu: sleep.cpu,
        kick: sleep.kick,
    })
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
