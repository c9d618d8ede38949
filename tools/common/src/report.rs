//! Results as a file: `{"machine": {...}, "date": "...", "rows": [...]}`.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use serde::Serialize;

use crate::build;
use crate::cores::Cores;

/// The properties of a machine that figures depend on.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The name of the processor, as the processor reports it.
    pub cpu: String,
    /// The number of cores that this process may use.
    pub cores: usize,
    /// The release of the kernel.
    pub kernel: String,
    /// The profile that the measuring program was built with.
    pub profile: &'static str,
    /// The time that a cache line takes from one core to the other and back, in nanoseconds, if it was
    /// measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line_round_trip_ns: Option<f64>,
}

impl Machine {
    /// Describes this machine. Call it before the process binds itself to a core.
    pub fn this() -> Self {
        let cpu = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        });
        Self {
            cpu: cpu.unwrap_or_else(|| "unknown".to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            profile: build::PROFILE,
            line_round_trip_ns: None,
        }
    }

    /// Like [`this`](Self::this), with the measured cost of a cache line between the two cores.
    pub fn measured(cores: Option<Cores>) -> Self {
        Self {
            line_round_trip_ns: cores.map(|cores| cores.line_round_trip().as_nanos() as f64),
            ..Self::this()
        }
    }

    /// Returns the first line of a table of figures: build, processor, and the cost of a cache line between
    /// the cores.
    pub fn headline(&self) -> String {
        let line = match self.line_round_trip_ns {
            Some(ns) => format!("a cache line takes {ns:.0} ns from core to core and back"),
            None => "client and server share a core".to_owned(),
        };
        format!("{}; {self}; {line}; {}", build::describe(), today())
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {} cores, Linux {}", self.cpu, self.cores, self.kernel)
    }
}

#[derive(Serialize)]
struct Report<'a, R> {
    machine: Machine,
    date: String,
    rows: &'a [R],
}

/// Writes `rows` to a file, with the date and the machine.
///
/// # Errors
/// If the file cannot be written.
pub fn write_json<R: Serialize>(file: &Path, machine: Machine, rows: &[R]) -> anyhow::Result<()> {
    let report = Report {
        machine,
        date: today(),
        rows,
    };
    let text = serde_json::to_string_pretty(&report)?;
    fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))
}

/// Returns the date in UTC, as year-month-day.
pub fn today() -> String {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    date((seconds / 86_400) as i64)
}

/// Returns the date `days` days after 1970-01-01 (Howard Hinnant, "chrono-compatible low-level date
/// algorithms").
fn date(days: i64) -> String {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Returns the median of `figures`; NaN if there are none.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[len / 2],
        len => f64::midpoint(sorted[len / 2 - 1], sorted[len / 2]),
    }
}

/// Returns the smallest and the largest of `figures`.
pub fn range(figures: &[f64]) -> (f64, f64) {
    let low = figures.iter().copied().fold(f64::INFINITY, f64::min);
    let high = figures.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (days, text) in [
            (0, "1970-01-01"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (20_454, "2026-01-01"),
            (20_780, "2026-11-23"),
        ] {
            assert_eq!(date(days), text);
        }
    }

    #[test]
    fn the_first_line_names_build_processor_and_cost_of_a_line() {
        let mut machine = Machine::this();
        assert!(machine.headline().contains("share a core"));
        machine.line_round_trip_ns = Some(390.4);
        let line = machine.headline();
        for part in [&build::describe(), &machine.cpu, "390 ns"] {
            assert!(line.contains(part), "{part} in {line:?}");
        }
    }

    #[test]
    fn medians_of_odd_and_even_numbers() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
        assert_eq!(range(&[2.0, 1.0, 3.0]), (1.0, 3.0));
    }
}
