//! The summary of the figures: ours beside the floor, the goal and the best of the others.

use crate::goals::{IDS, goal, limit, must_lead};
use crate::row::Row;

pub(crate) fn print(rows: &[Row]) {
    println!(
        "\n{:<4} {:<24} {:>8} {:>10} {:>24} {:>8} {:>8}  {:<24}",
        "id", "workload", "n", "ns", "ratio to the floor", "goal", "", "best of the others"
    );
    for (id, what) in IDS {
        let mut ours = rows.iter().filter(|row| row.id == id && row.is_ours()).peekable();
        if ours.peek().is_none() {
            continue;
        }
        println!("{id}: {what}");
        for row in ours {
            println!("{}", line(row, rows));
        }
    }
    let met = judged(rows).filter(|is_met| *is_met).count();
    println!("\n{met} of {} goals are met", judged(rows).count());
}

fn line(row: &Row, rows: &[Row]) -> String {
    let ratio = row.ratio().map_or_else(String::new, |ratio| {
        format!("{:.2} [{:.2} - {:.2}]", ratio.median, ratio.low, ratio.high)
    });
    let (figure, goal) = match row.count {
        Some(count) => (
            format!("{count:.0} {}", row.unit.as_deref().unwrap_or_default()),
            limit(&row.id, &row.workload).map(|limit| format!("{limit:.0}")),
        ),
        None => (
            format!("{:.1}", row.ns),
            goal(&row.r#impl, &row.id, &row.workload).map(|goal| format!("{goal:.2}")),
        ),
    };
    let verdict = match is_met(row, rows) {
        Some(true) => "met",
        Some(false) => "missed",
        None => "",
    };
    let best = best_peer(row, rows).map_or_else(String::new, |best| {
        format!("{} {:.1} ns, {:.2} of it", best.r#impl, best.ns, row.ns / best.ns)
    });
    let workload = match row.r#impl.strip_prefix("aio-") {
        Some(backend) => format!("{} ({backend})", row.workload),
        None => row.workload.clone(),
    };
    format!(
        "{:<4} {:<24} {:>8} {figure:>10} {ratio:>24} {:>8} {verdict:>8}  {best:<24}",
        "",
        workload,
        row.n,
        goal.unwrap_or_default()
    )
}

/// Prints the head of the lines that [`print_row`] prints.
pub(crate) fn print_head() {
    println!(
        "{:<4} {:<20} {:>8} {:<14} {:>10} {:>23} {:>9} {:>17}",
        "id", "workload", "n", "impl", "ns", "[min - max]", "to floor", "[min - max]"
    );
}

/// Prints a figure as soon as it is measured.
pub(crate) fn print_row(row: &Row) {
    let figures = match (row.count, &row.unit) {
        (Some(count), Some(unit)) => format!("{count:>10.1} {unit}"),
        _ => {
            let spread = format!("[{:.1} - {:.1}]", row.min_ns, row.max_ns);
            let ratio = row.ratio().map_or_else(String::new, |ratio| {
                let spread = format!("[{:.2} - {:.2}]", ratio.low, ratio.high);
                format!("{:>9.2} {spread:>17}", ratio.median)
            });
            format!("{:>10.1} {spread:>23} {ratio}", row.ns)
        }
    };
    println!(
        "{:<4} {:<20} {:>8} {:<14} {figures}",
        row.id, row.workload, row.n, row.r#impl
    );
}

/// Returns the fastest peer at the same work.
fn best_peer<'a>(row: &Row, rows: &'a [Row]) -> Option<&'a Row> {
    let peers = rows
        .iter()
        .filter(|other| other.is_peer() && other.is_same_work(row));
    peers.min_by(|one, other| one.ns.total_cmp(&other.ns))
}

/// Returns whether a figure of ours reaches its goal; `None` if it has none.
fn is_met(row: &Row, rows: &[Row]) -> Option<bool> {
    if let Some(count) = row.count {
        return limit(&row.id, &row.workload).map(|limit| count <= limit);
    }
    let ratio = row.ratio()?.median;
    let leads = !must_lead(&row.id) || best_peer(row, rows).is_none_or(|best| row.ns < best.ns);
    goal(&row.r#impl, &row.id, &row.workload).map(|goal| ratio <= goal && leads)
}

fn judged(rows: &[Row]) -> impl Iterator<Item = bool> + '_ {
    let ours = rows.iter().filter(|row| row.is_ours());
    ours.filter_map(|row| is_met(row, rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_goal_and_the_best_of_the_others() {
        let with = |name: &str, ns: f64, ratio: f64| Row {
            ns,
            ratio_to_floor: Some(ratio),
            ratio_min: Some(ratio),
            ratio_max: Some(ratio),
            ..Row::new("P3", "self-kick blocking", name, 1000)
        };
        let rows = [
            with("floor", 100.0, 1.0),
            with("aio", 102.0, 1.02),
            with("mio", 130.0, 1.3),
            with("calloop", 208.0, 2.08),
        ];
        let text = line(&rows[1], &rows);
        for part in ["1.02 [1.02 - 1.02]", "1.03", "met", "mio 130.0 ns, 0.78 of it"] {
            assert!(text.contains(part), "{part} in {text:?}");
        }
        assert_eq!(judged(&rows).collect::<Vec<_>>(), [true]);
    }

    #[test]
    fn a_row_that_must_lead_is_missed_behind_a_peer() {
        let with = |name: &str, ns: f64| Row {
            ns,
            ratio_to_floor: Some(ns / 100.0),
            ratio_min: Some(1.0),
            ratio_max: Some(1.0),
            ..Row::new("P18", "spawn", name, 1000)
        };
        for (peer, expected) in [(95.0, true), (85.0, false)] {
            let rows = [with("floor", 100.0), with("aio", 90.0), with("tokio", peer)];
            assert_eq!(judged(&rows).collect::<Vec<_>>(), [expected]);
        }
    }

    #[test]
    fn memory_is_judged_in_bytes() {
        let row = Row {
            count: Some(130.0),
            unit: Some("bytes".to_owned()),
            ..Row::new("P12", "handler", "aio", 4096)
        };
        assert_eq!(is_met(&row, &[]), Some(false));
        assert!(line(&row, &[]).contains("130 bytes"));
    }
}
