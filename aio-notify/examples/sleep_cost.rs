//! Measures the cost of a sleep ten times, as ten programs would at their start: how far do the results differ?
//!
//! ```sh
//! cargo run --release -p aio-notify --example sleep_cost
//! ```

use std::time::Duration;

use aio_notify::measure_sleep;

fn main() -> std::io::Result<()> {
    println!(
        "{:>10} {:>10} {:>10} {:>10} {:>12}",
        "latency", "slow", "cpu", "kick", "break-even"
    );
    let (mut least, mut most) = (Duration::MAX, Duration::ZERO);
    for _ in 0..10 {
        let Some(cost) = measure_sleep()? else {
            println!("the machine is too busy to be measured");
            continue;
        };
        let break_even = cost.latency + cost.cpu + cost.kick;
        (least, most) = (least.min(break_even), most.max(break_even));
        println!(
            "{:>10.1?} {:>10.1?} {:>10.1?} {:>10.1?} {:>12.1?}",
            cost.latency, cost.slow_latency, cost.cpu, cost.kick, break_even
        );
    }
    if !most.is_zero() {
        let factor = most.as_secs_f64() / least.as_secs_f64();
        println!("the longest break-even time is {factor:.2} times the shortest");
    }
    Ok(())
}
