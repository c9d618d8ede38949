//! Runs many seeds on all cores, counted up from a first one, with progress every five seconds. Failures are
//! printed at once.
//!
//! The long programs of the proofs share this crate. Each program defines the work of a seed and its
//! messages. A stored place is never beyond a seed that has failed or still runs, so a resumed run misses
//! none. A seed that panics has failed, and the others continue.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fmt::Display;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// The options of all long runs.
#[derive(Debug, Default, clap::Args)]
#[group(skip)]
pub struct Args {
    /// The first seed
    #[arg(long, env = "AIO_SEED", default_value_t = 0)]
    pub seed: u64,
    /// Store the place in this file, and continue from there
    #[arg(long, value_name = "FILE")]
    pub resume: Option<PathBuf>,
    /// Number of threads [default: as many as there are cores]
    #[arg(long)]
    pub threads: Option<NonZero<usize>>,
}

/// The number of failures after which no further seed is begun.
const MOST_FAILURES: usize = 10;
/// The interval at which progress is shown and the place is stored.
const EVERY: Duration = Duration::from_secs(5);

/// The progress of a run.
#[derive(Debug, Default)]
struct State {
    next: u64,
    under_way: BTreeSet<u64>,
    failed: BTreeSet<u64>,
    done: u64,
}

impl State {
    /// Returns the first seed that has not succeeded.
    fn place(&self) -> u64 {
        let first = |seeds: &BTreeSet<u64>| seeds.first().copied().unwrap_or(self.next);
        first(&self.under_way).min(first(&self.failed)).min(self.next)
    }
}

struct Run {
    end: u64,
    state: Mutex<State>,
}

/// Runs `count` seeds, or the remaining ones of an earlier run with the same file. `one` runs a seed, and
/// `so_far` returns the sum of the work of all seeds.
///
/// The exit code is a failure if a seed has failed. After ten failures no further seed is begun.
///
/// # Errors
/// If the file to continue from holds no place.
pub fn run<E: Display>(
    args: &Args,
    count: u64,
    one: impl Fn(u64) -> Result<(), E> + Sync,
    so_far: impl Fn() -> String,
) -> anyhow::Result<ExitCode> {
    let end = args.seed.saturating_add(count);
    let first = match &args.resume {
        Some(file) => place_in(file)?.unwrap_or(args.seed),
        None => args.seed,
    };
    anyhow::ensure!(
        (args.seed..=end).contains(&first),
        "the place {first} is none of the seeds {}..{end}; remove the file to begin anew",
        args.seed
    );
    let threads = args.threads.or_else(|| std::thread::available_parallelism().ok());
    let threads = threads.map_or(1, NonZero::get);
    println!("seeds {first}..{end}, {threads} threads");
    let run = Run {
        end,
        state: Mutex::new(State {
            next: first,
            ..State::default()
        }),
    };
    let began = Instant::now();
    let show = |run: &Run| {
        let state = run.state();
        println!(
            "{} of {} seeds, {}, {} failures, {:.0} s",
            state.done,
            end - first,
            so_far(),
            state.failed.len(),
            began.elapsed().as_secs_f64()
        );
        save(args, state.place());
    };
    // Nothing is sent. The channel ends with the last thread.
    let (at_work, ended) = channel::<()>();
    std::thread::scope(|scope| {
        for at_work in vec![at_work; threads] {
            let (run, one) = (&run, &one);
            scope.spawn(move || {
                let _at_work = at_work;
                run.work(one);
            });
        }
        while ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
            show(&run);
        }
    });
    show(&run);
    let is_good = run.state().failed.is_empty();
    Ok(if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl Run {
    /// Locks the state. No code panics while it is locked.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) -> Option<u64> {
        let mut state = self.state();
        let seed = state.next;
        if seed >= self.end || state.failed.len() >= MOST_FAILURES {
            return None;
        }
        state.next += 1;
        state.under_way.insert(seed);
        Some(seed)
    }

    fn work<E: Display>(&self, one: &impl Fn(u64) -> Result<(), E>) {
        while let Some(seed) = self.begin() {
            let ended = catch_unwind(AssertUnwindSafe(|| one(seed)));
            let failure = match ended {
                Ok(Ok(())) => None,
                Ok(Err(why)) => Some(why.to_string()),
                Err(_) => Some("a panic, see above".to_owned()),
            };
            let mut state = self.state();
            state.under_way.remove(&seed);
            state.done += 1;
            if let Some(why) = failure {
                println!("AIO_SEED={seed}: {why}");
                state.failed.insert(seed);
            }
        }
    }
}

fn place_in(file: &Path) -> anyhow::Result<Option<u64>> {
    if !file.exists() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let place = text.trim().parse();
    place
        .map(Some)
        .with_context(|| format!("{} holds no seed", file.display()))
}

/// Stores the place. A failure is ignored, because the place is only a convenience.
fn save(args: &Args, seed: u64) {
    if let Some(file) = &args.resume
        && let Err(why) = std::fs::write(file, format!("{seed}\n"))
    {
        println!("the place could not be kept in {}: {why}", file.display());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn args(file: &Path) -> Args {
        Args {
            seed: 5,
            resume: Some(file.to_owned()),
            threads: NonZero::new(3),
        }
    }

    #[test]
    fn all_seeds_are_run_once_and_a_second_run_has_nothing_left() {
        let directory = tempfile::tempdir().unwrap();
        let (args, sum) = (args(&directory.path().join("place")), AtomicU64::new(0));
        let one = |seed| {
            sum.fetch_add(seed, Ordering::Relaxed);
            Ok::<(), &str>(())
        };
        for _ in 0..2 {
            assert_eq!(run(&args, 100, one, String::new).unwrap(), ExitCode::SUCCESS);
            assert_eq!(sum.load(Ordering::Relaxed), (5..105).sum());
        }
    }

    #[test]
    fn a_failed_seed_is_the_place_to_resume_from() {
        let directory = tempfile::tempdir().unwrap();
        let args = args(&directory.path().join("place"));
        let one = |seed| match seed {
            40 => Err("no"),
            31 => panic!("planned"),
            _ => Ok(()),
        };
        assert_eq!(run(&args, 100, one, String::new).unwrap(), ExitCode::FAILURE);
        assert_eq!(place_in(args.resume.as_ref().unwrap()).unwrap(), Some(31));
        let seen = Mutex::new(BTreeSet::new());
        let one = |seed| {
            seen.lock().unwrap().insert(seed);
            Ok::<(), &str>(())
        };
        assert_eq!(run(&args, 100, one, String::new).unwrap(), ExitCode::SUCCESS);
        assert_eq!(seen.into_inner().unwrap(), (31..105).collect());
    }

    #[test]
    fn too_many_failures_end_a_run() {
        let count = AtomicU64::new(0);
        let one = |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Err("no")
        };
        let args = Args::default();
        assert_eq!(run(&args, 1 << 40, one, String::new).unwrap(), ExitCode::FAILURE);
        let cores = std::thread::available_parallelism().unwrap().get() as u64;
        assert!(count.into_inner() < MOST_FAILURES as u64 + cores);
    }

    #[test]
    fn a_place_that_is_none_is_reported() {
        let directory = tempfile::tempdir().unwrap();
        let args = args(&directory.path().join("place"));
        for (text, words) in [
            ("seven", "holds no seed"),
            ("4", "is none of"),
            ("106", "is none of"),
        ] {
            std::fs::write(args.resume.as_ref().unwrap(), text).unwrap();
            let error = run(&args, 100, |_| Ok::<(), &str>(()), String::new).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
