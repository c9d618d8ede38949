//! `cargo xtask test`: every test, and the examples in the documentation.

use crate::shell;

/// All tests: of the crates, of the documentation, and of the backend from outside
///
/// With cargo-nextest where it is installed, else with cargo test.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Passed on to the test runner, such as the name of a test
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let benches = ["--workspace", "--exclude", "aio-bench", "--locked"];
    if shell::is_installed("cargo-nextest") {
        shell::run(
            shell::cargo()
                .args(["nextest", "run", "--no-fail-fast"])
                .args(benches)
                .args(&args.args),
        )?;
    } else {
        println!("cargo-nextest is not installed; going on with cargo test");
        let targets = ["--lib", "--bins", "--tests", "--examples"];
        shell::run(
            shell::cargo()
                .arg("test")
                .args(benches)
                .args(targets)
                .args(&args.args),
        )?;
    }
    if !args.args.is_empty() {
        return Ok(());
    }
    shell::run(shell::cargo().args(["test", "--doc"]).args(benches))?;
    let outside = shell::root().join("examples/third-party-backend");
    let target = shell::target_dir()?.join("outside");
    shell::run(
        shell::cargo()
            .current_dir(outside)
            .args(["test", "--target-dir"])
            .arg(target),
    )
}
