//! One disturbed run and its verdict, and the sweep over all of them.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Once, OnceLock};
use std::time::{Duration, Instant};

use crate::calls::{Call, Fault, Plan, Plant, Runaway};
use crate::program::{ALL_DONE, Kind, Report, is_explained, work};
use aio_testing::warnings;

/// The time after which a run counts as hung.
const LONGEST: Duration = Duration::from_secs(5);

/// The result of a run with faults. In each case nothing is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The run has no such call.
    NotMet,
    /// The fault had no visible effect.
    Unnoticed,
    /// ppoll replaces epoll or io_uring; one warning names the cause and a remedy.
    FellBack,
    /// A call returned an error with the cause and a remedy, and the next attempt succeeded.
    Reported,
}

impl Verdict {
    fn words(self) -> &'static str {
        match self {
            Self::NotMet => "not met",
            Self::Unnoticed => "not noticed",
            Self::FellBack => "goes on with ppoll, one warning",
            Self::Reported => "an error with a remedy",
        }
    }
}

/// Returns the number of calls of an undisturbed run; counted once.
fn undisturbed(kind: Kind) -> u64 {
    static CALLS: [OnceLock<u64>; Kind::ALL.len()] = [const { OnceLock::new() }; Kind::ALL.len()];
    *CALLS[kind as usize].get_or_init(|| count(kind))
}

fn count(kind: Kind) -> u64 {
    let plan = Rc::new(Plan {
        most: u64::MAX / 64,
        ..Plan::default()
    });
    let report = work(|| kind.disturbed(&plan));
    debug_assert_eq!(report.done, ALL_DONE, "{report:?}");
    plan.total()
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

fn keep_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !info.payload().is::<Runaway>() {
                usual(info);
            }
        }));
    });
}

/// Runs the program with these faults. Returns the verdict, and the number of faults that were injected.
///
/// # Errors
/// A violation: something lost, a hang, a busy loop, a descriptor left open, or an error without a remedy.
pub fn disturbed(
    kind: Kind,
    faults: &[(Call, u64, Fault)],
    storm: Option<(Call, Fault)>,
    plant: Option<Plant>,
) -> Result<(Verdict, u64), String> {
    keep_quiet();
    // A storm repeats every second call. Polling checks as often as time allows, which differs from run to
    // run.
    let most = 4 * undisturbed(kind) + 600;
    let plan = Rc::new(Plan {
        faults: faults.to_vec(),
        storm,
        plant,
        most,
        ..Plan::default()
    });
    let (before, began) = (open_descriptors(), Instant::now());
    let mut report = Report::default();
    let mut ran = Ok(());
    let logged = warnings(|| {
        ran = catch_unwind(AssertUnwindSafe(|| report = work(|| kind.disturbed(&plan)))).map_err(|_| ());
    });
    let (took, left) = (began.elapsed(), open_descriptors());
    let fail = |why: String| {
        Err(format!(
            "{kind:?}, {faults:?}, storm {storm:?}: {why}; {report:?}, {logged:?}"
        ))
    };
    if ran.is_err() {
        return fail(format!(
            "a panic, or a busy loop: {} calls, at most {most} are needed",
            plan.total()
        ));
    }
    if let Some(what) = &report.lost {
        return fail(format!("lost: {what}"));
    }
    if report.done != ALL_DONE {
        return fail("not everything was done".to_owned());
    }
    if took > LONGEST {
        return fail(format!("it took {took:?}"));
    }
    if plan.total() > most {
        return fail(format!(
            "a busy loop: {} calls, at most {most} are needed: {:?}, took {took:?}",
            plan.total(),
            plan.counts
        ));
    }
    if left != before {
        return fail(format!("{left} descriptors are open, {before} were before"));
    }
    if let Some(text) = report.errors.iter().find(|text| !is_explained(text)) {
        return fail(format!("no remedy in {text:?}"));
    }
    let injected = plan.injected.get();
    let fell_back = logged
        .iter()
        .filter(|line| line.contains("takes over, and no registration is lost"));
    if fell_back.clone().any(|line| line.contains("none is known")) || fell_back.clone().count() > 1 {
        return fail("a fall-back names a remedy, once".to_owned());
    }
    let verdict = if injected == 0 {
        Verdict::NotMet
    } else if !report.errors.is_empty() {
        Verdict::Reported
    } else if fell_back.count() > 0 {
        Verdict::FellBack
    } else {
        Verdict::Unnoticed
    };
    Ok((verdict, injected))
}

/// Returns the faults of a call as text.
#[must_use]
pub fn errors_of(call: Call) -> String {
    let all: Vec<String> = call.faults().iter().map(ToString::to_string).collect();
    all.join(", ")
}

/// The results of all runs together.
#[derive(Debug, Default)]
pub struct Sweep {
    /// For each backend, call and fault: the number of runs with each verdict.
    table: BTreeMap<(usize, Call, String), BTreeMap<Verdict, u64>>,
    /// The number of injected faults.
    pub injected: u64,
    /// The number of runs of the program.
    pub runs: u64,
    /// The violations.
    pub failures: Vec<String>,
}

impl Sweep {
    fn record(&mut self, of: (usize, Call, Fault), went: Result<(Verdict, u64), String>) -> Verdict {
        self.runs += 1;
        match went {
            Ok((verdict, injected)) => {
                self.injected += injected;
                if verdict != Verdict::NotMet {
                    let (kind, call, fault) = of;
                    let row = self.table.entry((kind, call, fault.to_string())).or_default();
                    *row.entry(verdict).or_default() += 1;
                }
                verdict
            }
            Err(why) => {
                self.failures.push(why);
                Verdict::NotMet
            }
        }
    }

    /// Injects each fault into each call, at N = 1, 2, ... until a run has fewer calls. Then injects storms:
    /// every second call fails.
    pub fn every_call(&mut self, progress: &mut dyn FnMut(&Self)) {
        for (place, kind) in Kind::ALL.into_iter().enumerate() {
            for call in Call::ALL {
                for fault in call.faults() {
                    for number in 1.. {
                        let went = disturbed(kind, &[(call, number, *fault)], None, None);
                        let last = self.record((place, call, *fault), went) == Verdict::NotMet;
                        progress(self);
                        if last || self.failures.len() > 8 {
                            break;
                        }
                    }
                }
                for fault in [Fault::Nothing, Fault::Error(rustix::io::Errno::INTR)] {
                    if call.faults().contains(&fault) {
                        let went = disturbed(kind, &[], Some((call, fault)), None);
                        self.record((place, call, fault), went);
                    }
                }
            }
        }
    }

    /// Injects two to four faults in each run, drawn from a seed and possible together, until `injections`
    /// faults have been injected.
    pub fn drawn(&mut self, injections: u64, seed: u64, progress: &mut dyn FnMut(&Self)) {
        let mut dice = fastrand::Rng::with_seed(seed);
        while self.injected < injections && self.failures.len() <= 8 {
            let place = dice.usize(..Kind::ALL.len());
            let faults: Vec<_> = (0..dice.usize(2..=4))
                .map(|_| {
                    let call = Call::ALL[dice.usize(..Call::ALL.len())];
                    let possible = call.faults().iter().filter(|fault| fault.is_possible(call));
                    let possible: Vec<_> = possible.copied().collect();
                    let fault = possible[dice.usize(..possible.len())];
                    (call, dice.u64(1..24), fault)
                })
                .collect();
            let went = disturbed(Kind::ALL[place], &faults, None, None);
            self.runs += 1;
            match went {
                Ok((_, injected)) => self.injected += injected,
                Err(why) => self.failures.push(format!("seed {seed}: {why}")),
            }
            progress(self);
        }
    }
}

/// Prints the table call x error x outcome.
impl fmt::Display for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| call | fault | ppoll | epoll | ladder at 0 | ladder at 4 | uring | ladder to uring |\n|---|---|---|---|---|---|---|---|"
        )?;
        let rows: std::collections::BTreeSet<_> =
            self.table.keys().map(|(_, call, fault)| (*call, fault)).collect();
        for (call, fault) in rows {
            write!(f, "| {} | {fault} |", call.name())?;
            for place in 0..Kind::ALL.len() {
                let cell = self.table.get(&(place, call, fault.clone()));
                let words: Vec<String> = cell
                    .into_iter()
                    .flatten()
                    .map(|(verdict, runs)| format!("{} ({runs})", verdict.words()))
                    .collect();
                write!(f, " {} |", words.join(", "))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
