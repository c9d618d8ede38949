//! Measures the cost of a sleep in batches, as programs do at their start and while they run: how far do the batches differ? Other load
//! on the machine shows in some of them.
//!
//! ```sh
//! cargo run --release -p aio-notify --example sleep_cost
//! ```

use std::time::Duration;

use aio_notify::SleepMeter;

fn main() -> std::io::Result<()> {
    println!(
        "{:>10} {:>10} {:>10} {:>10} {:>12} {:>12}",
        "latency", "slow", "cpu", "kick", "break-even", "both asleep"
    );
    let mut break_evens = Vec::new();
    let mut meter = SleepMeter::new();
    for _ in 0..16 {
        let Some(cost) = meter.measure()? else {
            println!("the core is too busy to be measured");
            continue;
        };
        let break_even = cost.latency + cost.cpu + cost.kick;
        break_evens.push(break_even);
        // The latency while the waker sleeps, too.
        let both = meter.measure_both_asleep()?;
        let both = both.map_or_else(|| "-".to_owned(), |both| format!("{:.1?}", both.latency));
        println!(
            "{:>10.1?} {:>10.1?} {:>10.1?} {:>10.1?} {:>12.1?} {:>12}",
            cost.latency, cost.slow_latency, cost.cpu, cost.kick, break_even, both
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    break_evens.sort();
    if let (Some(least), Some(most)) = (break_evens.first(), break_evens.last()) {
        let factor = most.as_secs_f64() / least.as_secs_f64();
        println!("the longest break-even time is {factor:.2} times the shortest");
    }
    Ok(())
}
