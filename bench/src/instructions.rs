//! Instructions per operation, counted by valgrind's callgrind. They do not depend on other load of the
//! machine.
//!
//! Only user space is counted, and only workloads of one thread, for ours and the floor.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};

use crate::goals;
use crate::row::Row;
use aio_tools::interrupt::Interrupt;
use aio_tools::shell;

/// The number of counted operations, after as many to warm up.
const TIMES: u64 = 2000;
/// The function that callgrind counts in.
const COUNTED: &str = "--toggle-collect=*counted_section*";
/// The time after which a run counts as hung.
const LIMIT: Duration = Duration::from_secs(10 * 60);
/// The largest size. valgrind takes too long to set up larger ones.
const LARGEST: u64 = 1000;
/// Workloads of two threads.
const THREADED: [&str; 5] = [
    "cross stream",
    "cross asleep",
    "cross wake",
    "ping-pong blocking",
    "ping-pong polling",
];

/// Adds instructions to the rows of ours and of the floor.
pub(crate) fn count(rows: &mut [Row], interrupt: &Interrupt) -> anyhow::Result<()> {
    if !shell::is_installed("valgrind") {
        println!("skipped: valgrind is not installed; instructions are not counted");
        return Ok(());
    }
    let program = std::env::current_exe().context("cannot find this program's file")?;
    let wanted: Vec<&mut Row> = rows.iter_mut().filter(|row| is_countable(row)).collect();
    let bar = ProgressBar::new(wanted.len() as u64);
    bar.set_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} {msg} ({eta} left)",
    )?);
    for row in wanted {
        bar.set_message(format!("instructions of {} {}", row.id, row.workload));
        row.instructions = count_one(&program, row, interrupt)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

fn is_countable(row: &Row) -> bool {
    row.count.is_none()
        && row.n <= LARGEST
        && (matches!(row.r#impl.as_str(), "aio" | "floor") || is_counted_ring(row))
        && !THREADED.contains(&row.workload.as_str())
        && row.id != "R10"
}

/// Returns `true` for the counted rows of the ring.
fn is_counted_ring(row: &Row) -> bool {
    matches!(row.r#impl.as_str(), "aio-uring" | "floor-uring")
        && matches!(row.id.as_str(), "P3" | "P4" | "P7" | "P8" | "S1")
}

fn count_one(program: &Path, row: &Row, interrupt: &Interrupt) -> anyhow::Result<Option<f64>> {
    let directory = tempfile::tempdir()?;
    let out = directory.path().join("out");
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--tool=callgrind", COUNTED])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(format!("--log-file={}", directory.path().join("log").display()))
        .arg(program)
        .args(["--count", &TIMES.to_string()])
        .args(["--only", &row.id, "--workload", &row.workload])
        .args(["--size", &row.n.to_string(), "--impl", &row.r#impl]);
    shell::run_within(&mut valgrind, LIMIT, interrupt)?;
    let text = std::fs::read_to_string(&out).context("callgrind wrote nothing")?;
    Ok(total(&text).map(|total| total as f64 / (TIMES as f64 * operations(row))))
}

/// Returns the operations in one unit of work, as the program has them.
fn operations(row: &Row) -> f64 {
    match (row.id.as_str(), row.workload.as_str()) {
        ("P4", workload) => workload
            .trim_start_matches("K=")
            .split(' ')
            .next()
            .and_then(|k| k.parse().ok())
            .unwrap_or(1.0),
        ("P5", "home batch" | "oneshot") => 1000.0,
        ("P6", _) => 64.0,
        ("S1", _) => row.n as f64,
        _ => 1.0,
    }
}

/// Returns the sum in callgrind's file.
fn total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| {
        line.strip_prefix("totals:")
            .or_else(|| line.strip_prefix("summary:"))
    })?;
    line.split_whitespace().next()?.parse().ok()
}

pub(crate) fn print(rows: &[Row]) {
    println!("\nInstructions per operation in user space: ours, the floor's, the goal");
    for row in rows {
        let floor_name = match row.r#impl.as_str() {
            "aio" => "floor",
            "aio-uring" => "floor-uring",
            _ => continue,
        };
        let Some(ours) = row.instructions else { continue };
        let floor = rows
            .iter()
            .find(|other| other.r#impl == floor_name && other.is_same_work(row))
            .and_then(|floor| floor.instructions);
        let floor = floor.map_or_else(|| "-".to_owned(), |floor| format!("{floor:.0}"));
        let goal = goals::instructions(&row.id, &row.workload, row.n).filter(|_| row.r#impl == "aio");
        let verdict = goal.map_or_else(String::new, |goal| {
            let word = if ours <= goal { "met" } else { "missed" };
            format!("{goal:>8.0} {word}")
        });
        println!(
            "  {:<4} {:<24} {:>8} {:<10} {ours:>8.0} {floor:>8} {verdict}",
            row.id, row.workload, row.n, row.r#impl
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_read_from_callgrinds_file() {
        assert_eq!(total("version: 1\nsummary: 1234\n\ntotals: 1234\n"), Some(1234));
        assert_eq!(total("version: 1\n"), None);
    }

    #[test]
    fn figures_are_per_operation() {
        let of = |id: &str, workload: &str| operations(&Row::new(id, workload, "aio", 1));
        assert_eq!(of("P4", "K=100"), 100.0);
        assert_eq!(of("P4", "K=1000 doorbells"), 1000.0);
        assert_eq!(
            (of("P5", "home single"), of("P5", "oneshot"), of("P6", "arm")),
            (1.0, 1000.0, 64.0)
        );
    }

    #[test]
    fn threads_and_large_sizes_are_not_counted() {
        assert!(is_countable(&Row::new("P3", "self-kick blocking", "aio", 1000)));
        assert!(is_countable(&Row::new("S1", "nop", "aio-uring", 32)));
        for row in [
            Row::new("P3", "self-kick blocking", "mio", 1000),
            Row::new("P2", "cooled", "aio-uring", 1000),
            Row::new("S1", "nop", "aio-threads", 1),
            Row::new("P5", "cross stream", "aio", 1),
            Row::new("P18", "cross wake", "aio", 1000),
            Row::new("P6", "arm", "aio", 1_000_000),
        ] {
            assert!(!is_countable(&row));
        }
    }
}
