//! `blockd ctl stats`: a table of totals, or with `--watch` of rates, refreshed until a signal ends it.

use std::collections::HashMap;
use std::io::{self, IsTerminal as _, Write};
use std::time::Duration;

use super::command::Command;
use super::connection::Connection;
use super::table::Table;
use super::terminal::Screen;
use crate::figures::{ExportFigures, LoopFigures, Snapshot, Sums};

/// The number of rates in a sparkline.
const HISTORY: usize = 30;

/// Prints the totals once.
pub(super) fn print(snapshot: &Snapshot, out: &mut dyn Write) -> io::Result<()> {
    let heading = [
        "EXPORT",
        "CLIENT",
        "REQUESTS",
        "READ",
        "WRITTEN",
        "ERRORS",
        "P50",
        "P99",
        "POLL HITS",
        "KICKS",
        "CALLS",
    ];
    let mut table = Table::new(&heading);
    for export in &snapshot.exports {
        let sums = export.sums();
        table.row([
            export.name.clone(),
            client(export).to_owned(),
            sums.requests.to_string(),
            bytes(sums.read as f64),
            bytes(sums.written as f64),
            sums.errors.to_string(),
            time(sums.latency.quantile_us(0.5)),
            time(sums.latency.quantile_us(0.99)),
            sums.poll_hits.to_string(),
            sums.kicks.to_string(),
            sums.calls.to_string(),
        ]);
    }
    table.write(out)
}

/// Prints rates, or the answers as JSON, every `interval` until SIGINT or SIGTERM.
///
/// # Errors
/// If the daemon ends, or the output cannot be written.
pub(super) fn watch(
    connection: &mut Connection,
    interval: Duration,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let mut screen = Screen::start(out, !json && io::stdout().is_terminal())?;
    let mut rates = Rates::default();
    let mut before: Option<Snapshot> = None;
    loop {
        let answer = connection.send(&Command::Stats {})?;
        if json {
            screen.show(answer.to_string().as_bytes())?;
        } else {
            let now: Snapshot = serde_json::from_value(answer)?;
            if let Some(before) = &before {
                let mut text = Vec::new();
                rates.write(before, &now, &mut text)?;
                screen.show(&text)?;
            }
            before = Some(now);
        }
        if screen.wait(interval)? {
            return Ok(());
        }
    }
}

/// The rates up to now.
#[derive(Debug, Default)]
struct Rates {
    /// Requests per second, by the name of the export.
    history: HashMap<String, Vec<f64>>,
}

impl Rates {
    fn write(&mut self, before: &Snapshot, now: &Snapshot, out: &mut dyn Write) -> io::Result<()> {
        let seconds = now.at_ns.saturating_sub(before.at_ns).max(1) as f64 / 1e9;
        let heading = [
            "EXPORT",
            "CLIENT",
            "IOPS",
            "READ/s",
            "WRITE/s",
            "P50",
            "P99",
            "HITS/s",
            "KICKS/s",
            "CALLS/s",
            "ERRORS",
            "IOPS, PAST TO PRESENT",
        ];
        let mut table = Table::new(&heading);
        self.history
            .retain(|name, _| now.exports.iter().any(|export| export.name == *name));
        for export in &now.exports {
            let sums = export.sums();
            let then = before.exports.iter().find(|then| then.name == export.name);
            let then = then.map_or_else(Sums::default, ExportFigures::sums);
            // The counters of an export that was removed and added again begin at zero.
            let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
            let iops = rate(sums.requests, then.requests);
            let history = self.history.entry(export.name.clone()).or_default();
            history.push(iops);
            let excess = history.len().saturating_sub(HISTORY);
            history.drain(..excess);
            let latency = sums.latency.since(&then.latency);
            table.row([
                export.name.clone(),
                client(export).to_owned(),
                count(iops),
                bytes(rate(sums.read, then.read)),
                bytes(rate(sums.written, then.written)),
                time(latency.quantile_us(0.5)),
                time(latency.quantile_us(0.99)),
                count(rate(sums.poll_hits, then.poll_hits)),
                count(rate(sums.kicks, then.kicks)),
                count(rate(sums.calls, then.calls)),
                sums.errors.to_string(),
                sparkline(history),
            ]);
        }
        table.write(out)?;
        for event_loop in &now.loops {
            let then = before.loops.iter().find(|then| then.name == event_loop.name);
            let then = then.cloned().unwrap_or_default();
            write_loop(&then, event_loop, seconds, out)?;
        }
        Ok(())
    }
}

fn write_loop(then: &LoopFigures, now: &LoopFigures, seconds: f64, out: &mut dyn Write) -> io::Result<()> {
    let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
    // The unit is nanoseconds per second, in percent.
    let share = |now, then| rate(now, then) / 1e7;
    writeln!(
        out,
        "loop {}: {} iterations/s, {} sleeps/s, asleep {:.0} %, polling {:.0} %, {} poll hits/s, {} misses/s",
        now.name,
        count(rate(now.iterations, then.iterations)),
        count(rate(now.sleeps, then.sleeps)),
        share(now.slept_ns, then.slept_ns).min(100.0),
        share(now.polled_ns, then.polled_ns).min(100.0),
        count(rate(now.poll_hits, then.poll_hits)),
        count(rate(now.poll_misses, then.poll_misses)),
    )
}

fn client(export: &ExportFigures) -> &'static str {
    if export.connected { "connected" } else { "none" }
}

/// Draws a block for each value, with a height relative to the largest.
fn sparkline(values: &[f64]) -> String {
    const BLOCKS: [char; 8] = [
        '\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}', '\u{2588}',
    ];
    let largest = values.iter().copied().fold(0.0, f64::max);
    let block = |value: &f64| {
        if largest <= 0.0 {
            return BLOCKS[0];
        }
        let height = (value / largest * 7.0).round() as usize;
        BLOCKS[height.min(7)]
    };
    values.iter().map(block).collect()
}

/// Formats a rounded number with a unit of thousands.
fn count(value: f64) -> String {
    with_unit(value, 1000.0, &["", "k", "M", "G"])
}

/// Formats a rounded number of bytes with a unit of 1024.
fn bytes(value: f64) -> String {
    with_unit(value, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"])
}

fn with_unit(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while value >= step && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let decimals = usize::from(unit > 0 && value < 100.0);
    format!("{value:.decimals$}{}", units[unit])
}

/// Formats a time of whole microseconds.
fn time(us: Option<u64>) -> String {
    match us {
        None => "-".to_owned(),
        Some(us) if us < 1000 => format!("{us}us"),
        Some(us) if us < 1_000_000 => format!("{:.1}ms", us as f64 / 1e3),
        Some(us) => format!("{:.1}s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::{KindFigures, QueueFigures};

    #[test]
    fn sparklines_are_relative_to_their_largest_value() {
        assert_eq!(sparkline(&[]), "");
        assert_eq!(sparkline(&[0.0, 0.0]), "\u{2581}\u{2581}");
        assert_eq!(sparkline(&[0.0, 50.0, 100.0]), "\u{2581}\u{2585}\u{2588}");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!((count(0.0).as_str(), count(999.4).as_str()), ("0", "999"));
        assert_eq!(
            (count(1234.0).as_str(), count(123_456.0).as_str()),
            ("1.2k", "123k")
        );
        assert_eq!(
            (bytes(512.0).as_str(), bytes(1536.0).as_str()),
            ("512B", "1.5KiB")
        );
        let times = [None, Some(1), Some(2048), Some(1 << 23)].map(time);
        assert_eq!(times, ["-", "1us", "2.0ms", "8.4s"]);
    }

    fn snapshot(at_s: u64, reads: u64) -> Snapshot {
        let read = KindFigures {
            requests: reads,
            bytes: reads * 4096,
            errors: 0,
        };
        let queue = QueueFigures {
            kinds: [("read".to_owned(), read)].into(),
            kicks: reads / 2,
            ..QueueFigures::default()
        };
        let export = ExportFigures {
            name: "disk".into(),
            thread: "main".into(),
            size: 1 << 20,
            connected: true,
            clients: 1,
            in_flight: 0,
            queues: vec![queue],
            nbd: None,
        };
        Snapshot {
            at_ns: at_s * 1_000_000_000,
            exports: vec![export],
            loops: vec![LoopFigures {
                name: "main".into(),
                iterations: reads,
                ..LoopFigures::default()
            }],
        }
    }

    #[test]
    fn rates_are_per_second() {
        let mut rates = Rates::default();
        let mut write = |before, now| {
            let mut out = Vec::new();
            rates.write(&before, &now, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let text = write(snapshot(10, 1000), snapshot(12, 9000));
        let row: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row[..4], ["disk", "connected", "4.0k", "15.6MiB"]);
        assert_eq!(row[8], "2.0k");
        assert!(text.contains("loop main: 4.0k iterations/s"), "{text}");
        for second in 12..100 {
            write(snapshot(second, 9000), snapshot(second + 1, 9000));
        }
        // A restarted daemon counts from zero.
        let text = write(snapshot(100, 9000), snapshot(1, 0));
        let row = text.lines().nth(1).unwrap();
        let blocks = row.chars().filter(|c| ('\u{2581}'..='\u{2588}').contains(c));
        assert_eq!(blocks.count(), HISTORY);
    }
}
