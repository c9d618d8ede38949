//! The demo's rows for people: a table of medians, and what they say, as ratios of runs of the same round.

use crate::Row;
use aio_tools::report::{median, range};

/// What runs of different rounds have in common.
type Cell<'a> = (usize, usize, &'a str, &'static str, &'static str);

fn cell(row: &Row) -> Cell<'_> {
    (
        row.idle_queues,
        row.queue_depth,
        &row.client,
        row.server,
        row.polling,
    )
}

pub(crate) fn print(rows: &[Row]) {
    if rows.is_empty() {
        return;
    }
    println!("All requests are reads of 512 bytes, every byte of them verified. Medians of the rounds.\n");
    println!(
        "{:>6} {:>5} {:<14} {:<19} {:<8} {:>10} {:>21} {:>9} {:>9} {:>6}",
        "idle", "depth", "client", "server", "polling", "IOPS", "[min - max]", "p50 us", "p99 us", "CPU %"
    );
    let mut last = None;
    let mut cells = cells(rows);
    cells.sort_by_key(|(idle, depth, client, ..)| (*idle, *depth, client.len(), *client != "spin"));
    for cell in cells {
        let (idle, depth, client, server, polling) = cell;
        if last
            .replace((idle, depth, client))
            .is_some_and(|last| last != (idle, depth, client))
        {
            println!();
        }
        let of = |figure: fn(&Row) -> f64| figures(rows, cell, figure);
        let iops = of(|row| row.iops);
        let (low, high) = range(&iops);
        println!(
            "{idle:>6} {depth:>5} {client:<14} {server:<19} {polling:<8} {:>10} {:>21} {:>9.2} {:>9.2} {:>6.0}",
            thousands(median(&iops)),
            format!("[{} - {}]", thousands(low), thousands(high)),
            median(&of(|row| row.p50_us)),
            median(&of(|row| row.p99_us)),
            median(&of(|row| row.server_cpu_pct)),
        );
    }
    println!("\nRatios of IOPS, run by run of the same round: median [min - max]");
    for (text, above, below) in comparisons(rows) {
        if let Some(ratios) = ratios(rows, above, below) {
            let (low, high) = range(&ratios);
            println!("  {text:<74} {:>6.2} [{low:.2} - {high:.2}]", median(&ratios));
        }
    }
}

fn cells(rows: &[Row]) -> Vec<Cell<'_>> {
    let mut cells = Vec::new();
    for row in rows {
        if !cells.contains(&cell(row)) {
            cells.push(cell(row));
        }
    }
    cells
}

fn figures(rows: &[Row], wanted: Cell<'_>, figure: fn(&Row) -> f64) -> Vec<f64> {
    rows.iter()
        .filter(|row| cell(row) == wanted)
        .map(figure)
        .collect()
}

/// Round by round; `None` unless both were measured.
fn ratios(rows: &[Row], above: Cell<'_>, below: Cell<'_>) -> Option<Vec<f64>> {
    let iops = |cell| figures(rows, cell, |row| row.iops);
    let ratios: Vec<f64> = iops(above)
        .iter()
        .zip(iops(below))
        .map(|(above, below)| above / below)
        .collect();
    (!ratios.is_empty()).then_some(ratios)
}

fn comparisons(rows: &[Row]) -> Vec<(String, Cell<'static>, Cell<'static>)> {
    let most_idle = rows.iter().map(|row| row.idle_queues).max().unwrap_or(0);
    let mut list = Vec::new();
    for (server, polling) in [
        ("blockd", "off"),
        ("blockd", "adaptive"),
        ("qemu-storage-daemon", "off"),
        ("qemu-storage-daemon", "adaptive"),
    ] {
        list.push((
            format!("{server}, polling {polling}, spin client: {most_idle} idle queues over none"),
            (most_idle, 1, "spin", server, polling),
            (0, 1, "spin", server, polling),
        ));
    }
    for (idle, depth) in [(0, 1), (most_idle, 1), (0, 32)] {
        for client in ["spin", "event"] {
            for polling in ["off", "adaptive"] {
                list.push((
                    format!(
                        "blockd over qemu-storage-daemon, {polling}, {idle} idle, depth {depth}, {client}"
                    ),
                    (idle, depth, client, "blockd", polling),
                    (idle, depth, client, "qemu-storage-daemon", polling),
                ));
            }
        }
    }
    list.retain(|(_, above, below)| above != below);
    list.dedup_by_key(|(text, ..)| text.clone());
    list
}

/// A whole number with a separator every three digits.
fn thousands(figure: f64) -> String {
    let digits = format!("{figure:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(server: &'static str, idle_queues: usize, round: usize, iops: f64) -> Row {
        Row {
            server,
            polling: "off",
            idle_queues,
            queue_depth: 1,
            client: "spin".to_owned(),
            round,
            iops,
            mean95_us: 1.0,
            p50_us: 1.0,
            p99_us: 2.0,
            p999_us: 3.0,
            server_cpu_pct: 4.0,
            verified: true,
        }
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let rows = [
            row("blockd", 0, 0, 100.0),
            row("blockd", 3200, 0, 90.0),
            row("blockd", 0, 1, 10.0),
            row("blockd", 3200, 1, 10.0),
        ];
        let cells = cells(&rows);
        assert_eq!(cells.len(), 2);
        assert_eq!(ratios(&rows, cells[1], cells[0]), Some(vec![0.9, 1.0]));
        let absent = (64, 1, "spin", "blockd", "off");
        assert_eq!(ratios(&rows, absent, cells[0]), None);
    }

    #[test]
    fn long_numbers_are_grouped() {
        assert_eq!(thousands(7.4), "7");
        assert_eq!(thousands(1234.0), "1,234");
        assert_eq!(thousands(2_090_000.4), "2,090,000");
    }
}
