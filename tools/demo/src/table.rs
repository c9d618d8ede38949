//! The demo's rows as text: a table of medians, and ratios of runs of the same round.

use aio_tools::report::{median, range};

use crate::row::{Cell, Row, cells, figures, ratios};
use crate::server::{BLOCKD, DISK, FLOOR, PEER, PEER_AIO, PEER_NULL};
use crate::summary::peers;

pub(crate) fn print(rows: &[Row]) {
    println!(
        "All requests are reads of 512 bytes, every byte compared by the same code for all servers. Medians of the rounds."
    );
    println!(
        "{BLOCKD} serves {} KiB of its memory, and adaptive polling is the policy `learned`.",
        DISK >> 10
    );
    if rows.iter().any(|row| row.server != BLOCKD) {
        println!(
            "{PEER} serves a file in memory (memfd, aio={PEER_AIO}: it has no RAM disk) with the same contents;\n\
             {PEER_NULL} a null disk, which reads as zeroes: the least it can do for a request;\n\
             {FLOOR} the queues and the disk of blockd on a hand-written loop, which sleeps in epoll_wait or spins."
        );
    }
    println!(
        "\n{:>6} {:>5} {:<14} {:<26} {:<8} {:>10} {:>21} {:>9} {:>9} {:>6} {:>6}",
        "idle",
        "depth",
        "client",
        "server",
        "polling",
        "IOPS",
        "[min - max]",
        "p50 us",
        "p99 us",
        "CPU %",
        "kicks"
    );
    let mut last: Option<Cell> = None;
    let mut cells = cells(rows);
    let is_spin = |cell: &Cell| cell.client == "spin";
    cells.sort_by(|one, other| {
        let key = |cell: &Cell| {
            (
                cell.idle_queues,
                cell.queue_depth,
                cell.client.len(),
                !is_spin(cell),
            )
        };
        key(one)
            .cmp(&key(other))
            .then(one.think_us.total_cmp(&other.think_us))
    });
    for cell in cells {
        if last.is_some_and(|last| cell.by(last.server, last.polling) != last) {
            println!();
        }
        print_cell(rows, &cell);
        last = Some(cell);
    }
    println!("\nRatios of IOPS, run by run of the same round: median [min - max]");
    for (text, above, below) in comparisons(rows) {
        if let Some(ratios) = ratios(rows, &above, &below) {
            let (low, high) = range(&ratios);
            println!("  {text:<88} {:>6.2} [{low:.2} - {high:.2}]", median(&ratios));
        }
    }
}

fn print_cell(rows: &[Row], cell: &Cell) {
    let of = |figure: fn(&Row) -> f64| figures(rows, cell, figure);
    let middle = |figure: fn(&Row) -> f64| median(&of(figure));
    let iops = of(|row| row.iops);
    let (low, high) = range(&iops);
    let client = match cell.think_us {
        0.0 => cell.client.clone(),
        think => format!("{} +{think} us", cell.client),
    };
    println!(
        "{:>6} {:>5} {client:<14} {:<26} {:<8} {:>10} {:>21} {:>9.2} {:>9.2} {:>6.0} {:>6.2}",
        cell.idle_queues,
        cell.queue_depth,
        cell.server,
        cell.polling,
        thousands(median(&iops)),
        format!("[{} - {}]", thousands(low), thousands(high)),
        middle(|row| row.p50_us),
        middle(|row| row.p99_us),
        middle(|row| row.server_cpu_pct),
        middle(|row| row.kicks_per_request),
    );
}

/// Returns the comparisons: each server with many idle queues over none, and blockd over the peer wherever
/// both were measured.
fn comparisons(rows: &[Row]) -> Vec<(String, Cell, Cell)> {
    let most_idle = rows.iter().map(|row| row.idle_queues).max().unwrap_or(0);
    let all = cells(rows);
    let mut list = Vec::new();
    for none in all
        .iter()
        .filter(|cell| most_idle > 0 && cell.idle_queues == 0 && cell.client == "spin")
    {
        let text = format!(
            "{}, polling {}, spin client: {most_idle} idle queues over none",
            none.server, none.polling
        );
        list.push((text, none.beside(most_idle), none.clone()));
    }
    for ours in all.iter().filter(|cell| cell.server == BLOCKD) {
        for (peer, polling) in peers(ours.polling) {
            let text = format!("{BLOCKD} over {peer}, {}, {}", ours.polling, ours.work());
            list.push((text, ours.clone(), ours.by(peer, polling)));
        }
    }
    list
}

/// Formats a whole number with a separator every three digits.
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
    use crate::row::tests::row;

    #[test]
    fn servers_are_compared_at_the_same_work() {
        let rows = [
            row(BLOCKD, "off", 0, 2.0),
            row(BLOCKD, "off", 64, 2.0),
            row(PEER, "off", 0, 1.0),
        ];
        let found: Vec<(String, Vec<f64>)> = comparisons(&rows)
            .into_iter()
            .filter_map(|(text, above, below)| Some((text, ratios(&rows, &above, &below)?)))
            .collect();
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(
            found[0],
            (
                "blockd, polling off, spin client: 64 idle queues over none".to_owned(),
                vec![1.0]
            )
        );
        assert_eq!(found[1].1, [2.0]);
    }

    #[test]
    fn long_numbers_are_grouped() {
        assert_eq!(thousands(7.4), "7");
        assert_eq!(thousands(1234.0), "1,234");
        assert_eq!(thousands(2_090_000.4), "2,090,000");
    }
}
