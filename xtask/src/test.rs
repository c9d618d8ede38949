//! `cargo xtask test`: every test, and the examples in the documentation. A run that hangs is ended.

use std::process::Command;
use std::time::Duration;

use crate::glib;
use crate::interrupt::Interrupt;
use crate::shell;
use clap::{Arg, ArgMatches};

/// The time after which a test run counts as hung. nextest has limits of its own for each test, in
/// `.config/nextest.toml`.
const LIMIT: Duration = Duration::from_secs(20 * 60);
const PACKAGES: [&str; 2] = ["--workspace", "--locked"];
const TARGETS: [&str; 4] = ["--lib", "--bins", "--tests", "--examples"];

pub(crate) fn command() -> clap::Command {
    clap::Command::new("test")
        .about("All tests: of the crates, of the documentation, of the backend from outside, and in GLib where it is installed")
        .long_about(
            "All tests: of the crates, of the documentation, of the backend from outside, and in GLib where it is installed\n\n\
             With cargo-nextest where it is installed, else with cargo test. With arguments, only the tests of the crates that \
             they choose.",
        )
        .arg(
            Arg::new("args")
                .num_args(0..)
                .trailing_var_arg(true)
                .allow_hyphen_values(true)
                .help("Passed on to the test runner, such as the name of a test"),
        )
}

pub(crate) fn run(args: &ArgMatches) -> anyhow::Result<()> {
    let args = args.get_many::<String>("args");
    let args: Vec<&String> = args.into_iter().flatten().collect();
    let interrupt = Interrupt::catch()?;
    if shell::is_installed("cargo-nextest") {
        let mut nextest = shell::cargo();
        nextest.args(["nextest", "run", "--no-fail-fast"]).args(PACKAGES);
        let ran = shell::run(nextest.args(&args));
        interrupt.check()?;
        ran?;
    } else {
        println!("skipped: cargo-nextest is not installed; going on with cargo test");
        // Built separately, because the limit does not apply to building.
        shell::run(cargo_test().args(TARGETS).arg("--no-run"))?;
        let mut tests = cargo_test();
        tests.args(TARGETS).arg("--no-fail-fast").args(&args);
        shell::run_within(&mut tests, LIMIT, &interrupt)?;
    }
    if !args.is_empty() {
        return Ok(());
    }
    shell::run_within(cargo_test().args(["--doc", "--no-fail-fast"]), LIMIT, &interrupt)?;
    let outside = shell::root().join("examples/third-party-backend");
    let target = shell::target_dir()?.join("outside");
    let mut tests = shell::cargo();
    tests
        .current_dir(outside)
        .args(["test", "--no-fail-fast", "--locked", "--target-dir"]);
    shell::run_within(tests.arg(target), LIMIT, &interrupt)?;
    if let Some(lacks) = glib::lacks() {
        println!("skipped: {lacks}");
        return Ok(());
    }
    let mut tests = glib::cargo(&["test", "--no-fail-fast"])?;
    shell::run_within(&mut tests, LIMIT, &interrupt)
}

fn cargo_test() -> Command {
    let mut cargo = shell::cargo();
    cargo.arg("test").args(PACKAGES);
    cargo
}
