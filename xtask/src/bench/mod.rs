//! `cargo xtask bench`: the aio crates beside hand-written loops and other event loops.
//!
//! The measuring is done by the package `aio-bench`, which brings all the other loops along and is built only for this. Here it
//! is started, and its figures are judged, compared, drawn and written down.

mod compare;
mod goals;
mod instructions;
mod plot;
mod table;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};

use aio_tools::interrupt::Interrupt;
use aio_tools::{report, shell};

/// A run that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(2 * 60 * 60);

/// Measure beside a hand-written loop and other event loops
///
/// Everybody takes turns, round by round; figures are medians, ratios are taken within a round. Quieter machines give closer
/// ratios, none of it depends on absolute speed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// About a minute: fewer rounds, and only ours and the floor
    #[arg(long)]
    quick: bool,
    /// Only these, as in P3,P4
    #[arg(long, value_name = "ID,ID,...", value_delimiter = ',')]
    only: Vec<String>,
    /// Write all figures
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the ratios to the floor
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Tell what became slower since, by more than the noise; fails if anything did
    #[arg(long, value_name = "OLD.json")]
    compare: Option<PathBuf>,
    /// Count instructions, too, where valgrind is installed: they do not depend on what else the machine does
    #[arg(long)]
    instructions: bool,
}

/// A figure, as `aio-bench` writes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    id: String,
    workload: String,
    r#impl: String,
    n: u64,
    /// Nanoseconds per operation; the median of the rounds.
    ns: f64,
    min_ns: f64,
    max_ns: f64,
    ratio_to_floor: Option<f64>,
    ratio_min: Option<f64>,
    ratio_max: Option<f64>,
    /// A figure that is no time, such as bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    count: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
    /// Instructions per operation in user space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instructions: Option<f64>,
}

/// A ratio to the floor, and its spread.
struct Ratio {
    median: f64,
    low: f64,
    high: f64,
}

impl Row {
    #[cfg(test)]
    fn new(id: &str, workload: &str, name: &str, n: u64) -> Self {
        Self {
            id: id.to_owned(),
            workload: workload.to_owned(),
            r#impl: name.to_owned(),
            n,
            ns: 0.0,
            min_ns: 0.0,
            max_ns: 0.0,
            ratio_to_floor: None,
            ratio_min: None,
            ratio_max: None,
            count: None,
            unit: None,
            instructions: None,
        }
    }

    fn ratio(&self) -> Option<Ratio> {
        Some(Ratio {
            median: self.ratio_to_floor?,
            low: self.ratio_min?,
            high: self.ratio_max?,
        })
    }

    fn is_ours(&self) -> bool {
        self.r#impl.starts_with("aio")
    }

    fn is_peer(&self) -> bool {
        !self.is_ours() && !self.r#impl.starts_with("floor")
    }

    fn is_same_work(&self, other: &Self) -> bool {
        self.id == other.id && self.workload == other.workload && self.n == other.n
    }

    fn is_same_case(&self, other: &Self) -> bool {
        self.is_same_work(other) && self.r#impl == other.r#impl
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let only = ids(&args.only)?;
    let old = args.compare.as_deref().map(readable).transpose()?;
    let interrupt = Interrupt::catch()?;
    let began = Instant::now();
    println!("building aio-bench (release)");
    shell::run(shell::cargo().args([
        "build",
        "--quiet",
        "--release",
        "--locked",
        "--package",
        "aio-bench",
    ]))?;
    let program = shell::target_dir()?.join("release").join("aio-bench");
    let machine = report::Machine::this();
    let mut rows = measure(&program, args.quick, &only, &interrupt)?;
    if args.instructions {
        instructions::count(&program, &mut rows, &interrupt)?;
    }
    println!("\n{machine}; {}; {:.0?}", report::today(), began.elapsed());
    table::print(&rows);
    if args.instructions {
        instructions::print(&rows);
    }
    if let Some(file) = &args.json {
        report::write_json(file, machine, &rows)?;
    }
    if let Some(file) = &args.plot {
        plot::draw(file, &rows)?;
    }
    if let Some(old) = old {
        let slower = compare::print(old, &rows)?;
        if slower > 0 {
            bail!("{slower} figures became slower");
        }
    }
    Ok(())
}

/// Told before a quarter of an hour has passed.
fn readable(file: &Path) -> anyhow::Result<&Path> {
    std::fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(file)
}

/// The ids that were asked for, in capitals.
fn ids(only: &[String]) -> anyhow::Result<Vec<String>> {
    let ids: Vec<String> = only.iter().map(|id| id.trim().to_uppercase()).collect();
    for id in &ids {
        let known = goals::IDS.map(|(id, _)| id);
        ensure!(
            known.contains(&id.as_str()),
            "there is no benchmark {id:?}; there are {}",
            known.join(", ")
        );
    }
    Ok(ids)
}

fn measure(program: &Path, quick: bool, only: &[String], interrupt: &Interrupt) -> anyhow::Result<Vec<Row>> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("rows.json");
    let mut command = Command::new(program);
    command.arg("--rows").arg(&file);
    if quick {
        command.args(["--quick", "--alone"]);
    }
    if !only.is_empty() {
        command.args(["--only", &only.join(",")]);
    }
    shell::run_within(&mut command, LIMIT, interrupt)?;
    let text = std::fs::read_to_string(&file).context("aio-bench wrote no rows")?;
    serde_json::from_str(&text).context("aio-bench wrote rows that cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_ids_are_named_with_the_known_ones() {
        assert_eq!(ids(&["p3".to_owned(), " P4".to_owned()]).unwrap(), ["P3", "P4"]);
        let why = ids(&["P99".to_owned()]).unwrap_err().to_string();
        assert!(why.contains("P99") && why.contains("P3, P4"), "{why}");
    }

    #[test]
    fn rows_are_read_as_they_are_written() {
        let text = r#"[{"id":"P3","workload":"self-kick blocking","impl":"aio","n":0,"ns":1.5,"min_ns":1.0,"max_ns":2.0,
            "ratio_to_floor":null,"ratio_min":null,"ratio_max":null}]"#;
        let rows: Vec<Row> = serde_json::from_str(text).unwrap();
        assert!(rows[0].is_ours() && rows[0].ratio().is_none());
        let again = serde_json::to_string(&rows).unwrap();
        assert!(
            again.contains(r#""impl":"aio""#) && !again.contains("instructions"),
            "{again}"
        );
    }
}
