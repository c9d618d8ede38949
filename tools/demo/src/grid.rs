//! The grid: each depth with each think time and client, as a heat map, and its goals (P14).
//!
//! The heat map has a column for each server; the colour is the server's throughput relative to the best
//! one's. Polling also has to be worth its price: the *cost* of a request is the server's processor time,
//! plus the latency, plus the client's time for kicks.

use std::fmt::Write as _;
use std::path::Path;

use aio_tools::report::{median, range};
use anstyle::{Ansi256Color, Style};
use anyhow::anyhow;
use plotters::prelude::*;

use crate::predict;
use crate::row::{Cell, Row, cells, ratios, ratios_of};
use crate::server::{BLOCKD, FLOOR, PEER};

/// The least permitted ratio of throughput to the peer's, and the highest permitted cost relative to the
/// lower one of off and always.
const LEAST_THROUGHPUT: f64 = 1.0;
const MOST_COST: f64 = 1.05;
/// Below this share of the best throughput the costs are printed.
const NEAR_THE_BEST: f64 = 0.95;
/// The columns of the heat map.
const SERVERS: [(&str, &str); 6] = [
    (BLOCKD, "off"),
    (BLOCKD, "adaptive"),
    (BLOCKD, "always"),
    (PEER, "off"),
    (FLOOR, "off"),
    (FLOOR, "always"),
];
/// The ways of waiting in which blockd is compared with the hand-written loop.
const FLOORS: [&str; 2] = ["off", "always"];
/// The least permitted ratio of throughput to the floor's.
const LEAST_OF_FLOOR: f64 = 0.9;

/// One row of the heat map: a load, and each server's throughput relative to the best one's.
struct Line {
    cell: Cell,
    /// Medians over the rounds; `None` if the server was not measured.
    shares: [Option<f64>; SERVERS.len()],
}

impl Line {
    fn name(&self) -> String {
        let Cell {
            queue_depth,
            think_us,
            ..
        } = &self.cell;
        format!("depth {queue_depth:>2}, {think_us:>4} us")
    }
}

/// Prints the heat map and the cells that miss a goal.
pub(crate) fn print(rows: &[Row]) {
    anstream::println!(
        "\nThroughput over the best server of the row; the client thinks so long before each request. The last two columns are no \
         servers but floors: blockd's queues on a hand-written loop, which sleeps in epoll_wait or spins"
    );
    for client in ["spin", "event"] {
        anstream::print!("\n{:<22}", format!("{client} client"));
        for (server, polling) in SERVERS {
            anstream::print!("{:>9}", heading(server, polling));
        }
        anstream::println!();
        for line in lines(rows, client) {
            let mut text = format!("  {:<20}", line.name());
            for share in line.shares {
                match share {
                    Some(share) => {
                        let style = Style::new()
                            .bg_color(Some(colour_of_terminal(share).into()))
                            .fg_color(Some(Ansi256Color(16).into()));
                        let _ = write!(text, "  {style} {share:>5.2} {style:#}");
                    }
                    None => text.push_str("        -"),
                }
            }
            anstream::println!("{text}");
        }
    }
    println!(
        "\nGoals: throughput of off and of adaptive over {PEER} >= {LEAST_THROUGHPUT:.2}; cost of a request with adaptive over the \
         better of off and always <= {MOST_COST:.2}\n(cost: processor time of the server + latency of the quicker 95 % + the client's \
         time for kicks)\nThroughput of off over the floor that sleeps, and of always over the one that spins >= {LEAST_OF_FLOOR:.2}"
    );
    let verdicts: Vec<Verdict> = each_load(rows)
        .iter()
        .flat_map(|load| verdicts(rows, load))
        .collect();
    for verdict in verdicts.iter().filter(|verdict| !verdict.is_met) {
        println!("  missed: {}", verdict.text);
    }
    let met = verdicts.iter().filter(|verdict| verdict.is_met).count();
    println!("  met: {met} of {}", verdicts.len());
    println!(
        "\nAdaptive with less than {NEAR_THE_BEST} of the best throughput, and what the rest would have cost:"
    );
    let dear = each_load(rows)
        .into_iter()
        .filter_map(|load| price_of_the_rest(rows, &load));
    let mut count = 0;
    for line in dear {
        println!("  {line}");
        count += 1;
    }
    if count == 0 {
        println!("  nowhere");
    }
    predict::print(rows, &each_load(rows));
}

fn heading(server: &str, polling: &'static str) -> &'static str {
    match (server, polling) {
        (PEER, _) => "qemu",
        (FLOOR, "off") => "epoll",
        (FLOOR, _) => "spin",
        _ => polling,
    }
}

/// Returns each load once, as blockd's cell with adaptive polling.
fn each_load(rows: &[Row]) -> Vec<Cell> {
    let mut loads: Vec<Cell> = Vec::new();
    for cell in cells(rows) {
        let load = cell.by(BLOCKD, "adaptive");
        if !loads.contains(&load) {
            loads.push(load);
        }
    }
    loads.sort_by(|one, other| {
        (one.queue_depth, one.client != "spin")
            .cmp(&(other.queue_depth, other.client != "spin"))
            .then(one.think_us.total_cmp(&other.think_us))
    });
    loads
}

fn lines(rows: &[Row], client: &str) -> Vec<Line> {
    let loads = each_load(rows).into_iter().filter(|load| load.client == client);
    loads
        .map(|cell| {
            let best = |round: usize| {
                let is_server = |row: &&Row| row.round == round && row.server != FLOOR;
                let of_round = rows.iter().filter(is_server);
                let same = of_round.filter(|row| row.cell().by(BLOCKD, "adaptive") == cell);
                same.map(|row| row.iops).fold(0.0, f64::max)
            };
            let shares = SERVERS.map(|(server, polling)| {
                let wanted = cell.by(server, polling);
                let measured = rows.iter().filter(|row| row.cell() == wanted);
                let shares: Vec<f64> = measured.map(|row| row.iops / best(row.round)).collect();
                (!shares.is_empty()).then(|| median(&shares))
            });
            Line { cell, shares }
        })
        .collect()
}

/// One goal at one load.
struct Verdict {
    text: String,
    is_met: bool,
}

fn verdicts(rows: &[Row], load: &Cell) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for polling in ["off", "adaptive"] {
        let (ours, peer) = (load.by(BLOCKD, polling), load.by(PEER, "off"));
        if let Some(ratios) = ratios(rows, &ours, &peer) {
            verdicts.push(Verdict {
                text: format!(
                    "{}: throughput of {polling} over {PEER} {}",
                    load.work(),
                    spread(&ratios)
                ),
                is_met: median(&ratios) >= LEAST_THROUGHPUT,
            });
        }
    }
    for polling in FLOORS {
        if let Some(ratios) = ratios(rows, &load.by(BLOCKD, polling), &load.by(FLOOR, polling)) {
            verdicts.push(Verdict {
                text: format!(
                    "{}: throughput of {polling} over the floor {}",
                    load.work(),
                    spread(&ratios)
                ),
                is_met: median(&ratios) >= LEAST_OF_FLOOR,
            });
        }
    }
    if let Some(ratios) = costs_over_better(rows, load) {
        verdicts.push(Verdict {
            text: format!(
                "{}: cost of adaptive over the better of off and always {}",
                load.work(),
                spread(&ratios)
            ),
            is_met: median(&ratios) <= MOST_COST,
        });
    }
    verdicts
}

/// Returns the ratios of the cost with adaptive polling to the lower one of the other two, one for each
/// round.
fn costs_over_better(rows: &[Row], load: &Cell) -> Option<Vec<f64>> {
    let over = |polling| ratios_of(rows, load, &load.by(BLOCKD, polling), |row| row.cost_us);
    let (off, always) = (over("off")?, over("always")?);
    Some(
        off.iter()
            .zip(&always)
            .map(|(off, always)| off.max(*always))
            .collect(),
    )
}

/// Returns both costs as text, if adaptive polling has clearly less throughput than the best server.
fn price_of_the_rest(rows: &[Row], load: &Cell) -> Option<String> {
    let of = |server, polling| {
        let ratios = ratios(rows, load, &load.by(server, polling))?;
        Some((median(&ratios), (server, polling)))
    };
    let all = SERVERS
        .into_iter()
        .filter(|(server, _)| *server != FLOOR)
        .filter_map(|(server, polling)| of(server, polling));
    let (share, (server, polling)) = all.min_by(|one, other| one.0.total_cmp(&other.0))?;
    if share >= NEAR_THE_BEST {
        return None;
    }
    let costs = ratios_of(rows, &load.by(server, polling), load, |row| row.cost_us)?;
    Some(format!(
        "{}: {share:.2} of {}, where a request costs {:.2} times as much",
        load.work(),
        if server == PEER { PEER } else { polling },
        median(&costs)
    ))
}

fn spread(ratios: &[f64]) -> String {
    let (low, high) = range(ratios);
    format!("{:.2} [{low:.2} - {high:.2}]", median(ratios))
}

/// Returns the colour of a share: red for half of the best or less, over yellow to green for the best.
fn colour_of_terminal(share: f64) -> Ansi256Color {
    const COLOURS: [u8; 6] = [203, 209, 215, 221, 156, 120];
    let place = ((share - 0.5) / 0.5 * COLOURS.len() as f64).floor();
    Ansi256Color(COLOURS[place.clamp(0.0, COLOURS.len() as f64 - 1.0) as usize])
}

fn colour_of_picture(share: f64) -> HSLColor {
    let green = 0.36;
    HSLColor(((share - 0.5) / 0.5).clamp(0.0, 1.0) * green, 0.62, 0.72)
}

/// Draws the heat map.
pub(crate) fn draw(file: &Path, rows: &[Row]) -> anyhow::Result<()> {
    let clients = ["spin", "event"].map(|client| (client, lines(rows, client)));
    let longest = clients.iter().map(|(_, lines)| lines.len()).max().unwrap_or(0);
    let height = PLACE.top + PLACE.line * longest as i32 + 20;
    let root = SVGBackend::new(file, (2 * PLACE.panel as u32, height as u32)).into_drawing_area();
    let drawn = root.fill(&WHITE).map_err(|error| anyhow!("{error}"));
    drawn
        .and_then(|()| {
            for (at, (client, lines)) in (0..).zip(&clients) {
                draw_panel(&root, at * PLACE.panel, client, lines).map_err(|error| anyhow!("{error}"))?;
            }
            root.present().map_err(|error| anyhow!("{error}"))
        })
        .map_err(|error| anyhow!("cannot draw {}: {error}", file.display()))
}

/// The measures of the picture, in pixels.
struct Place {
    panel: i32,
    top: i32,
    line: i32,
    left: i32,
    column: i32,
}

const PLACE: Place = Place {
    panel: 700,
    top: 70,
    line: 26,
    left: 140,
    column: 90,
};

fn draw_panel(
    root: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    left: i32,
    client: &str,
    lines: &[Line],
) -> Result<(), Box<dyn std::error::Error>> {
    let title = format!("{client} client: throughput over the best");
    root.draw(&Text::new(title, (left + 14, 14), ("sans-serif", 18)))?;
    let font = ("sans-serif", 14);
    for (column, (server, polling)) in (0..).zip(SERVERS) {
        let x = left + PLACE.left + column * PLACE.column;
        root.draw(&Text::new(heading(server, polling), (x + 18, 46), font))?;
    }
    for (number, line) in (0..).zip(lines) {
        let y = PLACE.top + number * PLACE.line;
        root.draw(&Text::new(line.name(), (left + 14, y + 6), font))?;
        for (column, share) in (0..).zip(line.shares) {
            let Some(share) = share else { continue };
            let x = left + PLACE.left + column * PLACE.column;
            let corners = [(x, y), (x + PLACE.column - 3, y + PLACE.line - 3)];
            root.draw(&Rectangle::new(corners, colour_of_picture(share).filled()))?;
            root.draw(&Text::new(format!("{share:.2}"), (x + 28, y + 6), font))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::tests::{in_round, row};

    fn rows() -> Vec<Row> {
        let costing = |cost_us, row: Row| Row { cost_us, ..row };
        vec![
            costing(10.0, row(BLOCKD, "off", 0, 90.0)),
            costing(6.0, row(BLOCKD, "adaptive", 0, 120.0)),
            costing(5.0, row(BLOCKD, "always", 0, 200.0)),
            costing(9.0, row(PEER, "off", 0, 100.0)),
            in_round(1, costing(10.0, row(BLOCKD, "off", 0, 90.0))),
            in_round(1, costing(6.0, row(BLOCKD, "adaptive", 0, 120.0))),
            in_round(1, costing(7.0, row(BLOCKD, "always", 0, 150.0))),
        ]
    }

    #[test]
    fn a_share_is_taken_of_the_best_server_of_the_same_round() {
        let lines = lines(&rows(), "spin");
        assert_eq!(lines.len(), 1);
        let [Some(off), Some(adaptive), Some(always), Some(peer), None, None] = lines[0].shares else {
            panic!("{:?}", lines[0].shares)
        };
        assert_eq!((always, peer), (1.0, 0.5));
        assert!((off - 0.525).abs() < 1e-9, "between 90/200 and 90/150: {off}");
        assert!((adaptive - 0.7).abs() < 1e-9, "{adaptive}");
        assert!(super::lines(&rows(), "event").is_empty());
    }

    #[test]
    fn the_floor_is_no_server_and_judges_its_own_way_of_waiting() {
        let mut rows = rows();
        rows.push(row(FLOOR, "off", 0, 100.0));
        rows.push(row(FLOOR, "always", 0, 400.0));
        let shares = lines(&rows, "spin")[0].shares;
        assert_eq!(
            (shares[3], shares[4], shares[5]),
            (Some(0.5), Some(0.5), Some(2.0))
        );
        let load = row(BLOCKD, "adaptive", 0, 1.0).cell();
        let met = verdicts(&rows, &load)
            .iter()
            .filter(|one| one.text.contains("over the floor"))
            .map(|one| one.is_met)
            .collect::<Vec<_>>();
        assert_eq!(
            met,
            [true, false],
            "0.9 of the floor that sleeps, 0.5 of the one that spins"
        );
    }

    #[test]
    fn each_goal_is_judged_at_each_load() {
        let load = row(BLOCKD, "adaptive", 0, 1.0).cell();
        let judged: Vec<bool> = verdicts(&rows(), &load)
            .iter()
            .map(|verdict| verdict.is_met)
            .collect();
        // Off is slower than the peer, adaptive is not. The cost of adaptive is 1.2 and 0.86 of the better
        // one's.
        assert_eq!(judged, [false, true, true]);
        assert_eq!(costs_over_better(&rows(), &load).unwrap().len(), 2);
        let dear = price_of_the_rest(&rows(), &load).unwrap();
        assert!(dear.contains("0.70 of always"), "{dear}");
    }

    #[test]
    fn the_picture_has_each_load() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("grid.svg");
        draw(&file, &[]).unwrap();
        draw(&file, &rows()).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(
            text.contains("depth  1,    0 us") && text.contains("0.50"),
            "{text}"
        );
    }
}
