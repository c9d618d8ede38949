//! The environment of a check: runs programs with a limit, stores their output in a file, and shows their progress.

use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use indicatif::ProgressBar;

use crate::memory;
use aio_tools::interrupt::Interrupt;
use aio_tools::shell;

/// The longest time for one build.
const BUILD_LIMIT: Duration = Duration::from_secs(60 * 60);

/// The end of a check that did not fail.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The result.
    Found(String),
    /// The reason why it could not be run.
    Skipped(String),
}

impl Outcome {
    pub(crate) fn skipped(why: impl Into<String>) -> Self {
        Self::Skipped(why.into())
    }
}

pub(crate) type Result = anyhow::Result<Outcome>;

/// A running check.
pub(crate) struct At<'a> {
    name: &'static str,
    /// `true` if the long bounds are requested.
    pub(crate) long: bool,
    /// The time after which the check counts as hung.
    limit: Duration,
    began: Instant,
    /// The time of builds. It does not count, because builds take many times longer beside other work.
    building: Cell<Duration>,
    log: RefCell<File>,
    log_path: PathBuf,
    bar: ProgressBar,
    interrupt: &'a Interrupt,
}

impl<'a> At<'a> {
    /// `limit` is the time after which the check counts as hung.
    pub(crate) fn new(
        name: &'static str,
        long: bool,
        limit: Duration,
        interrupt: &'a Interrupt,
    ) -> anyhow::Result<Self> {
        let directory = shell::target_dir()?.join("prove");
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let log_path = directory.join(format!("{name}.log"));
        let log = File::create(&log_path).with_context(|| format!("cannot write {}", log_path.display()))?;
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(200));
        if bar.is_hidden() {
            println!("{name} ...");
        }
        Ok(Self {
            name,
            long,
            limit,
            began: Instant::now(),
            building: Cell::new(Duration::ZERO),
            log: RefCell::new(log),
            log_path,
            bar,
            interrupt,
        })
    }

    /// Returns the bound that is requested.
    pub(crate) fn pick<T>(&self, quick: T, long: T) -> T {
        if self.long { long } else { quick }
    }

    /// Returns the time that is left.
    pub(crate) fn left(&self) -> Duration {
        (self.limit + self.building.get()).saturating_sub(self.began.elapsed())
    }

    /// Returns the path of a file of this check.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.log_path.with_file_name(name)
    }

    /// Runs a program to its end and returns its output.
    pub(crate) fn run(&self, command: &mut Command) -> anyhow::Result<String> {
        let (status, said) = self.end_of(command)?;
        ensure!(
            status.success(),
            "{} failed: {status}; see {}",
            shell::line(command),
            self.log_path.display()
        );
        Ok(said)
    }

    /// Runs a build to its end and returns its output. The time of the build does not count.
    pub(crate) fn build(&self, command: &mut Command) -> anyhow::Result<String> {
        let began = Instant::now();
        let (status, said) = self.until(command, BUILD_LIMIT)?;
        self.building.set(self.building.get() + began.elapsed());
        let line = shell::line(command);
        let status = status.with_context(|| format!("{line} hung"))?;
        ensure!(
            status.success(),
            "{line} failed: {status}; see {}",
            self.log_path.display()
        );
        Ok(said)
    }

    /// Runs a program to its end, with any exit status, and returns its output.
    pub(crate) fn said(&self, command: &mut Command) -> anyhow::Result<String> {
        Ok(self.end_of(command)?.1)
    }

    /// Runs a program that has a planted fault. It must fail, and its output must contain `words`.
    pub(crate) fn must_find(&self, command: &mut Command, words: &str) -> anyhow::Result<()> {
        let (status, said) = self.end_of(command)?;
        if status.success() || !said.contains(words) {
            bail!(
                "a planted fault was not found: {} ended with {status} and did not say {words:?}",
                shell::line(command)
            );
        }
        Ok(())
    }

    /// Builds a package of the workspace, optimized, and runs its program. The last line of the output is the
    /// result.
    pub(crate) fn program(&self, package: &str, args: &[&str]) -> Result {
        let options = ["--release", "--quiet", "--locked", "--package", package];
        self.build(shell::cargo().arg("build").args(options))?;
        let said = self.run(shell::cargo().arg("run").args(options).arg("--").args(args))?;
        Ok(Outcome::Found(last_line(&said)))
    }

    /// Like [`program`](Self::program), for a program with the option `--resume`: a long run continues an
    /// earlier one of the same commit.
    pub(crate) fn long_program(&self, package: &str, args: &[&str]) -> Result {
        let Some(commit) = memory::commit().filter(|_| self.long) else {
            return self.program(package, args);
        };
        let place = self.path(&format!("{package}-{commit}.place"));
        let place = place.display().to_string();
        let resume = ["--resume", place.as_str()];
        self.program(package, &[args, &resume].concat())
    }

    /// Runs tests by cargo. The result is their number.
    pub(crate) fn tests(&self, args: &[&str], variables: &[(&str, &str)]) -> Result {
        let test = || {
            let mut cargo = shell::cargo();
            cargo.args(["test", "--locked"]).args(args);
            cargo.envs(variables.iter().copied());
            cargo
        };
        let said = self.built_tests(test, &[])?;
        let passed = passed(&said);
        ensure!(passed > 0, "no test was run");
        Ok(Outcome::Found(format!("{passed} tests, 0 failures")))
    }

    /// Builds the tests of a `cargo test`, then runs them with these arguments of the test programs. Returns their output.
    pub(crate) fn built_tests(&self, test: impl Fn() -> Command, args: &[&str]) -> anyhow::Result<String> {
        self.build(test().arg("--no-run"))?;
        self.run(test().arg("--").args(args))
    }

    /// Runs a step of `cargo xtask check` and returns its result.
    pub(crate) fn step(&self, steps: &str, variables: &[(&str, &str)]) -> Result {
        let mut check = shell::cargo();
        check
            .args(["run", "--quiet", "--locked", "--package", "xtask", "--"])
            .args(["check", "--only", steps])
            .envs(variables.iter().copied());
        Ok(Outcome::Found(verdicts(&self.run(&mut check)?)))
    }

    /// Runs a program that may run for longer than `time`. Returns its exit status if it ends within this
    /// time.
    pub(crate) fn as_far_as(
        &self,
        command: &mut Command,
        time: Duration,
    ) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.until(command, time)?.0)
    }

    fn end_of(&self, command: &mut Command) -> anyhow::Result<(ExitStatus, String)> {
        let limit = self.left();
        let (status, said) = self.until(command, limit)?;
        let hung = || format!("{} hung: ended after {} s", shell::line(command), limit.as_secs());
        Ok((status.with_context(hung)?, said))
    }

    fn until(&self, command: &mut Command, time: Duration) -> anyhow::Result<(Option<ExitStatus>, String)> {
        let mut log = self.log.borrow_mut();
        writeln!(log, "$ {}", shell::line(command))?;
        let from = log.seek(SeekFrom::End(0))?;
        let show = |tail: &str| {
            let shown: String = last_line(tail).chars().take(100).collect();
            self.bar.set_message(format!(
                "{} {} s  {shown}",
                self.name,
                self.began.elapsed().as_secs()
            ));
        };
        command.stdout(log.try_clone()?).stderr(log.try_clone()?);
        let watch = || {
            if !self.bar.is_hidden() {
                show(&tail(&self.log_path));
            }
        };
        let status = shell::status_until(command, time, self.interrupt, watch)?;
        // Processes that are started later must not keep the file open.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut said = Vec::new();
        let mut reader = File::open(&self.log_path)?;
        reader.seek(SeekFrom::Start(from))?;
        reader.read_to_end(&mut said)?;
        Ok((status, String::from_utf8_lossy(&said).into_owned()))
    }

    /// Returns the end of the log, for the message of a failure.
    pub(crate) fn last_words(&self) -> String {
        let text = tail(&self.log_path);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    pub(crate) fn done(&self) {
        self.bar.finish_and_clear();
    }
}

/// Returns the last few thousand bytes of a file.
fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(4096)))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Ok(text)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

/// Returns the last line that is not blank.
pub(crate) fn last_line(text: &str) -> String {
    let mut lines = text.lines().rev().map(str::trim);
    lines.find(|line| !line.is_empty()).unwrap_or_default().to_owned()
}

/// Returns the number of passed tests, from the last lines of cargo's test programs.
pub(crate) fn passed(text: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once("test result: ok. ")?.1.split_once(" passed"))
        .filter_map(|(count, _)| count.parse::<u64>().ok())
        .sum()
}

/// Returns the results of the steps of `check`: `name   1.0 s  ok: result`.
fn verdicts(text: &str) -> String {
    let said = text.lines().filter_map(|line| {
        let (head, verdict) = line.split_once(" s  ok")?;
        let name = head.split_whitespace().next()?;
        Some(format!(
            "{name}{}",
            if verdict.is_empty() { ": ok" } else { verdict }
        ))
    });
    said.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_build_does_not_count() {
        let interrupt = Interrupt::catch().unwrap();
        let limit = Duration::from_secs(60);
        let at = At::new("a build in a test", false, limit, &interrupt).unwrap();
        at.build(Command::new("sleep").arg("0.3")).unwrap();
        let counted = at.began.elapsed() - at.building.get();
        assert!(at.building.get() >= Duration::from_millis(300));
        assert!(at.left() + counted <= limit && at.left() > limit - at.began.elapsed());
        let failed = at.build(&mut Command::new("false")).unwrap_err().to_string();
        assert!(failed.starts_with("false failed"), "{failed}");
        fs::remove_file(&at.log_path).unwrap();
    }

    #[test]
    fn closing_lines_are_read() {
        let text = "running 2 tests\ntest result: ok. 2 passed; 0 failed\n\ntest result: ok. 40 passed; 1 ignored\n\n";
        assert_eq!(passed(text), 42);
        assert_eq!(last_line("a\nb \n\n"), "b");
        let text = "== loom\nloom        1.0 s  ok: up to 2\ntypos       0.1 s  ok\ndeny   0.1 s  FAILED\n";
        assert_eq!(verdicts(text), "loom: up to 2; typos: ok");
    }
}
