//! The table of checks. A check has a name, its bounds in words, a limit of time, its requirements, and a function.

use std::time::Duration;

use crate::at::{At, Result};
use crate::{blockd, coverage, fuzz, mutants, sanitizers, tasks, valgrind};
use aio_tools::shell;

/// A check, with a short and a long bound.
pub(crate) struct Check {
    pub(crate) name: &'static str,
    /// The bounds of the short run.
    pub(crate) quick: &'static str,
    /// The bounds of the long run.
    pub(crate) long: &'static str,
    /// The time after which a run counts as hung.
    pub(crate) minutes: u64,
    pub(crate) long_minutes: u64,
    /// Programs that must be installed.
    pub(crate) needs: &'static [&'static str],
    pub(crate) run: fn(&At<'_>) -> Result,
}

impl Check {
    /// Returns the time after which the check counts as hung.
    pub(crate) fn limit(&self, long: bool) -> Duration {
        let minutes = if long { self.long_minutes } else { self.minutes };
        Duration::from_secs(minutes * 60)
    }

    /// Returns a required program that is not installed.
    pub(crate) fn missing(&self) -> Option<&'static str> {
        self.needs
            .iter()
            .copied()
            .find(|program| !shell::is_installed(program))
    }
}

/// Returns a check that needs no program.
const fn check(
    name: &'static str,
    [quick, long]: [&'static str; 2],
    [minutes, long_minutes]: [u64; 2],
    run: fn(&At<'_>) -> Result,
) -> Check {
    Check {
        name,
        quick,
        long,
        minutes,
        long_minutes,
        needs: &[],
        run,
    }
}

impl Check {
    const fn needing(mut self, programs: &'static [&'static str]) -> Self {
        self.needs = programs;
        self
    }
}

pub(crate) const CHECKS: &[Check] = &[
    check(
        "loom",
        ["2 preemptions", "3 preemptions, one poster: all orders"],
        [20, 360],
        |at| at.step("loom", &[("LOOM_MAX_PREEMPTIONS", at.pick("2", "3"))]),
    ),
    check(
        "shuttle",
        [
            "20,000 random + 20,000 PCT(3) orders",
            "1 million random + 250,000 PCT(3) orders",
        ],
        [20, 240],
        |at| {
            let bounds = [
                ("AIO_RANDOM", at.pick("20000", "1000000")),
                ("AIO_PCT", at.pick("20000", "250000")),
            ];
            at.step("shuttle", &bounds)
        },
    ),
    check("promela", ["3 models, exhaustive"; 2], [2, 2], |at| {
        at.step("promela", &[])
    }),
    check("kit", ["all promises, planted faults"; 2], [10, 10], |at| {
        at.tests(&["--package", "aio-backend-ppoll", "--test", "kit"], &[])
    }),
    check(
        "state machine",
        [
            "20,000 sequences of 60 operations, 7 ways to wait",
            "100 million operations, 7 ways to wait",
        ],
        [10, 180],
        |at| {
            at.long_program(
                "aio-reference",
                &["--operations", at.pick("1200000", "100000000")],
            )
        },
    ),
    check(
        "simulation",
        ["10 million steps", "1 billion steps"],
        [10, 240],
        |at| at.long_program("aio-simulation", &["--steps", at.pick("10000000", "1000000000")]),
    ),
    check(
        "failing calls",
        ["5,000 injections", "100,000 injections"],
        [10, 60],
        |at| {
            at.program(
                "aio-faults",
                &["--table", "--injections", at.pick("5000", "100000")],
            )
        },
    ),
    check(
        "hostile cases",
        ["as in every change", "up to millions of each"],
        [10, 60],
        |at| {
            at.tests(
                &["--package", "aio-context", "--test", "hostile", "--test", "leaks"],
                &[
                    ("AIO_HOSTILE", at.pick("quick", "long")),
                    ("AIO_EVENTS", at.pick("300000", "100000000")),
                    ("AIO_CONTEXTS", at.pick("10000", "1000000")),
                ],
            )
        },
    ),
    check(
        "hopping tasks",
        ["50 tasks between 5 contexts, 10 s for each kind of context"; 2],
        [10, 10],
        tasks::hopping,
    ),
    check(
        "kill -9",
        ["100 kills of blockd under writes, both protocols, both engines; with in-flight tracking and without";
            2],
        [20, 20],
        blockd::kills,
    ),
    check(
        "clients",
        ["10,000 clients of blockd over each protocol, 1,000 exports"; 2],
        [20, 20],
        blockd::clients,
    ),
    check(
        "address sanitizer",
        [
            "tests of the libraries, 180 stress rounds, 2 planted faults",
            "90,000 stress rounds",
        ],
        [20, 60],
        sanitizers::address,
    ),
    check(
        "thread sanitizer",
        ["50 rounds of 9 scenarios, a planted race", "20,000 rounds"],
        [10, 60],
        sanitizers::thread,
    ),
    check(
        "realtime sanitizer",
        [
            "800 iterations of 192 callbacks, a planted allocation",
            "7 million iterations",
        ],
        [10, 60],
        sanitizers::realtime,
    ),
    check(
        "memcheck",
        ["two library test programs, 5 s of blockd", "10 minutes of blockd"],
        [15, 60],
        valgrind::memcheck,
    )
    .needing(&["valgrind"]),
    check(
        "soak",
        ["10 million events, 3 planted faults", "1 billion events"],
        [10, 180],
        sanitizers::soak,
    ),
    check(
        "static",
        ["unsafe budget, licences, spelling, unused dependencies, features, programs from packages only"; 2],
        [20, 20],
        |at| at.step("tidy,users,deny,typos,machete,hack", &[]),
    ),
    check(
        "packages",
        ["every library unpacked, built and tested outside the workspace"; 2],
        [30, 30],
        |at| at.program("aio-package", &["package", "--check"]),
    ),
    check(
        "site",
        ["the book and the API documentation built, every link in them checked"; 2],
        [30, 30],
        |at| at.program("aio-docs", &["docs"]),
    ),
    check(
        "mutants",
        ["changed lines, in five minutes", "all libraries"],
        [30, 480],
        mutants::run,
    )
    .needing(&["cargo-mutants", "cargo-nextest"]),
    check("coverage", ["lines of the libraries"; 2], [20, 20], coverage::run).needing(&["cargo-llvm-cov"]),
    check(
        "fuzz",
        ["1 minute each target", "10 minutes each target"],
        [30, 150],
        fuzz::run,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ() {
        for (number, check) in CHECKS.iter().enumerate() {
            assert!(CHECKS[..number].iter().all(|other| other.name != check.name));
            assert!(
                check.minutes > 0 && check.minutes <= check.long_minutes,
                "{}",
                check.name
            );
        }
    }
}
