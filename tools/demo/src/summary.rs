//! The summary of the rows: the cells where blockd is behind, and two sentences.

use std::fmt::Write as _;

use aio_tools::report::{median, range};

use crate::row::{Cell, Row, cells, ratios};
use crate::server::{BLOCKD, FLOOR, PEER, PEER_NULL};

/// Prints the lines that begin with "behind:", and the sentences.
pub(crate) fn print(rows: &[Row]) {
    println!();
    for line in behind(rows) {
        println!("behind: {line}");
    }
    println!();
    for line in floors(rows) {
        println!("floor: {line}");
    }
    println!();
    for sentence in sentences(rows) {
        println!("{sentence}");
    }
}

/// The servers that blockd is compared with: the daemon with the same polling, and its null disk. The null
/// disk is measured without polling, because polling makes no difference to its exports.
pub(crate) fn peers(polling: &'static str) -> [(&'static str, &'static str); 2] {
    [(PEER, polling), (PEER_NULL, "off")]
}

/// Returns every cell where blockd serves fewer requests per second than qemu-storage-daemon.
fn behind(rows: &[Row]) -> Vec<String> {
    let (mut lines, mut judged) = (Vec::new(), 0);
    for ours in cells(rows).iter().filter(|cell| cell.server == BLOCKD) {
        for (peer, polling) in peers(ours.polling) {
            let Some(ratios) = ratios(rows, ours, &ours.by(peer, polling)) else {
                continue;
            };
            judged += 1;
            let (low, high) = range(&ratios);
            if median(&ratios) < 1.0 {
                let within = if high >= 1.0 { ", within the spread" } else { "" };
                lines.push(format!(
                    "polling {}, {}: {:.2} [{low:.2} - {high:.2}] of {peer}{within}",
                    ours.polling,
                    ours.work(),
                    median(&ratios)
                ));
            }
        }
    }
    match (judged, lines.len()) {
        (0, _) => vec![format!(
            "not judged, because {PEER} was not measured beside blockd"
        )],
        (_, 0) => vec![format!("nowhere, in {judged} comparisons with {PEER}")],
        _ => lines,
    }
}

/// Returns the cost of the event loop: blockd over its own queues on a hand-written loop that waits in the
/// same way.
fn floors(rows: &[Row]) -> Vec<String> {
    let ours = cells(rows).into_iter().filter(|cell| cell.server == BLOCKD);
    ours.filter_map(|ours| {
        let floor = if ours.polling == "off" { "off" } else { "always" };
        let ratios = ratios(rows, &ours, &ours.by(FLOOR, floor))?;
        let (low, high) = range(&ratios);
        Some(format!(
            "polling {}, {}: {:.2} [{low:.2} - {high:.2}] of the hand-written loop that {}",
            ours.polling,
            ours.work(),
            median(&ratios),
            if floor == "off" { "sleeps" } else { "spins" }
        ))
    })
    .collect()
}

/// Returns a sentence about idle queues and one about polling, if they were measured.
fn sentences(rows: &[Row]) -> Vec<String> {
    [about_idle_queues(rows), about_polling(rows)]
        .into_iter()
        .flatten()
        .collect()
}

fn spinning(server: &'static str, polling: &'static str) -> Cell {
    Cell {
        idle_queues: 0,
        queue_depth: 1,
        client: "spin".to_owned(),
        think_us: 0.0,
        server,
        polling,
    }
}

fn about_idle_queues(rows: &[Row]) -> Option<String> {
    let most = rows
        .iter()
        .map(|row| row.idle_queues)
        .max()
        .filter(|most| *most > 0)?;
    let kept = |server, polling| {
        let none = spinning(server, polling);
        ratios(rows, &none.beside(most), &none).map(|ratios| median(&ratios))
    };
    let ours = kept(BLOCKD, "adaptive").or_else(|| kept(BLOCKD, "off"))?;
    let mut sentence = format!("With {most} idle queues, blockd keeps {ours:.2} of its requests per second");
    if let Some(peer) = kept(PEER, "off") {
        let _ = write!(sentence, ", {PEER} {peer:.2}");
    }
    Some(sentence + ".")
}

fn about_polling(rows: &[Row]) -> Option<String> {
    let adaptive = spinning(BLOCKD, "adaptive");
    let over = |client: &str, depth: usize, (server, polling): (&'static str, &'static str)| {
        let ours = Cell {
            client: client.to_owned(),
            queue_depth: depth,
            ..adaptive.clone()
        };
        ratios(rows, &ours, &ours.by(server, polling)).map(|ratios| median(&ratios))
    };
    // The ratio to the quicker of the two disks of qemu-storage-daemon.
    let over_peer = |client: &str, depth: usize| {
        let [one, other] = peers("adaptive").map(|peer| over(client, depth, peer));
        Some(one?.min(other.unwrap_or(f64::INFINITY)))
    };
    let (Some(spin), Some(event)) = (over_peer("spin", 1), over_peer("event", 1)) else {
        let alone = over("spin", 1, (BLOCKD, "off"))?;
        return Some(format!(
            "One request at a time, adaptive polling serves a spinning client {alone:.1} times as fast as no polling."
        ));
    };
    let mut sentence = format!(
        "One request at a time, blockd with adaptive polling serves a spinning client {spin:.1} times, and a sleeping one \
         {event:.1} times, as fast as {PEER} with the quicker of its two disks"
    );
    if let (Some(spin), Some(event)) = (over_peer("spin", 32), over_peer("event", 32)) {
        let _ = write!(sentence, "; at depth 32 {spin:.1} and {event:.1} times");
    }
    Some(sentence + ".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::tests::{in_round, row};

    #[test]
    fn blockd_is_compared_with_the_floor_that_waits_as_it_does() {
        let rows = [
            row(BLOCKD, "off", 0, 90.0),
            row(BLOCKD, "adaptive", 0, 180.0),
            row(FLOOR, "off", 0, 100.0),
            row(FLOOR, "always", 0, 200.0),
        ];
        let lines = floors(&rows);
        assert_eq!(lines.len(), 2);
        assert!(
            lines[0].contains("off, 0 idle")
                && lines[0].contains("0.90 [0.90 - 0.90] of the hand-written loop that sleeps")
        );
        assert!(
            lines[1].contains("adaptive") && lines[1].contains("that spins"),
            "{lines:?}"
        );
        assert!(behind(&rows)[0].contains("not judged"), "the floor is no peer");
    }

    #[test]
    fn each_cell_where_we_lose_is_named() {
        let rows = [
            row(BLOCKD, "off", 0, 90.0),
            row(PEER, "off", 0, 100.0),
            in_round(1, row(BLOCKD, "off", 0, 100.0)),
            in_round(1, row(PEER, "off", 0, 100.0)),
            row(BLOCKD, "off", 64, 80.0),
            row(PEER, "off", 64, 100.0),
            row(BLOCKD, "adaptive", 0, 200.0),
            row(PEER, "adaptive", 0, 100.0),
            row(PEER_NULL, "off", 0, 50.0),
        ];
        assert_eq!(
            behind(&rows),
            [
                "polling off, 0 idle, depth 1, spin client: 0.95 [0.90 - 1.00] of qemu-storage-daemon, within the spread",
                "polling off, 64 idle, depth 1, spin client: 0.80 [0.80 - 0.80] of qemu-storage-daemon",
            ]
        );
    }

    #[test]
    fn to_be_behind_nowhere_is_said_too() {
        let rows = [row(BLOCKD, "off", 0, 100.0), row(PEER, "off", 0, 100.0)];
        assert_eq!(
            behind(&rows),
            ["nowhere, in 1 comparisons with qemu-storage-daemon"]
        );
        assert!(behind(&rows[..1])[0].starts_with("not judged"));
    }

    #[test]
    fn two_sentences_are_taken_home() {
        let event = |row: Row| Row {
            client: "event".to_owned(),
            ..row
        };
        let mut rows = vec![
            row(BLOCKD, "adaptive", 0, 600.0),
            row(BLOCKD, "adaptive", 3200, 594.0),
            event(row(BLOCKD, "adaptive", 0, 200.0)),
            row(BLOCKD, "off", 0, 300.0),
        ];
        let alone = sentences(&rows);
        assert_eq!(alone.len(), 2);
        assert!(
            alone[0].contains("With 3200 idle queues, blockd keeps 0.99"),
            "{alone:?}"
        );
        assert!(alone[1].contains("2.0 times as fast as no polling"), "{alone:?}");
        rows.extend([
            row(PEER, "off", 0, 100.0),
            row(PEER, "off", 3200, 2.0),
            row(PEER, "adaptive", 0, 100.0),
            event(row(PEER, "adaptive", 0, 50.0)),
        ]);
        let both = sentences(&rows);
        assert!(both[0].ends_with("qemu-storage-daemon 0.02."), "{both:?}");
        assert!(
            both[1].contains("6.0 times, and a sleeping one 4.0 times"),
            "{both:?}"
        );
        // The null disk is quicker, so the comparison is with the null disk.
        rows.push(row(PEER_NULL, "off", 0, 150.0));
        let harder = sentences(&rows);
        assert!(
            harder[1].contains("4.0 times, and a sleeping one 4.0 times"),
            "{harder:?}"
        );
        assert_eq!(sentences(&[]), Vec::<String>::new());
    }
}
