//! [`Trace`]: waits in nanoseconds, each with the source of its event.

use std::fmt;

use crate::Random;

/// The largest number of sources in a trace.
pub const SOURCES: usize = 8;
/// The longest wait; longer ones are clipped. Sums of a hundred million of them do not overflow.
const LONGEST_NS: u64 = 100_000_000_000;

/// The purpose of a trace.
///
/// # Examples
/// ```
/// use aio_replay::{Role, families};
///
/// assert!(families::held_out(1, 100).iter().all(|trace| trace.role() == Role::HeldOut));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// For choosing the constants of `learned`.
    Tuned,
    /// For validating the constants of `learned`.
    HeldOut,
    /// For comparing versions of `learned`.
    Compared,
    /// Added later; no choice was made on it.
    Fresh,
    /// Read from a file.
    File,
}

/// One wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    pub(crate) ns: u64,
    /// The source of the event.
    pub(crate) source: u8,
    /// The wake-up latency if the loop slept, in 1/4096 of the mean.
    pub(crate) noise: u16,
}

/// A list of waits, in the order in which they happen in a loop.
///
/// # Examples
/// ```
/// use aio_replay::{Role, Trace};
///
/// let mut trace = Trace::new("disk", "example", Role::Fresh, 1).with_waits([2_000, 3_000]);
/// trace.push(50_000, 1);
/// assert_eq!((trace.name(), trace.len(), trace.sources()), ("disk", 3, 2));
/// ```
#[derive(Clone, Debug)]
pub struct Trace {
    name: String,
    family: &'static str,
    role: Role,
    waits: Vec<Wait>,
    sources: usize,
    /// The positions at which phases begin.
    phases: Vec<usize>,
    random: Random,
}

/// The error for a line of a trace file that is not a wait.
///
/// # Examples
/// ```
/// use aio_replay::Trace;
///
/// let error = Trace::parse("disk", "2000 # the first\n3 ms\n").unwrap_err();
/// assert_eq!((error.line, error.text.as_str()), (2, "3 ms"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The line number, from 1; 0 if the file has no waits.
    pub line: usize,
    /// The content of the line.
    pub text: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return f.write_str("there is no wait in it; one number of nanoseconds a line is expected");
        }
        let Self { line, text } = self;
        write!(
            f,
            "line {line} is {text:?}; expected are nanoseconds as a whole number, or # and a comment"
        )
    }
}

impl std::error::Error for ParseError {}

impl Trace {
    /// Makes a trace without waits. The seed determines the wake-up latencies.
    #[must_use]
    pub fn new(name: &str, family: &'static str, role: Role, seed: u64) -> Self {
        Self {
            name: name.to_owned(),
            family,
            role,
            waits: Vec::new(),
            sources: 1,
            phases: Vec::new(),
            random: Random::named(!seed, name),
        }
    }

    /// Adds waits with events of one source.
    #[must_use]
    pub fn with_waits(mut self, waits: impl IntoIterator<Item = u64>) -> Self {
        waits.into_iter().for_each(|ns| self.push(ns, 0));
        self
    }

    /// Parses waits: one for each line, in nanoseconds; `#` starts a comment.
    ///
    /// # Errors
    /// If a line is not a wait, or if there are no waits.
    pub fn parse(name: &str, text: &str) -> Result<Self, ParseError> {
        let mut trace = Self::new(name, "file", Role::File, 0);
        for (number, line) in text.lines().enumerate() {
            let content = line.split('#').next().unwrap_or_default().trim();
            if content.is_empty() {
                continue;
            }
            let ns = content.parse().map_err(|_| ParseError {
                line: number + 1,
                text: content.to_owned(),
            })?;
            trace.push(ns, 0);
        }
        if trace.waits.is_empty() {
            return Err(ParseError {
                line: 0,
                text: String::new(),
            });
        }
        Ok(trace)
    }

    /// Adds a wait for an event of `source`.
    ///
    /// # Panics
    /// If `source` is not below [`SOURCES`].
    pub fn push(&mut self, ns: u64, source: u8) {
        assert!(usize::from(source) < SOURCES, "source {source}");
        self.sources = self.sources.max(usize::from(source) + 1);
        let ns = ns.min(LONGEST_NS);
        let noise = noise(&mut self.random);
        self.waits.push(Wait { ns, source, noise });
    }

    /// Begins another phase.
    pub(crate) fn begin_phase(&mut self) {
        if self.phases.last() != Some(&self.waits.len()) && !self.waits.is_empty() {
            self.phases.push(self.waits.len());
        }
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the family.
    #[must_use]
    pub const fn family(&self) -> &'static str {
        self.family
    }

    /// Returns the purpose.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Returns the number of waits.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waits.len()
    }

    /// Returns whether there are no waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waits.is_empty()
    }

    /// Returns the number of sources.
    #[must_use]
    pub const fn sources(&self) -> usize {
        self.sources
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Wait> + '_ {
        self.waits.iter().copied()
    }

    /// Returns the phases, each as a separate trace.
    pub(crate) fn phases(&self) -> impl Iterator<Item = Self> + '_ {
        let ends = self.phases.iter().copied().chain([self.waits.len()]);
        let mut begin = 0;
        ends.map(move |end| {
            let part = Self {
                name: self.name.clone(),
                waits: self.waits[begin..end].to_vec(),
                phases: Vec::new(),
                random: self.random.clone(),
                ..*self
            };
            begin = end;
            part
        })
    }
}

/// Draws a wake-up latency: log-normal around the mean, and occasionally four times that.
fn noise(random: &mut Random) -> u16 {
    let mut factor = random.log_normal(0.955, 0.3);
    if random.below(128) == 0 {
        factor *= 4.0;
    }
    (factor * 4096.0).min(f64::from(u16::MAX)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_one_wait_a_line_and_comments() {
        let trace = Trace::parse("t", "# waits\n100\n\n  20000 # late\n0\n").unwrap();
        let waits: Vec<u64> = trace.iter().map(|wait| wait.ns).collect();
        assert_eq!(waits, [100, 20_000, 0]);
        assert_eq!((trace.len(), trace.sources(), trace.role()), (3, 1, Role::File));
    }

    #[test]
    fn a_line_that_is_not_a_wait_is_named() {
        for (text, line, found) in [
            ("1\nabc\n", 2, "abc"),
            ("-5", 1, "-5"),
            ("1.5", 1, "1.5"),
            ("1 2", 1, "1 2"),
            ("", 0, ""),
            ("# nothing", 0, ""),
        ] {
            let error = Trace::parse("t", text).unwrap_err();
            assert_eq!((error.line, error.text.as_str()), (line, found), "{text:?}");
        }
    }

    #[test]
    fn phases_cover_the_trace() {
        let mut trace = Trace::new("t", "t", Role::File, 1);
        trace.begin_phase();
        for phase in 0..3u64 {
            trace.begin_phase();
            (0..=phase).for_each(|_| trace.push(phase, 0));
        }
        let phases: Vec<Vec<u64>> = trace
            .phases()
            .map(|phase| phase.iter().map(|wait| wait.ns).collect())
            .collect();
        assert_eq!(phases, [std::vec![0], std::vec![1, 1], std::vec![2, 2, 2]]);
    }

    #[test]
    fn sleepers_wake_late_on_the_average_by_the_mean() {
        let trace = Trace::new("t", "t", Role::File, 5).with_waits(std::iter::repeat_n(1, 50_000));
        let sum: u64 = trace.iter().map(|wait| u64::from(wait.noise)).sum();
        let mean = sum as f64 / 50_000.0 / 4096.0;
        assert!((0.98..1.06).contains(&mean), "{mean}");
    }
}
